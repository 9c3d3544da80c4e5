/* Both expectations of a case at once: they do not depend on each other, and one core each halves the wait. */
#include <pthread.h>

#include "verify/verify.h"

struct layer_job {
    verify_expect *expect;
    const lh_config *config;
    lh_dtype dtype;
    const verify_trace *inputs;
    const lh_tensor *present;
    unsigned habits;
    lh_status status;
    lh_error error;
};

static void *run_layer_job(void *context)
{
    struct layer_job *j = context;
    j->status =
        verify_expect_layer(j->expect, j->config, j->dtype, j->inputs, j->present, j->habits, &j->error);
    return NULL;
}

lh_status verify_expect_both(verify_expect *stages, verify_expect *layer, const lh_config *config,
                             lh_dtype dtype, const verify_trace *inputs, const lh_tensor *present,
                             unsigned habits, lh_error *error)
{
    struct layer_job job = {.expect = layer,
                            .config = config,
                            .dtype = dtype,
                            .inputs = inputs,
                            .present = present,
                            .habits = habits};
    pthread_t thread;
    const bool beside = pthread_create(&thread, NULL, run_layer_job, &job) == 0;
    lh_status status = verify_expect_stages(stages, config, dtype, inputs, present, habits, error);
    if (beside)
        pthread_join(thread, NULL);
    else
        run_layer_job(&job);
    if (status == LH_OK && job.status != LH_OK) {
        status = job.status;
        if (error)
            *error = job.error;
    }
    return status;
}
