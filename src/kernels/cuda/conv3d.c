/* The convolution of ops_conv.h, computed by cuDNN.
 *
 * Tensor-core engines want channels last and in multiples of 16 bytes, which is not how tensors lie
 * between operations.  So the operands are copied into the workspace in that layout, channels
 * padded with zeros, and the result is copied out again (conv_layout.cu), which is where the bias
 * and the gradient that was there before are added.  cuDNN sums in float32, but gives the result as
 * an Act: its engines for bfloat16 offer nothing else (9.19 and 9.26 on sm_90).
 *
 * What the workspace cannot hold at once is convolved in parts, each of some samples or, for
 * samples too large, of some input channels: those parts of dx and dw are independent, those of y
 * are added up in float32.  All parts have one shape, so that one plan serves them and cuDNN
 * refuses the first or none; what it refuses goes to conv_plain.cu.
 *
 * In float32 no engine may use tensor cores or other products of fewer bits. */
#include "kernels/cuda/conv3d.h"
#include "kernels/cuda/cudnn_graph.h"

enum { CONV_RANK = 5, CONV_SPATIAL = 3, PACK_BYTES = 16, PLACE_BYTES = 256 };

enum Direction { FORWARD, BACKWARD_INPUT, BACKWARD_PARAMS, N_DIRECTIONS };
enum Operand { OPERAND_X, OPERAND_W, OPERAND_Y, N_OPERANDS };

static const struct {
    const char *what;
    cudnnBackendDescriptorType_t operation;
    cudnnBackendAttributeName_t alpha, beta, convolution, operands[N_OPERANDS];
    enum Operand result;
} DIRECTIONS[N_DIRECTIONS] = {
    [FORWARD] = {"conv3d_forward",
                 CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                 CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                 CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
                 CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                 {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                  CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                  CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y},
                 OPERAND_Y},
    [BACKWARD_INPUT] = {"conv3d_backward_input",
                        CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                        {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY},
                        OPERAND_X},
    [BACKWARD_PARAMS] = {"conv3d_backward_params",
                         CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                         {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY},
                         OPERAND_W},
};

/* ---- the graph of one part */

/* Numbers of eight bytes throughout: no padding. */
struct ConvKey {
    int64_t direction, act_dtype;
    struct ConvShape part; /* channels padded */
};

/* Samples (or output channels), channels, frames, rows, columns. */
static void operand_dims(int64_t dims[CONV_RANK], const struct ConvShape *part,
                         enum Operand operand) {
    const int64_t *spatial = operand == OPERAND_X   ? part->in
                             : operand == OPERAND_W ? part->kernel
                                                    : part->out;
    dims[0] = operand == OPERAND_W ? part->out_channels : part->batch;
    dims[1] = operand == OPERAND_Y ? part->out_channels : part->in_channels;
    for (int i = 0; i < CONV_SPATIAL; i++) dims[2 + i] = spatial[i];
}

static cudnnBackendDescriptor_t describe_operand(struct CudnnBuilder *b, const struct ConvKey *key,
                                                 enum Operand operand) {
    struct CudnnTensor t = {.uid = 1 + (int64_t)operand,
                            .type = key->act_dtype == DTYPE_F32 ? CUDNN_DATA_FLOAT
                                                                : CUDNN_DATA_BFLOAT16,
                            .rank = CONV_RANK};
    operand_dims(t.dims, &key->part, operand);
    t.strides[1] = 1;
    t.strides[4] = t.dims[1];
    t.strides[3] = t.strides[4] * t.dims[4];
    t.strides[2] = t.strides[3] * t.dims[3];
    t.strides[0] = t.strides[2] * t.dims[2];
    return cudnn_tensor(b, &t);
}

