/* tmd data info: what datasets are.  tmd data verify: whether they are whole.
 *
 * Each file is looked at on its own; whether files agree shows when they are opened together. */
#include "data/cmd_data_check.h"

#include <stdio.h>
#include <stdlib.h>

#include "args.h"
#include "data/dataset.h"
#include "data/h5_element.h"

static const char *or_unknown(const char *text) {
    return text[0] ? text : "not known";
}

static bool print_info(char *path, struct Error *err) {
    struct Dataset *dataset = dataset_open(&path, 1, err);
    char *prompt = NULL;
    if (!dataset || !dataset_read_prompt(dataset, 0, &prompt, err)) {
        dataset_close(dataset);
        return false;
    }
    const struct DatasetInfo *info = dataset_info(dataset);
    bool latents = info->kind == DATASET_LATENTS;
    printf("%s\n", path);
    printf("  samples          %lld of %s, %s%s\n", (long long)info->n_samples,
           latents ? "latents" : "pixels", h5_element_name(info->video_element),
           !latents           ? ""
           : info->normalised ? ", normalised"
                              : ", normalised on reading");
    printf("  shape            %lld channels x %lld frames x %lld x %lld\n",
           (long long)info->channels, (long long)info->frames, (long long)info->height,
           (long long)info->width);
    printf("  text             rows of %lld, %s, at most %lld per prompt\n",
           (long long)info->text_dim, h5_element_name(info->text_element),
           (long long)info->max_text_rows);
    if (info->fps > 0) printf("  fps              %g\n", info->fps);
    printf("  video encoder    %s\n", latents ? or_unknown(info->video_encoder) : "none");
    printf("  text encoder     %s\n", or_unknown(info->text_encoder));
    printf("  first prompt     \"%s\"\n", prompt);
    printf("  negative prompt  \"%s\"\n", info->negative_prompt);
    printf("  checksums        %s\n", info->has_checksums ? "yes" : "no");
    free(prompt);
    dataset_close(dataset);
    return true;
}

/* Reads all that there is; reading checks it. */
static bool read_everything(struct Dataset *dataset, struct Error *err) {
    const struct DatasetInfo *info = dataset_info(dataset);
    int64_t text_len = info->max_text_rows;
    float *video = xmalloc((unsigned long)dataset_video_elems(dataset) * sizeof *video);
    float *text = xmalloc((unsigned long)(text_len * info->text_dim) * sizeof *text);
    bool good = dataset_read_negative(dataset, text_len, text, err);
    for (int64_t i = 0; i < info->n_samples && good; i++) {
        char *prompt = NULL;
        good = dataset_read_sample(dataset, i, text_len, video, text, err) &&
               dataset_read_prompt(dataset, i, &prompt, err);
        free(prompt);
    }
    free(video);
    free(text);
    return good;
}

static bool verify(char *path, struct Error *err) {
    struct Dataset *dataset = dataset_open(&path, 1, err);
    bool good = dataset && read_everything(dataset, err);
    if (good)
        printf("%s: %lld samples are good%s\n", path, (long long)dataset_info(dataset)->n_samples,
               dataset_info(dataset)->has_checksums ? "" : " (there are no checksums to compare)");
    dataset_close(dataset);
    return good;
}

static int for_each_file(const struct ArgTable *table, int argc, char **argv,
                         bool (*look)(char *path, struct Error *err)) {
    struct Operands files;
    int exit_code;
    if (!args_begin(table, argc, argv, NULL, &files, &exit_code)) return exit_code;
    exit_code = EXIT_OK;
    for (int i = 0; i < files.n; i++) {
        struct Error err;
        if (!look(files.items[i], &err)) exit_code = error_report(&err);
    }
    return exit_code;
}

int cmd_data_info(int argc, char **argv) {
    static const struct ArgTable table = {
        .usage = "tmd data info FILE...",
        .help = "Prints what datasets hold: samples, shapes, types, encoders.",
        .min_operands = 1,
        .max_operands = -1,
    };
    return for_each_file(&table, argc, argv, print_info);
}

int cmd_data_verify(int argc, char **argv) {
    static const struct ArgTable table = {
        .usage = "tmd data verify FILE...",
        .help =
            "Reads datasets from end to end and compares all checksums; names the first damaged "
            "sample of each file and exits with 2 if there is one.",
        .min_operands = 1,
        .max_operands = -1,
    };
    return for_each_file(&table, argc, argv, verify);
}
