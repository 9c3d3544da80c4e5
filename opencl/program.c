/* Programs: one that the process has, else from the cache on disk when it has them, else from source. */
#include <string.h>

#include "core/hash.h"
#include "opencl/opencl.h"

enum {
    MAX_SOURCES = 12
};

/* Everything a built program depends on, hashed. */
static void program_key(const struct lh_cl_device *device, const char *const *sources, int count,
                        const char *options, char key[65])
{
    cl_platform_id platform = NULL;
    char version[128] = "";
    clGetDeviceInfo(device->id, CL_DEVICE_PLATFORM, sizeof platform, &platform, NULL);
    clGetPlatformInfo(platform, CL_PLATFORM_VERSION, sizeof version - 1, version, NULL);
    const char *facts[] = {LH_VERSION, device->name, device->vendor, device->driver, version, options};
    const int fact_count = (int)(sizeof facts / sizeof *facts);
    char hashes[sizeof facts / sizeof *facts + MAX_SOURCES][65];
    for (int i = 0; i < fact_count; i++)
        lh_sha256_hex(facts[i], strlen(facts[i]), hashes[i]);
    for (int i = 0; i < count; i++)
        lh_sha256_hex(sources[i], strlen(sources[i]), hashes[fact_count + i]);
    lh_sha256_hex(hashes, sizeof hashes[0] * (size_t)(fact_count + count), key);
}

/* *program is NULL when there is no binary or the driver does not take it: then it is built from source. */
static lh_status load_binary(cl_context context, const struct lh_cl_device *device, const char key[65],
                             const char *options, cl_program *program, lh_error *error)
{
    unsigned char *binary;
    size_t bytes;
    *program = NULL;
    const lh_status status = lh_cl_cache_read(key, &binary, &bytes, error);
    if (!binary)
        return status;
    cl_int code, accepted = CL_SUCCESS;
    const unsigned char *const_binary = binary;
    cl_program loaded =
        clCreateProgramWithBinary(context, 1, &device->id, &bytes, &const_binary, &accepted, &code);
    lh_free(binary);
    if (code != CL_SUCCESS)
        return LH_OK;
    if (accepted == CL_SUCCESS && clBuildProgram(loaded, 1, &device->id, options, NULL, NULL) == CL_SUCCESS)
        *program = loaded;
    else
        clReleaseProgram(loaded);
    return LH_OK;
}

static lh_status save_binary(cl_program program, const char key[65], lh_error *error)
{
    size_t bytes = 0;
    void *binary;
    if (clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof bytes, &bytes, NULL) != CL_SUCCESS ||
        bytes == 0)
        return LH_OK;
    const lh_status status = lh_alloc(&binary, bytes, "program for the cache", error);
    if (status != LH_OK)
        return status;
    unsigned char *binaries[] = {binary};
    if (clGetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof binaries, binaries, NULL) == CL_SUCCESS)
        lh_cl_cache_write(key, binary, bytes);
    lh_free(binary);
    return LH_OK;
}

/* The compiler's log, its lines joined, as far as the error's one line holds it. */
static lh_status build_failure(const struct lh_cl_device *device, cl_program program, cl_int code,
                               lh_error *error)
{
    void *memory;
    size_t bytes = 0;
    clGetProgramBuildInfo(program, device->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &bytes);
    if (bytes < 2 || lh_alloc(&memory, bytes + 1, "build log", NULL) != LH_OK)
        return lh_cl_fail(device, code, "clBuildProgram", error);
    char *log = memory;
    log[0] = '\0';
    clGetProgramBuildInfo(program, device->id, CL_PROGRAM_BUILD_LOG, bytes, log, NULL);
    log[bytes] = '\0';
    for (char *c = log; *c; c++) {
        if (*c == '\n' || *c == '\r')
            *c = ' ';
    }
    lh_fail(error, LH_DEVICE, "a kernel does not build on %s: %.380s", device->name, log);
    lh_free(memory);
    return LH_DEVICE;
}

struct request {
    cl_context context;
    const struct lh_cl_device *device;
    const char *const *sources;
    int count;
    const char *options, *key;
};

static lh_status build_source(const void *how, cl_program *program, lh_error *error)
{
    const struct request *r = how;
    cl_int code;
    const char *copies[MAX_SOURCES];
    lh_status status = LH_OK;
    memcpy(copies, r->sources, sizeof *r->sources * (size_t)r->count);
    *program = clCreateProgramWithSource(r->context, (cl_uint)r->count, copies, NULL, &code);
    if (code != CL_SUCCESS)
        return lh_cl_fail(r->device, code, "clCreateProgramWithSource", error);
    code = clBuildProgram(*program, 1, &r->device->id, r->options, NULL, NULL);
    if (code == CL_SUCCESS)
        status = r->device->keeps_programs ? LH_OK : save_binary(*program, r->key, error);
    else if (code == CL_BUILD_PROGRAM_FAILURE)
        status = build_failure(r->device, *program, code, error);
    else
        status = lh_cl_fail(r->device, code, "clBuildProgram", error);
    if (status != LH_OK) {
        clReleaseProgram(*program);
        *program = NULL;
    }
    return status;
}

static lh_status load_or_build(const void *how, cl_program *program, lh_error *error)
{
    const struct request *r = how;
    lh_status status = LH_OK;
    *program = NULL;
    if (!r->device->keeps_programs)
        status = load_binary(r->context, r->device, r->key, r->options, program, error);
    return status != LH_OK || *program ? status : build_source(how, program, error);
}

lh_status lh_cl_program_build(cl_context context, const struct lh_cl_device *device,
                              const char *const *sources, int count, const char *options, cl_program *program,
                              lh_error *error)
{
    char key[65];
    const struct request request = {context, device, sources, count, options, key};
    program_key(device, sources, count, options, key);
    return lh_cl_program_share(context, key, load_or_build, &request, program, error);
}
