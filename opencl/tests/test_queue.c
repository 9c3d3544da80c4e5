/* A queue and device memory of the caller's: calls only enqueue, after all that was enqueued before them and before all that
 * is enqueued next, in queues that keep an order and in queues that keep none. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "opencl/opencl.h"
#include "tests/layer.h"
#include "tests/suite.h"

static const lh_config config = {2, 2, 2, 48, 3, 3, 2, 8, 4};
static lh_error error;

static struct layer host;
static lh_tensor device[LH_TENSOR_COUNT]; /* cl_mem */
static cl_context context;
static cl_command_queue queue;

/* The layer in host memory; its tensors in device memory, with nothing in them. */
static void set_up(cl_command_queue_properties properties)
{
    cl_device_id id;
    cl_int code;
    const lh_options options = {.backend = "opencl", .dtype = LH_F32, .backward = true};
    lh_plan *plan;
    layer_create(&host, &config, LH_F32, 5);
    expect_status(lh_plan_create(&config, &options, &plan, &error), LH_OK, &error, "");
    expect_status(lh_forward(plan, host.trace, &error), LH_OK, &error, "");
    expect_status(lh_backward(plan, host.trace, &error), LH_OK, &error, "");
    lh_plan_destroy(plan);
    expect_status(lh_cl_device_find(0, &id, &error), LH_OK, &error, "");
    context = clCreateContext(NULL, 1, &id, NULL, NULL, &code);
    ck_assert_int_eq(code, CL_SUCCESS);
    queue = clCreateCommandQueue(context, id, properties, &code);
    ck_assert_int_eq(code, CL_SUCCESS);
    for (int t = 0; t < LH_TENSOR_COUNT; t++) {
        device[t] = host.trace[t];
        device[t].data = clCreateBuffer(context, CL_MEM_READ_WRITE, layer_bytes(&host.trace[t]), NULL, &code);
        ck_assert_int_eq(code, CL_SUCCESS);
    }
}

static void tear_down(void)
{
    for (int t = 0; t < LH_TENSOR_COUNT; t++)
        clReleaseMemObject(device[t].data);
    clReleaseCommandQueue(queue);
    clReleaseContext(context);
    layer_free(&host);
    ck_assert_int_eq(lh_alloc_live(), 0);
}

/* Enqueues the inputs, which wait for the event. */
static void write_inputs(cl_event producer)
{
    for (int i = 0; i < LH_LAYER_INPUTS; i++) {
        const lh_tensor *from = &host.trace[lh_layer_inputs[i]];
        ck_assert_int_eq(clEnqueueWriteBuffer(queue, device[lh_layer_inputs[i]].data, CL_FALSE, 0,
                                              layer_bytes(from), from->data, 1, &producer, NULL),
                         CL_SUCCESS);
    }
}

/* Reads what the layer gave, waiting for no event, against the layer in host memory. */
static void expect_results(void)
{
    static const lh_tensor_id outputs[] = {LH_OUT, LH_COVERAGE, LH_INDEX, LH_O_SEL,
                                           LH_LSE, LH_DQ,       LH_DK,    LH_DV};
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++) {
        const size_t bytes = layer_bytes(&host.trace[outputs[i]]);
        void *copy = malloc(bytes);
        ck_assert_int_eq(
            clEnqueueReadBuffer(queue, device[outputs[i]].data, CL_TRUE, 0, bytes, copy, 0, NULL, NULL),
            CL_SUCCESS);
        ck_assert_msg(memcmp(copy, host.trace[outputs[i]].data, bytes) == 0, "%s differs on the device",
                      lh_tensor_name(outputs[i]));
        free(copy);
    }
}

