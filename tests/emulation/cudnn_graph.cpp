/* The emulated cuDNN's C ABI: descriptors are made, told attributes and finalized; heuristics name
 * each engine of a graph; plans are executed on the emulated device.
 *
 * TMD_EMULATED_CUDNN=first_fails in the environment: of several engines, the first is one of those
 * that compile and then do not run. */
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

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
        if (rule.need == AttributeRule::REQUIRED && !d.has(rule.name))
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
