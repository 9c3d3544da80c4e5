/*
 * libFuzzer target: any bytes as a safetensors file, and once more as a header with its right length in front and as
 * many zero bytes of data behind as its last byte says, so that mutations reach past the length. What is accepted
 * must be wholly readable and consistent.
 */
#include "core/base.h"
#include "core/hash.h"
#include "core/safetensors.h"
#include "tests/fuzz_file.h"
#include "tests/fuzz_json.h"

static void use(const lh_file *file, size_t size)
{
    size_t total = 0;
    for (int i = 0; i < lh_file_count(file); i++) {
        const lh_tensor *tensor = lh_file_tensor(file, i);
        lh_error error;
        char hash[65];
        if (tensor->dtype == LH_DTYPE_COUNT) { /* of a type or rank that nobody reads: named, and no more */
            require(!tensor->data);
            continue;
        }
        require(lh_file_find(file, lh_file_name(file, i)) == tensor);
        require(tensor->rank >= 0 && tensor->rank <= LH_MAX_RANK);
        require(lh_tensor_contiguous(tensor) && (uintptr_t)tensor->data % 64 == 0);
        lh_tensor_sha256(tensor, hash); /* touches every byte */
        if (lh_tensor_finite(tensor, lh_file_name(file, i), &error) != LH_OK)
            require(strchr(error.text, '\n') == NULL);
        total += (size_t)lh_tensor_elements(tensor) * lh_dtype_size(tensor->dtype);
    }
    require(total <= size);
    lh_file_metadata(file, "levels");
}

static void parse(const uint8_t *bytes, size_t size)
{
    lh_file *file;
    lh_error error;
    const int64_t live = lh_alloc_live();
    const lh_status status = lh_file_parse(bytes, size, "fuzz", &file, &error);
    if (status == LH_OK)
        use(file, size);
    else
        require(file == NULL && status == LH_FORMAT && *error.text && !strchr(error.text, '\n'));
    lh_file_free(file);
    require(lh_alloc_live() == live);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    parse(bytes, size);
    if (size < 2)
        return 0;
    const size_t length = size - 1, whole = 8 + length + bytes[size - 1];
    uint8_t *image = calloc(1, whole);
    require(image != NULL);
    for (int i = 0; i < 8; i++)
        image[i] = (uint8_t)((uint64_t)length >> (8 * i));
    memcpy(image + 8, bytes, length);
    parse(image, whole);
    free(image);
    return 0;
}
