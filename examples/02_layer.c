/*
 * 02: one layer through the public header, forward and backward, on a backend of your choice.
 *
 *   cc examples/02_layer.c $(pkg-config --cflags --libs lighthouse) -o layer && ./layer openmp
 */
#include <stdio.h>
#include <stdlib.h>

#include <lighthouse.h>

int main(int argc, char **argv)
{
    const lh_config config = {1, 2, 1,  1024, 16,
                              3, 2, 64, 32}; /* B H G N d L p k m: two query heads share a key/value head */
    const lh_options options = {
        .backend = argc > 1 ? argv[1] : NULL, .dtype = LH_F32, .backward = true, .finite = true};
    lh_tensor trace[LH_TENSOR_COUNT] = {{0}};
    lh_error error;
    lh_plan *plan;
    if (lh_plan_create(&config, &options, &plan, &error) != LH_OK) {
        fprintf(stderr, "%s\n", error.text);
        return error.status == LH_NO_DEVICE ? 77 : 1;
    }
    /* What the caller owns: inputs and results. The rest stays in the plan. */
    const lh_tensor_id mine[] = {LH_Q, LH_K, LH_V, LH_DOUT, LH_OUT, LH_DQ, LH_DK, LH_DV};
    for (int i = 0; i < 8; i++) {
        lh_tensor *tensor = &trace[mine[i]];
        lh_tensor_describe(&config, LH_F32, mine[i], tensor, &error);
        const int64_t elements = lh_tensor_elements(tensor);
        tensor->data = malloc((size_t)elements * sizeof(float));
        for (int64_t e = 0; tensor->data && i < 4 && e < elements; e++)
            ((float *)tensor->data)[e] = (float)((e * 2654435761u + (unsigned)i * 40503u) % 1000u) / 500 - 1;
    }
    lh_status status = lh_forward(plan, trace, &error);
    if (status == LH_OK)
        status = lh_backward(plan, trace, &error);
    if (status == LH_OK)
        printf("out[0,0,1023,0] is %.6f, dk[0,0,0,0] is %.6f\n", ((float *)trace[LH_OUT].data)[1023 * 16],
               *(float *)trace[LH_DK].data);
    else
        fprintf(stderr, "%s\n", error.text);
    for (int i = 0; i < 8; i++)
        free(trace[mine[i]].data);
    lh_plan_destroy(plan);
    return status == LH_OK ? 0 : 1;
}
