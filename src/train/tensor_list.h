/* Named tensors on the host: what a replay computes, and what it is compared with; and whether what
 * files bring is what a replay can take. */
#ifndef TMD_TENSOR_LIST_H
#define TMD_TENSOR_LIST_H

#include <stdint.h>

#include "data/safetensors.h"
#include "error.h"

enum { TENSOR_MAX_DIMS = 8, TENSOR_NAME_MAX = 128 };

struct NamedTensor {
    char name[TENSOR_NAME_MAX];
    int n_dims;
    int64_t shape[TENSOR_MAX_DIMS];
    int64_t n_elems;
    float *data; /* owned */
};

struct TensorList {
    struct NamedTensor *items;
    int n;
};

/* Appends a zeroed tensor and returns its data, to be filled. */
float *tensor_list_add(struct TensorList *list, const char *name, int n_dims, const int64_t *shape);
void tensor_list_add_scalar(struct TensorList *list, const char *name, double value);
void tensor_list_free(struct TensorList *list);

/* Writes all as float32 safetensors. */
bool tensor_list_write(const struct TensorList *list, const char *path, struct Error *err);

enum TensorNumbers { TENSOR_REALS, TENSOR_INTEGERS };
/* Whether a tensor of the file `path` holds such numbers, in this shape; -1 in it is any extent but
 * 0. */
bool tensor_check(const struct SafetensorsInfo *info, const char *path, enum TensorNumbers numbers,
                  int n_dims, const int64_t *shape, struct Error *err);

/* How far a list is from the tensors of a safetensors file. */
struct TensorDifference {
    const struct NamedTensor *tensor;
    /* |got - expected| / |expected|; see tensor_list_compare.  NaN where either holds one. */
    double norm_relative;
    double expected_norm;
};
/* One entry per tensor of the file, worst (NaN) first; *out is allocated, *n its length.  Tensors
 * of the file that the list lacks, other shapes and integers are errors; the list may hold more.
 * What is expected to vanish (a norm below 1e-10 of the whole file's: gradients that are zero in
 * exact arithmetic) is measured against the whole file's norm instead of its own. */
bool tensor_list_compare(const struct TensorList *list, const char *path,
                         struct TensorDifference **out, int *n, struct Error *err);

#endif
