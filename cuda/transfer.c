/* transfer.c: where each tensor of a call is on the device, and the way there and back of tensors on the host. */
#include "cuda/job.h"

/* Between a host tensor, perhaps strided, and its contiguous image. */
static lh_status copy(const lh_cuda_job *job, const lh_tensor *host, void *device, enum cudaMemcpyKind kind)
{
    const bool up = kind == cudaMemcpyHostToDevice;
    const size_t element = lh_dtype_size(host->dtype);
    cudaStream_t stream = job->state->stream;
    cudaError_t e = cudaSuccess;
    if (lh_tensor_contiguous(host)) {
        const size_t bytes = (size_t)lh_tensor_elements(host) * element;
        e = cudaMemcpyAsync(up ? device : host->data, up ? host->data : device, bytes, kind, stream);
        return lh_cuda_status(job, e, "copying a tensor");
    }
    /* One copy a head where its rows do not overlap, else one a row. */
    const size_t width = (size_t)host->shape[3] * element;
    const int64_t rows = host->stride[2] >= host->shape[3] ? host->shape[2] : 1;
    unsigned char *image = device;
    for (int64_t b = 0; b < host->shape[0]; b++) {
        for (int64_t h = 0; h < host->shape[1]; h++) {
            for (int64_t n = 0; n < host->shape[2] && e == cudaSuccess; n += rows) {
                unsigned char *at = (unsigned char *)host->data + (size_t)lh_offset(host, b, h, n) * element;
                const size_t pitch = rows == 1 ? width : (size_t)host->stride[2] * element;
                e = cudaMemcpy2DAsync(up ? image : at, up ? width : pitch, up ? at : image,
                                      up ? pitch : width, width, (size_t)rows, kind, stream);
                image += width * (size_t)rows;
            }
        }
    }
    return lh_cuda_status(job, e, "copying a tensor");
}

void lh_cuda_hold(lh_cuda_job *job, lh_tensor_id id)
{
    const lh_plan *plan = job->plan;
    lh_cuda *state = job->state;
    lh_tensor_shape(&plan->config, &plan->layout, plan->options.dtype, id, &job->at[id]);
    job->at[id].data = job->single && state->staged[id] ? state->staged[id] : state->own[id];
}

lh_status lh_cuda_place(lh_cuda_job *job, const lh_tensor_id *ids, bool read)
{
    lh_status status = LH_OK;
    for (; *ids != LH_TENSOR_COUNT && status == LH_OK; ids++) {
        const lh_tensor *given = &job->trace[*ids];
        if (job->plan->options.memory == LH_ON_DEVICE && given->data) {
            job->at[*ids] = *given;
            continue;
        }
        lh_cuda_hold(job, *ids);
        if (*ids == LH_COVERAGE && !given->data)
            job->at[*ids].data = NULL;
        if (read && given->data)
            status = copy(job, given, job->at[*ids].data, cudaMemcpyHostToDevice);
    }
    return status;
}

lh_status lh_cuda_fetch(lh_cuda_job *job, const lh_tensor_id *ids)
{
    lh_status status = LH_OK;
    if (job->plan->options.memory == LH_ON_DEVICE)
        return LH_OK;
    for (; *ids != LH_TENSOR_COUNT && status == LH_OK; ids++) {
        if (job->trace[*ids].data)
            status = copy(job, &job->trace[*ids], job->at[*ids].data, cudaMemcpyDeviceToHost);
    }
    return status;
}
