/* Parameters: what they are called and shaped (ParamTable), and where they lie (Weights).
 *
 * The parameters of a network lie side by side in flat buffers, grouped into *units*: the embeddings,
 * each block, the head, the fusion.  A unit is what is reduced over ranks, sharded, gathered and saved.
 * Code that computes with a unit acquires it first and releases it after, in the order of need; when
 * nothing is sharded both are free. */
#ifndef TMD_PARAMS_H
#define TMD_PARAMS_H

#include "kernels/backend.h"

enum { PARAM_MAX_DIMS = 5, PARAM_NAME_MAX = 64 };

/* How a fresh network starts; `init_scale` is the bound or deviation. */
enum ParamInit { INIT_ZERO, INIT_CONSTANT, INIT_NORMAL, INIT_UNIFORM, INIT_IDENTITY_AND_NORMAL };

enum ParamFlags {
    PARAM_F32 = 1,   /* operations read the float32 master: norms, modulation, the time path */
    PARAM_JOINED = 2 /* follows the previous tensor without a gap, so that one product serves both */
};

struct ParamDesc {
    char name[PARAM_NAME_MAX]; /* the checkpoint's name */
    int n_dims;
    int64_t shape[PARAM_MAX_DIMS];
    int64_t n_elems;
    int64_t offset; /* elements from the start of the flat buffer */
    int unit;
    int flags;
    enum ParamInit init;
    double init_scale;
};

struct UnitDesc {
    char name[PARAM_NAME_MAX];
    int64_t offset, n_elems; /* of the flat buffer, gaps included */
    int first_param, n_params;
};

struct ParamTable {
    struct ParamDesc *params;
    int n_params;
    struct UnitDesc *units;
    int n_units;
    int64_t n_elems; /* of the flat buffer, gaps included */
    int64_t n_parameters; /* without the gaps */
};

/* Starts the next unit. */
void params_add_unit(struct ParamTable *table, const char *name);
/* Adds a tensor to the last unit; returns its index.  Dimensions that are 0 end the shape. */
int params_add(struct ParamTable *table, const char *name, int flags, enum ParamInit init,
               double init_scale, const int64_t shape[PARAM_MAX_DIMS]);
/* Index of the tensor of that name, or -1. */
int params_find(const struct ParamTable *table, const char *name);
void params_free(struct ParamTable *table);

/* Called as units are used; any may be NULL. */
struct UnitHooks {
    void *context;
    void (*acquire)(void *context, int unit);
    void (*release)(void *context, int unit);
    void (*grad_ready)(void *context, int unit); /* the unit's gradient of this step is complete */
};

/* One role's parameters in a backend's memory: flat buffers of table->n_elems elements.  Absent ones
 * are NULL: a frozen network has no gradients, a backend whose Act is float needs no copy. */
struct Weights {
    const struct Backend *be;
    const struct ParamTable *table;
    float *master; /* float32 */
    Act *compute;  /* what products read; the master itself when Act is float32 */
    float *grad, *adam_m, *adam_v, *ema;
    int parts; /* which of these are its own, and freed with it */
    struct UnitHooks hooks;
};

enum WeightsParts {
    WEIGHTS_GRAD = 1,
    WEIGHTS_MOMENTS = 2, /* adam_m, adam_v */
    WEIGHTS_EMA = 4,
    WEIGHTS_TRAINED = WEIGHTS_GRAD | WEIGHTS_MOMENTS
};

/* Allocates zeroed buffers. */
void weights_alloc(struct Weights *weights, const struct Backend *be, const struct ParamTable *table,
                   int parts);
void weights_free(struct Weights *weights);
/* Device bytes that weights_alloc takes. */
int64_t weights_bytes(const struct Backend *be, const struct ParamTable *table, int parts);

/* Fills host memory [table->n_elems] with fresh values: each tensor is a function of (seed, its name)
 * only. */
void params_initialise(const struct ParamTable *table, uint64_t seed, float *host);
/* Host [table->n_elems] -> master, and the compute copy. */
void weights_upload(struct Weights *weights, const float *host);

static inline void unit_acquire(const struct Weights *weights, int unit) {
    if (weights->hooks.acquire) weights->hooks.acquire(weights->hooks.context, unit);
}
static inline void unit_release(const struct Weights *weights, int unit) {
    if (weights->hooks.release) weights->hooks.release(weights->hooks.context, unit);
}
static inline void unit_grad_ready(const struct Weights *weights, int unit) {
    if (weights->hooks.grad_ready) weights->hooks.grad_ready(weights->hooks.context, unit);
}

/* Addresses of tensor `param`, valid while its unit is acquired. */
static inline const Act *weight_act(const struct Weights *weights, int param) {
    return act_at(weights->be, weights->compute, weights->table->params[param].offset);
}
static inline const float *weight_f32(const struct Weights *weights, int param) {
    return weights->master + weights->table->params[param].offset;
}
/* NULL when the network is frozen. */
static inline float *weight_grad(const struct Weights *weights, int param) {
    return weights->grad ? weights->grad + weights->table->params[param].offset : NULL;
}

#endif
