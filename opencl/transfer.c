/* Tensors of the caller, in host or device memory and of any strides, and the plan's buffers, which hold a chunk
 * of a tensor without gaps. */
#include "opencl/opencl.h"

/* Heads, rows a head and elements a row of a tensor, the part of it that a chunk works on, and the rows of a head that a
 * buffer holds. */
struct extent {
    int64_t heads, rows, width, first, count, held;
    size_t element;
};

/* Whether the buffer holds a segment of the tensor. */
static bool is_cut(const struct lh_cl_chunk *chunk, lh_tensor_id id)
{
    return lh_cl_is_long(id) && chunk->state->segment < chunk->plan->config.tokens;
}

static struct extent extent_of(const struct lh_cl_chunk *chunk, lh_tensor_id id)
{
    const lh_plan *plan = chunk->plan;
    lh_tensor t;
    lh_tensor_shape(&plan->config, &plan->layout, plan->options.dtype, id, &t);
    const bool kv = lh_has_kv_heads(id);
    return (struct extent){
        .heads = t.shape[1],
        .rows = t.shape[2],
        .width = t.rank == 4 ? t.shape[3] : 1,
        .first = kv ? chunk->first_kv : chunk->first,
        .count = kv ? chunk->kv_heads : chunk->heads,
        .held = is_cut(chunk, id) ? lh_cl_rows_held(plan, id, chunk->state->segment) : t.shape[2],
        .element = lh_dtype_size(t.dtype),
    };
}

struct lh_cl_view lh_cl_chunk_view(const struct lh_cl_chunk *chunk, lh_tensor_id id, cl_mem mem)
{
    const struct extent e = extent_of(chunk, id);
    const int64_t head = e.held * e.width, before = is_cut(chunk, id) ? chunk->begin * e.width : 0;
    return (struct lh_cl_view){mem, {{-e.first * head - before, e.heads * head, head, e.width}}};
}

static struct lh_cl_view caller_view(const lh_tensor *t)
{
    return (struct lh_cl_view){t->data, {{0, t->stride[0], t->stride[1], t->stride[2]}}};
}

/* So many rows of one head between host memory and a buffer. */
static cl_int move_rows(struct lh_cl_chunk *chunk, bool in, const struct extent *e, cl_mem buffer,
                        size_t offset, char *host, int64_t stride, int64_t count)
{
    cl_command_queue queue = chunk->state->queue;
    const size_t row = (size_t)e->width * e->element, pitch = (size_t)stride * e->element;
    const size_t rows = (size_t)count;
    const size_t from[] = {offset, 0, 0}, origin[] = {0, 0, 0}, region[] = {row, rows, 1};
    cl_int code = CL_SUCCESS;
    if (pitch >= row) {
        cl_event *event = lh_cl_event(chunk->plan, LH_CL_TRANSFER);
        return in ? clEnqueueWriteBufferRect(queue, buffer, CL_FALSE, from, origin, region, row, 0, pitch, 0,
                                             host, 0, NULL, event)
                  : clEnqueueReadBufferRect(queue, buffer, CL_FALSE, from, origin, region, row, 0, pitch, 0,
                                            host, 0, NULL, event);
    }
    for (size_t n = 0; n < rows && code == CL_SUCCESS; n++) { /* rows overlap, which a rectangle's may not */
        cl_event *event = lh_cl_event(chunk->plan, LH_CL_TRANSFER);
        code = in ? clEnqueueWriteBuffer(queue, buffer, CL_FALSE, offset + n * row, row, host + n * pitch, 0,
                                         NULL, event)
                  : clEnqueueReadBuffer(queue, buffer, CL_FALSE, offset + n * row, row, host + n * pitch, 0,
                                        NULL, event);
    }
    return code;
}

/* Rows of every head of the chunk: `row` of the tensor is `held` of the buffer. */
static cl_int move_heads(struct lh_cl_chunk *chunk, bool in, const struct extent *e, const lh_tensor *t,
                         cl_mem buffer, int64_t held, int64_t row, int64_t rows)
{
    cl_int code = CL_SUCCESS;
    for (int64_t i = 0; i < e->count && code == CL_SUCCESS; i++) {
        const int64_t head = e->first + i;
        char *host =
            (char *)t->data + lh_offset(t, head / e->heads, head % e->heads, row) * (int64_t)e->element;
        const size_t offset = (size_t)((i * e->held + held) * e->width) * e->element;
        code = move_rows(chunk, in, e, buffer, offset, host, t->shape[2] > 1 ? t->stride[2] : e->width, rows);
    }
    return code;
}

