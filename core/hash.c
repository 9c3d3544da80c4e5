/* SHA-256 over nettle. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <nettle/sha2.h>

#include "core/convert.h"
#include "core/hash.h"

static void finish(struct sha256_ctx *hash, char out[65])
{
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_digest(hash, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(out + 2 * i, 3, "%02x", (unsigned)digest[i]);
}

void lh_sha256_hex(const void *data, size_t bytes, char out[65])
{
    struct sha256_ctx hash;
    sha256_init(&hash);
    sha256_update(&hash, bytes, data);
    finish(&hash, out);
}

void lh_tensor_sha256(const lh_tensor *tensor, char out[65])
{
    enum {
        CHUNK = 1024,
    };
    const size_t size = lh_dtype_size(tensor->dtype);
    const int64_t elements = lh_tensor_elements(tensor);
    struct sha256_ctx hash;
    sha256_init(&hash);
    for (int64_t first = 0; tensor->data && first < elements;) { /* one that was not read has none */
        unsigned char chunk[CHUNK * sizeof(int64_t)];
        int64_t offset = 0, rest = first, run = elements - first;
        if (!lh_tensor_contiguous(tensor)) {
            const int64_t length = tensor->shape[tensor->rank - 1];
            run = length - first % length;
            for (int d = tensor->rank - 1; d >= 0; d--) {
                offset += rest % tensor->shape[d] * tensor->stride[d];
                rest /= tensor->shape[d];
            }
        } else {
            offset = first;
        }
        run = run < CHUNK ? run : CHUNK;
        memcpy(chunk, (const unsigned char *)tensor->data + (size_t)offset * size, (size_t)run * size);
        lh_little_endian(chunk, run, size);
        sha256_update(&hash, (size_t)run * size, chunk);
        first += run;
    }
    finish(&hash, out);
}
