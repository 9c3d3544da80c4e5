/*
 * Each stage of the reference against its definition written another way: pushed where the reference pulls,
 * ranked by counting where it sorts, attended in one plain pass in long double with libm's exp.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "verify/reference.h"

static const double *values(const struct verify_reference *reference, lh_tensor_id id)
{
    return reference->trace->given.tensor[id].data;
}

static void expect(const struct verify_reference *reference, const verify_trace *t, const char *part,
                   lh_tensor_id id)
{
    verify_reference_row(
        reference, part, id,
        verify_compare(&reference->trace->want.tensor[id], &t->tensor[id], reference->trace->allowed[id]),
        "");
}

/* x [B*heads,N,d] -> its pyramid, every window summed in long double. */
static void pool(const struct verify_reference *reference, lh_tensor_id x_id, lh_tensor *pyramid)
{
    const lh_layout *layout = &reference->trace->layout;
    const lh_config *c = &reference->trace->config;
    const int64_t d = c->dim, heads = pyramid->shape[0] * pyramid->shape[1];
    double *to = pyramid->data;
    for (int64_t i = 0; i < heads; i++) {
        const double *x = values(reference, x_id) + i * c->tokens * d;
        for (int64_t l = 0; l < c->levels; l++) {
            for (int64_t e = 0; e < layout->level_size[l] * d; e++) {
                long double sum = 0;
                for (int64_t j = 0; j < layout->window[l]; j++)
                    sum += x[(e / d * layout->window[l] + j) * d + e % d];
                to[(i * layout->entries + layout->level_offset[l]) * d + e] =
                    (double)(sum / layout->window[l]);
            }
        }
    }
}

/* Largest token norm in every window. */
static void score(const struct verify_reference *reference, lh_tensor_id x_id, lh_tensor *scores)
{
    const lh_layout *layout = &reference->trace->layout;
    const lh_config *c = &reference->trace->config;
    const int64_t heads = scores->shape[0] * scores->shape[1];
    double *to = scores->data;
    for (int64_t i = 0; i < heads * layout->entries; i++)
        to[i] = 0;
    for (int64_t i = 0; i < heads * c->tokens; i++) {
        const double *x = values(reference, x_id) + i * c->dim;
        long double squares = 0;
        for (int64_t f = 0; f < c->dim; f++)
            squares += (long double)x[f] * x[f];
        for (int64_t l = 0; l < c->levels; l++) {
            double *entry = to + i / c->tokens * layout->entries + layout->level_offset[l] +
                            i % c->tokens / layout->window[l];
            *entry = fmax(*entry, (double)sqrtl(squares));
        }
    }
}

/* One tile's cascade, decided by counting who precedes whom. */
struct cascade {
    const double *score_q, *score_k; /* of this head: [P] */
    int64_t n, *entry, *next;        /* candidates, and those of the next level */
    bool *by_query, *parent;
    unsigned char *present; /* [P]: what was considered */
};

/* How many candidates that are not `taken` precede candidate i: score falling, then entry rising. */
static int64_t rank(const struct cascade *a, const double *scores, const bool *taken, int64_t i)
{
    int64_t ahead = 0;
    for (int64_t j = 0; j < a->n; j++) {
        const double mine = scores[a->entry[i]], other = scores[a->entry[j]];
        ahead += !taken[j] && (other > mine || (other == mine && a->entry[j] < a->entry[i]));
    }
    return ahead;
}

static void descend(struct cascade *a, const lh_layout *layout, const lh_config *c, int64_t level)
{
    const int64_t half = c->tile_topk / 2;
    int64_t children = 0;
    memset(a->parent, 0, (size_t)a->n * sizeof *a->parent);
    for (int64_t i = 0; i < a->n; i++)
        a->by_query[i] = rank(a, a->score_q, a->parent, i) < half;
    for (int64_t i = 0; i < a->n; i++)
        a->parent[i] = a->by_query[i] || rank(a, a->score_k, a->by_query, i) < half;
    for (int64_t i = 0; i < a->n; i++) {
        const int64_t at = a->entry[i] - layout->level_offset[level];
        for (int64_t j = 0; j < c->pool && a->parent[i]; j++)
            a->next[children++] = layout->level_offset[level - 1] + at * c->pool + j;
    }
    memcpy(a->entry, a->next, (size_t)children * sizeof *a->entry);
    a->n = children;
}

