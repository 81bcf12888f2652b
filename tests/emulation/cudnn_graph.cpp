/* The emulated cuDNN's graph machinery: the store of descriptors behind the C ABI, heuristics that
 * name each engine of an operation, plans, and their execution on the emulated device.
 *
 * TMD_EMULATED_CUDNN=first_fails in the environment: of several engines, the first is one of those
 * that compile and then do not run. */
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <set>

#include "cudnn_store.h"
#include "emulation.h"

struct cudnnContext {
    cudaStream_t stream;
};

namespace emulated_cudnn {

namespace {

std::string last_error;
int64_t n_handles, n_descriptors;
std::map<int, int64_t> runs_of_operation;

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

/* The operation that a graph consists of, or null. */
const Descriptor *only_operation(const Descriptor &graph) {
    const auto &operations = graph_operations(graph);
    return operations.size() == 1 ? operations[0].get() : nullptr;
}

const std::vector<Engine> &engines_of(const Descriptor &graph) {
    const Descriptor *operation = only_operation(graph);
    return operation ? operation_kind(operation->kind->type)->engines : pattern_of(graph)->engines;
}

/* All tensors of a graph, each once. */
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

const DescriptorKind *kind_of(cudnnBackendDescriptorType_t type) {
    if (const OperationKind *operation = operation_kind(type)) return &operation->descriptor;
    if (type == convolution_descriptor_kind().type) return &convolution_descriptor_kind();
    for (const auto *kinds : {&machinery(), &element_descriptor_kinds()})
        for (const DescriptorKind &kind : *kinds)
            if (kind.type == type) return &kind;
    return nullptr;
}

/* What an opaque pointer of the ABI stands for. */
struct Handle {
    std::shared_ptr<Descriptor> descriptor;
};

Descriptor &opened(cudnnBackendDescriptor_t opaque, const char *call) {
    if (!opaque) emu_reject("%s: no descriptor", call);
    return *static_cast<Handle *>(opaque)->descriptor;
}

size_t type_bytes(cudnnBackendAttributeType_t type) {
    switch (type) {
    case CUDNN_TYPE_BOOLEAN:
        return sizeof(bool);
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
        return 8;
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
        return sizeof(void *);
    default:
        return 4; /* float and the enumerations */
    }
}

cudnnStatus_t answer(const Verdict &verdict) {
    last_error = verdict.reason;
    return verdict.status;
}

/* Configurations from heuristics remember their graph as if it had been set. */
const Descriptor &graph_of(const Descriptor &config) {
    return config.link(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
}
const Descriptor &config_of(const Descriptor &plan) {
    return plan.link(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
}

int64_t plan_workspace_bytes(const Descriptor &plan) {
    const Descriptor &graph = graph_of(config_of(plan));
    const Engine &engine = engines_of(graph).at((size_t)config_of(plan).engine);
    const Descriptor *operation = only_operation(graph);
    return engine.workspace_bytes ? engine.workspace_bytes(operation ? *operation : graph) : 0;
}

bool fails_to_run(const Descriptor &config) {
    const char *setting = getenv("TMD_EMULATED_CUDNN");
    return setting && strcmp(setting, "first_fails") == 0 && config.engine == 0 &&
           engines_of(graph_of(config)).size() > 1;
}

/* A run that waits for its turn on the stream. */
struct Run {
    std::shared_ptr<Descriptor> plan;
    Memory memory;
    int64_t workspace_bytes;
};

/* Nothing useful can be read from memory that this has gone over. */
void poison(void *memory, int64_t n_bytes) {
    memset(memory, 0xff, (size_t)n_bytes);
}

void run_now(void *arg) {
    Run &run = *static_cast<Run *>(arg);
    const Descriptor &config = config_of(*run.plan), &graph = graph_of(config);
    if (run.workspace_bytes) poison(run.memory.workspace, run.workspace_bytes);
    std::map<int64_t, std::vector<unsigned char>> between; /* virtual tensors */
    for (const Tensor &t : graph_tensors(graph))
        if (t.is_virtual) {
            between[t.uid].assign((size_t)t.extent_bytes(), 0xff);
            run.memory.device[t.uid] = between[t.uid].data();
        }
    for (const DescriptorRef &operation : graph_operations(graph))
        operation_kind(operation->kind->type)->run(*operation, config.engine, run.memory);
}

void free_run(void *arg) {
    delete static_cast<Run *>(arg);
}

/* The address of a tensor in the variant pack. */
void bind(Memory &memory, const Tensor &t, const Descriptor &pack) {
    auto uids = pack.all<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    auto at = std::find(uids.begin(), uids.end(), t.uid);
    if (at == uids.end())
        emu_reject("cudnnBackendExecute: the variant pack lacks the tensor %lld", (long long)t.uid);
    void *address = pack.all<void *>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS)[at - uids.begin()];
    if (!address) emu_reject("cudnnBackendExecute: tensor %lld has no address", (long long)t.uid);
    if (t.on_host) {
        memory.host[t.uid] = *static_cast<float *>(address);
        return;
    }
    if (reinterpret_cast<uintptr_t>(address) % (uintptr_t)t.alignment)
        emu_reject("cudnnBackendExecute: tensor %lld at %p, said to be %lld-byte aligned",
                   (long long)t.uid, address, (long long)t.alignment);
    emu_require_device(address, (size_t)t.extent_bytes(), "cudnnBackendExecute");
    memory.device[t.uid] = address;
}

void check_no_strangers(const std::vector<Tensor> &tensors, const Descriptor &pack) {
    for (int64_t uid : pack.all<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS))
        if (std::none_of(tensors.begin(), tensors.end(),
                         [uid](const Tensor &t) { return t.uid == uid && !t.is_virtual; }))
            emu_reject("cudnnBackendExecute: the graph has no tensor %lld", (long long)uid);
}

} // namespace

/* ---- for operations */

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

Tensor::Tensor(const Descriptor &d)
    : uid(d.one<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID)),
      alignment(d.one<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT)),
      type(d.one<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE)),
      dims(d.all<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS)),
      strides(d.all<int64_t>(CUDNN_ATTR_TENSOR_STRIDES)),
      on_host(d.one<bool>(CUDNN_ATTR_TENSOR_IS_BY_VALUE)),
      is_virtual(d.one<bool>(CUDNN_ATTR_TENSOR_IS_VIRTUAL)) {
}

