/* A program outside the project, C and C++: out of a layer of one level whose keys are all alike is the running mean
 * of v. */
#include <stdio.h>
#include <string.h>

#include <lighthouse.h>

int main(void)
{
    double q[8], k[8], v[8], out[8];
    lh_config config;
    lh_options options;
    lh_tensor trace[LH_TENSOR_COUNT];
    lh_plan *plan;
    lh_error error;
    int i;
    memset(&config, 0, sizeof config);
    memset(&options, 0, sizeof options);
    memset(trace, 0, sizeof trace);
    config.batch = config.heads = config.kv_heads = config.dim = config.levels = 1;
    config.tokens = 8;
    config.pool = 2;
    options.dtype = LH_F64;
    for (i = 0; i < 8; i++) {
        q[i] = k[i] = 1;
        v[i] = 1 + 2 * i; /* mean of the first n odd numbers: n */
    }
    for (i = 0; i < LH_TENSOR_COUNT; i++) {
        if (lh_tensor_describe(&config, LH_F64, (lh_tensor_id)i, &trace[i], &error) != LH_OK)
            return 1;
    }
    trace[LH_Q].data = q;
    trace[LH_K].data = k;
    trace[LH_V].data = v;
    trace[LH_OUT].data = out;
    if (lh_plan_create(&config, &options, &plan, &error) != LH_OK ||
        lh_forward(plan, trace, &error) != LH_OK) {
        puts(error.text);
        return 1;
    }
    lh_plan_destroy(plan);
    printf("%s: out[0,0,5,0] is %g\n", lh_version(), out[5]);
    return 0;
}
