/*
 * convert.h: exact conversion between the floating element types.
 *
 * binary64 holds every value of binary32, binary16 and bfloat16, so each conversion is an exact
 * widening followed by one rounding, to nearest, ties to even; never two roundings. Subnormals,
 * signed zeros and infinities keep their value; what is too large becomes infinite; a NaN stays a NaN.
 */
#ifndef LH_CONVERT_H
#define LH_CONVERT_H

#include "lighthouse.h"

double lh_f16_to_f64(uint16_t bits);
double lh_bf16_to_f64(uint16_t bits);
uint16_t lh_f64_to_f16(double value);
uint16_t lh_f64_to_bf16(double value);

/* Element i of an array of a floating dtype. */
double lh_load(const void *data, lh_dtype dtype, int64_t i);
void lh_store(void *data, lh_dtype dtype, int64_t i, double value);

/* dst [n] <- src [n], both floating; the arrays do not overlap. */
void lh_convert(void *dst, lh_dtype dst_dtype, const void *src, lh_dtype src_dtype, int64_t n);

/* Reverses the bytes of n elements in place. */
void lh_swap_bytes(void *data, int64_t n, size_t element_size);
/* The same on a big-endian machine, nothing on a little-endian one: files hold little-endian elements. */
void lh_little_endian(void *data, int64_t n, size_t element_size);

/* A host tensor that may be walked over: dtype, rank, sizes, positive strides, data; LH_INVALID by name and
 * value. */
lh_status lh_tensor_check(const lh_tensor *tensor, const char *name, lh_error *error);

#endif
