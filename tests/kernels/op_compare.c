/* Comparisons of the operation tests, the bugs planted into what they accepted, and finite
 * differences.
 *
 * A comparison is norm-relative over the tensor, |got - expected| <= tolerance |expected|, plus a
 * bound on every single element of ELEMENT_FACTOR times that in units of the tensor's root mean
 * square, so that one wrong element of thousands is seen.  Both are written such that a NaN fails.
 */
#include "op_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

enum { ELEMENT_FACTOR = 6 };

double op_roundoff(enum Dtype dtype) {
    switch (dtype) {
    case DTYPE_BF16:
        return 0x1p-8;
    case DTYPE_F16:
        return 0x1p-11;
    default:
        return 0x1p-24; /* a float64 result is a sum of float32 terms */
    }
}

double op_tolerance(const struct OpTensor *t, int64_t reduction) {
    return 4.0 * (op_roundoff(t->dtype) + op_roundoff(DTYPE_F32) * sqrt((double)reduction));
}

double op_dot(const double *a, const double *b, int64_t n_elems) {
    double sum = 0.0;
    for (int64_t i = 0; i < n_elems; i++) sum += a[i] * b[i];
    return sum;
}

static double root_mean_square(const double *x, int64_t n_elems) {
    return sqrt(op_dot(x, x, n_elems) / (double)n_elems);
}

bool op_close(const double *expected, const double *got, int64_t n_elems, double tolerance,
              double slack) {
    double squares = 0.0, rms = root_mean_square(expected, n_elems);
    for (int64_t i = 0; i < n_elems; i++) {
        double error = got[i] - expected[i];
        double bound = tolerance * (rms + fabs(expected[i])) + slack;
        if (!(fabs(error) <= ELEMENT_FACTOR * bound)) return false;
        squares += error * error;
    }
    return n_elems > 0 && sqrt(squares / (double)n_elems) <= tolerance * rms + slack;
}

/* Adding to what was there rounds by its size, not by the gradient's. */
static double slack_of(const struct OpTensor *t) {
    if (t->role != OP_UPDATED) return 0.0;
    return 2.0 * op_roundoff(t->dtype) * root_mean_square(t->values, t->n_elems);
}

static void explain(const struct OpCase *c, const struct OpTensor *t, const double *expected,
                    const double *got, double tolerance) {
    double squares = 0.0, worst = -1.0;
    int64_t where = 0;
    for (int64_t i = 0; i < t->n_elems; i++) {
        double error = fabs(got[i] - expected[i]);
        squares += error * error;
        if (isnan(error)) error = INFINITY;
        if (error > worst) worst = error, where = i;
    }
    double norm = sqrt(op_dot(expected, expected, t->n_elems));
    fail_msg("%s: %s is off by %.3g |expected| (tolerance %.3g), most at [%lld, %lld] of [%lld, "
             "%lld]: expected %.9g, got %.9g",
             c->label, t->name, sqrt(squares) / norm, tolerance, (long long)(where / t->cols),
             (long long)(where % t->cols), (long long)t->rows, (long long)t->cols, expected[where],
             got[where]);
}

static void count_comparison(struct OpCase *c, struct OpTensor *t) {
    if (t->role == OP_INPUT) fail_msg("%s: %s is not an output", c->label, t->name);
    if (t->n_elems <= 0) fail_msg("%s: %s has no elements to compare", c->label, t->name);
    t->compared = true;
    c->suite->n_comparisons++;
}

void op_check_values(struct OpCase *c, struct OpTensor *t, const double *expected,
                     double tolerance) {
    count_comparison(c, t);
    const double *got = op_download(c, t);
    if (!op_close(expected, got, t->n_elems, tolerance, 0.0))
        explain(c, t, expected, got, tolerance);
}

void op_check_exact(struct OpCase *c, struct OpTensor *t, const double *expected) {
    count_comparison(c, t);
    const double *got = op_download(c, t);
    for (int64_t i = 0; i < t->n_elems; i++)
        if (!(got[i] == op_round(t->dtype, expected[i]))) explain(c, t, expected, got, 0.0);
}

void op_check_nans(struct OpCase *c, struct OpTensor *t, const double *expected) {
    count_comparison(c, t);
    const double *got = op_download(c, t);
    for (int64_t i = 0; i < t->n_elems; i++)
        if (!isnan(got[i]) != !isnan(expected[i]))
            fail_msg("%s: %s[%lld] is %g, expected %s", c->label, t->name, (long long)i, got[i],
                     isnan(expected[i]) ? "NaN" : "a number");
}

/* What the call put into a gradient: the contents, or by how much they grew. */
static double *download_gradient(struct OpCase *c, const struct OpTensor *t) {
    double *got = op_download(c, t);
    for (int64_t i = 0; i < t->n_elems && t->role == OP_UPDATED; i++) got[i] -= t->values[i];
    return got;
}

