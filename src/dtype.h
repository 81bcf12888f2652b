/* Element types of stored tensors, and their conversion to and from float32 on the host. */
#ifndef TMD_DTYPE_H
#define TMD_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

enum Dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F64, DTYPE_I64, DTYPE_COUNT };

/* Bytes of one element. */
int64_t dtype_bytes(enum Dtype dtype);
/* "f32", "bf16", "f16", "f64", "i64". */
const char *dtype_name(enum Dtype dtype);
/* Accepts any case ("BF16" as in safetensors).  Returns false for a name that is none of ours. */
bool dtype_parse(const char *name, enum Dtype *out);

/* out[i] = (float)in[i]; in holds n_elems elements of `dtype`, any alignment. */
void dtype_to_f32(float *out, const void *in, enum Dtype dtype, int64_t n_elems);
/* out[i] = in[i] rounded to nearest even in `dtype`; NaN stays NaN; I64 truncates. */
void dtype_from_f32(void *out, const float *in, enum Dtype dtype, int64_t n_elems);

#endif
