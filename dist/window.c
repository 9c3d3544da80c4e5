/*
 * Window: a piece of heads in less memory, where the port offers windows. By heads, and with the bits of it: a rank has k and v
 * of its sequences whole, in the backward dk and dv too, and nothing else; queries come to it and results leave it a
 * window of rows at a time, in rising order, from the rank that has their tokens.
 *
 *   here:  k_sel v_sel, then dk_sel dv_sel  [sequences, S/W, d]        a window of q_sel do_sel, dq_sel  [sequences, R, d]
 *   there: k_sel v_sel, then dk_sel dv_sel  [1, sequences/W, S, d]     a window of q_sel o_sel lse do_sel
 *
 *   forward    score, select, [gather k, v -> go]  a window after the other: [gather q -> goes, attend -> o, lse come]  scatter
 *   backward   [gather k, v -> go]  a window after the other: [gather q, do -> go, o, lse go, attend -> dq comes, un-pool]
 *              [dk, dv come, un-pool]
 *
 * Two regions of two whole tensors each serve all of that. What has travelled is not read any more: k and v leave `first` for
 * `second`, and `first` is then the port's operands of them, or dk and dv there, which come back to `second`. Scores are in
 * `second` before anything travels.
 */
#include "dist/dist.h"

int64_t dist_windows_from = DIST_WINDOWS_FROM;

static const lh_tensor_id queries[] = {LH_Q_SEL, LH_O_SEL, LH_DO_SEL, LH_LSE};

int64_t dist_window_rows(const lh_dist_plan *plan, const lh_backend *backend)
{
    const lh_windows *w = backend->windows;
    const int64_t rows = plan->part_layout.selected;
    if (!w || plan->kind != LH_DIST_BY_HEADS || plan->sets > 1 || plan->layout.selected < dist_windows_from ||
        rows % w->rows != 0 || plan->config.dim % w->dim != 0)
        return 0;
    const int64_t sequences = plan->piece.batch * plan->piece.heads;
    int64_t window = DIST_WINDOW_ROWS / (sequences > 2 ? sequences : 2) / w->rows * w->rows;
    if (window < w->rows)
        window = w->rows;
    while (rows % window != 0)
        window -= w->rows;
    return window;
}

/* Rows of a window of a tensor of `like`'s heads, in memory of the plan's. */
static lh_status create_window(lh_dist_plan *plan, lh_tensor like, lh_tensor *tensor, lh_error *error)
{
    *tensor = like;
    tensor->shape[2] = plan->window;
    lh_tensor_pack(tensor);
    return dist_alloc(plan, &tensor->data, (size_t)lh_tensor_elements(tensor) * lh_dtype_size(tensor->dtype),
                      "a window of rows", error);
}

static lh_status create_windows(lh_dist_plan *plan, const lh_config *there, lh_error *error)
{
    const bool rounded = plan->options.dtype != plan->work;
    struct dist_set *set = &plan->set[0];
    lh_tensor like;
    lh_status status = LH_OK;
    for (int i = 0; i < 4 && status == LH_OK; i++) {
        const lh_tensor_id id = queries[i];
        const bool backward = id == LH_DO_SEL || id == LH_O_SEL;
        lh_tensor_shape(&plan->piece, &plan->piece_layout, plan->work, id, &like);
        if (id == LH_Q_SEL || (plan->options.backward && (id == LH_DO_SEL || (id == LH_O_SEL && rounded))))
            status = create_window(plan, like, &set->here[id], error);
        if (status == LH_OK)
            status = lh_tensor_describe(there, plan->work, id, &like, error);
        if (status == LH_OK && (plan->options.backward || !backward))
            status = create_window(plan, like, &set->there[id], error);
    }
    return status;
}