static void run_cascade(struct cascade *a, const lh_layout *layout, const lh_config *c, int64_t tile)
{
    a->n = layout->tile_coarse;
    for (int64_t i = 0; i < a->n; i++)
        a->entry[i] = layout->level_offset[c->levels - 1] + tile * a->n + i;
    for (int64_t level = c->levels - 1; level >= 0; level--) {
        for (int64_t i = 0; i < a->n; i++)
            a->present[a->entry[i]] = 1;
        if (level > 0)
            descend(a, layout, c, level);
    }
}

/* Every entry of the index was considered; strictly ascending in number S, they are then all of them. */
static int64_t first_stranger(const struct cascade *a, const lh_tensor *index, int64_t head, int64_t selected)
{
    for (int64_t s = 0; s < selected; s++) {
        if (!a->present[lh_index_at(index, head * selected + s)])
            return head * selected + s;
    }
    return -1;
}

static lh_status check_selection(const struct verify_reference *reference, lh_error *error)
{
    const lh_layout *layout = &reference->trace->layout;
    const lh_config *c = &reference->trace->config;
    const lh_tensor *index = &reference->trace->want.tensor[LH_INDEX];
    const size_t most =
        (size_t)(layout->tile_coarse > c->tile_topk * c->pool ? layout->tile_coarse : c->tile_topk * c->pool);
    verify_result result = {.verdict = VERIFY_EXACT, .elements = lh_tensor_elements(index), .worst = -1};
    lh_error reason = {.text = ""};
    struct cascade a = {0};
    if (lh_index_check(c, layout, index, &reason) != LH_OK)
        result.verdict = VERIFY_WRONG;
    lh_status status = lh_alloc((void **)&a.entry, most * sizeof *a.entry, "candidates", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&a.next, most * sizeof *a.next, "candidates", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&a.by_query, most * sizeof *a.by_query, "candidates", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&a.parent, most * sizeof *a.parent, "candidates", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&a.present, (size_t)layout->entries, "candidates", error);
    for (int64_t i = 0; i < c->batch * c->heads && status == LH_OK && verify_passed(result.verdict); i++) {
        const int64_t kv = i / c->heads * c->kv_heads + i % c->heads / (c->heads / c->kv_heads);
        a.score_q = values(reference, LH_SCORE_Q) + i * layout->entries;
        a.score_k = values(reference, LH_SCORE_K) + kv * layout->entries;
        memset(a.present, 0, (size_t)layout->entries);
        for (int64_t tile = 0; tile < layout->tiles; tile++)
            run_cascade(&a, layout, c, tile);
        result.worst = first_stranger(&a, index, i, layout->selected);
        if (result.worst >= 0) {
            result.verdict = VERIFY_WRONG;
            result.got = verify_element(index, result.worst);
            snprintf(reason.text, sizeof reason.text, "not an entry that the cascade considers");
        }
    }
    if (status == LH_OK)
        verify_reference_row(reference, "select, by counting", LH_INDEX, result, reason.text);
    lh_free(a.entry);
    lh_free(a.next);
    lh_free(a.by_query);
    lh_free(a.parent);
    lh_free(a.present);
    return status;
}

