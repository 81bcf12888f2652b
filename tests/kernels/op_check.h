/* The harness of the operation tests: device tensors between canaries, and comparisons that can
 * fail.
 *
 * A test describes one call of an operation as a *case*: its inputs (random), the outputs that it
 * overwrites (poisoned with NaN before), the outputs into which it accumulates (random before).
 * Every tensor has an allocation of its own, with canaries before and after it and in the gaps
 * between strided rows.  Canaries and poison are NaN in every type, so that a read out of bounds
 * spoils the result as surely as a write out of bounds is seen.  op_case_end fails when a canary or
 * an input changed, or when an output was never compared.
 *
 * Comparisons are norm-relative per tensor, in double: |got - expected| <= tolerance |expected|,
 * and no single element may be far off; NaN fails, comparing nothing fails.  Gradients are compared
 * with op_check_gradient, which afterwards plants bugs into the accepted values and insists that
 * the same comparison rejects each of them.
 *
 *     static void test_scale(void **state) {
 *         struct OpCase c;
 *         op_case_begin(&c, *state, "scale n=%d", 5);
 *         struct OpTensor *x = op_input(&c, "x", OP_ACT, 1, 5), *y = op_output(&c, "y", OP_ACT, 1,
 * 5); c.be->scale(c.be, op_act(y), op_act(x), 2.0, 5); double *expected = op_array(&c, 5); for (int
 * i = 0; i < 5; i++) expected[i] = 2.0 * x->values[i]; op_check_values(&c, y, expected,
 * op_tolerance(y, 1)); op_case_end(&c);
 *     }
 */
#ifndef TMD_OP_CHECK_H
#define TMD_OP_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/backend.h"

/* One test binary: its backend, and how much it compared.  cmocka hands it to every test as *state.
 */
struct OpSuite {
    struct Backend *be;
    int64_t n_comparisons, n_bugs_rejected;
};

/* The backend that the operation tests run on: op_backend_cpu.c, or another machine's. */
struct Backend *op_backend(void);

/* Runs the tests on op_backend(); the exit code of main.  Not 0 when a test failed or nothing was
 * compared. */
int op_run_tests(const char *name, const struct CMUnitTest *tests, size_t n_tests);

enum OpKind { OP_ACT, OP_F32, OP_F64 };
/* OP_UPDATED: read and written, as accumulators and in-place operands are. */
enum OpRole { OP_INPUT, OP_OVERWRITTEN, OP_UPDATED };

/* [rows, cols], rows `stride` elements apart, the first column at `offset` in its row. */
struct OpTensor {
    const char *name;
    enum OpRole role;
    enum OpKind kind;
    enum Dtype dtype; /* of the kind, in this backend */
    int64_t rows, cols, stride, offset;
    int64_t n_elems;      /* rows * cols */
    double *values;       /* dense [rows, cols]: what the device held before the call, exactly */
    char *memory;         /* the allocation, canaries included */
    unsigned char *image; /* what all of it was before the call */
    int64_t n_bytes;
    bool compared;
};

enum { OP_MAX_TENSORS = 24, OP_MAX_ARRAYS = 64 };

struct OpCase {
    const struct Backend *be;
    struct OpSuite *suite;
    char label[160];
    uint64_t seed; /* from the label: a case draws the same numbers wherever it stands */
    struct OpTensor tensors[OP_MAX_TENSORS];
    int n_tensors;
    double *arrays[OP_MAX_ARRAYS];
    int n_arrays, n_draws;
};