void op_check_gradient(struct OpCase *c, struct OpTensor *t, const double *expected,
                       double tolerance) {
    count_comparison(c, t);
    const double *got = download_gradient(c, t);
    if (!op_close(expected, got, t->n_elems, tolerance, slack_of(t)))
        explain(c, t, expected, got, tolerance);
    op_check_rejects_mutants(c, t, expected, got, tolerance);
}

void op_check_vanishes(struct OpCase *c, struct OpTensor *t, double bound) {
    count_comparison(c, t);
    const double *got = download_gradient(c, t);
    for (int64_t i = 0; i < t->n_elems; i++)
        if (!(fabs(got[i]) <= bound))
            fail_msg("%s: %s[%lld] is %.3g, should vanish (within %.3g)", c->label, t->name,
                     (long long)i, got[i], bound);
}

void op_check_rejects(struct OpCase *c, const struct OpTensor *t, const double *expected,
                      const double *wrong, double tolerance, const char *bug) {
    if (op_close(expected, wrong, t->n_elems, tolerance, slack_of(t)))
        fail_msg("%s: the comparison of %s accepts a planted bug: %s", c->label, t->name, bug);
    c->suite->n_bugs_rejected++;
}

/* Planted bugs: each spoils the gradient `x` of tensor `t`. */
typedef void Mutation(double *x, const struct OpTensor *t);

static void mutate_scale(double *x, const struct OpTensor *t) {
    for (int64_t i = 0; i < t->n_elems; i++) x[i] *= 3.0;
}

static void mutate_sign(double *x, const struct OpTensor *t) {
    for (int64_t i = 0; i < t->n_elems; i++) x[i] = -x[i];
}

/* The last element that is not small by chance is left out, as when a vector loop drops its tail.
 */
static void mutate_tail(double *x, const struct OpTensor *t) {
    double rms = root_mean_square(x, t->n_elems);
    int64_t last = t->n_elems - 1;
    while (last > 0 && fabs(x[last]) < 0.99 * rms) last--;
    x[last] = 0.0;
}

static void mutate_nan(double *x, const struct OpTensor *t) {
    x[t->n_elems / 2] = NAN;
}

/* Columns for rows; what has one row or one column is rotated by one place. */
static void mutate_order(double *x, const struct OpTensor *t) {
    double *old = xmalloc((unsigned long)t->n_elems * sizeof *old);
    memcpy(old, x, (size_t)t->n_elems * sizeof *old);
    for (int64_t i = 0; i < t->n_elems; i++) {
        int64_t row = i / t->cols, col = i % t->cols;
        bool matrix = t->rows > 1 && t->cols > 1;
        x[matrix ? col * t->rows + row : (i + 1) % t->n_elems] = old[i];
    }
    free(old);
}

/* A term like the means in a layer norm's gradient is left out. */
static void mutate_constant_term(double *x, const struct OpTensor *t) {
    double rms = root_mean_square(x, t->n_elems);
    for (int64_t i = 0; i < t->n_elems; i++) x[i] += 0.125 * rms;
}

static void mutate_overwrite(double *x, const struct OpTensor *t) {
    for (int64_t i = 0; i < t->n_elems; i++) x[i] -= t->values[i];
}

void op_check_rejects_mutants(struct OpCase *c, const struct OpTensor *t, const double *expected,
                              const double *got, double tolerance) {
    const struct {
        Mutation *mutation;
        const char *bug;
        bool applies;
    } mutants[] = {
        {mutate_scale, "scaled by 3", true},
        {mutate_sign, "sign flipped", true},
        {mutate_tail, "an element at the end missing", true},
        {mutate_nan, "one NaN", true},
        {mutate_order, "permuted", t->n_elems > 1},
        {mutate_constant_term, "a constant term missing", true},
        {mutate_overwrite, "overwritten instead of added to", t->role == OP_UPDATED},
    };
    double *wrong = xmalloc((unsigned long)t->n_elems * sizeof *wrong);
    for (size_t i = 0; i < sizeof mutants / sizeof *mutants; i++) {
        if (!mutants[i].applies) continue;
        memcpy(wrong, got, (size_t)t->n_elems * sizeof *wrong);
        mutants[i].mutation(wrong, t);
        op_check_rejects(c, t, expected, wrong, tolerance, mutants[i].bug);
    }
    free(wrong);
}

void op_check_references(struct OpCase *c, const char *what, const double *a, const double *b,
                         int64_t n_elems) {
    if (!op_close(a, b, n_elems, 1e-7, 1e-9))
        fail_msg("%s: the test's own references disagree on %s", c->label, what);
    c->suite->n_comparisons++;
}

double *op_finite_differences(struct OpCase *c, double *x, int64_t n_elems, OpLoss *loss,
                              const void *problem) {
    const double step = 1e-5; /* error about step^2 + roundoff / step, for numbers around 1 */
    double *gradient = op_array(c, n_elems);
    for (int64_t i = 0; i < n_elems; i++) {
        double centre = x[i];
        x[i] = centre + step;
        double above = loss(problem);
        x[i] = centre - step;
        double below = loss(problem);
        x[i] = centre;
        gradient[i] = (above - below) / (2.0 * step);
    }
    return gradient;
}