/* The segment of a long tensor. A pyramid that is written comes as one of its own, level by level. */
static cl_int move_segment(struct lh_cl_chunk *chunk, bool in, lh_tensor_id id, const struct extent *e,
                           const lh_tensor *t, cl_mem buffer)
{
    const lh_plan *plan = chunk->plan;
    cl_int code = CL_SUCCESS;
    if (in || lh_listed(lh_layer_strided, id)) {
        const int64_t left = e->rows - chunk->begin, length = chunk->end - chunk->begin;
        const int64_t rows = id == LH_DOUT ? e->held : length;
        return move_heads(chunk, in, e, t, buffer, 0, chunk->begin, rows < left ? rows : left);
    }
    int64_t held = 0, begin = chunk->begin, end = chunk->end;
    for (int64_t l = 0; l < plan->config.levels && code == CL_SUCCESS; l++) {
        code = move_heads(chunk, in, e, t, buffer, held, plan->layout.level_offset[l] + begin, end - begin);
        held += end - begin;
        begin /= plan->config.pool;
        end /= plan->config.pool;
    }
    return code;
}

/* Enqueues a chunk of a tensor between host memory and a buffer. */
static lh_status move_host(struct lh_cl_chunk *chunk, bool in, lh_tensor_id id, const lh_tensor *t,
                           cl_mem buffer, lh_error *error)
{
    const struct extent e = extent_of(chunk, id);
    const size_t head_bytes = (size_t)(e.rows * e.width) * e.element;
    cl_command_queue queue = chunk->state->queue;
    cl_int code = lh_cl_in_order(chunk->state);
    if (code != CL_SUCCESS)
        return lh_cl_fail(&chunk->state->device, code, lh_tensor_name(id), error);
    if (is_cut(chunk, id)) {
        code = move_segment(chunk, in, id, &e, t, buffer);
    } else if (lh_tensor_contiguous(t)) {
        char *host = (char *)t->data + (size_t)e.first * head_bytes;
        const size_t bytes = (size_t)e.count * head_bytes;
        cl_event *event = lh_cl_event(chunk->plan, LH_CL_TRANSFER);
        code = in ? clEnqueueWriteBuffer(queue, buffer, CL_FALSE, 0, bytes, host, 0, NULL, event)
                  : clEnqueueReadBuffer(queue, buffer, CL_FALSE, 0, bytes, host, 0, NULL, event);
    } else {
        code = move_heads(chunk, in, &e, t, buffer, 0, 0, e.rows);
    }
    return code == CL_SUCCESS ? LH_OK : lh_cl_fail(&chunk->state->device, code, lh_tensor_name(id), error);
}

lh_status lh_cl_bind_input(struct lh_cl_chunk *chunk, lh_tensor_id id, const lh_tensor *tensor,
                           lh_error *error)
{
    lh_cl_bind_output(chunk, id, tensor);
    return chunk->plan->options.memory == LH_ON_DEVICE
               ? LH_OK
               : move_host(chunk, true, id, tensor, chunk->view[id].mem, error);
}

void lh_cl_bind_output(struct lh_cl_chunk *chunk, lh_tensor_id id, const lh_tensor *tensor)
{
    const bool device = chunk->plan->options.memory == LH_ON_DEVICE && tensor->data;
    chunk->view[id] = device ? caller_view(tensor)
                             : lh_cl_chunk_view(chunk, id, lh_cl_own_buffer(chunk->state, chunk->number, id));
}

lh_status lh_cl_flush_output(struct lh_cl_chunk *chunk, lh_tensor_id id, const lh_tensor *tensor,
                             lh_error *error)
{
    return chunk->plan->options.memory == LH_ON_DEVICE || !tensor->data
               ? LH_OK
               : move_host(chunk, false, id, tensor, chunk->view[id].mem, error);
}

static lh_status copy_chunk(struct lh_cl_chunk *chunk, bool in, lh_tensor_id id, const lh_tensor *tensor,
                            cl_mem mem, lh_error *error)
{
    if (chunk->plan->options.memory != LH_ON_DEVICE)
        return move_host(chunk, in, id, tensor, mem, error);
    const struct extent e = extent_of(chunk, id);
    const size_t head_bytes = (size_t)(e.rows * e.width) * e.element;
    const size_t offset = (size_t)e.first * head_bytes, bytes = (size_t)e.count * head_bytes;
    cl_int code = lh_cl_in_order(chunk->state);
    if (code == CL_SUCCESS)
        code = clEnqueueCopyBuffer(chunk->state->queue, in ? tensor->data : mem, in ? mem : tensor->data,
                                   in ? offset : 0, in ? 0 : offset, bytes, 0, NULL,
                                   lh_cl_event(chunk->plan, LH_CL_TRANSFER));
    return code == CL_SUCCESS ? LH_OK : lh_cl_fail(&chunk->state->device, code, lh_tensor_name(id), error);
}

lh_status lh_cl_copy_in(struct lh_cl_chunk *chunk, lh_tensor_id id, const lh_tensor *tensor, cl_mem to,
                        lh_error *error)
{
    return copy_chunk(chunk, true, id, tensor, to, error);
}

lh_status lh_cl_copy_out(struct lh_cl_chunk *chunk, lh_tensor_id id, const lh_tensor *tensor, cl_mem from,
                         lh_error *error)
{
    return copy_chunk(chunk, false, id, tensor, from, error);
}