int64_t Tensor::elem_bytes() const {
    return type == CUDNN_DATA_DOUBLE ? 8 : type == CUDNN_DATA_FLOAT ? 4 : 2;
}

int64_t Tensor::extent_bytes() const {
    int64_t last = 0;
    for (size_t i = 0; i < dims.size(); i++) last += (dims[i] - 1) * strides[i];
    return (last + 1) * elem_bytes();
}

float round_to_bf16(float value) {
    uint32_t bits;
    if (std::isnan(value)) return value;
    memcpy(&bits, &value, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    memcpy(&value, &bits, sizeof bits);
    return value;
}

float Memory::load(const Tensor &t, int64_t offset) const {
    const void *base = device.at(t.uid);
    if (t.type == CUDNN_DATA_FLOAT) return static_cast<const float *>(base)[offset];
    uint32_t bits = (uint32_t) static_cast<const uint16_t *>(base)[offset] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void Memory::store(const Tensor &t, int64_t offset, float value) const {
    void *base = device.at(t.uid);
    if (t.type == CUDNN_DATA_FLOAT) {
        static_cast<float *>(base)[offset] = value;
        return;
    }
    uint32_t bits;
    value = round_to_bf16(value);
    memcpy(&bits, &value, sizeof bits);
    static_cast<uint16_t *>(base)[offset] = (uint16_t)(bits >> 16 | (std::isnan(value) ? 0x40 : 0));
}

} // namespace emulated_cudnn

using namespace emulated_cudnn;

/* ---- the C ABI */

int64_t emu_cudnn_runs(cudnnBackendDescriptorType_t operation) {
    return runs_of_operation[operation];
}

size_t cudnnGetVersion(void) {
    return CUDNN_VERSION;
}

const char *cudnnGetErrorString(cudnnStatus_t status) {
    switch (status / 1000) {
    case 0:
        return "CUDNN_STATUS_SUCCESS";
    case 2:
        return "CUDNN_STATUS_BAD_PARAM";
    case 3:
        return "CUDNN_STATUS_NOT_SUPPORTED";
    case 5:
        return "CUDNN_STATUS_EXECUTION_FAILED";
    default:
        return "CUDNN_STATUS_INTERNAL_ERROR";
    }
}

void cudnnGetLastErrorString(char *message, size_t max_size) {
    snprintf(message, max_size, "%s", last_error.c_str());
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) {
    *handle = new cudnnContext{nullptr};
    n_handles++;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
    delete handle;
    if (--n_handles == 0 && n_descriptors)
        emu_reject("cudnnDestroy: %lld descriptors were never destroyed", (long long)n_descriptors);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t *descriptor) {
    const DescriptorKind *kind = kind_of(type);
    if (!kind) return answer({CUDNN_STATUS_NOT_SUPPORTED, "no such descriptor"});
    auto made = std::make_shared<Descriptor>();
    made->kind = kind;
    *descriptor = new Handle{made};
    n_descriptors++;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
    opened(descriptor, "cudnnBackendDestroyDescriptor");
    delete static_cast<Handle *>(descriptor);
    n_descriptors--;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t n_elems,
                                       const void *elems) {
    Descriptor &d = opened(descriptor, "cudnnBackendSetAttribute");
    const char *kind = d.kind->name;
    if (d.finalized) emu_reject("cudnnBackendSetAttribute: the %s is finalized", kind);
    const auto &rules = d.kind->rules;
    auto rule = std::find_if(rules.begin(), rules.end(),
                             [name](const AttributeRule &r) { return r.name == name; });
    if (rule == rules.end())
        emu_reject("cudnnBackendSetAttribute: a %s has no attribute %d", kind, name);
    if (rule->type != type)
        emu_reject("cudnnBackendSetAttribute: attribute %d of a %s has type %d, not %d", name, kind,
                   rule->type, type);
    if (n_elems < rule->min_elems || n_elems > rule->max_elems)
        emu_reject("cudnnBackendSetAttribute: %lld elements for attribute %d of a %s",
                   (long long)n_elems, name, kind);
    Descriptor::Value value{type, {}, {}};
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
        const auto *links = static_cast<const cudnnBackendDescriptor_t *>(elems);
        for (int64_t i = 0; i < n_elems; i++) {
            if (!opened(links[i], "cudnnBackendSetAttribute").finalized)
                emu_reject("cudnnBackendSetAttribute: attribute %d of a %s was not finalized", name,
                           kind);
            value.links.push_back(static_cast<Handle *>(links[i])->descriptor);
        }
    } else {
        const auto *bytes = static_cast<const unsigned char *>(elems);
        value.bytes.assign(bytes, bytes + (size_t)n_elems * type_bytes(type));
    }
    d.values[name] = value;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
    Descriptor &d = opened(descriptor, "cudnnBackendFinalize");
    if (d.finalized) emu_reject("cudnnBackendFinalize: the %s is finalized", d.kind->name);
    for (const AttributeRule &rule : d.kind->rules)
        if (rule.need == NEEDED && !d.has(rule.name))
            emu_reject("cudnnBackendFinalize: the %s lacks attribute %d", d.kind->name, rule.name);
    Verdict verdict = d.kind->judge ? d.kind->judge(d) : supported();
    d.finalized = verdict.status == CUDNN_STATUS_SUCCESS;
    return answer(verdict);
}

