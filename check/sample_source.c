/* Tensors by pieces: out of a file that stays where it is, or out of memory. */
#include <stdio.h>
#include <string.h>

#include "check/sample.h"
#include "core/convert.h"

static void widen(const void *from, lh_dtype dtype, int64_t count, double *to)
{
    const lh_tensor t = {(void *)(uintptr_t)from, dtype, 1, {count}, {1}};
    if (verify_integer(dtype)) {
        for (int64_t i = 0; i < count; i++)
            to[i] = (double)lh_index_at(&t, i);
    } else {
        lh_convert(to, LH_F64, from, dtype, count);
    }
}

static int number_in(const lh_file *file, lh_tensor_id id)
{
    int i = 0;
    while (strcmp(lh_file_name(file, i), lh_tensor_name(id)) != 0)
        i++;
    return i;
}

/* As the file has them one after another. */
static lh_status fetch_run(const check_source *source, lh_tensor_id id, int64_t first, int64_t count,
                           double *to, lh_error *error)
{
    enum {
        PIECE = 1024
    };
    const lh_file *file = source->context;
    const int i = number_in(file, id);
    uint64_t piece[PIECE];
    lh_status status = LH_OK;
    for (int64_t done = 0; done < count && status == LH_OK; done += PIECE) {
        const int64_t n = count - done < PIECE ? count - done : PIECE;
        status = lh_file_fetch(file, i, first + done, n, piece, error);
        if (status == LH_OK)
            widen(piece, source->dtype[id], n, to + done);
    }
    return status;
}

static lh_status fetch_file(const check_source *source, lh_tensor_id id, int64_t first, int64_t count,
                            double *to, lh_error *error)
{
    const int64_t width = source->width[id], rows = source->rows[id], heads = source->heads[id];
    if (width == 0)
        return fetch_run(source, id, first, count, to, error);
    lh_status status = LH_OK;
    for (int64_t done = 0; done < count && status == LH_OK;) {
        const int64_t row = (first + done) / width, from = (first + done) % width;
        const int64_t n = count - done < width - from ? count - done : width - from;
        const int64_t b = row / rows / heads, turned = (b * rows + row % rows) * heads + row / rows % heads;
        status = fetch_run(source, id, turned * width + from, n, to + done, error);
        done += n;
    }
    return status;
}

lh_status check_source_file(const lh_file *file, const lh_config *config, const check_layout *layout,
                            check_source *source, check_report *report, lh_error *error)
{
    lh_tensor shapes[LH_TENSOR_COUNT] = {0};
    bool turned_about[LH_TENSOR_COUNT];
    *source = (check_source){.context = file, .fetch = fetch_file};
    for (int i = 0; i < lh_file_count(file); i++) {
        const lh_tensor_id id = lh_tensor_by_name(lh_file_name(file, i));
        if (id != LH_TENSOR_COUNT)
            shapes[id] = *lh_file_tensor(file, i);
    }
    const lh_status read = check_read_layout(config, layout, shapes, turned_about, error);
    if (read != LH_OK)
        return read;
    for (int i = 0; i < lh_file_count(file); i++) {
        const lh_tensor_id id = lh_tensor_by_name(lh_file_name(file, i));
        const lh_tensor *found = lh_file_tensor(file, i);
        lh_tensor want;
        if (id == LH_TENSOR_COUNT || found->dtype == LH_DTYPE_COUNT)
            continue;
        const lh_status status = lh_tensor_describe(config, LH_F64, id, &want, error);
        if (status != LH_OK)
            return status;
        report->present |= 1u << id;
        source->dtype[id] = found->dtype;
        const bool turned = turned_about[id];
        source->has[id] =
            verify_integer(found->dtype) == verify_integer(want.dtype) &&
            (turned || (found->rank == want.rank &&
                        memcmp(found->shape, want.shape, sizeof *want.shape * (size_t)want.rank) == 0));
        source->heads[id] = want.shape[1];
        source->rows[id] = want.shape[2];
        source->width[id] = !turned ? 0 : want.rank == 4 ? want.shape[3] : 1;
        if (source->has[id] || report->row_count == CHECK_ROWS)
            continue;
        char shape[LH_SHAPE_TEXT], wanted[LH_SHAPE_TEXT];
        verify_row *row = &report->rows[report->row_count++];
        *row = (verify_row){
            .backend = "dump", .dtype = found->dtype, .part = "as found", .tensor = id, .shape = want};
        row->result.verdict =
            verify_integer(found->dtype) == verify_integer(want.dtype) ? VERIFY_SHAPE : VERIFY_KIND;
        row->result.worst = -1;
        snprintf(row->note, sizeof row->note, "%s is %s %s, wanted %s", lh_tensor_name(id),
                 lh_dtype_name(found->dtype), lh_shape_text(found, shape), lh_shape_text(&want, wanted));
    }
    return LH_OK;
}

static lh_status fetch_memory(const check_source *source, lh_tensor_id id, int64_t first, int64_t count,
                              double *to, lh_error *error)
{
    const lh_tensor *t = (const lh_tensor *)source->context + id;
    (void)error;
    widen((const char *)t->data + (size_t)first * lh_dtype_size(t->dtype), t->dtype, count, to);
    return LH_OK;
}

void check_source_memory(const lh_tensor *tensors, check_source *source)
{
    *source = (check_source){.context = tensors, .fetch = fetch_memory};
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        source->has[id] = tensors[id].data != NULL;
        source->dtype[id] = tensors[id].dtype;
    }
}
