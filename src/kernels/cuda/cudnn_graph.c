/* The cache of cuDNN's execution plans, and how one is found: describe, ask the heuristics,
 * compile, time.
 *
 * Descriptors that a plan was made from live as long as the plan. */
#include "kernels/cuda/cudnn_graph.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_BINDINGS = 16,
    MAX_OPERATIONS = 24,
    MAX_CONFIGS = 32,   /* engine configurations asked of one heuristic */
    MAX_PROPOSED = 8,   /* plans of one heuristic that are compiled: each may take a second */
    N_HEURISTICS = 3,
    N_TIMED_RUNS = 5,
    REASON_BYTES = 400
};

struct CudnnBuilder {
    cudnnBackendDescriptor_t *made; /* in order of making */
    int n_made;
    cudnnBackendDescriptor_t operations[MAX_OPERATIONS];
    int n_operations;
    bool refused;
    char reason[REASON_BYTES]; /* why, in cuDNN's words */
};

/* An engine compiled for a graph. */
struct Engine {
    cudnnBackendDescriptor_t plan;
    int64_t scratch_bytes;
};

struct CudnnPlan {
    struct CudnnBuilder descriptors;
    void (*describe)(struct CudnnBuilder *b, const void *key);
    void *key;
    int64_t key_bytes;
    struct Engine engine; /* its plan is NULL: refused */
};

struct CudaCudnn {
    cudnnHandle_t handle;
    struct CudnnPlan **plans;
    int n_plans;
};

struct CudaCudnn *cuda_cudnn_create(const struct CudaState *state) {
    struct CudaCudnn *cudnn = xcalloc(sizeof *cudnn);
    CUDNN_CHECK(cudnnCreate(&cudnn->handle));
    CUDNN_CHECK(cudnnSetStream(cudnn->handle, state->stream));
    return cudnn;
}

/* ---- describing */

/* Whether a descriptor's call went well.  What is not supported, or not known to the version at
 * hand, is a refusal; what remains is a failure of the machine. */
static bool accepted(struct CudnnBuilder *b, cudnnStatus_t status) {
    if (status == CUDNN_STATUS_SUCCESS) return true;
    int category = (int)status / 1000 * 1000;
    if (category != CUDNN_STATUS_BAD_PARAM && category != CUDNN_STATUS_NOT_SUPPORTED)
        CUDNN_CHECK(status);
    b->refused = true;
    cudnnGetLastErrorString(b->reason, sizeof b->reason);
    if (!b->reason[0]) snprintf(b->reason, sizeof b->reason, "%s", cudnnGetErrorString(status));
    return false;
}

cudnnBackendDescriptor_t cudnn_descriptor(struct CudnnBuilder *b,
                                          cudnnBackendDescriptorType_t type) {
    cudnnBackendDescriptor_t made = NULL;
    if (b->refused || !accepted(b, cudnnBackendCreateDescriptor(type, &made))) return NULL;
    b->made = xrealloc(b->made, (unsigned long)(b->n_made + 1) * sizeof *b->made);
    b->made[b->n_made++] = made;
    return made;
}

void cudnn_set(struct CudnnBuilder *b, cudnnBackendDescriptor_t descriptor,
               cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t n_elems,
               const void *values) {
    if (b->refused) return;
    accepted(b, cudnnBackendSetAttribute(descriptor, name, type, n_elems, values));
}

void cudnn_set_link(struct CudnnBuilder *b, cudnnBackendDescriptor_t descriptor,
                    cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t to) {
    cudnn_set(b, descriptor, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &to);
}

void cudnn_finalize(struct CudnnBuilder *b, cudnnBackendDescriptor_t descriptor) {
    if (b->refused) return;
    accepted(b, cudnnBackendFinalize(descriptor));
}

