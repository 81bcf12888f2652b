/* Recognise, check everything, and only then copy, one tensor at a time. */
#include "data/wan_import.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/atomic_file.h"
#include "data/checkpoint_model.h"
#include "data/shape_text.h"
#include "data/wan_config.h"
#include "data/wan_infer.h"

#define PATCH_WEIGHT "patch_embedding.weight"

static struct WanNaming recognise(const struct Safetensors *st) {
    int64_t n = safetensors_count(st);
    const char **names = xmalloc((size_t)n * sizeof *names);
    for (int64_t i = 0; i < n; i++) names[i] = safetensors_info(st, i)->name;
    struct WanNaming naming = wan_layout_recognise(names, n);
    free(names);
    return naming;
}

/* ---- checking ---- */

/* Tensors with one thing wrong with them: how many, and the first ones' names. */
struct Complaints {
    const char *what;
    int64_t n;
    char names[280];
};

static void complain(struct Complaints *complaints, const char *name, const char *detail) {
    enum { SHOWN = 2 };
    size_t used = strlen(complaints->names);
    if (complaints->n++ < SHOWN)
        snprintf(complaints->names + used, sizeof complaints->names - used, "%s%.64s%.72s",
                 used ? ", " : "", name, detail);
    else if (complaints->n == SHOWN + 1)
        snprintf(complaints->names + used, sizeof complaints->names - used, ", ...");
}

static bool is_flat_patch(const struct WanTensor *expected, const struct SafetensorsInfo *found) {
    return strcmp(expected->name, PATCH_WEIGHT) == 0 && found->n_dims == 2 &&
           found->shape[0] == expected->shape[0] &&
           found->n_elems == expected->shape[0] * expected->shape[1] * expected->shape[2] *
                                 expected->shape[3] * expected->shape[4];
}

static void check_expected(const struct Safetensors *st, const struct WanImportReport *report,
                           struct Complaints *missing, struct Complaints *misshapen) {
    for (int64_t t = 0; t < wan_layout_count(&report->model); t++) {
        struct WanTensor expected = wan_layout_tensor(&report->model, WAN_ORIGINAL, t);
        int64_t i = wan_find_tensor(st, &report->naming, expected.name);
        if (i < 0) {
            complain(missing, expected.name, "");
            continue;
        }
        const struct SafetensorsInfo *found = safetensors_info(st, i);
        if (shape_equal(found->n_dims, found->shape, expected.n_dims, expected.shape) ||
            is_flat_patch(&expected, found))
            continue;
        char detail[2 * sizeof(struct ShapeText) + 32];
        snprintf(detail, sizeof detail, " (expected %s, got %s)",
                 shape_text(expected.n_dims, expected.shape).s,
                 shape_text(found->n_dims, found->shape).s);
        complain(misshapen, expected.name, detail);
    }
}

/* Tensors behind the prefix that the model does not have. */
static void check_unexpected(const struct Safetensors *st, const struct WanImportReport *report,
                             struct Complaints *unexpected) {
    size_t n_prefix = strlen(report->naming.prefix);
    for (int64_t i = 0; i < safetensors_count(st); i++) {
        const char *name = safetensors_info(st, i)->name;
        char renamed[WAN_MAX_NAME];
        if (strncmp(name, report->naming.prefix, n_prefix) != 0) continue;
        long long block = -1;
        bool known =
            wan_layout_rename(name + n_prefix, report->naming.layout, WAN_ORIGINAL, renamed);
        if (known) sscanf(renamed, "blocks.%lld.", &block);
        if (!known || block >= report->model.num_layers) complain(unexpected, name, "");
    }
}

static bool check_tensors(const struct Safetensors *st, const struct WanImportReport *report,
                          struct Error *err) {
    struct Complaints complaints[] = {
        {.what = "missing"}, {.what = "misshapen"}, {.what = "unexpected"}};
    char text[sizeof complaints] = "";
    check_expected(st, report, &complaints[0], &complaints[1]);
    check_unexpected(st, report, &complaints[2]);
    for (int i = 0; i < 3; i++) {
        size_t used = strlen(text);
        if (complaints[i].n > 0)
            snprintf(text + used, sizeof text - used, "%s%lld %s (%s)", used ? "; " : "",
                     (long long)complaints[i].n, complaints[i].what, complaints[i].names);
    }
    return !text[0] ||
           error_set(
               err,
               "not the tensors of a Wan text-to-video model with %lld blocks of width %lld: %s",
               (long long)report->model.num_layers, (long long)report->model.dim, text);
}

