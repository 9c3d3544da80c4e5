/* Plans over ranks: what fits, and what the ranks agree on. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "dist/dist.h"

const char *lh_dist_layout_name(lh_dist_layout layout)
{
    static const char *const names[] = {"auto", "heads", "rows"};
    return (unsigned)layout <= LH_DIST_BY_ROWS ? names[layout] : "unknown";
}

/* ---- agreement --------------------------------------------------------------------------------- */

/* What every rank must have been given alike. */
struct terms {
    lh_config config;
    char backend[16];
    int32_t dtype, backward, index_given, layout;
};

static struct terms terms_of(const lh_config *config, const lh_options *options, lh_dist_layout layout)
{
    struct terms t;
    memset(&t, 0, sizeof t);
    if (config)
        t.config = *config;
    if (options) {
        snprintf(t.backend, sizeof t.backend, "%s", options->backend ? options->backend : lh_backend_name(0));
        t.dtype = (int32_t)options->dtype;
        t.backward = options->backward;
        t.index_given = options->index_given;
    }
    t.layout = (int32_t)layout;
    return t;
}

static lh_status compare_terms(const struct terms *a, const struct terms *b, int rank, lh_error *error)
{
    const struct {
        const char *name;
        int64_t found, wanted;
    } numbers[] = {
        {"batch", b->config.batch, a->config.batch},
        {"heads", b->config.heads, a->config.heads},
        {"kv_heads", b->config.kv_heads, a->config.kv_heads},
        {"tokens", b->config.tokens, a->config.tokens},
        {"dim", b->config.dim, a->config.dim},
        {"levels", b->config.levels, a->config.levels},
        {"pool", b->config.pool, a->config.pool},
        {"topk", b->config.topk, a->config.topk},
        {"tile_topk", b->config.tile_topk, a->config.tile_topk},
        {"backward", b->backward, a->backward},
        {"index_given", b->index_given, a->index_given},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (numbers[i].found != numbers[i].wanted)
            return lh_fail(error, LH_INVALID, "%s is %" PRId64 " on rank %d, wanted %" PRId64 " as on rank 0",
                           numbers[i].name, numbers[i].found, rank, numbers[i].wanted);
    }
    if (strcmp(a->backend, b->backend) != 0)
        return lh_fail(error, LH_INVALID, "backend is %.15s on rank %d, wanted %.15s as on rank 0",
                       b->backend, rank, a->backend);
    if (a->dtype != b->dtype)
        return lh_fail(error, LH_INVALID, "dtype is %s on rank %d, wanted %s as on rank 0",
                       lh_dtype_name((lh_dtype)b->dtype), rank, lh_dtype_name((lh_dtype)a->dtype));
    if (a->layout != b->layout)
        return lh_fail(error, LH_INVALID, "layout is %s on rank %d, wanted %s as on rank 0",
                       lh_dist_layout_name((lh_dist_layout)b->layout), rank,
                       lh_dist_layout_name((lh_dist_layout)a->layout));
    return LH_OK;
}

/* all: one a rank */
static lh_status agree_on_terms(const struct terms *mine, const lh_exchange *exchange, struct terms *all,
                                lh_error *error)
{
    lh_status status = dist_gather_all(exchange, mine, sizeof *mine, all, error);
    for (int r = 1; r < exchange->ranks && status == LH_OK; r++)
        status = compare_terms(&all[0], &all[r], r, error);
    return status;
}

/* ---- creation ---------------------------------------------------------------------------------- */

/* Heads worked on at a time: whole groups that share a key/value head and, by heads, as many for each rank. */
static void choose_piece(lh_dist_plan *plan)
{
    enum {
        ROWS_AT_A_TIME = 8192 /* of one rank's heads: few, for whatever travels has room of its own */
    };
    const lh_config *c = &plan->config;
    const int64_t group = c->heads / c->kv_heads, ranks = plan->exchange.ranks;
    int64_t least = group;
    if (plan->kind == LH_DIST_BY_HEADS)
        while (least % ranks != 0 && least <= c->heads)
            least += group;
    plan->piece = plan->part;
    if (c->heads % least == 0) {
        const int64_t rows = plan->layout.selected * (plan->kind == LH_DIST_BY_HEADS ? least / ranks : least);
        int64_t times = c->heads / least;
        while (times > 1 && (c->heads / least % times != 0 || times * rows > ROWS_AT_A_TIME))
            times--;
        plan->piece.batch = 1;
        plan->piece.heads = least * times;
        plan->piece.kv_heads = plan->piece.heads / group;
    }
    plan->pieces = c->batch / plan->piece.batch * (c->heads / plan->piece.heads);
    plan->sets = plan->pieces > 1 && plan->exchange.background ? DIST_SETS : 1;
}