/* Two regions of k_sel and v_sel, and what shares their memory. */
static lh_status create_regions(lh_dist_plan *plan, const lh_config *there, lh_error *error)
{
    struct dist_set *set = &plan->set[0];
    lh_tensor whole;
    lh_tensor_shape(&plan->piece, &plan->piece_layout, plan->work, LH_K_SEL, &whole);
    const size_t half = (size_t)lh_tensor_elements(&whole) * lh_dtype_size(plan->work);
    const size_t packed = plan->local->backend->windows->bytes(plan->attend[0]);
    lh_tensor_shape(&plan->piece, &plan->piece_layout, plan->work, LH_SCORE_Q, &plan->score_q);
    lh_tensor_shape(&plan->piece, &plan->piece_layout, plan->work, LH_SCORE_K, &plan->score_k);
    const size_t of_q = (size_t)lh_tensor_elements(&plan->score_q) * lh_dtype_size(plan->work),
                 of_k = (size_t)lh_tensor_elements(&plan->score_k) * lh_dtype_size(plan->work);
    void *first, *second;
    lh_status status =
        dist_alloc(plan, &first, packed > 2 * half ? packed : 2 * half, "k_sel and v_sel", error);
    if (status == LH_OK)
        status = dist_alloc(plan, &second, of_q + of_k > 2 * half ? of_q + of_k : 2 * half, "k_sel and v_sel",
                            error);
    for (int i = 0; i < 2 && status == LH_OK; i++) {
        const lh_tensor_id id = i ? LH_V_SEL : LH_K_SEL, gradient = i ? LH_DV_SEL : LH_DK_SEL;
        set->here[id] = set->here[gradient] = whole;
        set->here[id].data = (char *)first + (size_t)i * half;
        set->here[gradient].data = (char *)second + (size_t)i * half;
        status = lh_tensor_describe(there, plan->work, id, &set->there[id], error);
        set->there[gradient] = set->there[id];
        set->there[id].data = set->here[gradient].data;
        set->there[gradient].data = set->here[id].data;
    }
    plan->score_q.data = second;
    plan->score_k.data = (char *)second + of_q;
    return status;
}

lh_status dist_window_create(lh_dist_plan *plan, lh_error *error)
{
    const struct lh_part part = {
        .layer = &plan->config, .layout = &plan->layout, .stages = DIST_ATTENDS, .window = plan->window};
    const lh_config there = dist_attended(&plan->config, &plan->layout, dist_share(plan));
    lh_status status = dist_stages(plan, &there, &part, &plan->attend[0], error);
    if (status != LH_OK)
        return status;
    status = dist_move_create(plan, &plan->set[0].move, error);
    if (status == LH_OK)
        status = create_windows(plan, &there, error);
    return status == LH_OK ? create_regions(plan, &there, error) : status;
}

static const lh_windows *port(const lh_dist_plan *plan)
{
    return plan->local->backend->windows;
}

static lh_status travel(lh_dist_plan *plan, struct dist_move *move, lh_error *error)
{
    const lh_status status = dist_begin(plan, move, error);
    return status == LH_OK ? dist_finish(plan, move, error) : status;
}

/* q k v dout of the piece, of which a port reads what it is asked for, and its index */
static void inputs_of(const lh_dist_plan *plan, const lh_tensor *trace, int64_t piece, lh_tensor *stage)
{
    const lh_tensor index = dist_kept(plan, trace, 0);
    for (int i = 0; i < LH_LAYER_INPUTS; i++)
        stage[lh_layer_inputs[i]] = dist_view(plan, &trace[lh_layer_inputs[i]], lh_layer_inputs[i], piece);
    stage[LH_INDEX] = dist_view(plan, &index, LH_INDEX, piece);
}

/* k and v of the piece, from where their tokens are to where they are attended over. */
static lh_status bring_keys(lh_dist_plan *plan, const lh_tensor *inputs, lh_error *error)
{
    struct dist_set *set = &plan->set[0];
    lh_tensor stage[LH_TENSOR_COUNT] = {[LH_K] = inputs[LH_K],
                                        [LH_V] = inputs[LH_V],
                                        [LH_INDEX] = inputs[LH_INDEX],
                                        [LH_K_SEL] = set->here[LH_K_SEL],
                                        [LH_V_SEL] = set->here[LH_V_SEL]};
    const double since = lh_seconds();
    port(plan)->gather(plan->local, stage, 0);
    plan->profile.local += lh_seconds() - since;
    dist_clear(&set->move);
    dist_travel(plan, &set->move, &set->here[LH_K_SEL], &set->there[LH_K_SEL], false);
    dist_travel(plan, &set->move, &set->here[LH_V_SEL], &set->there[LH_V_SEL], false);
    return travel(plan, &set->move, error);
}

