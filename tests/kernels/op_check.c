/* Suites, cases and device tensors of the operation tests; the comparisons are in op_compare.c. */
#include "op_check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "philox.h"

enum { GUARD_BYTES = 256 };

/* In any of our types a NaN, and not the one that arithmetic makes. */
static const uint16_t canary = 0x7ffd;

int op_run_tests(const char *name, const struct CMUnitTest *tests, size_t n_tests) {
    struct OpSuite suite = {.be = op_backend()};
    struct CMUnitTest with_suite[n_tests];
    for (size_t i = 0; i < n_tests; i++) {
        with_suite[i] = tests[i];
        with_suite[i].initial_state = &suite;
    }
    int n_failed = cmocka_run_group_tests_name(name, with_suite, NULL, NULL);
    suite.be->destroy(suite.be);
    printf("%s: %lld comparisons, %lld planted bugs rejected\n", name,
           (long long)suite.n_comparisons, (long long)suite.n_bugs_rejected);
    return n_failed != 0 || suite.n_comparisons == 0;
}

void op_case_begin(struct OpCase *c, void *suite, const char *format, ...) {
    memset(c, 0, sizeof *c);
    c->suite = suite;
    c->be = c->suite->be;
    va_list args;
    va_start(args, format);
    vsnprintf(c->label, sizeof c->label, format, args);
    va_end(args);
    c->seed = 0xcbf29ce484222325u; /* FNV-1a */
    for (const char *p = c->label; *p; p++) c->seed = (c->seed ^ (uint8_t)*p) * 0x100000001b3u;
}

/* Everything outside an output's elements, and all of an input, must be as it was. */
static void check_surroundings(const struct OpCase *c, const struct OpTensor *t) {
    unsigned char *now = xmalloc((unsigned long)t->n_bytes);
    c->be->download(c->be, now, t->memory, t->n_bytes);
    int64_t elem_bytes = dtype_bytes(t->dtype);
    for (int64_t row = 0; row < t->rows && t->role != OP_INPUT; row++) {
        int64_t at = GUARD_BYTES + (row * t->stride + t->offset) * elem_bytes;
        memcpy(now + at, t->image + at, (size_t)(t->cols * elem_bytes));
    }
    int64_t at = 0;
    while (at < t->n_bytes && now[at] == t->image[at]) at++;
    free(now);
    if (at < t->n_bytes)
        fail_msg("%s: wrote outside its outputs: %s%s changed at byte %lld of %lld x %lld elements",
                 c->label, t->name, t->role == OP_INPUT ? " (an input)" : "",
                 (long long)(at - GUARD_BYTES), (long long)t->rows, (long long)t->cols);
}

void op_case_end(struct OpCase *c) {
    for (int i = 0; i < c->n_tensors; i++) {
        struct OpTensor *t = &c->tensors[i];
        check_surroundings(c, t);
        if (t->role != OP_INPUT && !t->compared)
            fail_msg("%s: nothing was compared with output %s", c->label, t->name);
        c->be->memory_free(c->be, t->memory);
        free(t->image);
    }
    for (int i = 0; i < c->n_arrays; i++) free(c->arrays[i]);
}

double *op_array(struct OpCase *c, int64_t n_elems) {
    TMD_CHECK(c->n_arrays < OP_MAX_ARRAYS, "%s: too many arrays", c->label);
    double *array = xcalloc((unsigned long)n_elems * sizeof *array);
    c->arrays[c->n_arrays++] = array;
    return array;
}

void op_random(struct OpCase *c, double *out, int64_t n_elems) {
    uint32_t stream = (uint32_t)c->n_draws++;
    for (int64_t i = 0; i < n_elems; i++) { /* Box and Muller 1958 */
        struct Philox bits = philox(c->seed, (uint32_t)i, stream, 0, 0);
        double radius = sqrt(-2.0 * log(philox_uniform(bits.word[0])));
        out[i] = radius * cos(2.0 * M_PI * philox_uniform(bits.word[1]));
    }
}

/* One row between the dense values and its place in the image of the allocation. */
static unsigned char *row_in_image(const struct OpTensor *t, int64_t row) {
    return t->image + GUARD_BYTES + (row * t->stride + t->offset) * dtype_bytes(t->dtype);
}

static void store_elem(enum Dtype dtype, unsigned char *at, double value) {
    float single = (float)value;
    if (dtype == DTYPE_F64)
        memcpy(at, &value, sizeof value);
    else
        dtype_from_f32(at, &single, dtype, 1);
}

static double load_elem(enum Dtype dtype, const unsigned char *at) {
    double value;
    float single;
    if (dtype == DTYPE_F64) {
        memcpy(&value, at, sizeof value);
        return value;
    }
    dtype_to_f32(&single, at, dtype, 1);
    return single;
}

