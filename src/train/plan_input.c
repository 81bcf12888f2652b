/* Each input has a section: tables, configuration, shape of the videos. */
#include "train/plan_input.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train/data_fit.h"

/* ---- tables */

static char *table_path(const struct PlanFlags *flags, const char *kind, const char *name) {
    if (strchr(name, '/') || strchr(name, '.')) return xstrdup(name);
    return xprintf("%s/%s/%s.yaml", flags->tables, kind, name);
}

bool plan_tables_load(const struct PlanFlags *flags, struct Machine *machine,
                      struct Network *network, struct Error *err) {
    char *gpu = table_path(flags, "gpu", flags->gpu);
    char *net = table_path(flags, "network", flags->network);
    bool ok = machine_load(machine, gpu, err) || error_prefix(err, "--gpu %s", flags->gpu);
    ok = ok &&
         (network_load(network, net, err) || error_prefix(err, "--network %s", flags->network));
    free(gpu);
    free(net);
    return ok;
}

/* ---- configuration */

bool plan_is_override(const char *operand) {
    return strchr(operand, '=') != NULL;
}

bool plan_config_read(struct Config *config, const char *path, const struct Operands *operands,
                      struct Error *err) {
    if (!config_load(config, path, err)) return false;
    for (int i = 0; i < operands->n; i++)
        if (plan_is_override(operands->items[i]) &&
            !config_override(config, operands->items[i], err))
            return false;
    return true;
}

/* ---- shape */

/* The shape of the data's videos, and true in *found, if all files are there. */
static bool data_shape(const struct Config *config, struct VideoShape *video, bool *found,
                       struct Error *err) {
    const struct StringList *files = &config->data.files;
    *found = files->n > 0;
    for (int i = 0; i < files->n; i++) *found = *found && access(files->items[i], F_OK) == 0;
    if (!*found) return true;
    struct Dataset *data = dataset_open(files->items, files->n, err);
    bool ok = data && data_fits(config, data, files->items[0], err);
    if (ok) *video = data_video_shape(dataset_info(data));
    dataset_close(data);
    return ok;
}

bool plan_shape_find(const struct PlanFlags *flags, const struct Config *config,
                     struct VideoShape *video, const char **origin, struct Error *err) {
    bool found;
    *video = (struct VideoShape){.frames = 21, .height = 60, .width = 104};
    if (!data_shape(config, video, &found, err)) return false;
    *origin =
        found ? "as the data's" : "assumed, for the data is not there: 81 frames of 480 x 832";
    if (flags->frames || flags->height || flags->width) *origin = "as the flags say";
    if (flags->frames) video->frames = flags->frames;
    if (flags->height) video->height = flags->height;
    if (flags->width) video->width = flags->width;
    return true;
}

void plan_shape_print(const struct Config *config, struct VideoShape video, const char *origin,
                      FILE *out) {
    fprintf(out, "latents of %lld x %lld x %lld x %lld, %lld tokens (%s)\n",
            (long long)config->model.in_dim, (long long)video.frames, (long long)video.height,
            (long long)video.width, (long long)plan_tokens(config, video), origin);
}
