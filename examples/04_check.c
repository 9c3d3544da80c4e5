/*
 * 04: somebody's port, judged. Its scatter forgot the shift; the report says so.
 *
 *   cc examples/04_check.c $(pkg-config --cflags --libs lighthouse) -o check && ./check
 */
#include <stdio.h>

#include <lighthouse.h>

enum {
    N = 24
};

int main(void)
{
    const lh_config config = {1, 1, 1, N, 1, 2, 2, 4, 4};
    const lh_options options = {.dtype = LH_F64};
    double q[N], k[N], v[N], out[N], o_sel[20];
    int32_t index[20];
    double *const data[] = {q, k, v, out, o_sel};
    const lh_tensor_id ids[] = {LH_Q, LH_K, LH_V, LH_OUT, LH_O_SEL};
    lh_tensor trace[LH_TENSOR_COUNT] = {{0}};
    lh_plan *plan;
    lh_error error;
    char *report;
    for (int i = 0; i < N; i++)
        q[i] = (i * 7 % 11) / 4.0 - 1, k[i] = (i * 5 % 13) / 5.0 - 1, v[i] = (i * 3 % 7) - 3.0;
    for (int i = 0; i < 5; i++) {
        lh_tensor_describe(&config, LH_F64, ids[i], &trace[ids[i]], &error);
        trace[ids[i]].data = data[i];
    }
    lh_tensor_describe(&config, LH_F64, LH_INDEX, &trace[LH_INDEX], &error);
    trace[LH_INDEX].data = index;
    if (lh_plan_create(&config, &options, &plan, &error) != LH_OK ||
        lh_forward(plan, trace, &error) != LH_OK) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    lh_plan_destroy(plan);
    for (int j = 0; j < N; j++)
        out[j] = 0;
    for (int s = 0; s < 20; s++) { /* entry i of level l to its own window: no shift */
        const int level = index[s] >= N, window = 1 + level, first = (index[s] - level * N) * window;
        for (int j = first; j < first + window; j++)
            out[j] += o_sel[s];
    }
    const lh_status status = lh_check(&config, trace, &report, &error);
    fputs(report ? report : error.text, stdout);
    lh_text_free(report);
    return status == LH_MISMATCH ? 0 : 1;
}
