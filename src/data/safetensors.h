/* Reading safetensors: named tensors in one file, or spread over the files that an index lists.
 *
 * A file is: 8 bytes little-endian header length, a JSON object {name: {"dtype", "shape",
 * "data_offsets": [begin, end]}, "__metadata__": {string: string}}, then the data, little-endian
 * and row-major; offsets count from the start of the data.  (Format:
 * github.com/huggingface/safetensors.)
 *
 * Files are not trusted.  Opening checks the whole header: its length (at most 100 MB, within the
 * file), JSON, every name once and printable, rank at most 8, no overflow, offsets that cover the
 * data exactly, without holes or overlaps, and agree with dtype and shape.  Data is copied out with
 * pread, so that neither alignment nor a file that shrinks meanwhile can hurt. */
#ifndef TMD_DATA_SAFETENSORS_H
#define TMD_DATA_SAFETENSORS_H

#include <stdbool.h>
#include <stdint.h>

#include "dtype.h"
#include "error.h"

enum { SAFETENSORS_MAX_DIMS = 8 };

/* The stem of Wan's weight files, as diffusers names them. */
#define SAFETENSORS_WAN_STEM "diffusion_pytorch_model"

struct SafetensorsInfo {
    const char *name;
    const char *dtype_text; /* as the file has it: "BF16" */
    bool has_dtype;         /* one of ours; F32, F64, BF16, F16, I64 */
    enum Dtype dtype;       /* meaningful only if has_dtype */
    bool readable;          /* has_dtype, or I32, U8, BOOL; others can only be listed */
    int n_dims;             /* 0: a scalar with one element */
    int64_t shape[SAFETENSORS_MAX_DIMS];
    int64_t n_elems;
};

struct Safetensors;

/* `path`: a .safetensors file; an index (.json) whose "weight_map" says which file beside it holds
 * which tensor; or a folder that holds diffusion_pytorch_model or model as either of these.  An
 * index must list exactly the tensors of its files. */
bool safetensors_open(const char *path, struct Safetensors **out, struct Error *err);
void safetensors_close(struct Safetensors *st);

/* Tensors are numbered in ascending order of their names (bytewise). */
int64_t safetensors_count(const struct Safetensors *st);
const struct SafetensorsInfo *safetensors_info(const struct Safetensors *st, int64_t i);
/* The number of the tensor `name`; -1 if there is none. */
int64_t safetensors_find(const struct Safetensors *st, const char *name);
/* The file in which tensor i lies. */
const char *safetensors_file(const struct Safetensors *st, int64_t i);

/* Copy tensor i (info->n_elems elements, row-major) into `out`, converting from the stored type; to
 * a narrower type values are rounded.  read_i64 refuses floating-point tensors.  Values may be NaN
 * or infinite.  Threads may read from the same handle. */
bool safetensors_read_f32(const struct Safetensors *st, int64_t i, float *out, struct Error *err);
bool safetensors_read_f64(const struct Safetensors *st, int64_t i, double *out, struct Error *err);
bool safetensors_read_i64(const struct Safetensors *st, int64_t i, int64_t *out, struct Error *err);

/* A value of "__metadata__" of the (first) file; NULL if it has none of that name. */
const char *safetensors_metadata(const struct Safetensors *st, const char *key);

#endif