/* The inputs come late: when both calls have returned. */
START_TEST(late_producer)
{
    static const cl_command_queue_properties properties[] = {0, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE};
    cl_int code, state;
    cl_event all;
    lh_plan *plan;
    set_up(properties[_i]);
    const lh_options options = {
        .backend = "opencl", .dtype = LH_F32, .backward = true, .memory = LH_ON_DEVICE, .stream = queue};
    expect_status(lh_plan_create(&config, &options, &plan, &error), LH_OK, &error, "");
    clFinish(queue);
    cl_event producer = clCreateUserEvent(context, &code);
    ck_assert_int_eq(code, CL_SUCCESS);
    write_inputs(producer);
    expect_status(lh_forward(plan, device, &error), LH_OK, &error, "");
    expect_status(lh_backward(plan, device, &error), LH_OK, &error, "");
    ck_assert_int_eq(clEnqueueMarkerWithWaitList(queue, 0, NULL, &all), CL_SUCCESS);
    ck_assert_int_eq(clGetEventInfo(all, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL),
                     CL_SUCCESS);
    ck_assert_int_ne(state, CL_COMPLETE);
    ck_assert_int_eq(clSetUserEventStatus(producer, CL_COMPLETE), CL_SUCCESS);
    expect_results();
    clReleaseEvent(all);
    clReleaseEvent(producer);
    lh_plan_destroy(plan);
    tear_down();
}
END_TEST

static cl_program program_of(const lh_plan *plan)
{
    cl_program program = NULL;
    const struct lh_cl_state *state = plan->state;
    clGetKernelInfo(state->kernel[LH_CL_ATTEND_FORWARD], CL_KERNEL_PROGRAM, sizeof program, &program, NULL);
    return program;
}

static lh_status unbuilt(const void *how, cl_program *program, lh_error *into)
{
    const char *source = "kernel void one(global int *x) { x[0] = 1; }";
    cl_int code;
    *program = clCreateProgramWithSource((cl_context)(size_t)how, 1, &source, NULL, &code);
    return code == CL_SUCCESS ? LH_OK : lh_fail(into, LH_DEVICE, "no program, wanted one");
}

/* Plans of a process share a device's context and what was built in it, until that failed. */
START_TEST(shared)
{
    const lh_options options = {.backend = "opencl", .dtype = LH_F32};
    lh_plan *plans[3];
    for (int i = 0; i < 3; i++) {
        expect_status(lh_plan_create(&config, &options, &plans[i], &error), LH_OK, &error, "");
        if (i == 1) {
            ck_assert_ptr_eq(program_of(plans[0]), program_of(plans[1]));
            lh_cl_context_forget(((struct lh_cl_state *)plans[1]->state)->context);
        }
    }
    ck_assert_ptr_ne(program_of(plans[1]), program_of(plans[2]));
    ck_assert_ptr_ne(((struct lh_cl_state *)plans[1]->state)->context,
                     ((struct lh_cl_state *)plans[2]->state)->context);
    for (int i = 0; i < 3; i++)
        lh_plan_destroy(plans[i]);
    /* More programs than are kept: the first is made again when it was put away. */
    cl_device_id id;
    cl_int code;
    cl_program first = NULL, program;
    expect_status(lh_cl_device_find(0, &id, &error), LH_OK, &error, "");
    cl_context own = lh_cl_context_share(id, &code);
    ck_assert_int_eq(code, CL_SUCCESS);
    for (int i = 0; i < 34; i++) {
        char key[65];
        snprintf(key, sizeof key, "%064d", i % 33);
        expect_status(lh_cl_program_share(own, key, unbuilt, own, &program, &error), LH_OK, &error, "");
        if (i == 0)
            first = program;
        else {
            ck_assert_ptr_ne(program, first);
            clReleaseProgram(program);
        }
    }
    clReleaseProgram(first);
    clReleaseContext(own);
}
END_TEST

START_TEST(no_queue)
{
    const lh_options options = {
        .backend = "opencl", .dtype = LH_F32, .backward = true, .memory = LH_ON_DEVICE};
    lh_plan *plan;
    expect_status(lh_plan_create(&config, &options, &plan, &error), LH_INVALID, &error, "stream is NULL");
}
END_TEST

int main(int argc, char **argv)
{
    (void)argc;
    char *arguments[] = {argv[0], (char[]){"opencl"}, NULL};
    backend_under_test(2, arguments);
    Suite *suite = suite_create("opencl-queue");
    TCase *all = suite_case(suite, "queue");
    tcase_add_test(all, no_queue);
    tcase_add_test(all, shared);
    tcase_add_loop_test(all, late_producer, 0, 2);
    return suite_run(suite);
}