void op_case_begin(struct OpCase *c, void *suite, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void op_case_end(struct OpCase *c);

/* Dense tensors of the three roles.  Inputs and accumulators hold draws from N(0, 1), rounded to
 * the tensor's type. */
struct OpTensor *op_input(struct OpCase *c, const char *name, enum OpKind kind, int64_t rows,
                          int64_t cols);
struct OpTensor *op_output(struct OpCase *c, const char *name, enum OpKind kind, int64_t rows,
                           int64_t cols);
struct OpTensor *op_accumulator(struct OpCase *c, const char *name, enum OpKind kind, int64_t rows,
                                int64_t cols);
/* Rows `stride` elements apart, beginning at column `offset`. */
struct OpTensor *op_strided(struct OpCase *c, enum OpRole role, const char *name, enum OpKind kind,
                            int64_t rows, int64_t cols, int64_t stride, int64_t offset);

/* Replaces the contents: `values` [rows, cols], rounded to the tensor's type (t->values tells what
 * the device got).  For inputs and accumulators. */
void op_put(struct OpCase *c, struct OpTensor *t, const double *values);
/* values = scale values + shift, rounded. */
void op_rescale(struct OpCase *c, struct OpTensor *t, double scale, double shift);

/* Device addresses of the first element; NULL for a NULL tensor ("this gradient is not wanted"). */
Act *op_act(const struct OpTensor *t);
float *op_f32(const struct OpTensor *t);
double *op_f64(const struct OpTensor *t);

/* Zeroed host memory, freed by op_case_end. */
double *op_array(struct OpCase *c, int64_t n_elems);
/* Fills with draws from N(0, 1). */
void op_random(struct OpCase *c, double *out, int64_t n_elems);
/* What the device holds in `t` now, dense [rows, cols]; freed by op_case_end. */
double *op_download(struct OpCase *c, const struct OpTensor *t);

/* The relative error that rounding explains: results stored in t's type, sums of `reduction` terms
 * in float32 whose errors add up like a random walk. */
double op_tolerance(const struct OpTensor *t, int64_t reduction);
/* Unit roundoff of a type: 2^-24 for float32. */
double op_roundoff(enum Dtype dtype);
/* The nearest value of a type. */
double op_round(enum Dtype dtype, double value);

/* The verdict of every comparison.  `slack`: an absolute error allowed to the root mean square on
 * top of the tolerance. */
bool op_close(const double *expected, const double *got, int64_t n_elems, double tolerance,
              double slack);

/* The contents of an output against the expected ones. */
void op_check_values(struct OpCase *c, struct OpTensor *t, const double *expected,
                     double tolerance);
/* A gradient against the expected one, for OP_UPDATED tensors: against what should have been added.
 * The same comparison must then reject the planted bugs of op_check_rejects_mutants. */
void op_check_gradient(struct OpCase *c, struct OpTensor *t, const double *expected,
                       double tolerance);
/* Every element of a gradient that should be zero is within `bound`. */
void op_check_vanishes(struct OpCase *c, struct OpTensor *t, double bound);
/* Every element is the expected one, rounded to the tensor's type, exactly: for operations that
 * only move or convert numbers. */
void op_check_exact(struct OpCase *c, struct OpTensor *t, const double *expected);

/* Exactly those elements are NaN that are NaN in `expected`; nothing is said about the others. */
void op_check_nans(struct OpCase *c, struct OpTensor *t, const double *expected);

/* The comparison of gradient `t` must reject these values: a planted bug of this operation's own.
 */
void op_check_rejects(struct OpCase *c, const struct OpTensor *t, const double *expected,
                      const double *wrong, double tolerance, const char *bug);
/* Plants bugs in the gradient `got` [rows, cols] of `t` (scaled by 3, sign flipped, an element
 * missing or NaN, permuted, a constant term dropped, accumulator overwritten); each must be
 * rejected. */
void op_check_rejects_mutants(struct OpCase *c, const struct OpTensor *t, const double *expected,
                              const double *got, double tolerance);

/* Two references of the test's own agree, such as a naive backward and finite differences. */
void op_check_references(struct OpCase *c, const char *what, const double *a, const double *b,
                         int64_t n_elems);

/* A scalar function of arrays that `problem` points to: <cotangent, naive forward>. */
typedef double OpLoss(const void *problem);

/* d loss / d x by central differences in double; x is one of the arrays that the loss reads. */
double *op_finite_differences(struct OpCase *c, double *x, int64_t n_elems, OpLoss *loss,
                              const void *problem);

/* sum a b */
double op_dot(const double *a, const double *b, int64_t n_elems);

#endif