/* ---- copying ---- */

static bool check_finite(const char *file, const char *name, const float *values, int64_t n_elems,
                         struct Error *err) {
    for (int64_t i = 0; i < n_elems; i++) {
        if (!isfinite(values[i]))
            return error_set(err, "%s: tensor '%s' has a value that is not finite", file, name);
    }
    return true;
}

static bool copy_tensor(const struct Safetensors *st, const struct WanNaming *naming,
                        const struct WanTensor *tensor, struct CkptWriter *w, struct Error *err) {
    int64_t i = wan_find_tensor(st, naming, tensor->name);
    const struct SafetensorsInfo *info = safetensors_info(st, i);
    float *values = xmalloc((size_t)info->n_elems * sizeof *values);
    bool copied = safetensors_read_f32(st, i, values, err) &&
                  check_finite(safetensors_file(st, i), info->name, values, info->n_elems, err) &&
                  ckpt_write_f32(w, "teacher/param", tensor->name, tensor->n_dims, tensor->shape,
                                 values, err);
    free(values);
    return copied;
}

static bool write_checkpoint(const struct Safetensors *st, struct WanImportReport *report,
                             const char *out_path, int zstd_level, struct Error *err) {
    struct CkptWriter *w;
    if (!ckpt_writer_open_path(out_path, 0, "import", zstd_level, &w, err)) return false;
    char *yaml = wan_config_to_yaml(&report->model);
    bool written =
        ckpt_set_text(w, CKPT_KEY_CONFIG, yaml, err) && ckpt_set_model(w, &report->model, err);
    free(yaml);
    report->n_tensors = wan_layout_count(&report->model);
    for (int64_t t = 0; written && t < report->n_tensors; t++) {
        struct WanTensor tensor = wan_layout_tensor(&report->model, WAN_ORIGINAL, t);
        int64_t i = wan_find_tensor(st, &report->naming, tensor.name);
        report->n_params += safetensors_info(st, i)->n_elems;
        written = copy_tensor(st, &report->naming, &tensor, w, err);
    }
    if (written) return ckpt_writer_commit(w, err);
    ckpt_writer_abandon(w);
    return false;
}

/* ---- the whole ---- */

static bool is_folder(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

/* The folder or file that holds the weights; the caller frees it. */
static char *find_weights(const char *source) {
    char *inside = xprintf("%s/transformer", source);
    if (is_folder(inside)) return inside;
    free(inside);
    return xstrdup(source);
}

static bool read_sizes(const struct Safetensors *st, const char *weights,
                       struct WanImportReport *report, struct Error *err) {
    char *folder = is_folder(weights) ? xstrdup(weights) : path_folder(weights);
    char *path = xprintf("%s/config.json", folder);
    report->sizes_inferred = access(path, F_OK) != 0;
    bool read;
    if (report->sizes_inferred)
        read = wan_infer_model(st, &report->naming, &report->model, err) ||
               error_prefix(err, "%s", weights);
    else
        read = wan_config_read(path, &report->model, err);
    free(path);
    free(folder);
    return read;
}

bool wan_import(const char *source, const char *out_path, int zstd_level,
                struct WanImportReport *report, struct Error *err) {
    struct Safetensors *st;
    char *weights = find_weights(source);
    *report = (struct WanImportReport){0};
    bool imported = safetensors_open(weights, &st, err);
    if (imported) {
        report->naming = recognise(st);
        imported = report->naming.n_known > 0 ||
                   error_set(err, "%s: none of its tensors is one of a Wan model", weights);
        imported = imported && read_sizes(st, weights, report, err) &&
                   (check_tensors(st, report, err) || error_prefix(err, "%s", weights)) &&
                   write_checkpoint(st, report, out_path, zstd_level, err);
        safetensors_close(st);
    }
    free(weights);
    return imported;
}