static lh_status choose_layout(lh_dist_plan *plan, lh_dist_layout wish, lh_error *error)
{
    const int64_t sequences = plan->config.batch * plan->config.heads;
    if ((unsigned)wish > LH_DIST_BY_ROWS)
        return lh_fail(error, LH_INVALID, "layout is %d, wanted auto, heads or rows", (int)wish);
    if (wish == LH_DIST_BY_HEADS && sequences % plan->exchange.ranks != 0)
        return lh_fail(error, LH_INVALID,
                       "layout is heads: ranks is %d, wanted a divisor of batch * heads = %" PRId64,
                       plan->exchange.ranks, sequences);
    plan->kind = wish;
    if (wish == LH_DIST_AUTO)
        plan->kind = sequences % plan->exchange.ranks == 0 ? LH_DIST_BY_HEADS : LH_DIST_BY_ROWS;
    plan->attention = plan->kind == LH_DIST_BY_HEADS ? &dist_by_heads : &dist_by_rows;
    return LH_OK;
}

static lh_status create_local(lh_dist_plan *plan, lh_error *error)
{
    const struct lh_part part = {
        .layer = &plan->config, .layout = &plan->layout, .stages = ~(unsigned)DIST_ATTENDS};
    return dist_stages(plan, &plan->piece, &part, &plan->local, error);
}

static lh_status create_set(lh_dist_plan *plan, struct dist_set *set, lh_error *error)
{
    static const lh_tensor_id ids[] = {LH_Q_SEL, LH_K_SEL, LH_V_SEL, LH_DO_SEL};
    lh_status status = dist_move_create(plan, &set->move, error);
    for (int i = 0; i < 3 + plan->options.backward && status == LH_OK; i++)
        status = dist_tensor(plan, &plan->piece, plan->work, ids[i], &set->here[ids[i]], error);
    for (int i = 1; i < 3 && status == LH_OK && plan->options.backward && plan->options.dtype != plan->work;
         i++)
        status = dist_tensor(plan, &plan->piece, plan->work, lh_layer_kept[i], &set->here[lh_layer_kept[i]],
                             error);
    return status;
}

static lh_status create_kept(lh_dist_plan *plan, lh_error *error)
{
    lh_status status = LH_OK;
    for (int i = 0; i < 3 && status == LH_OK; i++)
        status = dist_tensor(plan, &plan->part, plan->options.dtype, lh_layer_kept[i], &plan->kept[i], error);
    return status;
}

static lh_status create_buffers(lh_dist_plan *plan, lh_error *error)
{
    static const lh_tensor_id tokens[] = {LH_Q, LH_K, LH_V}, pyramids[] = {LH_Q_PYR, LH_K_PYR, LH_V_PYR};
    const lh_config *piece = &plan->piece;
    const bool other = plan->options.dtype != plan->work;
    lh_status status = LH_OK;
    if (!plan->window)
        status = dist_tensor(plan, piece, plan->work, LH_SCORE_Q, &plan->score_q, error);
    if (status == LH_OK && !plan->window)
        status = dist_tensor(plan, piece, plan->work, LH_SCORE_K, &plan->score_k, error);
    for (int i = 0; i < 3 && status == LH_OK && other; i++)
        status = dist_tensor(plan, piece, plan->work, tokens[i], &plan->tokens[i], error);
    for (int i = 0; i < 3 && status == LH_OK && !plan->local->backend->gather_tokens; i++)
        status = dist_tensor(plan, piece, plan->work, pyramids[i], &plan->pyramid[i], error);
    for (int i = 0; i < plan->sets && status == LH_OK && !plan->window; i++)
        status = create_set(plan, &plan->set[i], error);
    if (status == LH_OK)
        status = create_kept(plan, error);
    if (status == LH_OK)
        status = dist_move_create(plan, &plan->back, error);
    if (status == LH_OK)
        status = dist_move_create(plan, &plan->edge, error);
    if (status == LH_OK)
        status = dist_halo_create(plan, error);
    return status;
}

