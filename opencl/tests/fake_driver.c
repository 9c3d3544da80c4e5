/*
 * fake_driver.c: an OpenCL driver that goes wrong as FAKE_DRIVER says: "devices" ends the process when it is asked for
 * devices, "context" when a context is made, "build" when a program is built, "exit" likewise but by exit(1), and "refuse"
 * refuses to build. Its one device is named "fake".
 */
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl_icd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What all objects of a driver begin with, for the loader; here they are nothing else. */
struct object {
    const cl_icd_dispatch *dispatch;
};
static struct object platform, device, context, queue, program;

static void fail_at(const char *where)
{
    const char *wanted = getenv("FAKE_DRIVER");
    if (!wanted || strcmp(wanted, where) != 0)
        return;
    fprintf(stderr, "\nfake driver: the end, at %s\n", where);
    if (strcmp(where, "exit") == 0)
        exit(1);
    abort();
}

static cl_int answer(const void *value, size_t size, size_t room, void *to, size_t *needed)
{
    if (needed)
        *needed = size;
    if (to && room < size)
        return CL_INVALID_VALUE;
    if (to)
        memcpy(to, value, size);
    return CL_SUCCESS;
}

static cl_int CL_API_CALL platform_info(cl_platform_id id, cl_platform_info what, size_t room, void *to,
                                        size_t *needed)
{
    (void)id;
    const char *text = what == CL_PLATFORM_EXTENSIONS       ? "cl_khr_icd"
                       : what == CL_PLATFORM_ICD_SUFFIX_KHR ? "FAKE"
                       : what == CL_PLATFORM_VERSION        ? "OpenCL 1.2 fake"
                       : what == CL_PLATFORM_PROFILE        ? "FULL_PROFILE"
                                                            : "fake";
    return answer(text, strlen(text) + 1, room, to, needed);
}

static cl_int CL_API_CALL device_ids(cl_platform_id id, cl_device_type type, cl_uint room, cl_device_id *ids,
                                     cl_uint *count)
{
    (void)id;
    (void)type;
    fail_at("devices");
    if (ids && room > 0)
        ids[0] = (cl_device_id)&device;
    if (count)
        *count = 1;
    return CL_SUCCESS;
}

static cl_int CL_API_CALL device_info(cl_device_id id, cl_device_info what, size_t room, void *to,
                                      size_t *needed)
{
    (void)id;
    const cl_platform_id on = (cl_platform_id)&platform;
    const cl_device_type type = CL_DEVICE_TYPE_CPU;
    const cl_uint number = 8;
    const cl_ulong size = 1u << 30;
    const size_t group = 64;
    switch (what) {
    case CL_DEVICE_PLATFORM:
        return answer(&on, sizeof on, room, to, needed);
    case CL_DEVICE_TYPE:
        return answer(&type, sizeof type, room, to, needed);
    case CL_DEVICE_NAME:
    case CL_DEVICE_VENDOR:
    case CL_DEVICE_EXTENSIONS:
        return answer("fake", 5, room, to, needed);
    case CL_DRIVER_VERSION:
        return answer("1.0", 4, room, to, needed);
    case CL_DEVICE_VERSION:
        return answer("OpenCL 1.2 fake", 16, room, to, needed);
    case CL_DEVICE_GLOBAL_MEM_SIZE:
    case CL_DEVICE_MAX_MEM_ALLOC_SIZE:
    case CL_DEVICE_LOCAL_MEM_SIZE:
    case CL_DEVICE_SINGLE_FP_CONFIG: /* of the same size */
        return answer(&size, sizeof size, room, to, needed);
    case CL_DEVICE_MAX_WORK_GROUP_SIZE:
        return answer(&group, sizeof group, room, to, needed);
    default:
        return answer(&number, sizeof number, room, to, needed);
    }
}

static cl_context CL_API_CALL create_context(
    const cl_context_properties *properties, cl_uint count, const cl_device_id *ids,
    void(CL_CALLBACK *notify)(const char *, const void *, size_t, void *), void *data, cl_int *code)
{
    (void)properties;
    (void)count;
    (void)ids;
    (void)notify;
    (void)data;
    fail_at("context");
    *code = CL_SUCCESS;
    return (cl_context)&context;
}

static cl_command_queue CL_API_CALL create_queue(cl_context in, cl_device_id id,
                                                 cl_command_queue_properties properties, cl_int *code)
{
    (void)in;
    (void)id;
    (void)properties;
    *code = CL_SUCCESS;
    return (cl_command_queue)&queue;
}

static cl_program CL_API_CALL create_program(cl_context in, cl_uint count, const char **sources,
                                             const size_t *lengths, cl_int *code)
{
    (void)in;
    (void)count;
    (void)sources;
    (void)lengths;
    *code = CL_SUCCESS;
    return (cl_program)&program;
}

static cl_int CL_API_CALL build_program(cl_program what, cl_uint count, const cl_device_id *ids,
                                        const char *options, void(CL_CALLBACK *notify)(cl_program, void *),
                                        void *data)
{
    (void)what;
    (void)count;
    (void)ids;
    (void)options;
    (void)notify;
    (void)data;
    fail_at("build");
    fail_at("exit");
    return CL_BUILD_PROGRAM_FAILURE;
}

static cl_int CL_API_CALL build_info(cl_program what, cl_device_id id, cl_program_build_info which,
                                     size_t room, void *to, size_t *needed)
{
    (void)what;
    (void)id;
    (void)which;
    return answer("no compiler", 12, room, to, needed);
}

/* Retain, release, flush and finish of anything. */
static cl_int CL_API_CALL done_context(cl_context what)
{
    (void)what;
    return CL_SUCCESS;
}

static cl_int CL_API_CALL done_queue(cl_command_queue what)
{
    (void)what;
    return CL_SUCCESS;
}

static cl_int CL_API_CALL done_program(cl_program what)
{
    (void)what;
    return CL_SUCCESS;
}

static const cl_icd_dispatch dispatch = {
    .clGetPlatformInfo = platform_info,
    .clGetDeviceIDs = device_ids,
    .clGetDeviceInfo = device_info,
    .clCreateContext = create_context,
    .clCreateCommandQueue = create_queue,
    .clCreateProgramWithSource = create_program,
    .clBuildProgram = build_program,
    .clGetProgramBuildInfo = build_info,
    .clRetainContext = done_context,
    .clReleaseContext = done_context,
    .clReleaseCommandQueue = done_queue,
    .clFinish = done_queue,
    .clRetainProgram = done_program,
    .clReleaseProgram = done_program,
};

CL_API_ENTRY cl_int CL_API_CALL clIcdGetPlatformIDsKHR(cl_uint room, cl_platform_id *ids, cl_uint *count);

CL_API_ENTRY cl_int CL_API_CALL clIcdGetPlatformIDsKHR(cl_uint room, cl_platform_id *ids, cl_uint *count)
{
    platform.dispatch = device.dispatch = context.dispatch = queue.dispatch = program.dispatch = &dispatch;
    if (ids && room > 0)
        ids[0] = (cl_platform_id)&platform;
    if (count)
        *count = 1;
    return CL_SUCCESS;
}

CL_API_ENTRY void *CL_API_CALL clGetExtensionFunctionAddress(const char *name)
{
    if (strcmp(name, "clGetPlatformInfo") == 0)
        return (void *)(size_t)platform_info;
    return strcmp(name, "clIcdGetPlatformIDsKHR") == 0 ? (void *)(size_t)clIcdGetPlatformIDsKHR : NULL;
}
