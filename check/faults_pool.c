/* Faults of pooling, scoring and the gather: SPEC 3.1, 3.2 and 3.5. */
#include <math.h>

#include "core/backend.h"
#include "check/faults.h"

enum pool_fault {
    SUM_POOL,
    MAX_POOL,
    FACTOR_P,
    QUERY_FIRST,
    QUERY_LAST,
};

static double pooled(const double *x, int64_t window, int64_t dim, enum pool_fault how, int64_t pool)
{
    double sum = 0.0, top = x[0];
    for (int64_t j = 0; j < window; j++) {
        sum += x[j * dim];
        top = fmax(top, x[j * dim]);
    }
    switch (how) {
    case SUM_POOL:
        return sum;
    case MAX_POOL:
        return top;
    case FACTOR_P:
        return window == 1 ? sum : sum / (double)pool;
    case QUERY_FIRST:
        return x[0];
    case QUERY_LAST:
        return x[(window - 1) * dim];
    }
    return sum;
}

static double mean(const double *x, int64_t window, int64_t dim)
{
    double sum = 0.0;
    for (int64_t j = 0; j < window; j++)
        sum += x[j * dim];
    return sum / (double)window;
}

static lh_status pool_wrongly(const lh_fault *fault, const lh_config *config, const lh_layout *layout,
                              const lh_tensor *trace, lh_error *error)
{
    const enum pool_fault how = (enum pool_fault)fault->variant;
    const lh_tensor_id from[] = {LH_Q, LH_K, LH_V}, to[] = {LH_Q_PYR, LH_K_PYR, LH_V_PYR};
    (void)error;
    for (int x = 0; x < 3; x++) {
        const bool spared = x > 0 && (how == QUERY_FIRST || how == QUERY_LAST);
        const int64_t heads = config->batch * trace[from[x]].shape[1];
        for (int64_t head = 0; head < heads; head++) {
            const double *tokens = (const double *)trace[from[x]].data + head * config->tokens * config->dim;
            double *pyramid = (double *)trace[to[x]].data + head * layout->entries * config->dim;
            for (int64_t e = 0; e < layout->entries; e++) {
                const struct lh_span span = lh_span_of(config, layout, e);
                for (int64_t c = 0; c < config->dim; c++) {
                    const double *window = tokens + span.first * config->dim + c;
                    pyramid[e * config->dim + c] =
                        spared ? mean(window, span.window, config->dim)
                               : pooled(window, span.window, config->dim, how, config->pool);
                }
            }
        }
    }
    return LH_OK;
}

enum score_fault {
    MEAN_SCORE,
    FIRST_SCORE,
    NORM_OF_POOLED,
    L1_NORM,
    MAX_NORM,
    SWAPPED_SCORES,
};

static double token_score(const double *x, int64_t dim, enum score_fault how)
{
    double sum = 0.0;
    for (int64_t c = 0; c < dim; c++) {
        if (how == L1_NORM)
            sum += fabs(x[c]);
        else if (how == MAX_NORM)
            sum = fmax(sum, fabs(x[c]));
        else
            sum += x[c] * x[c];
    }
    return how == L1_NORM || how == MAX_NORM ? sum : sqrt(sum);
}

static double window_score(const double *x, int64_t window, int64_t dim, enum score_fault how)
{
    if (how == FIRST_SCORE)
        return token_score(x, dim, how);
    if (how == NORM_OF_POOLED) {
        double squares = 0.0;
        for (int64_t c = 0; c < dim; c++) {
            const double pooled_value = mean(x + c, window, dim);
            squares += pooled_value * pooled_value;
        }
        return sqrt(squares);
    }
    double sum = 0.0, top = 0.0;
    for (int64_t j = 0; j < window; j++) {
        const double score = token_score(x + j * dim, dim, how);
        sum += score;
        top = fmax(top, score);
    }
    return how == MEAN_SCORE ? sum / (double)window : top;
}

static lh_status score_wrongly(const lh_fault *fault, const lh_config *config, const lh_layout *layout,
                               const lh_tensor *trace, lh_error *error)
{
    const enum score_fault how = (enum score_fault)fault->variant;
    const bool swapped = how == SWAPPED_SCORES;
    if (swapped && config->heads != config->kv_heads)
        return lh_fail(error, LH_UNSUPPORTED, "query and key scores differ in shape");
    const lh_tensor_id from[] = {swapped ? LH_K : LH_Q, swapped ? LH_Q : LH_K},
                       to[] = {LH_SCORE_Q, LH_SCORE_K};
    for (int x = 0; x < 2; x++) {
        const int64_t heads = config->batch * trace[to[x]].shape[1];
        for (int64_t head = 0; head < heads; head++) {
            const double *tokens = (const double *)trace[from[x]].data + head * config->tokens * config->dim;
            double *score = (double *)trace[to[x]].data + head * layout->entries;
            for (int64_t e = 0; e < layout->entries; e++) {
                const struct lh_span span = lh_span_of(config, layout, e);
                score[e] = window_score(tokens + span.first * config->dim, span.window, config->dim, how);
            }
        }
    }
    return LH_OK;
}

enum gather_fault {
    HEAD_MODULO,
    K_HEAD_MODULO,
    V_HEAD_MODULO,
    KV_HEAD_ZERO,
    HEAD_ZERO_INDEX,
    BATCH_ZERO_INDEX,
};

