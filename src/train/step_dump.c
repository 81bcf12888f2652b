/* A file for each part of a replay case: configuration, weights, inputs, expected values. */
#include "train/step_dump.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/safetensors_writer.h"
#include "train/weights_file.h"

struct Dump {
    const struct StepContext *ctx;
    const struct StepInputs *in;
    const char *folder;
};

static char *file_in(const struct Dump *d, const char *name) {
    return xprintf("%s/%s", d->folder, name);
}

static bool write_config(const struct Dump *d, enum StepKind kind, struct Error *err) {
    char *path = file_in(d, "case.yaml");
    FILE *file = fopen(path, "w");
    bool ok = file != NULL;
    if (file) {
        struct Config named = *d->ctx->nets->config; /* borrows everything but the kind */
        char *name = xstrdup(step_kind_name(kind));
        named.kind = name;
        config_print(&named, file);
        free(name);
        ok = fclose(file) == 0;
    }
    if (!ok) error_set(err, "%s: %s", path, strerror(errno));
    free(path);
    return ok;
}

static bool write_roles(const struct Dump *d, enum StepKind kind, struct Error *err) {
    const struct Networks *nets = d->ctx->nets;
    bool ok = true;
    for (int role = 0; ok && role < ROLE_COUNT; role++) {
        struct TensorList list = {0};
        char name[64];
        if (!nets->plan.present[role] || !step_reads(kind, (enum Role)role)) continue;
        snprintf(name, sizeof name, "%s.safetensors", role_name((enum Role)role));
        char *path = file_in(d, name);
        weights_list_values(&nets->weights[role], "", &list);
        ok = tensor_list_write(&list, path, err);
        tensor_list_free(&list);
        free(path);
    }
    return ok;
}

void step_dump_help(const struct StepContext *ctx, enum StepKind kind) {
    for (int role = 0; role < ROLE_COUNT; role++)
        if (ctx->nets->plan.present[role] && step_reads(kind, (enum Role)role))
            weights_list_help(&ctx->nets->weights[role]);
}

/* ---- inputs: videos and text as float32, times as float64, flags as integers ---- */

static void add_video(const struct Dump *d, struct TensorList *list, const char *name,
                      const float *device) {
    const struct VideoShape *v = &d->ctx->nets->geometry.video;
    int64_t shape[] = {d->in->batch, d->ctx->nets->config->model.in_dim, v->frames, v->height,
                       v->width};
    if (!device) return;
    float *host = tensor_list_add(list, name, 5, shape);
    d->ctx->nets->be->download(d->ctx->nets->be, host, device,
                               list->items[list->n - 1].n_elems * (int64_t)sizeof *host);
}

static void add_text(const struct Dump *d, struct TensorList *list, const char *name,
                     const Act *text) {
    const struct Backend *be = d->ctx->nets->be;
    const struct ModelConfig *m = &d->ctx->nets->config->model;
    int64_t shape[] = {d->in->batch, m->text_len, m->text_dim};
    int64_t n = d->in->batch * m->text_len * m->text_dim;
    float *f32 = be->memory_alloc(be, n * (int64_t)sizeof *f32);
    be->act_to_f32(be, f32, text, n);
    be->download(be, tensor_list_add(list, name, 3, shape), f32, n * (int64_t)sizeof *f32);
    be->memory_free(be, f32);
}

static bool write_inputs(const struct Dump *d, struct Error *err) {
    const struct StepInputs *in = d->in;
    struct TensorList list = {0};
    add_video(d, &list, "x", in->x);
    add_video(d, &list, "x1", in->x1);
    add_video(d, &list, "y1", in->y1);
    add_video(d, &list, "eps", in->eps);
    add_text(d, &list, "context", in->text);
    add_text(d, &list, "neg_context", in->neg_text);
    const struct {
        const char *name;
        const double *values;
    } times[] = {{"t_student", in->t_student}, {"t", in->t}, {"s", in->s}, {"r", in->r}};
    int64_t drop[STUDENT_MAX_BATCH];
    for (int64_t b = 0; b < in->batch; b++) drop[b] = in->drop[b];

    char *path = file_in(d, "inputs.safetensors");
    struct SafetensorsWriter *w = safetensors_writer_new(path);
    for (int i = 0; i < list.n; i++)
        safetensors_writer_declare(w, list.items[i].name, DTYPE_F32, list.items[i].n_dims,
                                   list.items[i].shape);
    for (int i = 0; i < 4; i++)
        safetensors_writer_declare(w, times[i].name, DTYPE_F64, 1, &in->batch);
    safetensors_writer_declare(w, "drop", DTYPE_I64, 1, &in->batch);
    bool ok = safetensors_write_i64(w, "drop", drop, err);
    for (int i = 0; ok && i < 4; i++) ok = safetensors_write_f64(w, times[i].name, times[i].values, err);
    for (int i = 0; ok && i < list.n; i++)
        ok = safetensors_write_f32(w, list.items[i].name, list.items[i].data, err);
    if (ok)
        ok = safetensors_writer_commit(w, err);
    else
        safetensors_writer_abandon(w);
    tensor_list_free(&list);
    free(path);
    return ok;
}

static bool write_expected(const struct Dump *d, const struct StepResult *result, struct Error *err) {
    struct TensorList list = {0};
    struct StepScalar scalars[STEP_MAX_SCALARS];
    struct StepVideo videos[STEP_MAX_VIDEOS];
    struct StepContext alone = *d->ctx; /* a replay knows no other samples than these, nor ranks */
    char name[TENSOR_NAME_MAX];
    alone.sample_weight = (double)networks_parts(d->ctx->nets) / (double)d->in->batch;
    int n_scalars = step_scalars(&alone, result, scalars), n_videos = step_videos(result, videos);
    for (int i = 0; i < n_scalars; i++) {
        if (scalars[i].derived) continue;
        snprintf(name, sizeof name, "out.%s", scalars[i].name);
        tensor_list_add_scalar(&list, name, scalars[i].value);
    }
    for (int i = 0; i < n_videos; i++) {
        snprintf(name, sizeof name, "out.%s", videos[i].name);
        add_video(d, &list, name, videos[i].video);
    }
    char *path = file_in(d, "expected.safetensors");
    bool ok = tensor_list_write(&list, path, err);
    tensor_list_free(&list);
    free(path);
    return ok;
}

bool step_dump(const struct StepContext *ctx, const struct StepInputs *in,
               const struct StepResult *result, const char *folder, struct Error *err) {
    struct Dump d = {ctx, in, folder};
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return error_set(err, "%s: cannot make this folder: %s", folder, strerror(errno));
    return write_config(&d, result->kind, err) && write_inputs(&d, err) &&
           write_roles(&d, result->kind, err) && write_expected(&d, result, err);
}
