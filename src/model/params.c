/* Building parameter tables, and the buffers of one role. */
#include "model/params.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "philox.h"

enum { PARAM_ALIGNMENT = 16 /* elements: 64 bytes of float32 */ };

static int64_t align_up(int64_t n_elems) {
    return (n_elems + PARAM_ALIGNMENT - 1) / PARAM_ALIGNMENT * PARAM_ALIGNMENT;
}

static void copy_name(char to[PARAM_NAME_MAX], const char *from) {
    TMD_CHECK(strlen(from) < PARAM_NAME_MAX, "name '%s' is longer than %d", from, PARAM_NAME_MAX);
    strcpy(to, from);
}

void params_add_unit(struct ParamTable *table, const char *name) {
    table->units = xrealloc(table->units, sizeof *table->units * (size_t)(table->n_units + 1));
    struct UnitDesc *unit = &table->units[table->n_units++];
    *unit = (struct UnitDesc){.offset = table->n_elems, .first_param = table->n_params};
    copy_name(unit->name, name);
}

int params_add(struct ParamTable *table, const char *name, int flags, enum ParamInit init,
               double init_scale, const int64_t shape[PARAM_MAX_DIMS]) {
    TMD_CHECK(table->n_units > 0, "'%s' belongs to no unit", name);
    struct UnitDesc *unit = &table->units[table->n_units - 1];
    table->params = xrealloc(table->params, sizeof *table->params * (size_t)(table->n_params + 1));
    struct ParamDesc *param = &table->params[table->n_params];
    *param = (struct ParamDesc){
        .n_elems = 1, .unit = table->n_units - 1, .flags = flags, .init = init, .init_scale = init_scale};
    copy_name(param->name, name);
    for (int i = 0; i < PARAM_MAX_DIMS && shape[i]; i++) {
        param->shape[param->n_dims++] = shape[i];
        param->n_elems *= shape[i];
    }
    if (flags & PARAM_JOINED) {
        param->offset = param[-1].offset + param[-1].n_elems;
    } else {
        param->offset = table->n_elems;
    }
    table->n_elems = align_up(param->offset + param->n_elems);
    table->n_parameters += param->n_elems;
    unit->n_elems = table->n_elems - unit->offset;
    unit->n_params++;
    return table->n_params++;
}

int params_find(const struct ParamTable *table, const char *name) {
    for (int i = 0; i < table->n_params; i++)
        if (strcmp(table->params[i].name, name) == 0) return i;
    return -1;
}

void params_free(struct ParamTable *table) {
    free(table->params);
    free(table->units);
    *table = (struct ParamTable){0};
}

void weights_alloc(struct Weights *weights, const struct Backend *be, const struct ParamTable *table,
                   int parts) {
    int64_t n_bytes = table->n_elems * (int64_t)sizeof(float);
    *weights = (struct Weights){.be = be, .table = table, .parts = parts};
    weights->master = be->memory_alloc(be, n_bytes);
    weights->compute = be->act_dtype == DTYPE_F32
                           ? (Act *)(void *)weights->master
                           : be->memory_alloc(be, table->n_elems * dtype_bytes(be->act_dtype));
    if (parts & WEIGHTS_GRAD) weights->grad = be->memory_alloc(be, n_bytes);
    if (parts & WEIGHTS_MOMENTS) {
        weights->adam_m = be->memory_alloc(be, n_bytes);
        weights->adam_v = be->memory_alloc(be, n_bytes);
    }
    if (parts & WEIGHTS_EMA) weights->ema = be->memory_alloc(be, n_bytes);
}

void weights_free(struct Weights *weights) {
    const struct Backend *be = weights->be;
    if (!be) return;
    if (!(weights->parts & WEIGHTS_GRAD)) weights->grad = NULL;
    if ((void *)weights->compute != (void *)weights->master) be->memory_free(be, weights->compute);
    float *buffers[] = {weights->master, weights->grad, weights->adam_m, weights->adam_v, weights->ema};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        if (buffers[i]) be->memory_free(be, buffers[i]);
    *weights = (struct Weights){0};
}

int64_t weights_bytes(const struct Backend *be, const struct ParamTable *table, int parts) {
    int64_t per_elem = (int64_t)sizeof(float);
    if (be->act_dtype != DTYPE_F32) per_elem += dtype_bytes(be->act_dtype);
    if (parts & WEIGHTS_GRAD) per_elem += (int64_t)sizeof(float);
    if (parts & WEIGHTS_MOMENTS) per_elem += 2 * (int64_t)sizeof(float);
    if (parts & WEIGHTS_EMA) per_elem += (int64_t)sizeof(float);
    return table->n_elems * per_elem;
}

void weights_upload(struct Weights *weights, const float *host) {
    const struct Backend *be = weights->be;
    int64_t n_elems = weights->table->n_elems;
    be->upload(be, weights->master, host, n_elems * (int64_t)sizeof(float));
    be->weights_cast(be, weights->compute, weights->master, n_elems);
}

/* FNV-1a: a tensor's draws depend on its name, not on its place in the table. */
static uint64_t name_hash(const char *name) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    return hash;
}

static double draw(const struct ParamDesc *param, uint64_t seed, uint64_t hash, int64_t i) {
    struct Philox bits = philox(seed, (uint32_t)i, (uint32_t)(i >> 32), (uint32_t)hash, (uint32_t)(hash >> 32));
    double u0 = philox_uniform(bits.word[0]), u1 = philox_uniform(bits.word[1]);
    if (param->init == INIT_UNIFORM) return (2.0 * u0 - 1.0) * param->init_scale;
    return sqrt(-2.0 * log(u0)) * cos(2.0 * M_PI * u1) * param->init_scale;
}

static double initial_value(const struct ParamDesc *param, uint64_t seed, uint64_t hash, int64_t i) {
    switch (param->init) {
    case INIT_ZERO: return 0.0;
    case INIT_CONSTANT: return param->init_scale;
    case INIT_IDENTITY_AND_NORMAL: { /* [D, 2 D]: the identity on the left, N(0, scale) on the right */
        int64_t dim = param->shape[0], row = i / (2 * dim), column = i % (2 * dim);
        if (column < dim) return row == column ? 1.0 : 0.0;
        return draw(param, seed, hash, i);
    }
    case INIT_NORMAL:
    case INIT_UNIFORM: break;
    }
    return draw(param, seed, hash, i);
}

void params_initialise(const struct ParamTable *table, uint64_t seed, float *host) {
    memset(host, 0, (size_t)table->n_elems * sizeof *host);
    for (int p = 0; p < table->n_params; p++) {
        const struct ParamDesc *param = &table->params[p];
        uint64_t hash = name_hash(param->name);
        for (int64_t i = 0; i < param->n_elems; i++)
            host[param->offset + i] = (float)initial_value(param, seed, hash, i);
    }
}
