/* device.c: the CUDA devices of this machine, and what CUDA's errors mean to a caller. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cuda/plan.h"

enum {
    OLDEST = 80 /* compute capability the kernels are built for: cp.async, bfloat16 */
};

static bool no_device(cudaError_t e)
{
    return e == cudaErrorNoDevice || e == cudaErrorInsufficientDriver || e == cudaErrorStubLibrary ||
           e == cudaErrorInitializationError || e == cudaErrorSystemNotReady ||
           e == cudaErrorSystemDriverMismatch || e == cudaErrorCompatNotSupportedOnDevice;
}

/* Errors after which no CUDA call of this process can succeed. */
static bool sticky(cudaError_t e)
{
    return e == cudaErrorIllegalAddress || e == cudaErrorLaunchFailure || e == cudaErrorHardwareStackError ||
           e == cudaErrorIllegalInstruction || e == cudaErrorMisalignedAddress ||
           e == cudaErrorInvalidAddressSpace || e == cudaErrorInvalidPc || e == cudaErrorAssert ||
           e == cudaErrorECCUncorrectable || e == cudaErrorLaunchTimeout;
}

lh_status lh_cuda_fail(cudaError_t e, const char *what, lh_error *error)
{
    cudaGetLastError(); /* an error that is not sticky must not meet the next caller */
    const lh_status status = no_device(e)                     ? LH_NO_DEVICE
                             : e == cudaErrorMemoryAllocation ? LH_NO_MEMORY
                                                              : LH_DEVICE;
    return lh_fail(error, status, "%s: %s (%s)%s", what, cudaGetErrorName(e), cudaGetErrorString(e),
                   sticky(e) ? "; the process's CUDA context is lost" : "");
}

lh_status lh_cuda_device_count(int *count, lh_error *error)
{
    *count = 0;
    const cudaError_t e = cudaGetDeviceCount(count);
    if (e == cudaSuccess && *count > 0)
        return LH_OK;
    if (e != cudaSuccess && !no_device(e))
        return lh_cuda_fail(e, "counting CUDA devices", error);
    cudaGetLastError();
    *count = 0;
    return lh_fail(error, LH_NO_DEVICE, "cuda found no device (%s), wanted an NVIDIA GPU and its driver",
                   cudaGetErrorString(e == cudaSuccess ? cudaErrorNoDevice : e));
}

lh_status lh_cuda_device_query(int device, lh_device_info *info, lh_error *error)
{
    struct cudaDeviceProp found;
    int driver = 0;
    cudaError_t e = cudaGetDeviceProperties(&found, device);
    if (e == cudaSuccess)
        e = cudaDriverGetVersion(&driver);
    if (e != cudaSuccess)
        return lh_cuda_fail(e, "asking for a CUDA device's properties", error);
    memset(info, 0, sizeof *info);
    snprintf(info->name, sizeof info->name, "%.127s", found.name);
    snprintf(info->driver, sizeof info->driver, "CUDA %d.%d", driver / 1000, driver % 1000 / 10);
    snprintf(info->features, sizeof info->features,
             "compute capability %d.%d, %zu KiB shared memory a block%s", found.major, found.minor,
             found.sharedMemPerBlockOptin / 1024,
             found.major * 10 + found.minor < OLDEST ? ", too old: 8.0 or newer is needed" : "");
    info->memory = found.totalGlobalMem;
    info->compute_units = found.multiProcessorCount;
    return LH_OK;
}

lh_status lh_cuda_enter(int device, int *before, lh_error *error)
{
    cudaError_t e = cudaGetDevice(before);
    if (e == cudaSuccess)
        e = cudaSetDevice(device);
    return e == cudaSuccess ? LH_OK : lh_cuda_fail(e, "choosing a CUDA device", error);
}

void lh_cuda_leave(int before)
{
    cudaSetDevice(before);
}
