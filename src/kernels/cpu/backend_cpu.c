/* The CPU backend's table, memory and scratch. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "kernels/cpu/conv3d.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"

void cpu_upload(const struct Backend *be, void *device, const void *host, int64_t n_bytes) {
    (void)be;
    memcpy(device, host, (size_t)n_bytes);
}

void cpu_upload_start(const struct Backend *be, void *device, const void *host, int64_t n_bytes) {
    cpu_upload(be, device, host, n_bytes);
}

void cpu_download(const struct Backend *be, void *host, const void *device, int64_t n_bytes) {
    (void)be;
    memcpy(host, device, (size_t)n_bytes);
}

void cpu_download_start(const struct Backend *be, void *host, const void *device, int64_t n_bytes) {
    cpu_download(be, host, device, n_bytes);
}

void cpu_copy(const struct Backend *be, void *to, const void *from, int64_t n_bytes) {
    (void)be;
    memcpy(to, from, (size_t)n_bytes);
}

void cpu_copy_rows(const struct Backend *be, void *to, int64_t to_stride, const void *from,
                   int64_t from_stride, int64_t n_rows, int64_t row_bytes) {
    (void)be;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n_rows; i++)
        memcpy((char *)to + i * to_stride, (const char *)from + i * from_stride, (size_t)row_bytes);
}

void cpu_zero(const struct Backend *be, void *device, int64_t n_bytes) {
    (void)be;
    memset(device, 0, (size_t)n_bytes);
}

static void *cpu_memory_alloc(const struct Backend *be, int64_t n_bytes) {
    (void)be;
    size_t rounded = ((size_t)n_bytes + 63) / 64 * 64;
    void *memory = aligned_alloc(64, rounded ? rounded : 64);
    TMD_CHECK(memory, "out of memory: asked for %lld bytes", (long long)n_bytes);
    return memset(memory, 0, rounded);
}

static void cpu_memory_free(const struct Backend *be, void *memory) {
    (void)be;
    free(memory);
}

static int64_t cpu_memory_available(const struct Backend *be) {
    (void)be;
    return (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
}

static void cpu_describe(const struct Backend *be, char *text, size_t n_bytes) {
    snprintf(text, n_bytes, "%s", be->name);
}

/* Operations are done when they return. */
static void cpu_finish(const struct Backend *be) {
    (void)be;
}

float *cpu_thread_scratch(const struct Backend *be) {
    struct CpuState *state = be->state;
    int thread = omp_get_thread_num();
    TMD_CHECK(thread < state->n_threads, "thread %d of %d", thread, state->n_threads);
    return state->scratch + (int64_t)thread * CPU_SCRATCH_FLOATS;
}

static void cpu_destroy(struct Backend *be) {
    struct CpuState *state = be->state;
    cpu_conv_destroy(state->conv);
    free(state->scratch);
    free(state->panels);
    free(state);
    free(be);
}

/* Left untouched: pages come into being near the thread that first writes to them, if ever. */
static float *scratch_alloc(size_t n_floats) {
    float *scratch = aligned_alloc(64, n_floats * sizeof *scratch);
    TMD_CHECK(scratch, "out of memory: asked for %zu floats", n_floats);
    return scratch;
}

struct Backend *backend_cpu_create(void) {
    struct CpuState *state = xcalloc(sizeof *state);
    state->n_threads = omp_get_max_threads();
    state->scratch = scratch_alloc((size_t)state->n_threads * CPU_SCRATCH_FLOATS);
    state->panels = scratch_alloc(GEMM_SHARED_FLOATS);
    state->conv = cpu_conv_create();

    struct Backend *be = xcalloc(sizeof *be);
    be->name = "cpu";
    be->act_dtype = DTYPE_F32;
    be->state = state;
#define CPU_ENTRY(op, params, names) be->op = cpu_##op;
    MEMORY_OPS(CPU_ENTRY)
    COMPUTE_OPS(CPU_ENTRY)
    be->memory_alloc = cpu_memory_alloc;
    be->memory_free = cpu_memory_free;
    be->upload_wait = cpu_finish;
    be->download_wait = cpu_finish;
    be->pinned_alloc = backend_host_alloc;
    be->pinned_free = backend_host_free;
    be->memory_available = cpu_memory_available;
    be->describe = cpu_describe;
    be->finish = cpu_finish;
    be->run_often = backend_run_once;
    be->learned = backend_learned_none;
    be->destroy = cpu_destroy;
    return be;
}
