/* 3D convolution through oneDNN's primitives.
 *
 * The fast kernels want channels in blocks of 16 (and pad what is left over with zeros), which is
 * not how tensors lie between operations here.  So each primitive chooses the layouts of its
 * operands, and an operand that differs from ours is reordered on its way in or out.  Reorders
 * included, that took on one thread, in ms for forward / backward data / backward weights:
 *     batch 32, 6 -> 16 channels, 4x16x16    0.3 / 0.8 / 1.7
 *     batch 4, 64 -> 64 channels, 8x30x52     22 / 22 / 24
 * against 1.6 / 1.5 / 1.7 and 42 / 52 / 53 on tensors in our layout, where oneDNN unfolds the input
 * and multiplies matrices; doing that by hand with dnnl_sgemm was slower still.
 *
 * Parameter gradients accumulate: their last reorder adds to what is there.
 *
 * Everything is prepared when a shape comes for the first time: primitives, reorders, and the
 * memory of reordered operands.  A later call only sets addresses and executes.  A plan keeps the
 * number of threads it was made for, and with it the order of its sums. */
#include "kernels/cpu/conv3d.h"

#include <dnnl.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "kernels/cpu/cpu.h"

#define ONEDNN(call)                                                                               \
    do {                                                                                           \
        dnnl_status_t status_ = (call);                                                            \
        TMD_CHECK(status_ == dnnl_success, "oneDNN status %d", (int)status_);                      \
    } while (0)

enum Access { READ, OVERWRITE, ADD };

struct Operand {
    int arg; /* DNNL_ARG_* of the primitive */
    enum Access access;
    dnnl_memory_t ours;       /* in our layout; its address comes with each call */
    dnnl_memory_t theirs;     /* in the primitive's; the same object where no reorder is needed */
    dnnl_primitive_t reorder; /* NULL then */
};

enum { MAX_OPERANDS = 4 };

struct Pass {
    dnnl_primitive_t primitive; /* NULL: not prepared yet */
    int n_operands;
    struct Operand operands[MAX_OPERANDS];
};

enum Direction { FORWARD, BACKWARD_INPUT, BACKWARD_PARAMS, N_DIRECTIONS };

struct Plan {
    struct ConvShape shape;
    struct Pass passes[N_DIRECTIONS];
};

struct CpuConv {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct Plan *plans;
    int n_plans;
};

struct CpuConv *cpu_conv_create(void) {
    struct CpuConv *conv = xcalloc(sizeof *conv);
    ONEDNN(dnnl_engine_create(&conv->engine, dnnl_cpu, 0));
    ONEDNN(dnnl_stream_create(&conv->stream, conv->engine, dnnl_stream_default_flags));
    return conv;
}

static void pass_destroy(struct Pass *pass) {
    for (int i = 0; i < pass->n_operands; i++) {
        struct Operand *operand = &pass->operands[i];
        if (operand->reorder) {
            dnnl_primitive_destroy(operand->reorder);
            dnnl_memory_destroy(operand->theirs);
        }
        dnnl_memory_destroy(operand->ours);
    }
    if (pass->primitive) dnnl_primitive_destroy(pass->primitive);
}

void cpu_conv_destroy(struct CpuConv *conv) {
    if (!conv) return;
    for (int i = 0; i < conv->n_plans; i++)
        for (int d = 0; d < N_DIRECTIONS; d++) pass_destroy(&conv->plans[i].passes[d]);
    free(conv->plans);
    dnnl_stream_destroy(conv->stream);
    dnnl_engine_destroy(conv->engine);
    free(conv);
}

/* ---- what is convolved: the same tensors in our layout and in any */

enum Tensor { TENSOR_X, TENSOR_W, TENSOR_B, TENSOR_Y, N_TENSORS };

struct Descs {
    dnnl_memory_desc_t ours[N_TENSORS], any[N_TENSORS];
    dnnl_dims_t strides, padding;
};

static void descs_init(struct Descs *d, const struct ConvShape *s) {
    const dnnl_dims_t dims[N_TENSORS] = {
        [TENSOR_X] = {s->batch, s->in_channels, s->in[0], s->in[1], s->in[2]},
        [TENSOR_W] = {s->out_channels, s->in_channels, s->kernel[0], s->kernel[1], s->kernel[2]},
        [TENSOR_B] = {s->out_channels},
        [TENSOR_Y] = {s->batch, s->out_channels, s->out[0], s->out[1], s->out[2]},
    };
    for (int t = 0; t < N_TENSORS; t++) {
        int n_dims = t == TENSOR_B ? 1 : 5;
        dnnl_format_tag_t row_major = t == TENSOR_B ? dnnl_a : dnnl_abcde;
        ONEDNN(dnnl_memory_desc_init_by_tag(&d->ours[t], n_dims, dims[t], dnnl_f32, row_major));
        ONEDNN(dnnl_memory_desc_init_by_tag(&d->any[t], n_dims, dims[t], dnnl_f32,
                                            dnnl_format_tag_any));
    }
    for (int i = 0; i < 3; i++) {
        d->strides[i] = s->stride[i];
        d->padding[i] = s->padding[i];
    }
}