/* A window: the rank that has its tokens, and its rows there. */
struct window {
    int64_t first; /* of the whole sub-sequence */
    int owner;
    int64_t at; /* among the owner's rows */
};

static struct window window_at(const lh_dist_plan *plan, int64_t first)
{
    const int64_t rows = plan->part_layout.selected;
    return (struct window){first, (int)(first / rows), first % rows};
}

/* Rows of the window, the owner's from row `at` of `here` on, to those who attend over them, or back. */
static void add_rows(const lh_dist_plan *plan, struct dist_move *move, int owner, const lh_tensor *here,
                     int64_t at, const lh_tensor *there, bool back)
{
    const int64_t mine = there->shape[1];
    for (int r = 0; r < plan->exchange.ranks && owner == plan->exchange.rank; r++) {
        if (back)
            dist_receive(move, r, here, r * mine, mine, at, plan->window);
        else
            dist_send(move, r, here, r * mine, mine, at, plan->window);
    }
    if (back)
        dist_send(move, owner, there, 0, mine, 0, plan->window);
    else
        dist_receive(move, owner, there, 0, mine, 0, plan->window);
}

/* The window's rows of a tensor of the piece. */
static lh_tensor rows_of(const lh_dist_plan *plan, const lh_tensor *t, int64_t at)
{
    lh_tensor rows = *t;
    rows.data = (char *)t->data + at * t->stride[2] * (int64_t)lh_dtype_size(t->dtype);
    rows.shape[2] = plan->window;
    return rows;
}

/* ---- forward ---- */

/* -> o_sel and lse, the piece's of what is kept, rows of the window */
static lh_status forward_window(lh_dist_plan *plan, const lh_tensor *inputs, const lh_tensor *o_sel,
                                const lh_tensor *lse, const struct window *w, lh_error *error)
{
    struct dist_set *set = &plan->set[0];
    lh_tensor stage[LH_TENSOR_COUNT] = {
        [LH_Q] = inputs[LH_Q], [LH_INDEX] = inputs[LH_INDEX], [LH_Q_SEL] = set->here[LH_Q_SEL]};
    const bool mine = w->owner == plan->exchange.rank, same = o_sel->dtype == plan->work;
    double since = lh_seconds();
    if (mine)
        port(plan)->gather(plan->local, stage, w->at);
    plan->profile.local += lh_seconds() - since;
    dist_clear(&set->move);
    add_rows(plan, &set->move, w->owner, &set->here[LH_Q_SEL], 0, &set->there[LH_Q_SEL], false);
    lh_status status = travel(plan, &set->move, error);
    if (status != LH_OK)
        return status;
    stage[LH_Q_SEL] = stage[LH_O_SEL] = set->there[LH_Q_SEL];
    stage[LH_LSE] = set->there[LH_LSE];
    since = lh_seconds();
    port(plan)->attend(plan->attend[0], stage, set->here[LH_K_SEL].data, w->first);
    plan->profile.attend += lh_seconds() - since;
    dist_clear(&plan->back);
    add_rows(plan, &plan->back, w->owner, same ? o_sel : &set->here[LH_Q_SEL], same ? w->at : 0,
             &set->there[LH_Q_SEL], true);
    add_rows(plan, &plan->back, w->owner, lse, w->at, &set->there[LH_LSE], true);
    status = travel(plan, &plan->back, error);
    if (status == LH_OK && mine && !same) {
        const lh_tensor rows = rows_of(plan, o_sel, w->at);
        status = lh_tensor_convert(&rows, &set->here[LH_Q_SEL], error);
    }
    return status;
}

