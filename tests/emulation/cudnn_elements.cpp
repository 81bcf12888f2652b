/* The emulated cuDNN: the operations of which larger graphs are composed.  Each one alone has no
 * engine here; a graph of them that some pattern knows is computed operation by operation, every
 * tensor between them rounded to its type. */
#include <cmath>

#include "cudnn_store.h"
#include "emulation.h"

namespace emulated_cudnn {

namespace {

constexpr auto NEEDED = AttributeRule::REQUIRED;
constexpr auto FREE = AttributeRule::OPTIONAL;

int64_t n_elems(const Tensor &t) {
    int64_t n = 1;
    for (int64_t dim : t.dims) n *= dim;
    return n;
}

/* Where element `index` of the row-major walk over `dims` lies in t; dimensions of length 1 in t
 * serve all indices. */
int64_t offset_of(const Tensor &t, const std::vector<int64_t> &dims, int64_t index) {
    int64_t offset = 0;
    for (size_t i = dims.size(); i-- > 0; index /= dims[i])
        if (t.dims[i] > 1) offset += index % dims[i] * t.strides[i];
    return offset;
}

float read(const Memory &memory, const Tensor &t, int64_t offset) {
    return t.on_host ? static_cast<float>(memory.host.at(t.uid)) : memory.load(t, offset);
}

/* Whether x can serve all elements of y. */
bool broadcasts(const Tensor &x, const Tensor &y) {
    if (x.rank() != y.rank()) return false;
    for (size_t i = 0; i < y.dims.size(); i++)
        if (x.dims[i] != y.dims[i] && x.dims[i] != 1) return false;
    return true;
}

Verdict disagreement(const char *what) {
    return {CUDNN_STATUS_BAD_PARAM, what};
}

/* ---- y = mode(x, b) */

bool is_binary(cudnnPointwiseMode_t mode) {
    return mode == CUDNN_POINTWISE_ADD || mode == CUDNN_POINTWISE_MUL ||
           mode == CUDNN_POINTWISE_SUB;
}

cudnnPointwiseMode_t mode_of(const Descriptor &op) {
    return op.link(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)
        .one<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE);
}

Verdict judge_pointwise(const Descriptor &op) {
    Tensor x(op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC);
    Tensor y(op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
    bool has_b = op.has(CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
    if (has_b != is_binary(mode_of(op)))
        emu_reject("cuDNN: a pointwise operation of mode %d with%s a second operand", mode_of(op),
                   has_b ? "" : "out");
    if (!broadcasts(x, y)) return disagreement("pointwise: x does not fit y");
    if (has_b && !broadcasts(Tensor(op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC), y))
        return disagreement("pointwise: b does not fit y");
    return supported();
}

float pointwise_value(cudnnPointwiseMode_t mode, float x, float b) {
    switch (mode) {
    case CUDNN_POINTWISE_ADD:
        return x + b;
    case CUDNN_POINTWISE_MUL:
        return x * b;
    case CUDNN_POINTWISE_SUB:
        return x - b;
    case CUDNN_POINTWISE_EXP:
        return std::exp(x);
    case CUDNN_POINTWISE_IDENTITY:
        return x;
    }
    emu_reject("cuDNN: pointwise mode %d is not emulated", mode);
}

void run_pointwise(const Descriptor &op, int, const Memory &memory) {
    Tensor x(op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC);
    Tensor y(op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
    Tensor b = is_binary(mode_of(op)) ? Tensor(op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC) : x;
    cudnnPointwiseMode_t mode = mode_of(op);
    for (int64_t i = 0, n = n_elems(y); i < n; i++)
        memory.store(y, offset_of(y, y.dims, i),
                     pointwise_value(mode, read(memory, x, offset_of(x, y.dims, i)),
                                     read(memory, b, offset_of(b, y.dims, i))));
}

/* ---- c = a b, the last two dimensions being a matrix's */

Verdict judge_matmul(const Descriptor &op) {
    Tensor a(op, CUDNN_ATTR_OPERATION_MATMUL_ADESC), b(op, CUDNN_ATTR_OPERATION_MATMUL_BDESC);
    Tensor c(op, CUDNN_ATTR_OPERATION_MATMUL_CDESC);
    size_t rows = c.dims.size() - 2, cols = rows + 1;
    if (a.rank() != c.rank() || b.rank() != c.rank() || c.rank() < 3)
        return disagreement("matmul: ranks differ");
    for (size_t i = 0; i < rows; i++)
        if (a.dims[i] != c.dims[i] || b.dims[i] != c.dims[i])
            return disagreement("matmul: batches differ");
    if (a.dims[rows] != c.dims[rows] || b.dims[cols] != c.dims[cols] ||
        a.dims[cols] != b.dims[rows])
        return disagreement("matmul: the matrices do not fit");
    return supported();
}

void run_matmul(const Descriptor &op, int, const Memory &memory) {
    Tensor a(op, CUDNN_ATTR_OPERATION_MATMUL_ADESC), b(op, CUDNN_ATTR_OPERATION_MATMUL_BDESC);
    Tensor c(op, CUDNN_ATTR_OPERATION_MATMUL_CDESC);
    size_t rows = c.dims.size() - 2, cols = rows + 1;
    std::vector<int64_t> batch(c.dims.begin(), c.dims.end() - 2);
    int64_t n_batches = n_elems(c) / c.dims[rows] / c.dims[cols];
    std::vector<float> left((size_t)a.dims[cols]), sums((size_t)c.dims[cols]);
    for (int64_t n = 0; n < n_batches; n++) {
        int64_t at_a = offset_of(a, batch, n), at_b = offset_of(b, batch, n);
        int64_t at_c = offset_of(c, batch, n);
        for (int64_t i = 0; i < c.dims[rows]; i++) {
            std::fill(sums.begin(), sums.end(), 0.0f);
            for (int64_t x = 0; x < a.dims[cols]; x++) {
                float factor = memory.load(a, at_a + i * a.strides[rows] + x * a.strides[cols]);
                for (int64_t j = 0; j < c.dims[cols]; j++)
                    sums[(size_t)j] +=
                        factor * memory.load(b, at_b + x * b.strides[rows] + j * b.strides[cols]);
            }
            for (int64_t j = 0; j < c.dims[cols]; j++)
                memory.store(c, at_c + i * c.strides[rows] + j * c.strides[cols], sums[(size_t)j]);
        }
    }
}

/* ---- y = the sum of x over the dimensions that have length 1 in y */

Verdict judge_reduction(const Descriptor &op) {
    Tensor x(op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC), y(op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC);
    if (!broadcasts(y, x)) return disagreement("reduction: y does not fit x");
    return supported();
}

void run_reduction(const Descriptor &op, int, const Memory &memory) {
    Tensor x(op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC), y(op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC);
    std::map<int64_t, float> sums;
    for (int64_t i = 0, n = n_elems(x); i < n; i++)
        sums[offset_of(y, x.dims, i)] += memory.load(x, offset_of(x, x.dims, i));
    for (const auto &[offset, sum] : sums) memory.store(y, offset, sum);
}

/* ---- y = x under other dimensions and strides: element (i, j) in memory stays where it is */

Verdict judge_reshape(const Descriptor &op) {
    Tensor x(op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC), y(op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC);
    std::map<int64_t, int64_t> x_dims, y_dims; /* by their strides */
    for (size_t i = 0; i < x.dims.size(); i++)
        if (x.dims[i] > 1) x_dims[x.strides[i]] = x.dims[i];
    for (size_t i = 0; i < y.dims.size(); i++)
        if (y.dims[i] > 1) y_dims[y.strides[i]] = y.dims[i];
    if (x_dims != y_dims) return disagreement("reshape: neither a view nor a transpose");
    return supported();
}

void run_reshape(const Descriptor &op, int, const Memory &memory) {
    Tensor x(op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC), y(op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC);
    for (int64_t i = 0, n = n_elems(y); i < n; i++) {
        int64_t offset = offset_of(y, y.dims, i);
        memory.store(y, offset, memory.load(x, offset));
    }
}

constexpr auto LINK = CUDNN_TYPE_BACKEND_DESCRIPTOR;

} // namespace

const std::vector<DescriptorKind> &element_descriptor_kinds() {
    static const std::vector<DescriptorKind> kinds = {
        {CUDNN_BACKEND_POINTWISE_DESCRIPTOR,
         "pointwise",
         {{CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, 1, NEEDED},
          {CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, 1, NEEDED}},
         nullptr},
        {CUDNN_BACKEND_MATMUL_DESCRIPTOR,
         "matmul",
         {{CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, NEEDED}},
         nullptr},
        {CUDNN_BACKEND_REDUCTION_DESCRIPTOR,
         "reduction",
         {{CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, 1, NEEDED},
          {CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, NEEDED}},
         nullptr},
    };
    return kinds;
}

const std::vector<OperationKind> &element_operations() {
    static const std::vector<OperationKind> operations = {
        {{CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR,
          "pointwise operation",
          {{CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, LINK, 1, 1, NEEDED},
           {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, LINK, 1, 1, NEEDED},
           {CUDNN_ATTR_OPERATION_POINTWISE_BDESC, LINK, 1, 1, FREE},
           {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, LINK, 1, 1, NEEDED}},
          judge_pointwise},
         {},
         run_pointwise},
        {{CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR,
          "matmul operation",
          {{CUDNN_ATTR_OPERATION_MATMUL_DESC, LINK, 1, 1, NEEDED},
           {CUDNN_ATTR_OPERATION_MATMUL_ADESC, LINK, 1, 1, NEEDED},
           {CUDNN_ATTR_OPERATION_MATMUL_BDESC, LINK, 1, 1, NEEDED},
           {CUDNN_ATTR_OPERATION_MATMUL_CDESC, LINK, 1, 1, NEEDED}},
          judge_matmul},
         {},
         run_matmul},
        {{CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR,
          "reduction operation",
          {{CUDNN_ATTR_OPERATION_REDUCTION_DESC, LINK, 1, 1, NEEDED},
           {CUDNN_ATTR_OPERATION_REDUCTION_XDESC, LINK, 1, 1, NEEDED},
           {CUDNN_ATTR_OPERATION_REDUCTION_YDESC, LINK, 1, 1, NEEDED}},
          judge_reduction},
         {},
         run_reduction},
        {{CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR,
          "reshape operation",
          {{CUDNN_ATTR_OPERATION_RESHAPE_XDESC, LINK, 1, 1, NEEDED},
           {CUDNN_ATTR_OPERATION_RESHAPE_YDESC, LINK, 1, 1, NEEDED}},
          judge_reshape},
         {},
         run_reshape},
    };
    return operations;
}

} // namespace emulated_cudnn
