/* What the descriptors of the emulated cuDNN may hold: the attributes of each kind, what is wrong with
 * a tensor, a graph or a variant pack; and what a graph consists of. */
#include <set>

#include "cudnn_store.h"
#include "emulation.h"

namespace emulated_cudnn {

/* ---- graphs */

const std::vector<DescriptorRef> &graph_operations(const Descriptor &graph) {
    return graph.values.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).links;
}

std::vector<Tensor> tensors_of(const Descriptor &operation) {
    std::vector<Tensor> tensors;
    for (const auto &[name, value] : operation.values)
        for (const DescriptorRef &link : value.links)
            if (link->kind->type == CUDNN_BACKEND_TENSOR_DESCRIPTOR) tensors.emplace_back(*link);
    return tensors;
}

const OperationKind *operation_kind(cudnnBackendDescriptorType_t type) {
    for (const auto *operations :
         {&attention_operations(), &convolution_operations(), &element_operations()})
        for (const OperationKind &kind : *operations)
            if (kind.descriptor.type == type) return &kind;
    return nullptr;
}

const Pattern *pattern_of(const Descriptor &graph) {
    for (const Pattern &pattern : attention_patterns())
        if (pattern.matches(graph)) return &pattern;
    return nullptr;
}

const Descriptor *only_operation(const Descriptor &graph) {
    const auto &operations = graph_operations(graph);
    return operations.size() == 1 ? operations[0].get() : nullptr;
}

const std::vector<Engine> &engines_of(const Descriptor &graph) {
    const Descriptor *operation = only_operation(graph);
    return operation ? operation_kind(operation->kind->type)->engines : pattern_of(graph)->engines;
}

std::vector<Tensor> graph_tensors(const Descriptor &graph) {
    std::map<int64_t, const Descriptor *> seen;
    std::vector<Tensor> tensors;
    for (const DescriptorRef &operation : graph_operations(graph))
        for (const auto &[name, value] : operation->values)
            for (const DescriptorRef &link : value.links) {
                if (link->kind->type != CUDNN_BACKEND_TENSOR_DESCRIPTOR) continue;
                Tensor t(*link);
                const Descriptor *&known = seen[t.uid];
                if (known && known != link.get())
                    emu_reject("cuDNN: two tensors of a graph have the uid %lld", (long long)t.uid);
                if (!known) tensors.push_back(t);
                known = link.get();
            }
    return tensors;
}

/* ---- kinds of descriptors */

namespace {

Verdict judge_tensor(const Descriptor &d) {
    Tensor t(d);
    if (t.dims.size() != t.strides.size())
        emu_reject("cuDNN: a tensor of %zu dimensions with %zu strides", t.dims.size(),
                   t.strides.size());
    for (int64_t dim : t.dims)
        if (dim < 1) return {CUDNN_STATUS_BAD_PARAM, "a tensor with a dimension below 1"};
    for (int64_t stride : t.strides)
        if (stride < 1) return {CUDNN_STATUS_BAD_PARAM, "a tensor with a stride below 1"};
    if (t.alignment < t.elem_bytes() || (t.alignment & (t.alignment - 1)))
        return {CUDNN_STATUS_BAD_PARAM, "an alignment that is no power of two"};
    if (t.on_host && t.is_virtual)
        return {CUDNN_STATUS_BAD_PARAM, "a virtual tensor that is passed by value"};
    return supported();
}

Verdict judge_graph(const Descriptor &graph) {
    for (const DescriptorRef &operation : graph_operations(graph))
        if (!operation_kind(operation->kind->type))
            emu_reject("cuDNN: a %s is no operation", operation->kind->name);
    bool has_virtual = false;
    for (const Tensor &t : graph_tensors(graph)) has_virtual |= t.is_virtual;
    if (const Descriptor *operation = only_operation(graph)) {
        if (has_virtual || operation_kind(operation->kind->type)->engines.empty())
            return {CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN, "no engine knows the graph"};
        return supported();
    }
    const Pattern *pattern = pattern_of(graph);
    if (!pattern) return {CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN, "no engine knows the graph"};
    return pattern->judge(graph);
}

Verdict judge_pack(const Descriptor &d) {
    auto uids = d.all<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    auto memory = d.all<void *>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    if (uids.size() != memory.size())
        emu_reject("cuDNN: a variant pack of %zu uids and %zu pointers", uids.size(),
                   memory.size());
    if (std::set<int64_t>(uids.begin(), uids.end()).size() != uids.size())
        emu_reject("cuDNN: a uid stands twice in a variant pack");
    return supported();
}

constexpr auto NEEDED = AttributeRule::REQUIRED;
constexpr auto FREE = AttributeRule::OPTIONAL;

/* What heuristics produce (engines and their configurations) cannot be set from outside. */
const std::vector<DescriptorKind> &machinery() {
    static const std::vector<DescriptorKind> kinds = {
        {CUDNN_BACKEND_TENSOR_DESCRIPTOR,
         "tensor",
         {{CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, 1, NEEDED},
          {CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, NEEDED},
          {CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 1, 8, NEEDED},
          {CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 1, 8, NEEDED},
          {CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, 1, NEEDED},
          {CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, 1, FREE},
          {CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, 1, FREE}},
         judge_tensor},
        {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR,
         "operation graph",
         {{CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, NEEDED},
          {CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 64, NEEDED}},
         judge_graph},
        {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR,
         "heuristic",
         {{CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, NEEDED},
          {CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, 1, NEEDED}},
         nullptr},
        {CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, "engine configuration", {}, nullptr},
        {CUDNN_BACKEND_ENGINE_DESCRIPTOR, "engine", {}, nullptr},
        {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR,
         "execution plan",
         {{CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, NEEDED},
          {CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, NEEDED}},
         nullptr},
        {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR,
         "variant pack",
         {{CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 1, 64, NEEDED},
          {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 1, 64, NEEDED},
          {CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, 1, NEEDED}},
         judge_pack},
    };
    return kinds;
}

} // namespace

const DescriptorKind *kind_of(cudnnBackendDescriptorType_t type) {
    if (const OperationKind *operation = operation_kind(type)) return &operation->descriptor;
    if (type == convolution_descriptor_kind().type) return &convolution_descriptor_kind();
    for (const auto *kinds : {&machinery(), &element_descriptor_kinds()})
        for (const DescriptorKind &kind : *kinds)
            if (kind.type == type) return &kind;
    return nullptr;
}

} // namespace emulated_cudnn
