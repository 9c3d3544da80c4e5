/*
 * Attention by rows, where ranks do not divide the heads: every rank has k_sel and v_sel whole, and attends for two
 * runs of the S rows of q_sel. Row s sees s + 1 rows, so the rows are cut into 2 W runs of equal length and rank r takes
 * the r-th from either end: the same number of products for every rank.
 *
 *   here:  [sequences, S/W, d]     there: [sequences, S, d]; of q_sel, o_sel, lse, do_sel only the rank's runs, else zero
 *
 * A run a ... b - 1 is dense attention over b rows of which the first a are not wanted (lh_part.first_query); their do_sel
 * is zero, so that they add nothing to dk_sel and dv_sel whether or not they are left out. o_sel, lse and dq_sel have the
 * bits of one machine. dk_sel and dv_sel are sums over runs: this rank's two, then the ranks' in rank order.
 */
#include <string.h>

#include "dist/dist.h"

static const lh_tensor_id travels[] = {LH_Q_SEL, LH_K_SEL, LH_V_SEL, LH_O_SEL, LH_LSE, LH_DO_SEL};

enum {
    LOW,
    HIGH,
    DQ = 0, /* scratch: gradients of all rows, */
    DK,
    DV,
    LOW_DQ, /* those of the low run of one sequence, */
    LOW_DK,
    LOW_DV,
    PARTIAL, /* and every rank's share of the gradient of this rank's rows */
};

struct run {
    int64_t first, end;
};

static struct run run_of(const lh_dist_plan *plan, int rank, int which)
{
    const int64_t runs = 2 * plan->exchange.ranks, rows = plan->layout.selected;
    const int64_t i = which == LOW ? rank : runs - 1 - rank;
    return (struct run){rows / runs * i + rows % runs * i / runs,
                        rows / runs * (i + 1) + rows % runs * (i + 1) / runs};
}

static lh_config dense(const lh_dist_plan *plan, int64_t sequences, int64_t rows)
{
    return (lh_config){.batch = 1,
                       .heads = sequences,
                       .kv_heads = sequences,
                       .tokens = rows,
                       .dim = plan->config.dim,
                       .levels = 1,
                       .pool = 2};
}

static lh_status create_run(lh_dist_plan *plan, int which, lh_error *error)
{
    const struct run run = run_of(plan, plan->exchange.rank, which);
    const lh_config config = dense(plan, 1, run.end);
    const struct lh_part part = {
        .layer = &plan->config, .layout = &plan->layout, .stages = DIST_ATTENDS, .first_query = run.first};
    if (run.first == run.end)
        return LH_OK;
    lh_status status = dist_stages(plan, &config, &part, &plan->attend[which], error);
    for (int i = 0; i < 3 && status == LH_OK && which == LOW && plan->options.backward; i++)
        status = dist_tensor(plan, &config, plan->work, (lh_tensor_id)(LH_DQ_SEL + i),
                             &plan->scratch[LOW_DQ + i], error);
    return status;
}

static lh_status create(lh_dist_plan *plan, lh_error *error)
{
    const int64_t sequences = plan->piece.batch * plan->piece.heads;
    const lh_config config = dense(plan, sequences, plan->layout.selected);
    const int count = plan->options.backward ? 6 : 5;
    lh_status status = create_run(plan, LOW, error);
    for (int i = 0; i < (plan->options.backward ? 5 : 2) && status == LH_OK; i++)
        status = dist_tensor(plan, &plan->piece, plan->work, dist_results[i], &plan->out[i], error);
    if (status == LH_OK)
        status = create_run(plan, HIGH, error);
    for (int s = 0; s < plan->sets; s++)
        for (int i = 0; i < count && status == LH_OK; i++)
            status =
                dist_tensor(plan, &config, plan->work, travels[i], &plan->set[s].there[travels[i]], error);
    for (int i = 0; i < 3 && status == LH_OK && plan->options.backward; i++)
        status =
            dist_tensor(plan, &config, plan->work, (lh_tensor_id)(LH_DQ_SEL + i), &plan->scratch[i], error);
    if (status == LH_OK && plan->options.backward)
        status = dist_tensor(plan, &config, plan->work, LH_DK_SEL, &plan->scratch[PARTIAL], error);
    return status;
}