cudnnBackendDescriptor_t cudnn_tensor(struct CudnnBuilder *b, const struct CudnnTensor *tensor) {
    const int64_t alignment = CUDNN_TENSOR_ALIGNMENT;
    cudnnBackendDescriptor_t d = cudnn_descriptor(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    cudnn_set(b, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &tensor->uid);
    cudnn_set(b, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &tensor->type);
    cudnn_set(b, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, tensor->rank, tensor->dims);
    cudnn_set(b, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, tensor->rank, tensor->strides);
    cudnn_set(b, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    cudnn_set(b, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &tensor->on_host);
    cudnn_set(b, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &tensor->is_virtual);
    cudnn_finalize(b, d);
    return d;
}

void cudnn_require_version(struct CudnnBuilder *b, size_t version) {
    if (b->refused || cudnnGetVersion() >= version) return;
    b->refused = true;
    snprintf(b->reason, sizeof b->reason, "needs version %zu or later", version);
}

void cudnn_add_operation(struct CudnnBuilder *b, cudnnBackendDescriptor_t operation) {
    cudnn_finalize(b, operation);
    if (b->refused) return;
    TMD_CHECK(b->n_operations < MAX_OPERATIONS, "more than %d operations", MAX_OPERATIONS);
    b->operations[b->n_operations++] = operation;
}

static cudnnBackendDescriptor_t describe_graph(struct CudnnBuilder *b, cudnnHandle_t handle,
                                               const struct CudnnGraph *graph) {
    graph->describe(b, graph->key);
    cudnnBackendDescriptor_t d = cudnn_descriptor(b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    cudnn_set(b, d, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    cudnn_set(b, d, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, b->n_operations,
              b->operations);
    cudnn_finalize(b, d);
    return b->refused ? NULL : d;
}

/* ---- running */

static cudnnStatus_t execute(const struct Backend *be, const struct Engine *engine,
                             const struct CudnnBinding *bindings, int n_bindings,
                             int64_t scratch_begin) {
    void *scratch =
        (char *)cuda_workspace(be, scratch_begin + engine->scratch_bytes) + scratch_begin;
    int64_t uids[MAX_BINDINGS];
    const void *memory[MAX_BINDINGS];
    TMD_CHECK(n_bindings <= MAX_BINDINGS, "%d tensors", n_bindings);
    for (int i = 0; i < n_bindings; i++) {
        uids[i] = bindings[i].uid;
        memory[i] = bindings[i].memory;
    }
    cudnnBackendDescriptor_t pack;
    CUDNN_CHECK(cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack));
    CUDNN_CHECK(cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64,
                                         n_bindings, uids));
    CUDNN_CHECK(cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
                                         CUDNN_TYPE_VOID_PTR, n_bindings, memory));
    CUDNN_CHECK(cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
                                         CUDNN_TYPE_VOID_PTR, 1, &scratch));
    CUDNN_CHECK(cudnnBackendFinalize(pack));
    cudnnStatus_t status = cudnnBackendExecute(cuda_state(be)->cudnn->handle, engine->plan, pack);
    CUDNN_CHECK(cudnnBackendDestroyDescriptor(pack));
    return status;
}

struct CudnnScratch cudnn_scratch_after(const struct Backend *be, int64_t n_bytes_taken) {
    const struct CudaState *state = cuda_state(be);
    int64_t at = (n_bytes_taken + 255) / 256 * 256;
    TMD_CHECK(at <= state->workspace_bytes, "%lld bytes of workspace taken, %lld there",
              (long long)n_bytes_taken, (long long)state->workspace_bytes);
    return (struct CudnnScratch){at, state->workspace_bytes - at};
}

/* ---- choosing a plan */

struct Candidates {
    struct Engine engines[N_HEURISTICS * MAX_PROPOSED];
    int n;
};

static bool has_note(cudnnBackendDescriptor_t engine, unsigned int notes) {
    cudnnBackendNumericalNote_t noted[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    int64_t n = 0;
    CUDNN_CHECK(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                         CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT,
                                         &n, noted));
    for (int64_t i = 0; i < n; i++)
        if (notes & CUDNN_NOTE_BIT(noted[i])) return true;
    return false;
}

static bool config_allowed(cudnnBackendDescriptor_t config, unsigned int forbidden_notes) {
    cudnnBackendDescriptor_t engine;
    int64_t n = 0;
    if (!forbidden_notes) return true;
    CUDNN_CHECK(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine));
    CUDNN_CHECK(cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                         CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine));
    bool allowed = !has_note(engine, forbidden_notes);
    CUDNN_CHECK(cudnnBackendDestroyDescriptor(engine));
    return allowed;
}

