/* The emulated cuDNN's convolutions: forward, backward data, backward filter, in two or three
 * spatial dimensions and one group.
 *
 *     y[n,k,o] = sum over c, t of w[k,c,t] x[n,c, o stride + t dilation - padding]
 *
 * (t mirrored in the mode CONVOLUTION), and the two gradients; result = alpha sum + beta result.
 * One walk over all products serves the three.
 *
 * Dimensions that do not belong together are a mistake.  Supported is what the library's compiled
 * engines take: operands and result of one type, and of fewer than 32 bits only with channels last
 * and in multiples of 16 bytes.  TMD_EMULATED_CONV=nothing in the environment: none of it, for
 * tests of what happens then.
 *
 * The engines differ as their notes say, and those that a caller may have to forbid come first:
 * sums in bfloat16; sums whose order changes from run to run; operands cut to TF32; and at last
 * none of this. */
#include <cstdlib>
#include <cstring>

#include "cudnn_store.h"
#include "emulation.h"

namespace emulated_cudnn {

namespace {

bool nothing_supported() {
    const char *setting = getenv("TMD_EMULATED_CONV");
    return setting && strcmp(setting, "nothing") == 0;
}

constexpr auto NEEDED = AttributeRule::REQUIRED;
enum { X, W, Y, N_OPERANDS, MAX_SPATIAL = 3 };

/* The attributes of an operation, in the order of the names that the library gives them. */
struct Names {
    cudnnBackendAttributeName_t alpha, beta, convolution, operands[N_OPERANDS];
    int result;
};

constexpr Names FORWARD = {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                           CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
                           CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                           {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y},
                           Y};
constexpr Names BACKWARD_DATA = {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                                 {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY},
                                 X};
constexpr Names BACKWARD_FILTER = {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                                   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
                                   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                                   {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY},
                                   W};

const Names &names_of(const Descriptor &operation) {
    switch (operation.kind->type) {
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
        return FORWARD;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
        return BACKWARD_DATA;
    default:
        return BACKWARD_FILTER;
    }
}

/* ---- judging */

Verdict judge_convolution(const Descriptor &d) {
    int64_t n = d.one<int64_t>(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS);
    for (auto [name, least] : {std::pair(CUDNN_ATTR_CONVOLUTION_DILATIONS, 1),
                               std::pair(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 1),
                               std::pair(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, 0),
                               std::pair(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, 0)}) {
        auto values = d.all<int64_t>(name);
        if ((int64_t)values.size() != n)
            emu_reject(
                "cuDNN: a convolution over %lld dimensions with %zu elements of attribute %d",
                (long long)n, values.size(), name);
        for (int64_t value : values)
            if (value < least)
                emu_reject("cuDNN: %lld in attribute %d of a convolution", (long long)value, name);
    }
    if (n != 2 && n != MAX_SPATIAL)
        return {CUDNN_STATUS_NOT_SUPPORTED, "a convolution over other than 2 or 3 dimensions"};
    if (d.one<cudnnDataType_t>(CUDNN_ATTR_CONVOLUTION_COMP_TYPE) != CUDNN_DATA_FLOAT)
        return {CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE,
                "a convolution that is not summed in float32"};
    return supported();
}

void require_equal(const char *what, int64_t a, int64_t b) {
    if (a != b)
        emu_reject("cuDNN: convolution: %s: %lld and %lld", what, (long long)a, (long long)b);
}

void check_dims(const Descriptor &convolution, const std::vector<Tensor> &t) {
    int64_t n_spatial = convolution.one<int64_t>(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS);
    for (const Tensor &tensor : t) require_equal("rank of a tensor", tensor.rank(), n_spatial + 2);
    require_equal("samples of x and y", t[X].dims[0], t[Y].dims[0]);
    require_equal("channels of x and of the filter", t[X].dims[1], t[W].dims[1]);
    require_equal("filters and channels of y", t[W].dims[0], t[Y].dims[1]);
    auto before = convolution.all<int64_t>(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS);
    auto after = convolution.all<int64_t>(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS);
    auto dilation = convolution.all<int64_t>(CUDNN_ATTR_CONVOLUTION_DILATIONS);
    auto stride = convolution.all<int64_t>(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES);
    for (size_t i = 0; i < stride.size(); i++) {
        int64_t span = (t[W].dims[2 + i] - 1) * dilation[i] + 1;
        int64_t room = t[X].dims[2 + i] + before[i] + after[i] - span;
        require_equal("y's extent, as it is and as it follows", t[Y].dims[2 + i],
                      room < 0 ? 0 : room / stride[i] + 1);
    }
}

/* Dense, the channels side by side. */
bool channels_last(const Tensor &t) {
    int64_t dense = t.dims[1];
    if (t.strides[1] != 1) return false;
    for (int64_t i = t.rank() - 1; i >= 2; dense *= t.dims[(size_t)i--])
        if (t.strides[(size_t)i] != dense) return false;
    return t.strides[0] == dense;
}

Verdict judge_operation(const Descriptor &d) {
    const Names &names = names_of(d);
    std::vector<Tensor> t;
    for (auto name : names.operands) t.emplace_back(d, name);
    check_dims(d.link(names.convolution), t);
    if (nothing_supported()) return {CUDNN_STATUS_NOT_SUPPORTED, "no convolution at all"};
    for (const Tensor &tensor : t) {
        if (tensor.type != CUDNN_DATA_FLOAT && tensor.type != CUDNN_DATA_BFLOAT16)
            return {CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, "a type that is not emulated"};
        if (tensor.type != t[X].type)
            return {CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, "a convolution of several types"};
        if (tensor.type == CUDNN_DATA_BFLOAT16 && (!channels_last(tensor) || tensor.dims[1] % 8))
            return {CUDNN_STATUS_NOT_SUPPORTED_LAYOUT,
                    "bfloat16 channels that are not last and a multiple of 8"};
    }
    return supported();
}

/* ---- computing */

float round_to_tf32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits = (bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* An operand in row-major order, dims[2..] extended to three by ones in front. */
struct Dense {
    int64_t dims[2 + MAX_SPATIAL];
    std::vector<int64_t> places; /* of its elements in memory */
    std::vector<float> values;

    Dense(const Tensor &t, const Memory &memory, bool read) {
        int64_t strides[2 + MAX_SPATIAL], missing = 2 + MAX_SPATIAL - t.rank(), n_elems = 1;
        for (int64_t i = 0; i < 2 + MAX_SPATIAL; i++) {
            bool is_there = i < 2 || i >= 2 + missing;
            size_t from = (size_t)(i < 2 ? i : i - missing);
            dims[i] = is_there ? t.dims[from] : 1;
            strides[i] = is_there ? t.strides[from] : 0;
            n_elems *= dims[i];
        }
        for (int64_t i = 0; i < n_elems; i++) {
            int64_t place = 0, rest = i;
            for (int d = 1 + MAX_SPATIAL; d >= 0; rest /= dims[d--])
                place += rest % dims[d] * strides[d];
            places.push_back(place);
            values.push_back(read ? memory.load(t, place) : 0.0f);
        }
    }
    int64_t index(int64_t outer, int64_t channel, const int64_t at[MAX_SPATIAL]) const {
        return (((outer * dims[1] + channel) * dims[2] + at[0]) * dims[3] + at[1]) * dims[4] +
               at[2];
    }
};

struct Geometry {
    int64_t padding[MAX_SPATIAL] = {0, 0, 0}, stride[MAX_SPATIAL] = {1, 1, 1},
            dilation[MAX_SPATIAL] = {1, 1, 1};
    bool mirrored;

    explicit Geometry(const Descriptor &d)
        : mirrored(d.one<cudnnConvolutionMode_t>(CUDNN_ATTR_CONVOLUTION_CONV_MODE) ==
                   CUDNN_CONVOLUTION) {
        auto copy = [&](cudnnBackendAttributeName_t name, int64_t to[MAX_SPATIAL]) {
            auto values = d.all<int64_t>(name);
            std::copy(values.begin(), values.end(), to + MAX_SPATIAL - values.size());
        };
        copy(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, padding);
        copy(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, stride);
        copy(CUDNN_ATTR_CONVOLUTION_DILATIONS, dilation);
    }
};

/* Calls product(iy, ix, iw) for every product that the element iy of y is made of. */
template <typename F>
void visit_element(const Geometry &g, const Dense &x, const Dense &w, const Dense &y, int64_t iy,
                   F product) {
    int64_t o[MAX_SPATIAL], rest = iy;
    for (int d = MAX_SPATIAL - 1; d >= 0; rest /= y.dims[2 + d--]) o[d] = rest % y.dims[2 + d];
    int64_t k = rest % y.dims[1], n = rest / y.dims[1];
    int64_t taps = w.dims[2] * w.dims[3] * w.dims[4];
    for (int64_t tap = 0; tap < taps; tap++) {
        int64_t t[MAX_SPATIAL] = {tap / w.dims[4] / w.dims[3], tap / w.dims[4] % w.dims[3],
                                  tap % w.dims[4]};
        int64_t in[MAX_SPATIAL];
        bool inside = true;
        for (int d = 0; d < MAX_SPATIAL; d++) {
            in[d] = o[d] * g.stride[d] + t[d] * g.dilation[d] - g.padding[d];
            inside = inside && in[d] >= 0 && in[d] < x.dims[2 + d];
            if (g.mirrored) t[d] = w.dims[2 + d] - 1 - t[d];
        }
        for (int64_t c = 0; inside && c < x.dims[1]; c++)
            product(iy, x.index(n, c, in), w.index(k, c, t));
    }
}

enum EngineIndex { SUMS_IN_BF16, CHANGING_ORDER, TENSOR_CORE, PLAIN };

void run(const Descriptor &operation, int engine, const Memory &memory) {
    static bool backwards = false;
    const Names &names = names_of(operation);
    const Geometry geometry(operation.link(names.convolution));
    std::vector<Dense> operands;
    for (int i = 0; i < N_OPERANDS; i++)
        operands.emplace_back(Tensor(operation, names.operands[i]), memory, i != names.result);
    if (engine != PLAIN)
        for (Dense &operand : operands)
            for (float &value : operand.values) value = round_to_tf32(value);
    if (engine == CHANGING_ORDER) backwards = !backwards;

    Dense &x = operands[X], &w = operands[W], &y = operands[Y];
    int64_t n_y = (int64_t)y.values.size();
    for (int64_t i = 0; i < n_y; i++)
        visit_element(geometry, x, w, y, engine == CHANGING_ORDER && backwards ? n_y - 1 - i : i,
                      [&](int64_t iy, int64_t ix, int64_t iw) {
                          float *sum = names.result == X   ? &x.values[(size_t)ix]
                                       : names.result == W ? &w.values[(size_t)iw]
                                                           : &y.values[(size_t)iy];
                          float a = names.result == X ? y.values[(size_t)iy] : x.values[(size_t)ix];
                          float b = names.result == W ? y.values[(size_t)iy] : w.values[(size_t)iw];
                          *sum += a * b;
                          if (engine == SUMS_IN_BF16) *sum = round_to_bf16(*sum);
                      });

    Tensor result(operation, names.operands[names.result]);
    float alpha = operation.one<float>(names.alpha), beta = operation.one<float>(names.beta);
    const Dense &sums = operands[(size_t)names.result];
    for (size_t i = 0; i < sums.values.size(); i++) {
        float before = beta == 0.0f ? 0.0f : beta * memory.load(result, sums.places[i]);
        memory.store(result, sums.places[i], alpha * sums.values[i] + before);
    }
}

/* As engines that sum in several parts ask for: what they find there is not what a caller left. */
int64_t workspace_bytes(const Descriptor &operation) {
    const Names &names = names_of(operation);
    return Tensor(operation, names.operands[names.result]).extent_bytes();
}

OperationKind operation(cudnnBackendDescriptorType_t type, const char *name, const Names &names) {
    OperationKind kind = {
        {type,
         name,
         {{names.alpha, CUDNN_TYPE_FLOAT, 1, 1, NEEDED},
          {names.beta, CUDNN_TYPE_FLOAT, 1, 1, NEEDED},
          {names.convolution, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, NEEDED}},
         judge_operation},
        {{{CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION},
          nullptr},
         {{CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}, nullptr},
         {{CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, workspace_bytes},
         {{}, nullptr}},
        run};
    for (auto operand : names.operands)
        kind.descriptor.rules.push_back({operand, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, NEEDED});
    return kind;
}

} // namespace

const DescriptorKind &convolution_descriptor_kind() {
    static const DescriptorKind kind = {
        CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR,
        "convolution",
        {{CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, 1, NEEDED},
         {CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, NEEDED},
         {CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, 1, NEEDED},
         {CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 1, MAX_SPATIAL, NEEDED},
         {CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 1, MAX_SPATIAL, NEEDED},
         {CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 1, MAX_SPATIAL, NEEDED},
         {CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 1, MAX_SPATIAL, NEEDED}},
        judge_convolution};
    return kind;
}

const std::vector<OperationKind> &convolution_operations() {
    static const std::vector<OperationKind> operations = {
        operation(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, "forward convolution",
                  FORWARD),
        operation(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                  "convolution's backward data", BACKWARD_DATA),
        operation(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                  "convolution's backward filter", BACKWARD_FILTER)};
    return operations;
}

} // namespace emulated_cudnn
