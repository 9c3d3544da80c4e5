/*
 * ceilings.c: what an OpenCL GPU does at its best, which `lighthouse bench` compares with: a copy on it, and a float32 matrix
 * product by a kernel of our own, since OpenCL has no library for it that is everywhere. A CPU's are those of the host.
 */
#include <math.h>
#include <stdio.h>

#include "core/random.h"
#include "opencl/opencl.h"

extern const char lh_cl_source_ceilings[];

enum {
    COPY_BYTES = 1 << 28,
    SIDE = 2048,
    RUNS = 64 /* of each, at most */
};

struct work {
    const struct lh_cl_device *device;
    cl_context context;
    cl_command_queue queue;
    cl_program program;
    cl_kernel product; /* NULL: the copy */
    cl_mem a, b, c;    /* a and b are the blocks of the copy */
    size_t bytes;      /* of each */
};

static cl_int start(const struct work *w, cl_event *event)
{
    static const size_t items[2] = {SIDE / 4, SIDE / 4}, group[2] = {16, 16};
    return w->product ? clEnqueueNDRangeKernel(w->queue, w->product, 2, NULL, items, group, 0, NULL, event)
                      : clEnqueueCopyBuffer(w->queue, w->a, w->b, 0, 0, w->bytes, 0, NULL, event);
}

/* The fastest of what `seconds` hold, two runs at least, after one that only warms up. */
static cl_int fastest(const struct work *w, double seconds, double *least)
{
    double spent = 0;
    cl_int code = CL_SUCCESS;
    *least = 0;
    for (int run = 0; code == CL_SUCCESS && run < RUNS && (run < 3 || spent < seconds); run++) {
        cl_event event;
        cl_ulong from = 0, to = 0;
        code = start(w, &event);
        if (code != CL_SUCCESS)
            return code;
        code = clWaitForEvents(1, &event);
        if (code == CL_SUCCESS)
            code = clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_START, sizeof from, &from, NULL);
        if (code == CL_SUCCESS)
            code = clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_END, sizeof to, &to, NULL);
        clReleaseEvent(event);
        const double took = 1e-9 * (double)(to - from);
        spent += took;
        if (run == 1 || (run > 1 && took < *least))
            *least = took;
    }
    return code;
}

static cl_int make_buffers(struct work *w, size_t bytes, const float *elements)
{
    const cl_mem_flags flags = CL_MEM_READ_WRITE | (elements ? CL_MEM_COPY_HOST_PTR : 0);
    cl_int code;
    w->bytes = bytes;
    w->a = clCreateBuffer(w->context, flags, bytes, (void *)(uintptr_t)elements, &code);
    if (code == CL_SUCCESS)
        w->b = clCreateBuffer(w->context, flags, bytes, (void *)(uintptr_t)elements, &code);
    if (code == CL_SUCCESS && elements)
        w->c = clCreateBuffer(w->context, CL_MEM_READ_WRITE, bytes, NULL, &code);
    return code;
}

static void drop_buffers(struct work *w)
{
    cl_mem *const all[] = {&w->a, &w->b, &w->c};
    for (int i = 0; i < 3; i++) {
        if (*all[i])
            clReleaseMemObject(*all[i]);
        *all[i] = NULL;
    }
}

static cl_int build(struct work *w)
{
    const char *source = lh_cl_source_ceilings;
    const cl_int n = SIDE;
    cl_int code;
    w->program = clCreateProgramWithSource(w->context, 1, &source, NULL, &code);
    if (code == CL_SUCCESS)
        code = clBuildProgram(w->program, 1, &w->device->id, "", NULL, NULL);
    if (code == CL_SUCCESS)
        w->product = clCreateKernel(w->program, "product", &code);
    const cl_mem *const buffers[] = {&w->a, &w->b, &w->c};
    for (cl_uint i = 0; i < 3 && code == CL_SUCCESS; i++)
        code = clSetKernelArg(w->product, i, sizeof(cl_mem), buffers[i]);
    return code == CL_SUCCESS ? clSetKernelArg(w->product, 3, sizeof n, &n) : code;
}

