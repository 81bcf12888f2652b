/* One walk over all products x[ix] w[iw] that make up y[iy] serves forward and backward. */
#include "naive_conv.h"

#include <string.h>

int64_t naive_conv_x_elems(const struct ConvShape *s) {
    return s->batch * s->in_channels * s->in[0] * s->in[1] * s->in[2];
}

int64_t naive_conv_w_elems(const struct ConvShape *s) {
    return s->out_channels * s->in_channels * s->kernel[0] * s->kernel[1] * s->kernel[2];
}

int64_t naive_conv_y_elems(const struct ConvShape *s) {
    return s->batch * s->out_channels * s->out[0] * s->out[1] * s->out[2];
}

struct Sums {
    double *y, *dx, *dw;
    const double *x, *w, *dy;
};

static void add_product(const struct Sums *sums, int64_t iy, int64_t ix, int64_t iw) {
    if (sums->y) sums->y[iy] += sums->x[ix] * sums->w[iw];
    if (sums->dx) sums->dx[ix] += sums->dy[iy] * sums->w[iw];
    if (sums->dw) sums->dw[iw] += sums->dy[iy] * sums->x[ix];
}

/* All taps of the kernel for one output position of one pair of channels. */
static void visit_taps(const struct Sums *sums, const struct ConvShape *s, int64_t iy,
                       const int64_t at[3], int64_t x_plane, int64_t w_plane) {
    const int64_t *k = s->kernel, *in = s->in;
    for (int64_t t = 0; t < k[0]; t++)
        for (int64_t r = 0; r < k[1]; r++)
            for (int64_t c = 0; c < k[2]; c++) {
                int64_t frame = at[0] * s->stride[0] + t - s->padding[0];
                int64_t row = at[1] * s->stride[1] + r - s->padding[1];
                int64_t column = at[2] * s->stride[2] + c - s->padding[2];
                if (frame < 0 || frame >= in[0] || row < 0 || row >= in[1] || column < 0 ||
                    column >= in[2])
                    continue;
                add_product(sums, iy, ((x_plane * in[0] + frame) * in[1] + row) * in[2] + column,
                            ((w_plane * k[0] + t) * k[1] + r) * k[2] + c);
            }
}

static void visit(const struct Sums *sums, const struct ConvShape *s) {
    int64_t positions = s->out[0] * s->out[1] * s->out[2], n_y = naive_conv_y_elems(s);
    for (int64_t iy = 0; iy < n_y; iy++) {
        int64_t position = iy % positions, sample = iy / positions / s->out_channels;
        int64_t out_channel = iy / positions % s->out_channels;
        const int64_t at[3] = {position / s->out[2] / s->out[1], position / s->out[2] % s->out[1],
                               position % s->out[2]};
        for (int64_t i = 0; i < s->in_channels; i++)
            visit_taps(sums, s, iy, at, sample * s->in_channels + i,
                       out_channel * s->in_channels + i);
    }
}

void naive_conv_forward(double *y, const double *x, const double *w, const double *b,
                        const struct ConvShape *s) {
    int64_t positions = s->out[0] * s->out[1] * s->out[2], n_y = naive_conv_y_elems(s);
    for (int64_t i = 0; i < n_y; i++) y[i] = b[i / positions % s->out_channels];
    visit(&(struct Sums){.y = y, .x = x, .w = w}, s);
}

void naive_conv_backward(double *dx, double *dw, double *db, const double *dy, const double *x,
                         const double *w, const struct ConvShape *s) {
    int64_t positions = s->out[0] * s->out[1] * s->out[2], n_y = naive_conv_y_elems(s);
    if (dx) memset(dx, 0, (size_t)naive_conv_x_elems(s) * sizeof *dx);
    if (dw) memset(dw, 0, (size_t)naive_conv_w_elems(s) * sizeof *dw);
    if (db) memset(db, 0, (size_t)s->out_channels * sizeof *db);
    for (int64_t i = 0; i < n_y && db; i++) db[i / positions % s->out_channels] += dy[i];
    visit(&(struct Sums){.dx = dx, .dw = dw, .dy = dy, .x = x, .w = w}, s);
}
