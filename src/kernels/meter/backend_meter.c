/* Every operation is generated from the list macros: call the inner backend, wait for it, book the
 * time and the cost. */
#include "kernels/meter/backend_meter.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "error.h"

struct Meter {
    const struct Backend *inner;
    struct OpTally tallies[OP_COUNT];
    bool paused;
};

static double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#define METER_FUNCTION(name, params, names)                                                        \
    static void meter_##name(const struct Backend *be, BACKEND_UNWRAP params) {                    \
        struct Meter *meter = be->state;                                                           \
        double start = now_seconds();                                                              \
        meter->inner->name(meter->inner, BACKEND_UNWRAP names);                                    \
        if (meter->paused) return;                                                                 \
        meter->inner->finish(meter->inner);                                                        \
        op_tally_add(&meter->tallies[OP_##name], op_cost_##name(be, BACKEND_UNWRAP names),         \
                     now_seconds() - start);                                                       \
    }
MEMORY_OPS(METER_FUNCTION)
COMPUTE_OPS(METER_FUNCTION)

static void *meter_memory_alloc(const struct Backend *be, int64_t n_bytes) {
    const struct Meter *meter = be->state;
    return meter->inner->memory_alloc(meter->inner, n_bytes);
}

static void meter_memory_free(const struct Backend *be, void *memory) {
    const struct Meter *meter = be->state;
    meter->inner->memory_free(meter->inner, memory);
}

static void meter_upload_wait(const struct Backend *be) {
    const struct Meter *meter = be->state;
    meter->inner->upload_wait(meter->inner);
}

static void meter_download_wait(const struct Backend *be) {
    const struct Meter *meter = be->state;
    meter->inner->download_wait(meter->inner);
}

static void *meter_pinned_alloc(const struct Backend *be, int64_t n_bytes) {
    const struct Meter *meter = be->state;
    return meter->inner->pinned_alloc(meter->inner, n_bytes);
}

static void meter_pinned_free(const struct Backend *be, void *memory) {
    const struct Meter *meter = be->state;
    meter->inner->pinned_free(meter->inner, memory);
}

static int64_t meter_memory_available(const struct Backend *be) {
    const struct Meter *meter = be->state;
    return meter->inner->memory_available(meter->inner);
}

static void meter_describe(const struct Backend *be, char *text, size_t n_bytes) {
    const struct Meter *meter = be->state;
    meter->inner->describe(meter->inner, text, n_bytes);
}

static void meter_finish(const struct Backend *be) {
    const struct Meter *meter = be->state;
    meter->inner->finish(meter->inner);
}

/* What a device has learned happens as a whole, and cannot be booked by operation. */
static void meter_run_often(const struct Backend *be, void (*region)(void *context),
                            void *context) {
    const struct Meter *meter = be->state;
    if (meter->paused)
        meter->inner->run_often(meter->inner, region, context);
    else
        region(context);
}

static struct LearnedRegions meter_learned(const struct Backend *be) {
    const struct Meter *meter = be->state;
    return meter->inner->learned(meter->inner);
}

static void meter_destroy(struct Backend *be) {
    free(be->state);
    free(be);
}

struct Backend *backend_meter_create(const struct Backend *inner) {
    struct Meter *meter = xcalloc(sizeof *meter);
    struct Backend *be = xcalloc(sizeof *be);
    meter->inner = inner;
    be->name = inner->name;
    be->act_dtype = inner->act_dtype;
    be->state = meter;
#define METER_ENTRY(op, params, names) be->op = meter_##op;
    MEMORY_OPS(METER_ENTRY)
    COMPUTE_OPS(METER_ENTRY)
    be->memory_alloc = meter_memory_alloc;
    be->memory_free = meter_memory_free;
    be->upload_wait = meter_upload_wait;
    be->download_wait = meter_download_wait;
    be->pinned_alloc = meter_pinned_alloc;
    be->pinned_free = meter_pinned_free;
    be->memory_available = meter_memory_available;
    be->describe = meter_describe;
    be->finish = meter_finish;
    be->run_often = meter_run_often;
    be->learned = meter_learned;
    be->destroy = meter_destroy;
    return be;
}

const struct OpTally *backend_meter_tallies(const struct Backend *be) {
    return ((const struct Meter *)be->state)->tallies;
}

void backend_meter_reset(const struct Backend *be) {
    struct Meter *meter = be->state;
    memset(meter->tallies, 0, sizeof meter->tallies);
}

void backend_meter_pause(const struct Backend *be, bool paused) {
    struct Meter *meter = be->state;
    meter->paused = paused;
}