void op_put(struct OpCase *c, struct OpTensor *t, const double *values) {
    for (int64_t i = 0; i < t->n_elems; i++) {
        unsigned char *at = row_in_image(t, i / t->cols) + i % t->cols * dtype_bytes(t->dtype);
        store_elem(t->dtype, at, values[i]);
        t->values[i] = load_elem(t->dtype, at);
    }
    c->be->upload(c->be, t->memory, t->image, t->n_bytes);
}

void op_rescale(struct OpCase *c, struct OpTensor *t, double scale, double shift) {
    for (int64_t i = 0; i < t->n_elems; i++) t->values[i] = scale * t->values[i] + shift;
    op_put(c, t, t->values);
}

static enum Dtype dtype_of_kind(const struct Backend *be, enum OpKind kind) {
    if (kind == OP_ACT) return be->act_dtype;
    return kind == OP_F32 ? DTYPE_F32 : DTYPE_F64;
}

struct OpTensor *op_strided(struct OpCase *c, enum OpRole role, const char *name, enum OpKind kind,
                            int64_t rows, int64_t cols, int64_t stride, int64_t offset) {
    TMD_CHECK(c->n_tensors < OP_MAX_TENSORS, "%s: too many tensors", c->label);
    TMD_CHECK(offset + cols <= stride, "%s: %s does not fit its stride", c->label, name);
    struct OpTensor *t = &c->tensors[c->n_tensors++];
    *t = (struct OpTensor){.name = name, .role = role, .kind = kind};
    t->dtype = dtype_of_kind(c->be, kind);
    t->rows = rows, t->cols = cols, t->stride = stride, t->offset = offset;
    t->n_elems = rows * cols;
    t->n_bytes = 2 * GUARD_BYTES + rows * stride * dtype_bytes(t->dtype);
    t->memory = c->be->memory_alloc(c->be, t->n_bytes);
    t->image = xmalloc((unsigned long)t->n_bytes);
    for (int64_t at = 0; at < t->n_bytes; at += (int64_t)sizeof canary)
        memcpy(t->image + at, &canary, sizeof canary);
    t->values = op_array(c, t->n_elems);
    if (role == OP_OVERWRITTEN) {
        for (int64_t i = 0; i < t->n_elems; i++) t->values[i] = NAN;
        c->be->upload(c->be, t->memory, t->image, t->n_bytes);
    } else {
        op_random(c, t->values, t->n_elems);
        op_put(c, t, t->values);
    }
    return t;
}

struct OpTensor *op_input(struct OpCase *c, const char *name, enum OpKind kind, int64_t rows,
                          int64_t cols) {
    return op_strided(c, OP_INPUT, name, kind, rows, cols, cols, 0);
}

struct OpTensor *op_output(struct OpCase *c, const char *name, enum OpKind kind, int64_t rows,
                           int64_t cols) {
    return op_strided(c, OP_OVERWRITTEN, name, kind, rows, cols, cols, 0);
}

struct OpTensor *op_accumulator(struct OpCase *c, const char *name, enum OpKind kind, int64_t rows,
                                int64_t cols) {
    return op_strided(c, OP_UPDATED, name, kind, rows, cols, cols, 0);
}

double op_round(enum Dtype dtype, double value) {
    unsigned char stored[sizeof(double)];
    store_elem(dtype, stored, value);
    return load_elem(dtype, stored);
}

double *op_download(struct OpCase *c, const struct OpTensor *t) {
    unsigned char *now = xmalloc((unsigned long)t->n_bytes);
    c->be->download(c->be, now, t->memory, t->n_bytes);
    double *values = op_array(c, t->n_elems);
    for (int64_t i = 0; i < t->n_elems; i++) {
        const unsigned char *row = now + (row_in_image(t, i / t->cols) - t->image);
        values[i] = load_elem(t->dtype, row + i % t->cols * dtype_bytes(t->dtype));
    }
    free(now);
    return values;
}

static void *first_elem(const struct OpTensor *t, enum OpKind kind) {
    if (!t) return NULL;
    TMD_CHECK(t->kind == kind, "%s is asked for as a kind that it is not", t->name);
    return t->memory + GUARD_BYTES + t->offset * dtype_bytes(t->dtype);
}

Act *op_act(const struct OpTensor *t) {
    return first_elem(t, OP_ACT);
}

float *op_f32(const struct OpTensor *t) {
    return first_elem(t, OP_F32);
}

double *op_f64(const struct OpTensor *t) {
    return first_elem(t, OP_F64);
}