lh_status dist_window_forward(lh_dist_plan *plan, const lh_tensor *trace, int64_t piece, lh_error *error)
{
    struct dist_set *set = &plan->set[0];
    const lh_tensor o_kept = dist_kept(plan, trace, 1), lse_kept = dist_kept(plan, trace, 2);
    const lh_tensor o_sel = dist_view(plan, &o_kept, LH_O_SEL, piece),
                    lse = dist_view(plan, &lse_kept, LH_LSE, piece);
    lh_tensor inputs[LH_TENSOR_COUNT], q, k;
    lh_status status = LH_OK;
    double since = lh_seconds();
    inputs_of(plan, trace, piece, inputs);
    if (!plan->options.index_given) {
        status = dist_bring(plan, &trace[LH_Q], LH_Q, piece, &plan->tokens[0], &q, error);
        if (status == LH_OK)
            status = dist_bring(plan, &trace[LH_K], LH_K, piece, &plan->tokens[1], &k, error);
        if (status == LH_OK)
            status = dist_select(plan, &q, &k, &inputs[LH_INDEX], error);
    }
    plan->profile.local += lh_seconds() - since;
    if (status == LH_OK)
        status = bring_keys(plan, inputs, error);
    since = lh_seconds();
    if (status == LH_OK)
        port(plan)->keys(plan->attend[0], set->there, set->here[LH_K_SEL].data);
    plan->profile.attend += lh_seconds() - since;
    for (int64_t first = 0; first < plan->layout.selected && status == LH_OK; first += plan->window) {
        const struct window w = window_at(plan, first);
        status = forward_window(plan, inputs, &o_sel, &lse, &w, error);
    }
    if (status != LH_OK)
        return status;
    since = lh_seconds();
    const double travelled = plan->profile.exchange;
    lh_tensor rounded = set->here[LH_K_SEL];
    if (o_sel.dtype != plan->work)
        status = lh_tensor_convert(&rounded, &o_sel, error);
    if (status == LH_OK)
        status = dist_scatter(plan, trace, piece, o_sel.dtype == plan->work ? &o_sel : &rounded, error);
    plan->profile.local += lh_seconds() - since - (plan->profile.exchange - travelled);
    return status;
}

/* ---- backward ---- */

/* The owner's rows of what the backward takes from a window. */
static lh_status prepare_window(lh_dist_plan *plan, const lh_tensor *inputs, const lh_tensor *o_sel,
                                const struct window *w, lh_error *error)
{
    struct dist_set *set = &plan->set[0];
    lh_tensor stage[LH_TENSOR_COUNT] = {[LH_Q] = inputs[LH_Q],
                                        [LH_DOUT] = inputs[LH_DOUT],
                                        [LH_INDEX] = inputs[LH_INDEX],
                                        [LH_Q_SEL] = set->here[LH_Q_SEL],
                                        [LH_DO_SEL] = set->here[LH_DO_SEL]};
    const lh_tensor rows = rows_of(plan, o_sel, w->at);
    port(plan)->gather(plan->local, stage, w->at);
    dist_halo_add(plan, &inputs[LH_INDEX], &set->here[LH_DO_SEL], w->at);
    return o_sel->dtype == plan->work ? LH_OK : lh_tensor_convert(&set->here[LH_O_SEL], &rows, error);
}