/* Causal softmax attention of one head and its gradients, in one plain pass; D as the sum of P dP. */
static void attend(const struct verify_reference *reference, int64_t head, long double *p, verify_trace *t)
{
    const int64_t n = reference->trace->layout.selected, d = reference->trace->config.dim, at = head * n * d;
    const double *q = values(reference, LH_Q_SEL) + at, *k = values(reference, LH_K_SEL) + at,
                 *v = values(reference, LH_V_SEL) + at;
    const double *go = values(reference, LH_DO_SEL) + at;
    double *o = (double *)t->tensor[LH_O_SEL].data + at, *lse = (double *)t->tensor[LH_LSE].data + head * n;
    double *dq = (double *)t->tensor[LH_DQ_SEL].data + at, *dk = (double *)t->tensor[LH_DK_SEL].data + at;
    double *dv = (double *)t->tensor[LH_DV_SEL].data + at;
    const long double scale = 1 / sqrtl((long double)d);
    for (int64_t i = 0; i < n * d; i++)
        o[i] = dq[i] = dk[i] = dv[i] = 0;
    for (int64_t i = 0; i < n; i++) {
        long double most = -INFINITY, sum = 0, mean = 0, *dp = p + n;
        for (int64_t j = 0; j <= i; j++) {
            p[j] = dp[j] = 0;
            for (int64_t f = 0; f < d; f++) {
                p[j] += (long double)q[i * d + f] * k[j * d + f] * scale;
                dp[j] += (long double)go[i * d + f] * v[j * d + f];
            }
            most = fmaxl(most, p[j]);
        }
        for (int64_t j = 0; j <= i; j++) {
            p[j] = expl(p[j] - most);
            sum += p[j];
        }
        lse[i] = (double)(most + logl(sum));
        for (int64_t j = 0; j <= i; j++) {
            p[j] /= sum;
            mean += p[j] * dp[j];
        }
        for (int64_t e = 0; e < (i + 1) * d; e++) {
            const int64_t j = e / d, f = e % d;
            const long double ds = p[j] * (dp[j] - mean) * scale;
            o[i * d + f] += (double)(p[j] * v[e]);
            dq[i * d + f] += (double)(ds * k[e]);
            dk[e] += (double)(ds * q[i * d + f]);
            dv[e] += (double)(p[j] * go[i * d + f]);
        }
    }
}

static lh_status check_attention(const struct verify_reference *reference, verify_trace *t, lh_error *error)
{
    static const lh_tensor_id ids[] = {LH_O_SEL, LH_LSE, LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL};
    const lh_config *c = &reference->trace->config;
    long double *rows;
    const lh_status status = lh_alloc(
        (void **)&rows, (size_t)reference->trace->layout.selected * 2 * sizeof *rows, "two rows", error);
    if (status != LH_OK)
        return status;
    for (int64_t head = 0; head < c->batch * c->heads; head++)
        attend(reference, head, rows, t);
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        expect(reference, t, "attend, by definition", ids[i]);
    lh_free(rows);
    return LH_OK;
}

/* Entry s of a head pushes: o_sel to the positions of SPEC 3.7, from which do_sel is drawn, and its gradients to
 * its own window. */
static void push(const struct verify_reference *reference, int64_t head, int64_t s, verify_trace *t)
{
    const lh_layout *layout = &reference->trace->layout;
    const lh_config *c = &reference->trace->config;
    const int64_t d = c->dim, row = head * layout->selected + s;
    const int64_t kv = head / c->heads * c->kv_heads + head % c->heads / (c->heads / c->kv_heads);
    const int64_t entry = lh_index_at(&reference->trace->given.tensor[LH_INDEX], row);
    const int level = lh_level_of(layout, (int)c->levels, entry);
    const int64_t window = layout->window[level], start = (entry - layout->level_offset[level]) * window;
    double *out = t->tensor[LH_OUT].data, *do_sel = t->tensor[LH_DO_SEL].data;
    double *dq = t->tensor[LH_DQ].data, *dk = t->tensor[LH_DK].data, *dv = t->tensor[LH_DV].data;
    for (int64_t j = start + window - 1; j < start + 2 * window - 1 && j < c->tokens; j++) {
        ((int32_t *)t->tensor[LH_COVERAGE].data)[head * c->tokens + j]++;
        for (int64_t f = 0; f < d; f++) {
            out[(head * c->tokens + j) * d + f] += values(reference, LH_O_SEL)[row * d + f];
            do_sel[row * d + f] += values(reference, LH_DOUT)[(head * c->tokens + j) * d + f];
        }
    }
    for (int64_t e = start * d; e < (start + window) * d; e++) {
        const int64_t from = row * d + e % d;
        dq[head * c->tokens * d + e] += values(reference, LH_DQ_SEL)[from] / (double)window;
        dk[kv * c->tokens * d + e] += values(reference, LH_DK_SEL)[from] / (double)window;
        dv[kv * c->tokens * d + e] += values(reference, LH_DV_SEL)[from] / (double)window;
    }
}

