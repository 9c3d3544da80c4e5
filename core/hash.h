/* hash.h: SHA-256 in hexadecimal, of bytes and of tensors. */
#ifndef LH_HASH_H
#define LH_HASH_H

#include <stddef.h>

#include "lighthouse.h"

void lh_sha256_hex(const void *data, size_t bytes, char out[65]);

/* Of a tensor's elements, row-major and little-endian whatever its strides and the machine: the hash that a
 * safetensors file of it has over its data. Host memory; the last stride is 1. */
void lh_tensor_sha256(const lh_tensor *tensor, char out[65]);

#endif