/* dq: the piece's, of the caller or on its way there */
static lh_status backward_window(lh_dist_plan *plan, const lh_tensor *inputs, const lh_tensor *o_sel,
                                 const lh_tensor *lse, const lh_tensor *dq, const struct window *w,
                                 lh_error *error)
{
    struct dist_set *set = &plan->set[0];
    const bool mine = w->owner == plan->exchange.rank, same = o_sel->dtype == plan->work;
    double since = lh_seconds();
    lh_status status = mine ? prepare_window(plan, inputs, o_sel, w, error) : LH_OK;
    plan->profile.local += lh_seconds() - since;
    if (status != LH_OK)
        return status;
    dist_clear(&set->move);
    add_rows(plan, &set->move, w->owner, &set->here[LH_Q_SEL], 0, &set->there[LH_Q_SEL], false);
    add_rows(plan, &set->move, w->owner, same ? o_sel : &set->here[LH_O_SEL], same ? w->at : 0,
             &set->there[LH_O_SEL], false);
    add_rows(plan, &set->move, w->owner, lse, w->at, &set->there[LH_LSE], false);
    add_rows(plan, &set->move, w->owner, &set->here[LH_DO_SEL], 0, &set->there[LH_DO_SEL], false);
    status = travel(plan, &set->move, error);
    if (status != LH_OK)
        return status;
    set->there[LH_DQ_SEL] = set->there[LH_Q_SEL];
    since = lh_seconds();
    port(plan)->attend_backward(plan->attend[0], set->there, w->first);
    plan->profile.attend += lh_seconds() - since;
    dist_clear(&plan->back);
    add_rows(plan, &plan->back, w->owner, &set->here[LH_Q_SEL], 0, &set->there[LH_DQ_SEL], true);
    status = travel(plan, &plan->back, error);
    if (status == LH_OK && mine) {
        lh_tensor stage[LH_TENSOR_COUNT] = {
            [LH_DQ_SEL] = set->here[LH_Q_SEL], [LH_DQ] = *dq, [LH_INDEX] = inputs[LH_INDEX]};
        since = lh_seconds();
        port(plan)->unpool(plan->local, stage, w->at);
        plan->profile.local += lh_seconds() - since;
    }
    return status;
}

/* dk and dv come back, and results go to the caller. */
static lh_status finish_backward(lh_dist_plan *plan, const lh_tensor *trace, lh_tensor *stage, int64_t piece,
                                 lh_error *error)
{
    struct dist_set *set = &plan->set[0];
    dist_clear(&plan->back);
    for (int i = LH_DK_SEL; i <= LH_DV_SEL; i++) {
        stage[i] = set->here[i];
        dist_travel(plan, &plan->back, &set->here[i], &set->there[i], true);
    }
    lh_status status = travel(plan, &plan->back, error);
    const double since = lh_seconds();
    if (status == LH_OK)
        port(plan)->unpool(plan->local, stage, 0);
    for (int i = 0; i < LH_LAYER_GRADIENTS && status == LH_OK; i++) {
        const lh_tensor_id id = lh_layer_gradients[i];
        status = dist_deliver(plan, &trace[id], id, piece, &stage[id], error);
    }
    plan->profile.local += lh_seconds() - since;
    return status;
}

lh_status dist_window_backward(lh_dist_plan *plan, const lh_tensor *trace, int64_t piece, lh_error *error)
{
    const lh_tensor o_kept = dist_kept(plan, trace, 1), lse_kept = dist_kept(plan, trace, 2);
    const lh_tensor o_sel = dist_view(plan, &o_kept, LH_O_SEL, piece),
                    lse = dist_view(plan, &lse_kept, LH_LSE, piece);
    lh_tensor inputs[LH_TENSOR_COUNT], stage[LH_TENSOR_COUNT] = {0};
    inputs_of(plan, trace, piece, inputs);
    stage[LH_INDEX] = inputs[LH_INDEX];
    for (int i = 0; i < LH_LAYER_GRADIENTS; i++)
        stage[lh_layer_gradients[i]] =
            dist_place(plan, &trace[lh_layer_gradients[i]], lh_layer_gradients[i], piece, &plan->tokens[i]);
    lh_status status = dist_halo_backward(plan, &inputs[LH_DOUT], error);
    if (status == LH_OK)
        status = bring_keys(plan, inputs, error);
    for (int64_t first = 0; first < plan->layout.selected && status == LH_OK; first += plan->window) {
        const struct window w = window_at(plan, first);
        status = backward_window(plan, inputs, &o_sel, &lse, &stage[LH_DQ], &w, error);
    }
    return status == LH_OK ? finish_backward(plan, trace, stage, piece, error) : status;
}