/* Which kv head query head h is given by the port, of q (x = 0), k or v. */
static int64_t kv_head(const lh_config *config, enum gather_fault how, int x, int64_t h)
{
    const bool modulo =
        how == HEAD_MODULO || (how == K_HEAD_MODULO && x == 1) || (how == V_HEAD_MODULO && x == 2);
    return how == KV_HEAD_ZERO ? 0 : modulo ? h % config->kv_heads : h / (config->heads / config->kv_heads);
}

/* Gathers with the kv head or the index of somebody else. */
static lh_status gather_wrongly(const lh_fault *fault, const lh_config *config, const lh_layout *layout,
                                const lh_tensor *trace, lh_error *error)
{
    const lh_tensor_id from[] = {LH_Q_PYR, LH_K_PYR, LH_V_PYR}, to[] = {LH_Q_SEL, LH_K_SEL, LH_V_SEL};
    const enum gather_fault how = (enum gather_fault)fault->variant;
    if (how <= KV_HEAD_ZERO &&
        (config->kv_heads == 1 || (how < KV_HEAD_ZERO && config->heads == config->kv_heads)))
        return lh_fail(error, LH_UNSUPPORTED, "one key/value head, or as many as query heads");
    for (int x = 0; x < 3; x++) {
        for (int64_t bh = 0; bh < config->batch * config->heads; bh++) {
            const int64_t b = bh / config->heads, h = bh % config->heads;
            const int64_t head = x == 0 ? bh : b * config->kv_heads + kv_head(config, how, x, h);
            const int64_t row = how == HEAD_ZERO_INDEX ? b * config->heads : how == BATCH_ZERO_INDEX ? h : bh;
            const double *pyramid =
                (const double *)trace[from[x]].data + head * layout->entries * config->dim;
            double *selected = (double *)trace[to[x]].data + bh * layout->selected * config->dim;
            for (int64_t s = 0; s < layout->selected; s++) {
                const int64_t entry = lh_index_at(&trace[LH_INDEX], row * layout->selected + s);
                for (int64_t c = 0; c < config->dim; c++)
                    selected[s * config->dim + c] = pyramid[entry * config->dim + c];
            }
        }
    }
    return LH_OK;
}

const lh_fault lh_faults_pool[] = {
    {5, LH_POOL, "pool-sum", "SPEC 3.1", "Divide each window's sum by its p^l tokens.", SUM_POOL,
     pool_wrongly},
    {5, LH_POOL, "pool-max", "SPEC 3.1", "Pool by the mean of the window, not its maximum.", MAX_POOL,
     pool_wrongly},
    {5, LH_POOL, "pool-divides-by-p", "SPEC 3.1", "Divide by p^l, the window's size, not by p.", FACTOR_P,
     pool_wrongly},
    {5, LH_POOL, "pool-query-first-token", "SPEC 3.1",
     "Pool the queries too: the mean of the window, not its first token.", QUERY_FIRST, pool_wrongly},
    {5, LH_POOL, "pool-query-last-token", "SPEC 3.1",
     "Pool the queries too: the mean of the window, not its last token.", QUERY_LAST, pool_wrongly},
    {6, LH_SCORE, "score-mean", "SPEC 3.2",
     "A coarser level takes the maximum of its tokens' scores, not the mean.", MEAN_SCORE, score_wrongly},
    {6, LH_SCORE, "score-first-token", "SPEC 3.2",
     "A coarser level takes the maximum over all tokens of the window, not the first one's score.",
     FIRST_SCORE, score_wrongly},
    {6, LH_SCORE, "score-norm-of-pooled", "SPEC 3.2",
     "Score the tokens and take the maximum; do not take the norm of the pooled vector.", NORM_OF_POOLED,
     score_wrongly},
    {11, LH_SCORE, "score-l1", "SPEC 3.2", "Use the L2 norm, not the sum of absolute values.", L1_NORM,
     score_wrongly},
    {11, LH_SCORE, "score-max-norm", "SPEC 3.2", "Use the L2 norm, not the largest absolute value.", MAX_NORM,
     score_wrongly},
    {7, LH_SCORE, "score-swapped", "SPEC 3.2", "score_q comes from q and score_k from k.", SWAPPED_SCORES,
     score_wrongly},
    {26, LH_GATHER, "gather-head-modulo", "SPEC 2", "Query head h reads kv head h / (H/G), not h % G.",
     HEAD_MODULO, gather_wrongly},
    {26, LH_GATHER, "gather-k-head-modulo", "SPEC 2",
     "k too: query head h reads kv head h / (H/G), not h % G.", K_HEAD_MODULO, gather_wrongly},
    {26, LH_GATHER, "gather-v-head-modulo", "SPEC 2",
     "v too: query head h reads kv head h / (H/G), not h % G.", V_HEAD_MODULO, gather_wrongly},
    {26, LH_GATHER, "gather-kv-head-0", "SPEC 2",
     "Query head h reads kv head h / (H/G), not the first for all.", KV_HEAD_ZERO, gather_wrongly},
    {22, LH_GATHER, "gather-head-0-index", "SPEC 3.3", "Every query head gathers with its own index.",
     HEAD_ZERO_INDEX, gather_wrongly},
    {22, LH_GATHER, "gather-batch-0-index", "SPEC 3.3", "Every batch element gathers with its own index.",
     BATCH_ZERO_INDEX, gather_wrongly},
    {0, LH_STAGE_COUNT, NULL, NULL, NULL, 0, NULL},
};
