/* Reading goes through a copy of all weights in host memory; appending takes tensor after tensor. */
#include "train/weights_file.h"

#include <stdio.h>
#include <stdlib.h>

#include "data/safetensors.h"
#include "error.h"

static bool read_param(const struct Safetensors *st, const struct ParamDesc *param, const char *path,
                       float *host, struct Error *err) {
    int64_t i = safetensors_find(st, param->name);
    if (i < 0) return error_set(err, "%s: tensor '%s' is missing", path, param->name);
    const struct SafetensorsInfo *info = safetensors_info(st, i);
    return tensor_check(info, path, TENSOR_REALS, param->n_dims, param->shape, err) &&
           safetensors_read_f32(st, i, host + param->offset, err);
}

bool weights_read_safetensors(struct Weights *weights, const char *path, struct Error *err) {
    const struct ParamTable *table = weights->table;
    struct Safetensors *st;
    if (!safetensors_open(path, &st, err)) return false;
    float *host = xcalloc((size_t)table->n_elems * sizeof *host);
    bool ok = true;
    for (int p = 0; ok && p < table->n_params; p++)
        ok = read_param(st, &table->params[p], path, host, err);
    for (int64_t i = 0; ok && i < safetensors_count(st); i++)
        if (params_find(table, safetensors_info(st, i)->name) < 0)
            ok = error_set(err, "%s: tensor '%s' is none of the model's", path,
                           safetensors_info(st, i)->name);
    if (ok) weights_upload(weights, host);
    free(host);
    safetensors_close(st);
    return ok;
}

static float *add_tensor(const struct Weights *weights, int param, const char *prefix,
                         struct TensorList *list) {
    const struct ParamDesc *desc = &weights->table->params[param];
    char name[TENSOR_NAME_MAX];
    snprintf(name, sizeof name, "%s%s", prefix, desc->name);
    return tensor_list_add(list, name, desc->n_dims, desc->shape);
}

/* What products read of a tensor whose unit is acquired. */
static void read_acquired(const struct Weights *w, int param, float *host) {
    const struct Backend *be = w->be;
    int64_t n = w->table->params[param].n_elems;
    if (w->table->params[param].flags & PARAM_F32) {
        be->download(be, host, weight_f32(w, param), n * (int64_t)sizeof *host);
        return;
    }
    int64_t n_bytes = n * dtype_bytes(be->act_dtype);
    void *act = xmalloc((size_t)n_bytes);
    be->download(be, act, weight_act(w, param), n_bytes);
    dtype_to_f32(host, act, be->act_dtype, n);
    free(act);
}

void weights_list_values(const struct Weights *w, const char *prefix, struct TensorList *list) {
    for (int unit = 0; unit < w->table->n_units; unit++) {
        const struct UnitDesc *desc = &w->table->units[unit];
        bool whole = w->share.n_shares == 1;
        if (!whole) unit_acquire(w, unit);
        for (int p = desc->first_param; p < desc->first_param + desc->n_params; p++) {
            float *host = add_tensor(w, p, prefix, list);
            if (whole)
                weights_get(w, p, host);
            else
                read_acquired(w, p, host);
        }
        if (!whole) unit_release(w, unit);
    }
}

void weights_list_help(const struct Weights *w) {
    for (int unit = 0; w->share.n_shares > 1 && unit < w->table->n_units; unit++) {
        unit_acquire(w, unit);
        unit_release(w, unit);
    }
}

void weights_list_gradients(const struct Weights *w, const char *prefix, struct TensorList *list) {
    for (int p = 0; p < w->table->n_params; p++)
        w->be->download(w->be, add_tensor(w, p, prefix, list), weight_grad(w, p),
                        w->table->params[p].n_elems * (int64_t)sizeof(float));
}
