#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/convert.h"
#include "core/random.h"
#include "tests/layer.h"
#include "tests/suite.h"

size_t layer_bytes(const lh_tensor *tensor)
{
    return (size_t)lh_tensor_elements(tensor) * lh_dtype_size(tensor->dtype);
}

/* malloc rather than lh_alloc: what the library holds is counted apart. */
void layer_create(struct layer *layer, const lh_config *config, lh_dtype dtype, uint64_t seed)
{
    layer->config = *config;
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        lh_tensor *tensor = &layer->trace[id];
        ck_assert_int_eq(lh_tensor_describe(config, dtype, (lh_tensor_id)id, tensor, NULL), LH_OK);
        tensor->data = malloc(layer_bytes(tensor));
        ck_assert_ptr_nonnull(tensor->data);
        memset(tensor->data, 0x5a, layer_bytes(tensor));
    }
    for (int i = 0; i < LH_LAYER_INPUTS; i++) {
        const lh_tensor_id id = lh_layer_inputs[i];
        const lh_tensor *tensor = &layer->trace[id];
        const int64_t elements = lh_tensor_elements(tensor);
        for (int64_t e = 0; e < elements; e++)
            lh_store(tensor->data, tensor->dtype, e, lh_random_gaussian(seed, id, (uint64_t)e));
    }
}

void layer_free(struct layer *layer)
{
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        free(layer->trace[id].data);
}

const char *backend_under_test(int argc, char **argv)
{
    const char *backend = argc > 1 ? argv[1] : "ref";
    lh_error error;
    int count;
    bool built = false;
    for (int i = 0; lh_backend_name(i); i++)
        built = built || strcmp(lh_backend_name(i), backend) == 0;
    if (!built) {
        printf("SKIP: backend %s was not built\n", backend);
        exit(77);
    }
    if (lh_device_count(backend, &count, &error) == LH_NO_DEVICE) {
        printf("SKIP: %s\n", error.text);
        exit(77);
    }
    return backend;
}

const char *backend_over_threads(int argc, char **argv)
{
    const char *backend = backend_under_test(argc, argv);
    lh_capabilities can;
    if (lh_backend_query(backend, &can, NULL) == LH_OK && can.device_memory) {
        printf("SKIP: backend %s works on a device, which is not offered over ranks that are threads\n",
               backend);
        exit(77);
    }
    return backend;
}

lh_dtype dtype_under_test(const char *backend)
{
    const lh_backend *found;
    const bool here = lh_backend_find(backend, 0, &found, NULL) == LH_OK;
    return !here || (found->can.dtypes & 1u << LH_F32) != 0 ? LH_F32 : LH_F64;
}
