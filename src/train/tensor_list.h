/* Named tensors on the host: what a replay computes, and what it is compared with. */
#ifndef TMD_TENSOR_LIST_H
#define TMD_TENSOR_LIST_H

#include <stdint.h>

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

/* How far a list is from the tensors of a safetensors file. */
struct TensorDifference {
    const struct NamedTensor *tensor;
    double norm_relative; /* |got - expected| / |expected|; see tensor_list_compare */
    double expected_norm;
};
/* One entry per tensor of the file, worst first; *out is allocated, *n its length.  Tensors of the file
 * that the list lacks, and other shapes, are errors; the list may hold more.  What is expected to vanish
 * (a norm below 1e-10 of the whole file's: gradients that are zero in exact arithmetic) is measured
 * against the whole file's norm instead of its own. */
bool tensor_list_compare(const struct TensorList *list, const char *path,
                         struct TensorDifference **out, int *n, struct Error *err);

#endif
