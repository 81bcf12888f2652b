/* The emulated cuDNN: attention.  Forward is an operation; backward a pattern of 19 smaller ones,
 * or of 18 where dq is summed in a fixed order.
 *
 * As the engines do: float32 scores, probabilities and their gradients in bfloat16 where a product
 * takes them, float32 statistics (log sum exp). */
#include <algorithm>
#include <cmath>
#include <limits>

#include "cudnn_store.h"
#include "emulation.h"

namespace emulated_cudnn {

namespace {

constexpr int64_t WIDEST_FORWARD = 256, WIDEST_BACKWARD = 128, SCORE_BLOCK = 128;

Verdict refuse(cudnnStatus_t status, const char *reason) {
    return {status, reason};
}

/* A bfloat16 [batch, heads, tokens, head_dim], or with the last two swapped. */
Verdict judge_tokens(const Tensor &t, int64_t widest) {
    if (t.rank() != 4) return refuse(CUDNN_STATUS_NOT_SUPPORTED_SHAPE, "not of rank 4");
    if (t.type != CUDNN_DATA_BFLOAT16 && t.type != CUDNN_DATA_HALF)
        return refuse(CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, "neither bfloat16 nor half");
    int width = t.strides[3] == 1 ? 3 : 2;
    if (t.strides[width] != 1)
        return refuse(CUDNN_STATUS_NOT_SUPPORTED_LAYOUT, "the head's elements are not consecutive");
    for (int i = 0; i < 4; i++)
        if (i != width && t.dims[i] > 1 && t.strides[i] % 8)
            return refuse(CUDNN_STATUS_NOT_SUPPORTED_LAYOUT, "rows are not 16-byte aligned");
    if (t.dims[width] % 8 || t.dims[width] > widest)
        return refuse(CUDNN_STATUS_NOT_SUPPORTED_SHAPE, "head_dim");
    if (t.alignment < 16) return refuse(CUDNN_STATUS_NOT_SUPPORTED_LAYOUT, "alignment below 16");
    return supported();
}

Verdict judge_forward(const Descriptor &op) {
    Tensor q(op, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC), k(op, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC);
    Tensor v(op, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC), o(op, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC);
    Tensor stats(op, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC);
    Tensor scale(op, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC);
    for (const Tensor *t : {&q, &k, &v, &o}) {
        Verdict verdict = judge_tokens(*t, WIDEST_FORWARD);
        if (verdict.status != CUDNN_STATUS_SUCCESS) return verdict;
        if (t->strides[3] != 1) return refuse(CUDNN_STATUS_NOT_SUPPORTED_LAYOUT, "transposed");
    }
    if (o.dims != q.dims || v.dims != k.dims || k.dims[0] != q.dims[0] || k.dims[1] != q.dims[1] ||
        k.dims[3] != q.dims[3])
        return refuse(CUDNN_STATUS_BAD_PARAM, "q, k, v, o do not fit each other");
    if (stats.type != CUDNN_DATA_FLOAT ||
        stats.dims != std::vector<int64_t>{q.dims[0], q.dims[1], q.dims[2], 1})
        return refuse(CUDNN_STATUS_BAD_PARAM,
                      "statistics are not float [batch, heads, queries, 1]");
    if (scale.type != CUDNN_DATA_FLOAT || !scale.on_host)
        return refuse(CUDNN_STATUS_NOT_SUPPORTED, "the scale is no float of the host");
    return supported();
}

/* One query of one head: its output and statistic. */
void attend(const Memory &memory, const Tensor &q, const Tensor &k, const Tensor &v, int64_t at_q,
            int64_t at_k, int64_t at_v, float scale, std::vector<float> &out, float &statistic) {
    int64_t n_keys = k.dims[2], width = q.dims[3];
    std::vector<float> scores((size_t)n_keys, 0.0f);
    float highest = -std::numeric_limits<float>::infinity(), sum = 0.0f;
    for (int64_t j = 0; j < n_keys; j++) {
        for (int64_t d = 0; d < width; d++)
            scores[(size_t)j] +=
                memory.load(q, at_q + d) * memory.load(k, at_k + j * k.strides[2] + d);
        scores[(size_t)j] *= scale;
        highest = std::max(highest, scores[(size_t)j]);
    }
    std::fill(out.begin(), out.end(), 0.0f);
    for (int64_t j = 0; j < n_keys; j++) {
        float p = std::exp(scores[(size_t)j] - highest);
        sum += p;
        p = round_to_bf16(p);
        for (int64_t d = 0; d < width; d++)
            out[(size_t)d] += p * memory.load(v, at_v + j * v.strides[2] + d);
    }
    for (float &x : out) x /= sum;
    statistic = highest + std::log(sum);
}

void run_forward(const Descriptor &op, int, const Memory &memory) {
    Tensor q(op, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC), k(op, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC);
    Tensor v(op, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC), o(op, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC);
    Tensor stats(op, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC);
    float scale = (float)memory.host.at(Tensor(op, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC).uid);
    std::vector<float> out((size_t)q.dims[3]);
    auto at = [](const Tensor &t, int64_t b, int64_t h, int64_t i) {
        return b * t.strides[0] + h * t.strides[1] + i * t.strides[2];
    };
    for (int64_t b = 0; b < q.dims[0]; b++)
        for (int64_t h = 0; h < q.dims[1]; h++)
            for (int64_t i = 0; i < q.dims[2]; i++) {
                float statistic;
                attend(memory, q, k, v, at(q, b, h, i), at(k, b, h, 0), at(v, b, h, 0), scale, out,
                       statistic);
                memory.store(stats, at(stats, b, h, i), statistic);
                for (int64_t d = 0; d < q.dims[3]; d++)
                    memory.store(o, at(o, b, h, i) + d, out[(size_t)d]);
            }
}

/* ---- backward */

int64_t count(const Descriptor &graph, cudnnBackendDescriptorType_t type) {
    const auto &operations = graph_operations(graph);
    return std::count_if(operations.begin(), operations.end(),
                         [type](const DescriptorRef &op) { return op->kind->type == type; });
}

int64_t count_pointwise(const Descriptor &graph, cudnnPointwiseMode_t mode) {
    int64_t n = 0;
    for (const DescriptorRef &op : graph_operations(graph))
        n += op->kind->type == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR &&
             op->link(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)
                     .one<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE) == mode;
    return n;
}

bool sums_in_fixed_order(const Descriptor &graph) {
    return count_pointwise(graph, CUDNN_POINTWISE_IDENTITY) == 0;
}

/* By what it is made of: a wiring that is wrong gives wrong gradients. */
bool matches_backward(const Descriptor &graph) {
    return count(graph, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR) == 5 &&
           count(graph, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR) == 1 &&
           count(graph, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR) == 3 &&
           count_pointwise(graph, CUDNN_POINTWISE_MUL) == 5 &&
           count_pointwise(graph, CUDNN_POINTWISE_SUB) == 2 &&
           count_pointwise(graph, CUDNN_POINTWISE_EXP) == 1 &&
           count_pointwise(graph, CUDNN_POINTWISE_IDENTITY) <= 1;
}

/* Up to 9.25 the engines take what they read or write per query to be dense, whatever its strides:
 * cudnn-frontend refuses others in their place. */
void require_dense(const Tensor &t) {
    int64_t dense = 1;
    for (size_t i = t.dims.size(); i-- > 0; dense *= t.dims[i])
        if (t.strides[i] != dense)
            emu_reject("cuDNN: attention backward: statistics with strides of their own would be "
                       "taken for dense ones");
}

Verdict judge_backward(const Descriptor &graph) {
    for (const DescriptorRef &op : graph_operations(graph))
        for (const Tensor &t : tensors_of(*op)) {
            if (t.is_virtual || t.on_host) continue;
            if (t.type == CUDNN_DATA_FLOAT) {
                require_dense(t);
                continue;
            }
            Verdict verdict = judge_tokens(t, WIDEST_BACKWARD);
            if (verdict.status != CUDNN_STATUS_SUCCESS) return verdict;
        }
    return supported();
}

/* [batch, heads, queries, keys] */
std::vector<int64_t> score_dims(const Descriptor &graph) {
    for (const DescriptorRef &op : graph_operations(graph))
        if (op->kind->type == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR)
            return Tensor(*op, CUDNN_ATTR_OPERATION_MATMUL_CDESC).dims;
    return {};
}

int64_t round_up(int64_t n) {
    return (n + SCORE_BLOCK - 1) / SCORE_BLOCK * SCORE_BLOCK;
}

int64_t backward_workspace(const Descriptor &graph) {
    std::vector<int64_t> dims = score_dims(graph);
    int64_t gradient_of_scores = dims[0] * dims[1] * round_up(dims[2]) * round_up(dims[3]) * 2;
    return 256 + (sums_in_fixed_order(graph) ? gradient_of_scores : 0);
}

int64_t small_workspace(const Descriptor &) {
    return 256;
}

constexpr auto NEEDED = AttributeRule::REQUIRED;
constexpr auto LINK = CUDNN_TYPE_BACKEND_DESCRIPTOR;

} // namespace

const std::vector<OperationKind> &attention_operations() {
    static const std::vector<OperationKind> operations = {
        {{CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR,
          "attention forward",
          {{CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, LINK, 1, 1, NEEDED},
           {CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, LINK, 1, 1, NEEDED},
           {CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, LINK, 1, 1, NEEDED},
           {CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, LINK, 1, 1, NEEDED},
           {CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC, LINK, 1, 1, NEEDED},
           {CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, LINK, 1, 1, NEEDED}},
          judge_forward},
         {{{CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, small_workspace},
          {{CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, nullptr}},
         run_forward}};
    return operations;
}

const std::vector<Pattern> &attention_patterns() {
    static const std::vector<Pattern> patterns = {
        {"attention backward",
         matches_backward,
         judge_backward,
         {{{CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, backward_workspace}}}};
    return patterns;
}

} // namespace emulated_cudnn
