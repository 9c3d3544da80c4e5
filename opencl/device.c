/* Devices: every platform's, in the order the platforms are found, and what OpenCL's error codes mean. */
#include <glob.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "opencl/opencl.h"

enum {
    MAX_PLATFORMS = 16,
    MAX_DEVICES = 64
};

static const char *code_name(cl_int code)
{
    static const struct {
        cl_int code;
        const char *name;
    } names[] = {
        {CL_DEVICE_NOT_FOUND, "CL_DEVICE_NOT_FOUND"},
        {CL_DEVICE_NOT_AVAILABLE, "CL_DEVICE_NOT_AVAILABLE"},
        {CL_COMPILER_NOT_AVAILABLE, "CL_COMPILER_NOT_AVAILABLE"},
        {CL_MEM_OBJECT_ALLOCATION_FAILURE, "CL_MEM_OBJECT_ALLOCATION_FAILURE"},
        {CL_OUT_OF_RESOURCES, "CL_OUT_OF_RESOURCES"},
        {CL_OUT_OF_HOST_MEMORY, "CL_OUT_OF_HOST_MEMORY"},
        {CL_BUILD_PROGRAM_FAILURE, "CL_BUILD_PROGRAM_FAILURE"},
        {CL_INVALID_VALUE, "CL_INVALID_VALUE"},
        {CL_INVALID_BUFFER_SIZE, "CL_INVALID_BUFFER_SIZE"},
        {CL_INVALID_WORK_GROUP_SIZE, "CL_INVALID_WORK_GROUP_SIZE"},
        {CL_INVALID_MEM_OBJECT, "CL_INVALID_MEM_OBJECT"},
        {CL_INVALID_COMMAND_QUEUE, "CL_INVALID_COMMAND_QUEUE"},
        {CL_INVALID_CONTEXT, "CL_INVALID_CONTEXT"},
        {CL_INVALID_KERNEL_ARGS, "CL_INVALID_KERNEL_ARGS"},
        {CL_INVALID_KERNEL_NAME, "CL_INVALID_KERNEL_NAME"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (names[i].code == code)
            return names[i].name;
    }
    return "an OpenCL error";
}

/* The first driver that the loader is told of in a folder, and how many there are. */
static int drivers_named(const char *folder, char first[256])
{
    glob_t found = {0};
    char pattern[512], line[256] = "";
    snprintf(pattern, sizeof pattern, "%.490s/*.icd", folder);
    const int count = glob(pattern, 0, NULL, &found) == 0 ? (int)found.gl_pathc : 0;
    FILE *file = count > 0 ? fopen(found.gl_pathv[0], "r") : NULL;
    if (file) {
        if (fgets(line, sizeof line, file))
            line[strcspn(line, "\r\n")] = '\0';
        fclose(file);
    }
    snprintf(first, 256, "%s", line);
    globfree(&found);
    return count;
}

/* Why there is no device. */
static lh_status none(cl_uint platforms, const char *platform, cl_int code, lh_error *error)
{
    const char *given = getenv("OCL_ICD_VENDORS"),
               *folder = given && given[0] == '/' ? given : "/etc/OpenCL/vendors";
    char driver[256];
    const int named = platforms ? 0 : drivers_named(folder, driver);
    if (platforms)
        return lh_fail(
            error, LH_NO_DEVICE,
            "opencl finds %u platform%s without a device (%.60s: %s, %d), wanted a device: a driver may have "
            "none because the folder of its own cache cannot be written",
            platforms, platforms == 1 ? "" : "s", platform, code_name(code), (int)code);
    if (named > 0)
        return lh_fail(
            error, LH_NO_DEVICE,
            "opencl finds no platform though %.100s names %d (%.100s), wanted a driver that can be loaded: "
            "is it installed?",
            folder, named, driver);
    return lh_fail(
        error, LH_NO_DEVICE,
        "opencl finds no platform, wanted a device: install a driver, such as pocl-opencl-icd for CPUs, "
        "mesa-opencl-icd, intel-opencl-icd or the vendor's");
}

static lh_status find_all(cl_device_id devices[MAX_DEVICES], int *count, lh_error *error)
{
    cl_platform_id platforms[MAX_PLATFORMS];
    cl_uint platform_count = 0;
    cl_int code = CL_DEVICE_NOT_FOUND;
    char name[64] = "";
    *count = 0;
    if (clGetPlatformIDs(MAX_PLATFORMS, platforms, &platform_count) != CL_SUCCESS)
        platform_count = 0;
    if (platform_count > MAX_PLATFORMS)
        platform_count = MAX_PLATFORMS;
    for (cl_uint p = 0; p < platform_count; p++) {
        cl_uint found = 0;
        const cl_uint room = (cl_uint)(MAX_DEVICES - *count);
        if (room == 0)
            break;
        const cl_int refused =
            clGetDeviceIDs(platforms[p], CL_DEVICE_TYPE_ALL, room, devices + *count, &found);
        if (refused != CL_SUCCESS) { /* its devices are none; the other platforms' are there */
            code = refused;
            clGetPlatformInfo(platforms[p], CL_PLATFORM_NAME, sizeof name - 1, name, NULL);
            continue;
        }
        *count += (int)(found < room ? found : room);
    }
    return *count == 0 ? none(platform_count, name, code, error) : LH_OK;
}

lh_status lh_cl_same_process(lh_error *error)
{
    static _Atomic long first;
    long user = 0;
    const long here = (long)getpid();
    if (atomic_compare_exchange_strong(&first, &user, here) || user == here)
        return LH_OK;
    return lh_fail(
        error, LH_DEVICE,
        "opencl was used before this process was forked from %ld, wanted a process that is started "
        "(in Python multiprocessing: spawn)",
        user);
}

lh_status lh_cl_device_count(int *count, lh_error *error)
{
    cl_device_id devices[MAX_DEVICES];
    const lh_status status = lh_cl_same_process(error);
    return status != LH_OK ? status : find_all(devices, count, error);
}

lh_status lh_cl_device_find(int device, cl_device_id *id, lh_error *error)
{
    cl_device_id devices[MAX_DEVICES];
    int count;
    lh_status status = lh_cl_same_process(error);
    if (status == LH_OK)
        status = find_all(devices, &count, error);
    if (status != LH_OK)
        return status;
    if (device < 0 || device >= count)
        return lh_fail(error, LH_NO_DEVICE, "device is %d, wanted 0 to %d", device, count - 1);
    *id = devices[device];
    return LH_OK;
}

lh_status lh_cl_device_describe(cl_device_id id, struct lh_cl_device *device, lh_error *error)
{
    memset(device, 0, sizeof *device);
    device->id = id;
    cl_device_type type = 0;
    cl_device_fp_config config = 0;
    const struct {
        cl_device_info info;
        size_t size;
        void *value;
    } wanted[] = {
        {CL_DEVICE_NAME, sizeof device->name - 1, device->name},
        {CL_DRIVER_VERSION, sizeof device->driver - 1, device->driver},
        {CL_DEVICE_VENDOR, sizeof device->vendor - 1, device->vendor},
        {CL_DEVICE_TYPE, sizeof type, &type},
        {CL_DEVICE_SINGLE_FP_CONFIG, sizeof config, &config},
        {CL_DEVICE_MAX_COMPUTE_UNITS, sizeof device->compute_units, &device->compute_units},
        {CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT, sizeof device->float_width, &device->float_width},
        {CL_DEVICE_GLOBAL_MEM_SIZE, sizeof device->memory, &device->memory},
        {CL_DEVICE_MAX_MEM_ALLOC_SIZE, sizeof device->largest_allocation, &device->largest_allocation},
        {CL_DEVICE_LOCAL_MEM_SIZE, sizeof device->local_memory, &device->local_memory},
        {CL_DEVICE_MAX_WORK_GROUP_SIZE, sizeof device->group_size, &device->group_size},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        const cl_int code = clGetDeviceInfo(id, wanted[i].info, wanted[i].size, wanted[i].value, NULL);
        if (code != CL_SUCCESS)
            return lh_cl_fail(device, code, "clGetDeviceInfo", error);
    }
    /* PoCL: its binaries hold every kernel compiled for any size of work-group, which a launch compiles once more for its own;
     * two thirds of a first run went there. */
    cl_platform_id platform = NULL;
    char name[64] = "";
    clGetDeviceInfo(id, CL_DEVICE_PLATFORM, sizeof platform, &platform, NULL);
    clGetPlatformInfo(platform, CL_PLATFORM_NAME, sizeof name - 1, name, NULL);
    device->keeps_programs = strcmp(name, "Portable Computing Language") == 0;
    device->is_cpu = (type & CL_DEVICE_TYPE_CPU) != 0;
    device->has_cpu_body = device->is_cpu && device->float_width > 1;
    device->exact_division = (config & CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT) != 0;
    return LH_OK;
}

lh_status lh_cl_device_query(int number, lh_device_info *info, lh_error *error)
{
    cl_device_id id = NULL;
    struct lh_cl_device device;
    char version[64] = "", extensions[4096] = "";
    lh_status status = lh_cl_device_find(number, &id, error);
    if (status == LH_OK)
        status = lh_cl_device_describe(id, &device, error);
    if (status != LH_OK)
        return status;
    clGetDeviceInfo(id, CL_DEVICE_VERSION, sizeof version - 1, version, NULL);
    clGetDeviceInfo(id, CL_DEVICE_EXTENSIONS, sizeof extensions - 1, extensions, NULL);
    memset(info, 0, sizeof *info);
    snprintf(info->name, sizeof info->name, "%s", device.name);
    snprintf(info->driver, sizeof info->driver, "%.24s, %.90s", device.driver, version);
    snprintf(
        info->features, sizeof info->features,
        "%s, vectors of %u floats, %llu KiB local memory, work-groups of %zu, buffers of %llu MiB%s%s%s",
        device.is_cpu ? "cpu" : "gpu", device.float_width, (unsigned long long)(device.local_memory >> 10),
        device.group_size, (unsigned long long)(device.largest_allocation >> 20),
        strstr(extensions, "cl_khr_fp16") ? ", fp16" : "", strstr(extensions, "cl_khr_fp64") ? ", fp64" : "",
        strstr(extensions, "cl_khr_subgroups") ? ", subgroups" : "");
    info->memory = device.memory;
    info->compute_units = (int)device.compute_units;
    return LH_OK;
}

lh_status lh_cl_fail(const struct lh_cl_device *device, cl_int code, const char *what, lh_error *error)
{
    const bool memory = code == CL_MEM_OBJECT_ALLOCATION_FAILURE || code == CL_OUT_OF_HOST_MEMORY ||
                        code == CL_INVALID_BUFFER_SIZE;
    return lh_fail(error, memory ? LH_NO_MEMORY : LH_DEVICE, "%s on %s is %s (%d), wanted success", what,
                   device->name[0] ? device->name : "an OpenCL device", code_name(code), (int)code);
}