static dnnl_primitive_desc_t forward_desc(const struct CpuConv *conv, const struct Descs *d) {
    dnnl_convolution_desc_t desc;
    dnnl_primitive_desc_t primitive_desc;
    ONEDNN(dnnl_convolution_forward_desc_init(
        &desc, dnnl_forward_training, dnnl_convolution_direct, &d->any[TENSOR_X], &d->any[TENSOR_W],
        &d->any[TENSOR_B], &d->any[TENSOR_Y], d->strides, d->padding, d->padding));
    ONEDNN(dnnl_primitive_desc_create(&primitive_desc, &desc, NULL, conv->engine, NULL));
    return primitive_desc;
}

static dnnl_primitive_desc_t backward_desc(const struct CpuConv *conv, const struct Descs *d,
                                           enum Direction direction) {
    dnnl_convolution_desc_t desc;
    if (direction == BACKWARD_INPUT)
        ONEDNN(dnnl_convolution_backward_data_desc_init(
            &desc, dnnl_convolution_direct, &d->any[TENSOR_X], &d->any[TENSOR_W], &d->any[TENSOR_Y],
            d->strides, d->padding, d->padding));
    else
        ONEDNN(dnnl_convolution_backward_weights_desc_init(
            &desc, dnnl_convolution_direct, &d->any[TENSOR_X], &d->any[TENSOR_W], &d->any[TENSOR_B],
            &d->any[TENSOR_Y], d->strides, d->padding, d->padding));
    dnnl_primitive_desc_t forward = forward_desc(conv, d), primitive_desc;
    ONEDNN(dnnl_primitive_desc_create(&primitive_desc, &desc, NULL, conv->engine, forward));
    dnnl_primitive_desc_destroy(forward);
    return primitive_desc;
}

/* ---- operands and their reorders */

static dnnl_primitive_t reorder_create(const struct CpuConv *conv, const dnnl_memory_desc_t *from,
                                       const dnnl_memory_desc_t *to, bool add) {
    dnnl_primitive_attr_t attr;
    ONEDNN(dnnl_primitive_attr_create(&attr));
    if (add) {
        dnnl_post_ops_t sum;
        ONEDNN(dnnl_post_ops_create(&sum));
        ONEDNN(dnnl_post_ops_append_sum(sum, 1.0f));
        ONEDNN(dnnl_primitive_attr_set_post_ops(attr, sum));
        dnnl_post_ops_destroy(sum);
    }
    dnnl_primitive_desc_t desc;
    ONEDNN(dnnl_reorder_primitive_desc_create(&desc, from, conv->engine, to, conv->engine, attr));
    dnnl_primitive_t reorder;
    ONEDNN(dnnl_primitive_create(&reorder, desc));
    dnnl_primitive_desc_destroy(desc);
    dnnl_primitive_attr_destroy(attr);
    return reorder;
}

static void pass_add_operand(const struct CpuConv *conv, struct Pass *pass,
                             const_dnnl_primitive_desc_t primitive, int arg, enum Access access,
                             const dnnl_memory_desc_t *ours) {
    struct Operand *operand = &pass->operands[pass->n_operands++];
    const dnnl_memory_desc_t *theirs =
        dnnl_primitive_desc_query_md(primitive, dnnl_query_exec_arg_md, arg);
    operand->arg = arg;
    operand->access = access;
    ONEDNN(dnnl_memory_create(&operand->ours, ours, conv->engine, DNNL_MEMORY_NONE));
    if (access != ADD && dnnl_memory_desc_equal(ours, theirs)) {
        operand->theirs = operand->ours;
        return;
    }
    ONEDNN(dnnl_memory_create(&operand->theirs, theirs, conv->engine, DNNL_MEMORY_ALLOCATE));
    operand->reorder = access == READ ? reorder_create(conv, ours, theirs, false)
                                      : reorder_create(conv, theirs, ours, access == ADD);
}