/* Rows of a run that lie on rank r: the run's owner has them in there, rank r in here. */
static void add_run(const lh_dist_plan *plan, struct dist_move *move, const lh_tensor *here,
                    const lh_tensor *there, int owner, int home, int which, bool back)
{
    const struct run run = run_of(plan, owner, which);
    const int64_t rows = plan->part_layout.selected, start = home * rows, all = there->shape[1];
    const int64_t first = run.first > start ? run.first : start;
    const int64_t end = run.end < start + rows ? run.end : start + rows, count = end - first;
    const int me = plan->exchange.rank;
    if (home == me && back)
        dist_receive(move, owner, here, 0, all, first - start, count);
    else if (home == me)
        dist_send(move, owner, here, 0, all, first - start, count);
    if (owner == me && back)
        dist_send(move, home, there, 0, all, first, count);
    else if (owner == me)
        dist_receive(move, home, there, 0, all, first, count);
}

/* Rows of q and its like, between the ranks that have their tokens and those that attend for them. */
static void add_query_rows(const lh_dist_plan *plan, struct dist_move *move, const lh_tensor *here,
                           const lh_tensor *there, bool back)
{
    const int me = plan->exchange.rank;
    for (int r = 0; r < plan->exchange.ranks; r++) {
        for (int which = LOW; which <= HIGH; which++) {
            add_run(plan, move, here, there, r, me, which, back);
            if (r != me)
                add_run(plan, move, here, there, me, r, which, back);
        }
    }
}

static void add_key_rows(const lh_dist_plan *plan, struct dist_move *move, const lh_tensor *here,
                         const lh_tensor *there)
{
    const int64_t rows = plan->part_layout.selected, all = there->shape[1];
    for (int r = 0; r < plan->exchange.ranks; r++) {
        dist_send(move, r, here, 0, all, 0, rows);
        dist_receive(move, r, there, 0, all, r * rows, rows);
    }
}

static lh_status begin(lh_dist_plan *plan, struct dist_set *set, bool backward, lh_error *error)
{
    dist_clear(&set->move);
    for (int i = 0; i < (backward ? 6 : 3); i++) {
        const lh_tensor *here = &set->here[travels[i]], *there = &set->there[travels[i]];
        if (travels[i] == LH_K_SEL || travels[i] == LH_V_SEL)
            add_key_rows(plan, &set->move, here, there);
        else
            add_query_rows(plan, &set->move, here, there, false);
    }
    return dist_begin(plan, &set->move, error);
}

/* Sequence i of [1,sequences,S,(d)], its first `rows` rows. */
static lh_tensor sequence(const lh_tensor *t, int64_t i, int64_t rows)
{
    lh_tensor one = *t;
    if (!t->data)
        return one;
    one.data = (char *)t->data + i * t->shape[2] * dist_row_bytes(t);
    one.shape[1] = 1;
    one.shape[2] = rows;
    lh_tensor_pack(&one);
    return one;
}

static lh_status run_one(lh_dist_plan *plan, const struct dist_set *set, int which, int64_t i, bool backward,
                         lh_error *error)
{
    const int64_t rows = run_of(plan, plan->exchange.rank, which).end;
    lh_tensor stage[LH_TENSOR_COUNT] = {0};
    if (!plan->attend[which])
        return LH_OK;
    for (int t = 0; t < (backward ? 6 : 5); t++)
        stage[travels[t]] = sequence(&set->there[travels[t]], i, rows);
    for (int t = 0; t < 3 && backward; t++)
        stage[LH_DQ_SEL + t] =
            which == LOW ? plan->scratch[LOW_DQ + t] : sequence(&plan->scratch[t], i, rows);
    return lh_run_stage(plan->attend[which], backward ? LH_ATTEND_BACKWARD : LH_ATTEND, stage, error);
}

/* to: [elements] += from */
static void add(void *to, const void *from, int64_t elements, lh_dtype dtype)
{
    if (dtype == LH_F64) {
        for (int64_t e = 0; e < elements; e++)
            ((double *)to)[e] += ((const double *)from)[e];
    } else {
        for (int64_t e = 0; e < elements; e++)
            ((float *)to)[e] += ((const float *)from)[e];
    }
}

