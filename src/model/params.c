/* Building parameter tables. */
#include "model/params.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "fnv.h"
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

/* Lays out the last unit anew: first what operations read in float32, then the rest, each in the order
 * in which it was added. */
static void lay_out(struct ParamTable *table, struct UnitDesc *unit) {
    int64_t at = unit->offset;
    for (int f32 = 1; f32 >= 0; f32--) {
        for (int p = unit->first_param; p < unit->first_param + unit->n_params; p++) {
            struct ParamDesc *param = &table->params[p];
            if (((param->flags & PARAM_F32) != 0) != f32) continue;
            param->offset =
                param->flags & PARAM_JOINED ? param[-1].offset + param[-1].n_elems : at;
            at = align_up(param->offset + param->n_elems);
        }
        if (f32) unit->n_f32 = at - unit->offset;
    }
    unit->n_elems = at - unit->offset;
    table->n_elems = at;
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
    TMD_CHECK(!(flags & PARAM_JOINED) || (param[-1].flags & PARAM_F32) == (flags & PARAM_F32),
              "'%s' cannot follow '%s'", name, param[-1].name);
    table->n_parameters += param->n_elems;
    unit->n_params++;
    lay_out(table, unit);
    return table->n_params++;
}

int params_find(const struct ParamTable *table, const char *name) {
    for (int i = 0; i < table->n_params; i++)
        if (strcmp(table->params[i].name, name) == 0) return i;
    return -1;
}

int64_t params_largest(const struct ParamTable *table) {
    int64_t largest = 0;
    for (int p = 0; p < table->n_params; p++)
        if (table->params[p].n_elems > largest) largest = table->params[p].n_elems;
    return largest;
}

void params_free(struct ParamTable *table) {
    free(table->params);
    free(table->units);
    *table = (struct ParamTable){0};
}

/* A tensor's draws depend on its name, not on its place in the table. */
static uint64_t name_hash(const char *name) {
    return fnv_hash(name, strlen(name));
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

void params_initial_values(const struct ParamTable *table, int param, uint64_t seed, int64_t begin,
                           int64_t end, float *out) {
    const struct ParamDesc *desc = &table->params[param];
    uint64_t hash = name_hash(desc->name);
    for (int64_t i = begin; i < end; i++) out[i - begin] = (float)initial_value(desc, seed, hash, i);
}

void params_initialise(const struct ParamTable *table, uint64_t seed, float *host) {
    memset(host, 0, (size_t)table->n_elems * sizeof *host);
    for (int p = 0; p < table->n_params; p++)
        params_initial_values(table, p, seed, 0, table->params[p].n_elems,
                              host + table->params[p].offset);
}
