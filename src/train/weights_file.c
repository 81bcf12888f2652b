#include "train/weights_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/safetensors.h"

static bool read_param(const struct Safetensors *st, const struct ParamDesc *param, const char *path,
                       float *host, struct Error *err) {
    int64_t i = safetensors_find(st, param->name);
    if (i < 0) return error_set(err, "%s: tensor '%s' is missing", path, param->name);
    const struct SafetensorsInfo *info = safetensors_info(st, i);
    if (info->n_dims != param->n_dims ||
        memcmp(info->shape, param->shape, sizeof(int64_t) * (size_t)param->n_dims) != 0)
        return error_set(err, "%s: tensor '%s' has %lld elements, the model's sizes ask for %lld", path,
                         param->name, (long long)info->n_elems, (long long)param->n_elems);
    return safetensors_read_f32(st, i, host + param->offset, err);
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

void weights_list(const struct Weights *weights, const float *buffer, const char *prefix,
                  struct TensorList *list) {
    const struct Backend *be = weights->be;
    for (int p = 0; p < weights->table->n_params; p++) {
        const struct ParamDesc *param = &weights->table->params[p];
        char name[TENSOR_NAME_MAX];
        snprintf(name, sizeof name, "%s%s", prefix, param->name);
        float *data = tensor_list_add(list, name, param->n_dims, param->shape);
        be->download(be, data, buffer + param->offset, param->n_elems * (int64_t)sizeof *data);
    }
}