/* The low run's gradients of one sequence join the high run's. */
static void join(const lh_dist_plan *plan, int64_t i)
{
    const struct run low = run_of(plan, plan->exchange.rank, LOW);
    const int64_t row = dist_row_bytes(&plan->scratch[DQ]);
    if (!plan->attend[LOW])
        return;
    char *dq = sequence(&plan->scratch[DQ], i, low.end).data;
    memcpy(dq + low.first * row, (char *)plan->scratch[LOW_DQ].data + low.first * row,
           (size_t)((low.end - low.first) * row));
    for (int t = DK; t <= DV; t++)
        add(sequence(&plan->scratch[t], i, low.end).data, plan->scratch[LOW_DQ + t].data,
            low.end * plan->config.dim, plan->work);
}

static lh_status backward_of_sequence(lh_dist_plan *plan, const struct dist_set *set, int64_t i,
                                      lh_error *error)
{
    const struct run low = run_of(plan, plan->exchange.rank, LOW);
    const lh_tensor *all = &set->there[LH_DO_SEL];
    const int64_t row = dist_row_bytes(all);
    for (int t = DQ; t <= DV; t++)
        memset(sequence(&plan->scratch[t], i, 1).data, 0, (size_t)(all->shape[2] * row));
    lh_status status = run_one(plan, set, LOW, i, true, error);
    /* To the high run, the low run's rows are among those that are not wanted. */
    memset((char *)sequence(all, i, 1).data + low.first * row, 0, (size_t)((low.end - low.first) * row));
    if (status == LH_OK)
        status = run_one(plan, set, HIGH, i, true, error);
    if (status == LH_OK)
        join(plan, i);
    return status;
}

/* Every rank's share of dk_sel or dv_sel of this rank's rows, added up in rank order. */
static lh_status reduce(lh_dist_plan *plan, const lh_tensor *shares, const lh_tensor *sum, lh_error *error)
{
    const int64_t rows = plan->part_layout.selected, all = shares->shape[1];
    lh_tensor partial = *sum; /* one rank's: [pb,ph,S/W,d] */
    const int64_t elements = lh_tensor_elements(sum);
    const size_t bytes = (size_t)elements * lh_dtype_size(sum->dtype);
    dist_clear(&plan->back);
    for (int r = 0; r < plan->exchange.ranks; r++) {
        partial.data = (char *)plan->scratch[PARTIAL].data + (size_t)r * bytes;
        dist_send(&plan->back, r, shares, 0, all, r * rows, rows);
        dist_receive(&plan->back, r, &partial, 0, all, 0, rows);
    }
    lh_status status = dist_begin(plan, &plan->back, error);
    if (status == LH_OK)
        status = dist_finish(plan, &plan->back, error);
    if (status != LH_OK)
        return status;
    memcpy(sum->data, plan->scratch[PARTIAL].data, bytes);
    for (int r = 1; r < plan->exchange.ranks; r++)
        add(sum->data, (char *)plan->scratch[PARTIAL].data + (size_t)r * bytes, elements, sum->dtype);
    return LH_OK;
}

static lh_status attend(lh_dist_plan *plan, struct dist_set *set, bool backward, lh_error *error)
{
    const int64_t sequences = plan->piece.batch * plan->piece.heads;
    lh_status status = dist_finish(plan, &set->move, error);
    const double since = lh_seconds();
    for (int64_t i = 0; i < sequences && status == LH_OK; i++) {
        if (backward)
            status = backward_of_sequence(plan, set, i, error);
        for (int which = LOW; which <= HIGH && status == LH_OK && !backward; which++)
            status = run_one(plan, set, which, i, false, error);
    }
    plan->profile.attend += lh_seconds() - since;
    if (status != LH_OK)
        return status;
    dist_clear(&plan->back);
    if (backward) {
        add_query_rows(plan, &plan->back, &plan->out[2], &plan->scratch[DQ], true);
    } else {
        add_query_rows(plan, &plan->back, &plan->out[0], &set->there[LH_O_SEL], true);
        add_query_rows(plan, &plan->back, &plan->out[1], &set->there[LH_LSE], true);
    }
    status = dist_begin(plan, &plan->back, error);
    if (status == LH_OK)
        status = dist_finish(plan, &plan->back, error);
    if (status == LH_OK && backward)
        status = reduce(plan, &plan->scratch[DK], &plan->out[3], error);
    if (status == LH_OK && backward)
        status = reduce(plan, &plan->scratch[DV], &plan->out[4], error);
    return status;
}

const struct dist_attention dist_by_rows = {create, begin, attend};
