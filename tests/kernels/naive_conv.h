/* 3D convolution in double straight from its definition: what the tests of the convolutions and of
 * the discriminator hold the fast ones against. */
#ifndef TMD_NAIVE_CONV_H
#define TMD_NAIVE_CONV_H

#include "kernels/backend.h"

/* Elements of x, of w and of y. */
int64_t naive_conv_x_elems(const struct ConvShape *shape);
int64_t naive_conv_w_elems(const struct ConvShape *shape);
int64_t naive_conv_y_elems(const struct ConvShape *shape);

/* y = x * w + b, with zeros around x. */
void naive_conv_forward(double *y, const double *x, const double *w, const double *b,
                        const struct ConvShape *shape);
/* dx, dw, db of <dy, y>, all overwritten; each may be NULL. */
void naive_conv_backward(double *dx, double *dw, double *db, const double *dy, const double *x,
                         const double *w, const struct ConvShape *shape);

#endif
