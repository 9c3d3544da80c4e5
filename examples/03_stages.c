/*
 * 03: one stage alone. Which entries does a head keep, given scores of your own?
 *
 *   cc examples/03_stages.c $(pkg-config --cflags --libs lighthouse) -o stages && ./stages
 */
#include <stdio.h>

#include <lighthouse.h>

int main(void)
{
    /* 8 tokens, two levels: of the four pairs two become parents, the strongest query and the strongest key of the others. */
    const lh_config config = {1, 1, 1, 8, 1, 2, 2, 2, 2};
    const lh_options options = {.dtype = LH_F64, .stages = true};
    double score_q[12] = {1, 1, 1, 1, 9, 1, 1, 1, 1, 1, 9, 1}; /* token 4, so pair 2: entry 8 + 2 */
    double score_k[12] = {7, 1, 1, 1, 9, 1, 1, 1, 7, 1, 9, 1}; /* pair 2 is taken: pair 0 comes next */
    int32_t index[8];
    lh_tensor trace[LH_TENSOR_COUNT] = {{0}};
    lh_plan *plan;
    lh_error error;
    lh_tensor_describe(&config, LH_F64, LH_SCORE_Q, &trace[LH_SCORE_Q], &error);
    lh_tensor_describe(&config, LH_F64, LH_SCORE_K, &trace[LH_SCORE_K], &error);
    lh_tensor_describe(&config, LH_F64, LH_INDEX, &trace[LH_INDEX], &error);
    trace[LH_SCORE_Q].data = score_q;
    trace[LH_SCORE_K].data = score_k;
    trace[LH_INDEX].data = index;
    if (lh_plan_create(&config, &options, &plan, &error) != LH_OK ||
        lh_run_stage(plan, LH_SELECT, trace, &error) != LH_OK) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    for (int s = 0; s < 8; s++)
        printf("%d%s", (int)index[s], s < 7 ? " " : "\n"); /* in post-order, SPEC 3.4 */
    lh_plan_destroy(plan);
    return 0;
}