static lh_status prepare(lh_dist_plan *plan, lh_dist_layout layout, lh_error *error)
{
    const lh_backend *backend;
    lh_status status = lh_config_check(&plan->config, &plan->layout, error);
    if (status == LH_OK)
        status = lh_dist_part(&plan->config, plan->exchange.ranks, &plan->part, error);
    if (status == LH_OK)
        status = lh_config_check(&plan->part, &plan->part_layout, error);
    if (status == LH_OK)
        status = choose_layout(plan, layout, error);
    if (status == LH_OK && plan->options.memory != LH_HOST)
        status =
            lh_fail(error, LH_UNSUPPORTED, "memory is on device, wanted host memory for a layer over ranks");
    if (status == LH_OK && (plan->options.scores_given || plan->options.workspace_given))
        status = lh_fail(error, LH_UNSUPPORTED, "%s is true, wanted false for a layer over ranks",
                         plan->options.scores_given ? "scores_given" : "workspace_given");
    if (status == LH_OK && (unsigned)plan->options.dtype > LH_BF16)
        status = lh_fail(error, LH_INVALID, "dtype is %s, wanted F64, F32, F16 or BF16",
                         lh_dtype_name(plan->options.dtype));
    if (status == LH_OK)
        status = lh_backend_find(plan->options.backend, plan->options.device, &backend, error);
    if (status == LH_OK && backend->can.device_memory && plan->exchange.together)
        status =
            lh_fail(error, LH_UNSUPPORTED,
                    "backend %s works on a device, which is not offered over ranks that are threads: wanted "
                    "processes (mpirun), or one that works in the host's memory",
                    backend->name);
    if (status == LH_OK && (backend->can.dtypes & 1u << plan->options.dtype) == 0)
        status = lh_fail(error, LH_UNSUPPORTED, "dtype is %s, which backend %s does not compute in",
                         lh_dtype_name(plan->options.dtype), backend->name);
    if (status != LH_OK)
        return status;
    plan->options.backend = backend->name;
    plan->work = backend->can.dtypes & 1u << LH_F64 ? LH_F64 : LH_F32;
    choose_piece(plan);
    plan->window = dist_window_rows(plan, backend);
    return lh_config_check(&plan->piece, &plan->piece_layout, error);
}

static lh_status create(lh_dist_plan *plan, lh_error *error)
{
    lh_status status = create_local(plan, error);
    if (status == LH_OK)
        status = create_buffers(plan, error);
    if (status == LH_OK)
        status = plan->window ? dist_window_create(plan, error) : plan->attention->create(plan, error);
    return status;
}

lh_status lh_dist_create(const lh_config *config, const lh_options *options, lh_dist_layout layout,
                         const lh_exchange *exchange, lh_dist_plan **out, lh_error *error)
{
    if (!out)
        return lh_fail(error, LH_INVALID, "plan is NULL, wanted where to put the plan");
    *out = NULL;
    if (!exchange || !exchange->begin || !exchange->finish || exchange->ranks < 1 || exchange->rank < 0 ||
        exchange->rank >= exchange->ranks)
        return lh_fail(error, LH_INVALID, "exchange is %s, wanted a rank among ranks and both calls",
                       exchange ? "incomplete" : "NULL");
    lh_dist_plan *plan = NULL;
    _Static_assert(sizeof(struct terms) <= DIST_CARD, "terms fit where cards do");
    const size_t cards = (size_t)exchange->ranks * DIST_CARD;
    lh_status status = lh_alloc((void **)&plan, sizeof *plan + cards, "plan over ranks", error);
    if (status != LH_OK)
        return status; /* the others wait for a rank that cannot even say so: its transport must end them */
    memset(plan, 0, sizeof *plan);
    plan->workspace = sizeof *plan + cards;
    plan->cards = (char *)(plan + 1);
    plan->exchange = *exchange;
    if (config)
        plan->config = *config;
    if (options)
        plan->options = *options;
    const struct terms mine = terms_of(config, options, layout);
    if (!config || !options)
        status = lh_fail(error, LH_INVALID, "%s is NULL, wanted %s", config ? "options" : "config",
                         config ? "plan options" : "a configuration");
    else
        status = prepare(plan, layout, error);
    status = dist_agree(exchange, status, plan->cards, error);
    if (status == LH_OK)
        status = agree_on_terms(&mine, exchange, (struct terms *)(void *)plan->cards, error);
    if (status == LH_OK)
        status = dist_agree(exchange, create(plan, error), plan->cards, error);
    if (status != LH_OK) {
        lh_dist_destroy(plan);
        return status;
    }
    *out = plan;
    return LH_OK;
}

void lh_dist_destroy(lh_dist_plan *plan)
{
    if (!plan)
        return;
    lh_plan_destroy(plan->local);
    for (int i = 0; i < 2; i++)
        lh_plan_destroy(plan->attend[i]);
    for (int i = 0; i < plan->owned_count; i++)
        lh_free(plan->owned[i]);
    lh_free(plan);
}

const lh_config *lh_dist_config(const lh_dist_plan *plan)
{
    return &plan->part;
}

lh_dist_layout lh_dist_layout_of(const lh_dist_plan *plan)
{
    return plan->kind;
}

bool lh_dist_same_bits(const lh_dist_plan *plan, lh_tensor_id id)
{
    const bool summed = id == LH_DK_SEL || id == LH_DV_SEL || id == LH_DK || id == LH_DV;
    if (!plan->local->backend->gather_tokens || (plan->work == LH_F64 && plan->options.dtype != LH_F64))
        return false;
    return plan->kind == LH_DIST_BY_HEADS || !summed;
}

size_t lh_dist_workspace(const lh_dist_plan *plan)
{
    return plan->workspace;
}

void lh_dist_get_profile(const lh_dist_plan *plan, lh_dist_profile *profile)
{
    *profile = plan->profile;
}