static void check_pushed(const struct verify_reference *reference, verify_trace *t)
{
    static const lh_tensor_id ids[] = {LH_OUT, LH_COVERAGE, LH_DO_SEL, LH_DQ, LH_DK, LH_DV};
    const lh_config *c = &reference->trace->config;
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        lh_tensor *to = &t->tensor[ids[i]];
        memset(to->data, 0, (size_t)lh_tensor_elements(to) * lh_dtype_size(to->dtype));
    }
    for (int64_t i = 0; i < c->batch * c->heads * reference->trace->layout.selected; i++)
        push(reference, i / reference->trace->layout.selected, i % reference->trace->layout.selected, t);
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        expect(reference, t, "scatter, unpool pushed", ids[i]);
}

/* A row of out is zero exactly where nothing covers it. */
static void check_zero_rows(const struct verify_reference *reference)
{
    const verify_trace *t = &reference->trace->want;
    const int64_t rows = lh_tensor_elements(&t->tensor[LH_COVERAGE]), d = reference->trace->config.dim;
    const double *out = t->tensor[LH_OUT].data;
    verify_result result = {.verdict = VERIFY_EXACT, .elements = rows, .worst = -1};
    for (int64_t r = 0; r < rows && result.worst < 0; r++) {
        bool zero = true;
        for (int64_t f = 0; f < d; f++)
            zero = zero && out[r * d + f] == 0 && !signbit(out[r * d + f]);
        if (zero != (((const int32_t *)t->tensor[LH_COVERAGE].data)[r] == 0))
            result = (verify_result){.verdict = VERIFY_UNCOVERED, .worst = r * d, .got = out[r * d]};
    }
    verify_reference_row(reference, "zero rows", LH_OUT, result, "zero rows are those with coverage 0");
}

lh_status verify_reference_definition(const struct verify_reference *reference, lh_error *error)
{
    static const lh_tensor_id from[] = {LH_Q, LH_K, LH_V};
    static const lh_tensor_id pyramid[] = {LH_Q_PYR, LH_K_PYR, LH_V_PYR};
    verify_trace t = {0};
    lh_status status = verify_make_all(&t, &reference->trace->config, LH_F64, VERIFY_PACKED, error);
    if (status == LH_OK) {
        for (size_t i = 0; i < 3; i++) {
            pool(reference, from[i], &t.tensor[pyramid[i]]);
            expect(reference, &t, "pool, by definition", pyramid[i]);
        }
        score(reference, LH_Q, &t.tensor[LH_SCORE_Q]);
        score(reference, LH_K, &t.tensor[LH_SCORE_K]);
        expect(reference, &t, "score, by definition", LH_SCORE_Q);
        expect(reference, &t, "score, by definition", LH_SCORE_K);
        check_pushed(reference, &t);
        status = check_attention(reference, &t, error);
    }
    if (status == LH_OK && reference->subject->config.levels > 1)
        status = check_selection(reference, error);
    if (reference->subject->pattern != VERIFY_INTEGERS)
        check_zero_rows(reference);
    verify_free(&t);
    return status;
}
