/*
 * Attention by heads: of a piece's B H sequences each rank attends over a W-th, all S rows of it.
 *
 *   here:  [sequences, S/W, d] this rank's rows of every sequence
 *   there: [sequences/W, S, d] every rank's rows, one after another, of the sequences that are this rank's
 *
 * The port's own kernels see a sequence whole, as on one machine, and so give the same bits. `here` and `there` are equally
 * many elements, and what has travelled is not read any more: gradients of rows that are there lie where the rows were
 * here, and come back to where the rows were there.
 */
#include "dist/dist.h"

static const lh_tensor_id travels[] = {LH_Q_SEL, LH_K_SEL, LH_V_SEL, LH_O_SEL, LH_LSE, LH_DO_SEL};

static lh_status create(lh_dist_plan *plan, lh_error *error)
{
    const struct lh_part part = {.layer = &plan->config, .layout = &plan->layout, .stages = DIST_ATTENDS};
    const lh_config config = dist_attended(&plan->config, &plan->layout, dist_share(plan));
    lh_status status = dist_stages(plan, &config, &part, &plan->attend[0], error);
    if (status != LH_OK)
        return status;
    for (int s = 0; s < plan->sets; s++) {
        const int count = plan->options.backward ? 6 : 5;
        for (int i = 0; i < count && status == LH_OK; i++)
            status =
                dist_tensor(plan, &config, plan->work, travels[i], &plan->set[s].there[travels[i]], error);
    }
    for (int i = 0; i < 5; i++)
        lh_tensor_shape(&plan->piece, &plan->piece_layout, plan->work, dist_results[i], &plan->out[i]);
    return status == LH_OK ? dist_tensor(plan, &plan->piece, plan->work, LH_LSE, &plan->out[1], error)
                           : status;
}

void dist_travel(const lh_dist_plan *plan, struct dist_move *move, const lh_tensor *here,
                 const lh_tensor *there, bool back)
{
    const int64_t rows = plan->part_layout.selected, mine = there->shape[1];
    for (int r = 0; r < plan->exchange.ranks; r++) {
        if (back) {
            dist_send(move, r, there, 0, mine, r * rows, rows);
            dist_receive(move, r, here, r * mine, mine, 0, rows);
        } else {
            dist_send(move, r, here, r * mine, mine, 0, rows);
            dist_receive(move, r, there, 0, mine, r * rows, rows);
        }
    }
}

static lh_status begin(lh_dist_plan *plan, struct dist_set *set, bool backward, lh_error *error)
{
    dist_clear(&set->move);
    for (int i = 0; i < (backward ? 6 : 3); i++)
        dist_travel(plan, &set->move, &set->here[travels[i]], &set->there[travels[i]], false);
    return dist_begin(plan, &set->move, error);
}

static lh_status attend(lh_dist_plan *plan, struct dist_set *set, bool backward, lh_error *error)
{
    lh_tensor *there = set->there;
    lh_status status = dist_finish(plan, &set->move, error);
    const double since = lh_seconds();
    plan->out[0].data = set->here[LH_Q_SEL].data;
    for (int i = 0; i < 3 && backward; i++) {
        there[LH_DQ_SEL + i] = there[travels[i]];
        there[LH_DQ_SEL + i].data = set->here[travels[i]].data;
        plan->out[2 + i].data = there[travels[i]].data;
    }
    if (status == LH_OK)
        status = lh_run_stage(plan->attend[0], backward ? LH_ATTEND_BACKWARD : LH_ATTEND, there, error);
    plan->profile.attend += lh_seconds() - since;
    if (status != LH_OK)
        return status;
    dist_clear(&plan->back);
    for (int i = backward ? 2 : 0; i < (backward ? 5 : 2); i++)
        dist_travel(plan, &plan->back, &plan->out[i], &there[dist_results[i]], true);
    status = dist_begin(plan, &plan->back, error);
    return status == LH_OK ? dist_finish(plan, &plan->back, error) : status;
}

const struct dist_attention dist_by_heads = {create, begin, attend};
