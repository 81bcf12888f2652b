/* Tensors are compared by the norm of their difference, relative to the norm of what was expected. */
#include "train/tensor_list.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/safetensors_writer.h"
#include "data/shape_text.h"

float *tensor_list_add(struct TensorList *list, const char *name, int n_dims, const int64_t *shape) {
    list->items = xrealloc(list->items, sizeof *list->items * (size_t)(list->n + 1));
    struct NamedTensor *t = &list->items[list->n++];
    *t = (struct NamedTensor){.n_dims = n_dims, .n_elems = 1};
    TMD_CHECK(strlen(name) < sizeof t->name && n_dims <= TENSOR_MAX_DIMS, "tensor '%s'", name);
    strcpy(t->name, name);
    for (int i = 0; i < n_dims; i++) t->n_elems *= t->shape[i] = shape[i];
    return t->data = xcalloc((size_t)t->n_elems * sizeof *t->data);
}

void tensor_list_add_scalar(struct TensorList *list, const char *name, double value) {
    *tensor_list_add(list, name, 1, (int64_t[]){1}) = (float)value;
}

void tensor_list_free(struct TensorList *list) {
    for (int i = 0; i < list->n; i++) free(list->items[i].data);
    free(list->items);
    *list = (struct TensorList){0};
}

bool tensor_list_write(const struct TensorList *list, const char *path, struct Error *err) {
    struct SafetensorsWriter *w = safetensors_writer_new(path);
    for (int i = 0; i < list->n; i++)
        safetensors_writer_declare(w, list->items[i].name, DTYPE_F32, list->items[i].n_dims,
                                   list->items[i].shape);
    for (int i = 0; i < list->n; i++) {
        if (safetensors_write_f32(w, list->items[i].name, list->items[i].data, err)) continue;
        safetensors_writer_abandon(w);
        return false;
    }
    return safetensors_writer_commit(w, err);
}

static const struct NamedTensor *find(const struct TensorList *list, const char *name) {
    for (int i = 0; i < list->n; i++)
        if (strcmp(list->items[i].name, name) == 0) return &list->items[i];
    return NULL;
}

bool tensor_check(const struct SafetensorsInfo *info, const char *path, enum TensorNumbers numbers,
                  int n_dims, const int64_t *shape, struct Error *err) {
    bool real = info->has_dtype && info->dtype != DTYPE_I64;
    bool fits = info->n_dims == n_dims, any = false;
    for (int i = 0; i < n_dims; i++) {
        any = any || shape[i] < 0;
        fits = fits && (shape[i] < 0 ? info->shape[i] > 0 : info->shape[i] == shape[i]);
    }
    if (!fits)
        return error_set(err, "%s: tensor '%s' has the shape %s, expected %s%s", path, info->name,
                         shape_text(info->n_dims, info->shape).s, shape_text(n_dims, shape).s,
                         any ? " with any extent but 0 for -1" : "");
    if (numbers == TENSOR_REALS ? real : info->readable && !real) return true;
    return error_set(err, "%s: tensor '%s' holds %s, expected %s", path, info->name,
                     info->dtype_text,
                     numbers == TENSOR_REALS ? "F32, F64, BF16 or F16" : "I64, I32, U8 or BOOL");
}

static double distance(const float *a, const double *b, int64_t n_elems, double *norm_b) {
    double squares = 0.0, squares_b = 0.0;
    for (int64_t i = 0; i < n_elems; i++) {
        squares += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        squares_b += b[i] * b[i];
    }
    *norm_b = sqrt(squares_b);
    return sqrt(squares);
}

/* NaN counts as worst. */
static int by_error(const void *a, const void *b) {
    double x = ((const struct TensorDifference *)a)->norm_relative;
    double y = ((const struct TensorDifference *)b)->norm_relative;
    if (isnan(x) || isnan(y)) return isnan(y) - isnan(x);
    return (x < y) - (x > y);
}

static bool compare_one(const struct TensorList *list, const struct Safetensors *st, int64_t i,
                        const char *path, struct TensorDifference *out, struct Error *err) {
    const struct SafetensorsInfo *info = safetensors_info(st, i);
    const struct NamedTensor *t = find(list, info->name);
    if (!t)
        return error_set(err, "%s: expects tensor '%s', which this kind of case does not compute", path,
                         info->name);
    if (!tensor_check(info, path, TENSOR_REALS, t->n_dims, t->shape, err)) return false;
    double *expected = xmalloc((size_t)info->n_elems * sizeof *expected);
    bool ok = safetensors_read_f64(st, i, expected, err);
    if (ok) {
        out->tensor = t;
        out->norm_relative = distance(t->data, expected, t->n_elems, &out->expected_norm);
    }
    free(expected);
    return ok;
}

bool tensor_list_compare(const struct TensorList *list, const char *path,
                         struct TensorDifference **out, int *n, struct Error *err) {
    struct Safetensors *st;
    if (!safetensors_open(path, &st, err)) return false;
    *n = (int)safetensors_count(st);
    *out = xcalloc((size_t)*n * sizeof **out);
    bool ok = *n > 0 || error_set(err, "%s: holds no tensor to compare with", path);
    double total = 0.0;
    for (int i = 0; ok && i < *n; i++) {
        ok = compare_one(list, st, i, path, &(*out)[i], err);
        double norm = (*out)[i].expected_norm;
        if (isfinite(norm)) total += norm * norm; /* one NaN is not to spoil all comparisons */
    }
    double file_norm = sqrt(total);
    for (int i = 0; ok && i < *n; i++) {
        struct TensorDifference *d = &(*out)[i];
        double scale = d->expected_norm > 1e-10 * file_norm ? d->expected_norm : file_norm;
        if (d->norm_relative > 0.0 || isnan(d->norm_relative)) d->norm_relative /= scale;
    }
    if (ok) qsort(*out, (size_t)*n, sizeof **out, by_error);
    if (!ok) free(*out);
    safetensors_close(st);
    return ok;
}