/* Fills descriptors that the caller made with the engine configurations of a heuristic. */
static int64_t give_configs(const Descriptor &heuristic, int64_t n_wanted, void *elems) {
    int64_t n = (int64_t)engines_of(graph_of(heuristic)).size();
    for (int64_t i = 0; i < std::min(n, n_wanted); i++) {
        Descriptor &config = opened(static_cast<cudnnBackendDescriptor_t *>(elems)[i], "heuristic");
        if (config.kind->type != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)
            emu_reject("cudnnBackendGetAttribute: a %s for an engine configuration",
                       config.kind->name);
        config.values = heuristic.values;
        config.engine = (int)i;
        config.finalized = true;
    }
    return n;
}

static int64_t give_engine(const Descriptor &config, void *elems) {
    Descriptor &engine = opened(*static_cast<cudnnBackendDescriptor_t *>(elems), "engine");
    if (engine.kind->type != CUDNN_BACKEND_ENGINE_DESCRIPTOR)
        emu_reject("cudnnBackendGetAttribute: a %s for an engine", engine.kind->name);
    engine.values = config.values;
    engine.engine = config.engine;
    engine.finalized = true;
    return 1;
}

static int64_t give_notes(const Descriptor &engine, int64_t n_wanted, void *elems) {
    const auto &notes = engines_of(graph_of(engine)).at((size_t)engine.engine).notes;
    std::copy_n(notes.begin(), std::min((int64_t)notes.size(), n_wanted),
                static_cast<cudnnBackendNumericalNote_t *>(elems));
    return (int64_t)notes.size();
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t n_wanted,
                                       int64_t *n_elems, void *elems) {
    const Descriptor &d = opened(descriptor, "cudnnBackendGetAttribute");
    if (!d.finalized) emu_reject("cudnnBackendGetAttribute: the %s is not finalized", d.kind->name);
    auto asked = [&](cudnnBackendDescriptorType_t kind, cudnnBackendAttributeName_t attribute,
                     cudnnBackendAttributeType_t of) {
        return d.kind->type == kind && name == attribute && type == of && n_wanted >= 1;
    };
    if (asked(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_RESULTS,
              CUDNN_TYPE_BACKEND_DESCRIPTOR))
        *n_elems = give_configs(d, n_wanted, elems);
    else if (asked(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, CUDNN_ATTR_ENGINECFG_ENGINE,
                   CUDNN_TYPE_BACKEND_DESCRIPTOR))
        *n_elems = give_engine(d, elems);
    else if (asked(CUDNN_BACKEND_ENGINE_DESCRIPTOR, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                   CUDNN_TYPE_NUMERICAL_NOTE))
        *n_elems = give_notes(d, n_wanted, elems);
    else if (asked(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR,
                   CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64)) {
        *n_elems = 1;
        *static_cast<int64_t *>(elems) = plan_workspace_bytes(d);
    } else
        emu_reject("cudnnBackendGetAttribute: attribute %d, type %d, %lld elements of a %s", name,
                   type, (long long)n_wanted, d.kind->name);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t variant_pack) {
    const Descriptor &p = opened(plan, "cudnnBackendExecute");
    const Descriptor &pack = opened(variant_pack, "cudnnBackendExecute");
    if (p.kind->type != CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR || !p.finalized)
        emu_reject("cudnnBackendExecute: a %s, finalized: %d, for the plan", p.kind->name,
                   p.finalized);
    if (pack.kind->type != CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR || !pack.finalized)
        emu_reject("cudnnBackendExecute: a %s, finalized: %d, for the variant pack",
                   pack.kind->name, pack.finalized);
    const Descriptor &graph = graph_of(config_of(p));
    auto run = std::make_unique<Run>();
    run->plan = static_cast<Handle *>(plan)->descriptor;
    run->workspace_bytes = plan_workspace_bytes(p);
    run->memory.workspace = pack.one<void *>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    if (run->workspace_bytes)
        emu_require_device(run->memory.workspace, (size_t)run->workspace_bytes,
                           "cudnnBackendExecute: workspace");
    std::vector<Tensor> tensors = graph_tensors(graph);
    check_no_strangers(tensors, pack);
    for (const Tensor &t : tensors)
        if (!t.is_virtual) bind(run->memory, t, pack);
    if (fails_to_run(config_of(p)))
        return answer({CUDNN_STATUS_EXECUTION_FAILED, "an engine that does not run"});
    for (const DescriptorRef &operation : graph_operations(graph))
        runs_of_operation[operation->kind->type]++;
    const char *what =
        only_operation(graph) ? only_operation(graph)->kind->name : pattern_of(graph)->name;
    emu_enqueue(handle->stream, what, run_now, run.release(), free_run);
    return CUDNN_STATUS_SUCCESS;
}