/* A product that is wrong is no ceiling: its first element, against the sum in binary64. */
static bool right(const struct work *w, const float *elements, cl_int *code)
{
    float found = NAN;
    double wanted = 0;
    *code = clEnqueueReadBuffer(w->queue, w->c, CL_TRUE, 0, sizeof found, &found, 0, NULL, NULL);
    for (size_t k = 0; k < SIDE; k++)
        wanted += (double)elements[k * SIDE] * elements[k * SIDE];
    return *code != CL_SUCCESS || fabs(found - wanted) <= 1e-3 * wanted;
}

static lh_status measure_product(struct work *w, double seconds, lh_ceilings *ceilings, lh_error *error)
{
    const size_t count = (size_t)SIDE * SIDE;
    float *elements;
    double least = 0;
    bool good = true;
    lh_status status =
        lh_alloc((void **)&elements, count * sizeof *elements, "matrix of the product rate", error);
    if (status != LH_OK)
        return status;
    for (size_t i = 0; i < count; i++)
        elements[i] = (float)lh_random_uniform(1, 0, i) - 0.5f;
    cl_int code = make_buffers(w, count * sizeof *elements, elements);
    if (code == CL_SUCCESS)
        code = build(w);
    if (code == CL_SUCCESS)
        code = fastest(w, seconds, &least);
    if (code == CL_SUCCESS)
        good = right(w, elements, &code);
    if (code != CL_SUCCESS)
        status = lh_cl_fail(w->device, code, "measuring the product rate", error);
    else if (!good)
        status = lh_fail(error, LH_DEVICE, "%s: the product of the product rate is wrong", w->device->name);
    lh_free(elements);
    drop_buffers(w);
    if (status == LH_OK && least > 0) {
        ceilings->product_flops = 2.0 * SIDE * SIDE * SIDE / least;
        snprintf(ceilings->product, sizeof ceilings->product, "F32 product of %d^3 by our own kernel", SIDE);
    }
    return status;
}

static lh_status measure_copy(struct work *w, double seconds, lh_ceilings *ceilings, lh_error *error)
{
    const size_t most = (size_t)w->device->largest_allocation;
    double least = 0;
    cl_int code = make_buffers(w, most < COPY_BYTES ? most : COPY_BYTES, NULL);
    if (code == CL_SUCCESS)
        code = fastest(w, seconds, &least);
    const double bytes = 2.0 * (double)w->bytes;
    drop_buffers(w);
    if (code != CL_SUCCESS)
        return lh_cl_fail(w->device, code, "measuring the copy rate", error);
    ceilings->copy_bytes = least > 0 ? bytes / least : 0;
    return LH_OK;
}

lh_status lh_cl_ceilings(int device, lh_dtype dtype, double seconds, lh_ceilings *ceilings, lh_error *error)
{
    (void)dtype; /* arithmetic is float32 whatever the tensors are */
    struct lh_cl_device found;
    struct work w = {.device = &found};
    cl_device_id id;
    cl_int code;
    *ceilings = (lh_ceilings){0};
    lh_status status = lh_cl_device_find(device, &id, error);
    if (status == LH_OK)
        status = lh_cl_device_describe(id, &found, error);
    if (status == LH_OK && found.is_cpu)
        status = lh_fail(error, LH_UNSUPPORTED, "device is %d: %.100s, the host's processor, wanted a GPU",
                         device, found.name);
    if (status != LH_OK)
        return status;
    w.context = clCreateContext(NULL, 1, &id, NULL, NULL, &code);
    if (code == CL_SUCCESS)
        w.queue = clCreateCommandQueue(w.context, id, CL_QUEUE_PROFILING_ENABLE, &code);
    if (code != CL_SUCCESS)
        status = lh_cl_fail(&found, code, "the queue of the ceilings", error);
    if (status == LH_OK)
        status = measure_copy(&w, seconds, ceilings, error);
    if (status == LH_OK)
        status = measure_product(&w, seconds, ceilings, error);
    if (w.product)
        clReleaseKernel(w.product);
    if (w.program)
        clReleaseProgram(w.program);
    if (w.queue)
        clReleaseCommandQueue(w.queue);
    if (w.context)
        clReleaseContext(w.context);
    return status;
}