static cudnnBackendDescriptor_t describe_convolution(struct CudnnBuilder *b,
                                                     const struct ConvShape *part) {
    const int64_t n = CONV_SPATIAL, dilation[CONV_SPATIAL] = {1, 1, 1};
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    cudnnBackendDescriptor_t d = cudnn_descriptor(b, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    cudnn_set(b, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &n);
    cudnn_set(b, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    cudnn_set(b, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    cudnn_set(b, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, n, dilation);
    cudnn_set(b, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, n, part->stride);
    cudnn_set(b, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, n, part->padding);
    cudnn_set(b, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, n, part->padding);
    cudnn_finalize(b, d);
    return d;
}

static void describe(struct CudnnBuilder *b, const void *opaque_key) {
    const struct ConvKey *key = opaque_key;
    const float one = 1.0f, zero = 0.0f;
    cudnnBackendDescriptor_t op = cudnn_descriptor(b, DIRECTIONS[key->direction].operation);
    cudnn_set(b, op, DIRECTIONS[key->direction].alpha, CUDNN_TYPE_FLOAT, 1, &one);
    cudnn_set(b, op, DIRECTIONS[key->direction].beta, CUDNN_TYPE_FLOAT, 1, &zero);
    cudnn_set_link(b, op, DIRECTIONS[key->direction].convolution,
                   describe_convolution(b, &key->part));
    for (int i = 0; i < N_OPERANDS; i++)
        cudnn_set_link(b, op, DIRECTIONS[key->direction].operands[i],
                       describe_operand(b, key, (enum Operand)i));
    cudnn_add_operation(b, op);
}

/* ---- parts, and where their operands stand in the workspace */

struct Conv {
    const struct Backend *be;
    const struct ConvShape *shape;
    struct ConvKey key; /* of every part */
    int64_t places[N_OPERANDS], total_place, bytes_taken;
    const Act *x, *w, *y, *b; /* in our layout; NULL for the result, and where there is no bias */
    void *result;
};

static int64_t round_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

static int64_t operand_elems(const struct Conv *c, enum Operand operand) {
    int64_t dims[CONV_RANK], n_elems = 1;
    operand_dims(dims, &c->key.part, operand);
    for (int i = 0; i < CONV_RANK; i++) n_elems *= dims[i];
    return n_elems;
}

static bool sums_channels(const struct Conv *c) {
    return c->key.direction == FORWARD && c->key.part.in_channels < c->shape->in_channels;
}

static int64_t place(struct Conv *c, int64_t n_elems, int64_t elem_bytes) {
    int64_t at = c->bytes_taken;
    c->bytes_taken += round_up(n_elems * elem_bytes, PLACE_BYTES);
    return at;
}

static void place_all(struct Conv *c) {
    c->bytes_taken = 0;
    for (int i = 0; i < N_OPERANDS; i++)
        c->places[i] = place(c, operand_elems(c, (enum Operand)i), dtype_bytes(c->be->act_dtype));
    if (sums_channels(c))
        c->total_place = place(c, operand_elems(c, OPERAND_Y), dtype_bytes(DTYPE_F32));
}

/* The largest part that leaves cuDNN a quarter of the workspace; false: none does. */
static bool choose_part(struct Conv *c) {
    int64_t limit = cuda_state(c->be)->workspace_bytes / 4 * 3;
    int64_t pack = PACK_BYTES / dtype_bytes(c->be->act_dtype);
    struct ConvShape *part = &c->key.part;
    *part = *c->shape;
    part->in_channels = round_up(part->in_channels, pack);
    part->out_channels = round_up(part->out_channels, pack);
    for (place_all(c); c->bytes_taken > limit; place_all(c)) {
        if (part->batch > 1) {
            do part->batch--;
            while (c->shape->batch % part->batch);
        } else if (part->in_channels > pack) {
            part->in_channels = round_up(part->in_channels / 2, pack);
        } else {
            return false;
        }
    }
    return true;
}

static char *in_workspace(const struct Conv *c, int64_t at) {
    return (char *)cuda_workspace(c->be, c->bytes_taken) + at;
}

/* ---- between the layouts */

static int64_t volume(const int64_t extent[3]) {
    return extent[0] * extent[1] * extent[2];
}

/* What stands of an operand in a part whose input channels begin with `channel`. */
static struct ConvPlanes operand_planes(const struct Conv *c, enum Operand operand,
                                        int64_t channel) {
    const struct ConvShape *s = c->shape, *part = &c->key.part;
    if (operand == OPERAND_Y)
        return (struct ConvPlanes){.n = part->batch,
                                   .channels = s->out_channels,
                                   .all_channels = s->out_channels,
                                   .positions = volume(s->out),
                                   .padded = part->out_channels};
    int64_t left = s->in_channels - channel;
    bool is_weight = operand == OPERAND_W;
    return (struct ConvPlanes){.n = is_weight ? s->out_channels : part->batch,
                               .channels = left < part->in_channels ? left : part->in_channels,
                               .all_channels = s->in_channels,
                               .positions = volume(is_weight ? s->kernel : s->in),
                               .padded = part->in_channels};
}

/* Where in an operand, in our layout, a part begins. */
static int64_t part_begin(const struct Conv *c, enum Operand operand, int64_t sample,
                          int64_t channel) {
    const struct ConvShape *s = c->shape;
    if (operand == OPERAND_Y) return sample * s->out_channels * volume(s->out);
    if (operand == OPERAND_W) return channel * volume(s->kernel);
    return (sample * s->in_channels + channel) * volume(s->in);
}

static void operand_in(const struct Conv *c, enum Operand operand, int64_t sample,
                       int64_t channel) {
    struct ConvPlanes planes = operand_planes(c, operand, channel);
    const Act *from = operand == OPERAND_X ? c->x : operand == OPERAND_W ? c->w : c->y;
    char *to = in_workspace(c, c->places[operand]);
    cuda_conv_to_last(c->be, to, act_at(c->be, from, part_begin(c, operand, sample, channel)),
                      &planes);
    int64_t act_bytes = dtype_bytes(c->be->act_dtype);
    int64_t n_filled = planes.n * planes.positions * planes.padded;
    int64_t n_missing = operand_elems(c, operand) - n_filled; /* output channels of a weight */
    if (n_missing) cuda_zero(c->be, to + n_filled * act_bytes, n_missing * act_bytes);
}

static void result_out(const struct Conv *c, const void *from, enum Dtype dtype, int64_t sample,
                       int64_t channel) {
    enum Operand operand = DIRECTIONS[c->key.direction].result;
    struct ConvPlanes planes = operand_planes(c, operand, channel);
    int64_t begin = part_begin(c, operand, sample, channel);
    if (operand == OPERAND_W)
        cuda_conv_add_to_planes(c->be, (float *)c->result + begin, from, &planes);
    else
        cuda_conv_to_planes(c->be, act_at(c->be, c->result, begin), from, dtype, c->b, &planes);
}

/* ---- a part, and all of them */

static struct CudnnGraph part_graph(const struct Conv *c) {
    unsigned int forbidden = CUDNN_NOTE_BIT(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS) |
                             CUDNN_NOTE_BIT(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION);
    if (c->be->act_dtype == DTYPE_F32)
        forbidden |= CUDNN_NOTE_BIT(CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
    if (cuda_state(c->be)->deterministic)
        forbidden |= CUDNN_NOTE_BIT(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC);
    return (struct CudnnGraph){.what = DIRECTIONS[c->key.direction].what,
                               .describe = describe,
                               .key = &c->key,
                               .key_bytes = sizeof c->key,
                               .forbidden_notes = forbidden};
}

/* Enqueues cuDNN's share of a part; false: refused. */
static bool compute(const struct Conv *c) {
    struct CudnnBinding bindings[N_OPERANDS];
    for (int i = 0; i < N_OPERANDS; i++)
        bindings[i] = (struct CudnnBinding){1 + i, in_workspace(c, c->places[i])};
    struct CudnnGraph graph = part_graph(c);
    return cudnn_graph_run(c->be, &graph, bindings, N_OPERANDS,
                           cudnn_scratch_after(c->be, c->bytes_taken));
}

/* What follows on the graph; a y of which channels are missing is only added up. */
static void part_out(const struct Conv *c, int64_t sample, int64_t channel) {
    const void *from = in_workspace(c, c->places[DIRECTIONS[c->key.direction].result]);
    enum Dtype dtype = c->be->act_dtype;
    if (sums_channels(c)) {
        float *total = (float *)(void *)in_workspace(c, c->total_place);
        cuda_conv_add_part(c->be, total, from, operand_elems(c, OPERAND_Y), channel == 0);
        if (channel + c->key.part.in_channels < c->shape->in_channels) return;
        from = total;
        dtype = DTYPE_F32;
    }
    result_out(c, from, dtype, sample, channel);
}

/* false: cuDNN refuses the shape, or the workspace is too small; nothing was done. */
static bool convolve(struct Conv *c) {
    if (!choose_part(c)) {
        struct CudnnGraph graph = part_graph(c);
        return cudnn_graph_refuse(c->be, &graph, "the workspace is too small");
    }
    const struct ConvShape *part = &c->key.part;
    enum Direction direction = (enum Direction)c->key.direction;
    for (int64_t sample = 0; sample < c->shape->batch; sample += part->batch) {
        if (direction != FORWARD) operand_in(c, OPERAND_Y, sample, 0);
        for (int64_t channel = 0; channel < c->shape->in_channels; channel += part->in_channels) {
            if (direction != BACKWARD_INPUT) operand_in(c, OPERAND_X, sample, channel);
            if (direction != BACKWARD_PARAMS) operand_in(c, OPERAND_W, sample, channel);
            if (!compute(c)) return false;
            part_out(c, sample, channel);
        }
    }
    return true;
}

/* ---- the operations */

void cuda_conv3d_forward(const struct Backend *be, Act *y, const Act *x, const Act *w, const Act *b,
                         const struct ConvShape *shape) {
    struct Conv c = {.be = be,
                     .shape = shape,
                     .key = {.direction = FORWARD, .act_dtype = be->act_dtype},
                     .x = x,
                     .w = w,
                     .b = b,
                     .result = y};
    if (!convolve(&c)) cuda_conv_plain_forward(be, y, x, w, b, shape);
}

void cuda_conv3d_backward_input(const struct Backend *be, Act *dx, const Act *dy, const Act *w,
                                const struct ConvShape *shape) {
    struct Conv c = {.be = be,
                     .shape = shape,
                     .key = {.direction = BACKWARD_INPUT, .act_dtype = be->act_dtype},
                     .w = w,
                     .y = dy,
                     .result = dx};
    if (!convolve(&c)) cuda_conv_plain_backward_input(be, dx, dy, w, shape);
}

void cuda_conv3d_backward_params(const struct Backend *be, float *dw, float *db, const Act *x,
                                 const Act *dy, const struct ConvShape *shape) {
    struct Conv c = {.be = be,
                     .shape = shape,
                     .key = {.direction = BACKWARD_PARAMS, .act_dtype = be->act_dtype},
                     .x = x,
                     .y = dy,
                     .result = dw};
    if (dw && !convolve(&c)) cuda_conv_plain_backward_weight(be, dw, x, dy, shape);
    if (db) cuda_conv_backward_bias(be, db, dy, shape);
}