/* Compiles `config`; adds the plan when it exists and fits. */
static void add_candidate(struct Candidates *c, cudnnHandle_t handle,
                          cudnnBackendDescriptor_t config, int64_t scratch_limit) {
    cudnnBackendDescriptor_t plan;
    int64_t n = 0, scratch_bytes = 0;
    CUDNN_CHECK(cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan));
    CUDNN_CHECK(cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE,
                                         1, &handle));
    CUDNN_CHECK(cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                         CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config));
    /* heuristics also name engines that turn out not to compile for a shape */
    bool compiled = cudnnBackendFinalize(plan) == CUDNN_STATUS_SUCCESS;
    if (compiled)
        CUDNN_CHECK(cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                             CUDNN_TYPE_INT64, 1, &n, &scratch_bytes));
    if (!compiled || scratch_bytes > scratch_limit) {
        CUDNN_CHECK(cudnnBackendDestroyDescriptor(plan));
        return;
    }
    c->engines[c->n++] = (struct Engine){plan, scratch_bytes};
}

/* The engine configurations that a heuristic proposes, best first; kept with the graph's
 * descriptors. Returns how many. */
static int64_t propose(struct CudnnBuilder *b, cudnnBackendDescriptor_t graph,
                       cudnnBackendHeurMode_t mode, cudnnBackendDescriptor_t *configs) {
    int64_t n = 0;
    cudnnBackendDescriptor_t heuristic = cudnn_descriptor(b, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    cudnn_set_link(b, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    cudnn_set(b, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    cudnn_finalize(b, heuristic);
    for (int i = 0; i < MAX_CONFIGS; i++)
        configs[i] = cudnn_descriptor(b, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (b->refused) return 0;
    bool known = accepted(b, cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                      CUDNN_TYPE_BACKEND_DESCRIPTOR, MAX_CONFIGS,
                                                      &n, configs));
    return !known ? 0 : n < MAX_CONFIGS ? n : MAX_CONFIGS;
}

/* Of the first heuristic that has any, or of each.  Which plan is the quickest may differ from run to
 * run, and with it the bits: a deterministic backend takes the first. */
static void find_candidates(struct Candidates *c, struct CudnnBuilder *b,
                            const struct CudaState *state, cudnnBackendDescriptor_t graph,
                            unsigned int forbidden_notes, int64_t scratch_limit) {
    static const cudnnBackendHeurMode_t modes[N_HEURISTICS] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_B,
                                                               CUDNN_HEUR_MODE_FALLBACK};
    bool all = state->every_plan && !state->deterministic;
    for (int m = 0; m < N_HEURISTICS && (all || c->n == 0); m++) {
        cudnnBackendDescriptor_t configs[MAX_CONFIGS];
        int n_most = c->n + (state->deterministic ? 1 : MAX_PROPOSED);
        b->refused = false; /* one heuristic's refusal is not the next one's */
        int64_t n = propose(b, graph, modes[m], configs);
        for (int64_t i = 0; i < n && c->n < n_most; i++)
            if (config_allowed(configs[i], forbidden_notes))
                add_candidate(c, state->cudnn->handle, configs[i], scratch_limit);
    }
}

/* Milliseconds of the quickest of a few runs; infinite where a compiled engine does not run. */
static float measure(const struct Backend *be, const struct Engine *engine,
                     const struct CudnnBinding *bindings, int n_bindings, int64_t scratch_begin) {
    cudaStream_t stream = cuda_state(be)->stream;
    cudaEvent_t begin, end;
    float best = INFINITY;
    /* the first one loads its code */
    if (execute(be, engine, bindings, n_bindings, scratch_begin) != CUDNN_STATUS_SUCCESS)
        return INFINITY;
    CUDA_CHECK(cudaEventCreate(&begin));
    CUDA_CHECK(cudaEventCreate(&end));
    for (int i = 0; i < N_TIMED_RUNS; i++) {
        float ms;
        CUDA_CHECK(cudaEventRecord(begin, stream));
        CUDNN_CHECK(execute(be, engine, bindings, n_bindings, scratch_begin));
        CUDA_CHECK(cudaEventRecord(end, stream));
        CUDA_CHECK(cudaEventSynchronize(end));
        CUDA_CHECK(cudaEventElapsedTime(&ms, begin, end));
        best = fminf(best, ms);
    }
    CUDA_CHECK(cudaEventDestroy(begin));
    CUDA_CHECK(cudaEventDestroy(end));
    return best;
}

/* Keeps the quickest candidate and destroys the others. */
static void choose(struct CudnnPlan *p, struct Candidates *c, const struct Backend *be,
                   const struct CudnnBinding *bindings, int n_bindings, int64_t scratch_begin) {
    float best = INFINITY;
    int chosen = 0;
    for (int i = 0; i < c->n && c->n > 1; i++) {
        float ms = measure(be, &c->engines[i], bindings, n_bindings, scratch_begin);
        if (ms < best) {
            best = ms;
            chosen = i;
        }
    }
    for (int i = 0; i < c->n; i++)
        if (i != chosen) CUDNN_CHECK(cudnnBackendDestroyDescriptor(c->engines[i].plan));
    p->engine = c->engines[chosen];
}

/* ---- the cache */

static struct CudnnPlan *lookup(const struct CudaCudnn *cudnn, const struct CudnnGraph *graph) {
    for (int i = 0; i < cudnn->n_plans; i++) {
        struct CudnnPlan *p = cudnn->plans[i];
        if (p->describe == graph->describe && p->key_bytes == graph->key_bytes &&
            memcmp(p->key, graph->key, (size_t)graph->key_bytes) == 0)
            return p;
    }
    return NULL;
}

/* An entry without a plan. */
static struct CudnnPlan *enter(struct CudaCudnn *cudnn, const struct CudnnGraph *graph) {
    struct CudnnPlan *p = xcalloc(sizeof *p);
    p->describe = graph->describe;
    p->key_bytes = graph->key_bytes;
    p->key = memcpy(xmalloc((unsigned long)graph->key_bytes), graph->key, (size_t)graph->key_bytes);
    cudnn->plans =
        xrealloc(cudnn->plans, (unsigned long)(cudnn->n_plans + 1) * sizeof *cudnn->plans);
    return cudnn->plans[cudnn->n_plans++] = p;
}

static void say_refused(const struct CudnnGraph *graph, const char *reason) {
    fprintf(stderr, "tmd: cuDNN %zu does not compute %s; a slower kernel takes over (%s)\n",
            cudnnGetVersion(), graph->what, reason);
}

static struct CudnnPlan *make(const struct Backend *be, const struct CudnnGraph *graph,
                              const struct CudnnBinding *bindings, int n_bindings,
                              struct CudnnScratch scratch) {
    const struct CudaState *state = cuda_state(be);
    struct CudnnPlan *p = enter(state->cudnn, graph);
    struct CudnnBuilder *b = &p->descriptors;
    struct Candidates candidates = {.n = 0};
    cudnnBackendDescriptor_t described = describe_graph(b, state->cudnn->handle, graph);
    if (described)
        find_candidates(&candidates, b, state, described, graph->forbidden_notes, scratch.n_bytes);
    if (candidates.n)
        choose(p, &candidates, be, bindings, n_bindings, scratch.begin);
    else
        say_refused(graph,
                    b->reason[0] ? b->reason : "no engine takes the shape and its workspace");
    return p;
}

bool cudnn_graph_run(const struct Backend *be, const struct CudnnGraph *graph,
                     const struct CudnnBinding *bindings, int n_bindings,
                     struct CudnnScratch scratch) {
    const struct CudnnPlan *p = lookup(cuda_state(be)->cudnn, graph);
    if (!p) p = make(be, graph, bindings, n_bindings, scratch);
    if (!p->engine.plan) return false;
    TMD_CHECK(p->engine.scratch_bytes <= scratch.n_bytes, "%s: %lld bytes of workspace, was %lld",
              graph->what, (long long)scratch.n_bytes, (long long)p->engine.scratch_bytes);
    CUDNN_CHECK(execute(be, &p->engine, bindings, n_bindings, scratch.begin));
    return true;
}

bool cudnn_graph_refuse(const struct Backend *be, const struct CudnnGraph *graph,
                        const char *reason) {
    struct CudaCudnn *cudnn = cuda_state(be)->cudnn;
    if (lookup(cudnn, graph)) return false;
    enter(cudnn, graph);
    say_refused(graph, reason);
    return false;
}

void cuda_cudnn_destroy(struct CudaCudnn *cudnn) {
    for (int i = 0; i < cudnn->n_plans; i++) {
        struct CudnnPlan *p = cudnn->plans[i];
        if (p->engine.plan) CUDNN_CHECK(cudnnBackendDestroyDescriptor(p->engine.plan));
        while (p->descriptors.n_made > 0)
            CUDNN_CHECK(
                cudnnBackendDestroyDescriptor(p->descriptors.made[--p->descriptors.n_made]));
        free(p->descriptors.made);
        free(p->key);
        free(p);
    }
    free(cudnn->plans);
    CUDNN_CHECK(cudnnDestroy(cudnn->handle));
    free(cudnn);
}