/* The operands in the order in which the operations below hand over their addresses. */
static void pass_prepare(const struct CpuConv *conv, struct Pass *pass,
                         const struct ConvShape *shape, enum Direction direction) {
    struct Descs d;
    descs_init(&d, shape);
    const dnnl_memory_desc_t *ours = d.ours;
    dnnl_primitive_desc_t desc =
        direction == FORWARD ? forward_desc(conv, &d) : backward_desc(conv, &d, direction);
    switch (direction) {
    case FORWARD:
        pass_add_operand(conv, pass, desc, DNNL_ARG_DST, OVERWRITE, &ours[TENSOR_Y]);
        pass_add_operand(conv, pass, desc, DNNL_ARG_SRC, READ, &ours[TENSOR_X]);
        pass_add_operand(conv, pass, desc, DNNL_ARG_WEIGHTS, READ, &ours[TENSOR_W]);
        pass_add_operand(conv, pass, desc, DNNL_ARG_BIAS, READ, &ours[TENSOR_B]);
        break;
    case BACKWARD_INPUT:
        pass_add_operand(conv, pass, desc, DNNL_ARG_DIFF_SRC, OVERWRITE, &ours[TENSOR_X]);
        pass_add_operand(conv, pass, desc, DNNL_ARG_DIFF_DST, READ, &ours[TENSOR_Y]);
        pass_add_operand(conv, pass, desc, DNNL_ARG_WEIGHTS, READ, &ours[TENSOR_W]);
        break;
    default:
        pass_add_operand(conv, pass, desc, DNNL_ARG_DIFF_WEIGHTS, ADD, &ours[TENSOR_W]);
        pass_add_operand(conv, pass, desc, DNNL_ARG_DIFF_BIAS, ADD, &ours[TENSOR_B]);
        pass_add_operand(conv, pass, desc, DNNL_ARG_SRC, READ, &ours[TENSOR_X]);
        pass_add_operand(conv, pass, desc, DNNL_ARG_DIFF_DST, READ, &ours[TENSOR_Y]);
    }
    ONEDNN(dnnl_primitive_create(&pass->primitive, desc));
    dnnl_primitive_desc_destroy(desc);
}

static bool shape_equal(const struct ConvShape *a, const struct ConvShape *b) {
    return a->batch == b->batch && a->in_channels == b->in_channels &&
           a->out_channels == b->out_channels && !memcmp(a->in, b->in, sizeof a->in) &&
           !memcmp(a->out, b->out, sizeof a->out) &&
           !memcmp(a->kernel, b->kernel, sizeof a->kernel) &&
           !memcmp(a->stride, b->stride, sizeof a->stride) &&
           !memcmp(a->padding, b->padding, sizeof a->padding);
}

static struct Pass *pass_find(struct CpuConv *conv, const struct ConvShape *shape,
                              enum Direction direction) {
    int i = 0;
    while (i < conv->n_plans && !shape_equal(&conv->plans[i].shape, shape)) i++;
    if (i == conv->n_plans) {
        conv->plans = xrealloc(conv->plans, (unsigned long)(i + 1) * sizeof *conv->plans);
        conv->plans[i] = (struct Plan){.shape = *shape};
        conv->n_plans++;
    }
    struct Pass *pass = &conv->plans[i].passes[direction];
    if (!pass->primitive) pass_prepare(conv, pass, shape, direction);
    return pass;
}

/* ---- execution */

static void reorder_execute(const struct CpuConv *conv, const struct Operand *operand) {
    bool in = operand->access == READ;
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, in ? operand->ours : operand->theirs},
                              {DNNL_ARG_TO, in ? operand->theirs : operand->ours}};
    ONEDNN(dnnl_primitive_execute(operand->reorder, conv->stream, 2, args));
}

/* Runs the pass on the tensors at `addresses`, in the order of its operands; a NULL address of an
 * operand that accumulates: not wanted. */
static void pass_run(const struct Backend *be, enum Direction direction,
                     const struct ConvShape *shape, const void *const addresses[]) {
    struct CpuConv *conv = ((struct CpuState *)be->state)->conv;
    struct Pass *pass = pass_find(conv, shape, direction);
    dnnl_exec_arg_t args[MAX_OPERANDS];
    for (int i = 0; i < pass->n_operands; i++) {
        struct Operand *operand = &pass->operands[i];
        ONEDNN(dnnl_memory_set_data_handle(operand->ours, (void *)(uintptr_t)addresses[i]));
        if (operand->reorder && operand->access == READ) reorder_execute(conv, operand);
        args[i] = (dnnl_exec_arg_t){operand->arg, operand->theirs};
    }
    ONEDNN(dnnl_primitive_execute(pass->primitive, conv->stream, pass->n_operands, args));
    for (int i = 0; i < pass->n_operands; i++) {
        struct Operand *operand = &pass->operands[i];
        if (operand->reorder && operand->access != READ && addresses[i])
            reorder_execute(conv, operand);
    }
    ONEDNN(dnnl_stream_wait(conv->stream));
}

void cpu_conv3d_forward(const struct Backend *be, Act *y, const Act *x, const Act *w, const Act *b,
                        const struct ConvShape *shape) {
    pass_run(be, FORWARD, shape, (const void *const[]){y, x, w, b});
}

void cpu_conv3d_backward_input(const struct Backend *be, Act *dx, const Act *dy, const Act *w,
                               const struct ConvShape *shape) {
    pass_run(be, BACKWARD_INPUT, shape, (const void *const[]){dx, dy, w});
}

void cpu_conv3d_backward_params(const struct Backend *be, float *dw, float *db, const Act *x,
                                const Act *dy, const struct ConvShape *shape) {
    if (!dw && !db) return;
    pass_run(be, BACKWARD_PARAMS, shape, (const void *const[]){dw, db, x, dy});
}
