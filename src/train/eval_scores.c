/* The first clips of the data give the prompts and the line of real clips; as many after them are
 * the reference of the Frechet distance. */
#include "train/eval_scores.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double scores_match(const struct Scores *scores) {
    return (double)scores->tally.all / (double)scores->tally.clips;
}

static int64_t clip_elems(const struct Judge *judge) {
    const struct DatasetInfo *info = judge->info;
    return info->channels * info->frames * info->height * info->width;
}

/* ---- opening ---- */

static bool check_world(const struct DatasetInfo *info, int64_t n_clips, struct Error *err) {
    if (info->kind != DATASET_PIXELS || info->channels != SHAPE_CHANNELS)
        return error_set(err,
                         "expected clips of %d colour channels, as `tmd data shapes` draws "
                         "them, got %s of %lld channels",
                         SHAPE_CHANNELS, info->kind == DATASET_PIXELS ? "pixels" : "latents",
                         (long long)info->channels);
    if (info->n_samples / 2 < n_clips)
        return error_set(err,
                         "%lld clips need as many again for reference, but there are only "
                         "%lld samples",
                         (long long)n_clips, (long long)info->n_samples);
    return true;
}

static bool read_wanted(struct Judge *judge, struct Dataset *dataset, struct Error *err) {
    bool ok = true;
    for (int64_t i = 0; ok && i < judge->n_clips; i++) {
        char *prompt;
        if (!dataset_read_prompt(dataset, i, &prompt, err)) return false;
        ok = shapes_parse_caption(prompt, &judge->wanted[i]) ||
             error_set(err,
                       "sample %lld: expected a caption of the shapes world such as 'a red "
                       "square moving left', got '%.64s'",
                       (long long)i, prompt);
        free(prompt);
    }
    return ok;
}

static bool read_clips(struct Judge *judge, struct Dataset *dataset, struct Error *err) {
    int64_t n_elems = clip_elems(judge), text_len = judge->info->max_text_rows;
    float *text = xmalloc((size_t)(text_len * judge->info->text_dim) * sizeof *text);
    float *clip = xmalloc((size_t)n_elems * sizeof *clip);
    bool ok = true;
    for (int64_t i = 0; ok && i < judge->n_clips; i++) {
        ok = dataset_read_sample(dataset, i, text_len, judge->real + i * n_elems, text, err) &&
             dataset_read_sample(dataset, judge->n_clips + i, text_len, clip, text, err);
        if (ok) frechet_add(judge->map, clip, judge->reference);
    }
    free(text);
    free(clip);
    return ok;
}

bool judge_open(struct Judge *judge, struct Dataset *dataset, int64_t n_clips, struct Error *err) {
    const struct DatasetInfo *info = dataset_info(dataset);
    *judge = (struct Judge){.info = info, .n_clips = n_clips};
    if (!check_world(info, n_clips, err)) return false;
    judge->wanted = xcalloc((size_t)n_clips * sizeof *judge->wanted);
    judge->reference = xcalloc(sizeof *judge->reference);
    judge->map = frechet_map_create(info->channels, info->frames, info->height, info->width);
    judge->real = xmalloc((size_t)(n_clips * clip_elems(judge)) * sizeof *judge->real);
    return read_wanted(judge, dataset, err) && read_clips(judge, dataset, err);
}

void judge_free(struct Judge *judge) {
    free(judge->wanted);
    free(judge->reference);
    free(judge->real);
    if (judge->map) frechet_map_free(judge->map);
    *judge = (struct Judge){0};
}

/* ---- judging ---- */

static bool same_spec(struct ShapeSpec a, struct ShapeSpec b) {
    return a.kind == b.kind && a.colour == b.colour && a.direction == b.direction;
}

static double spread_over_prompts(const struct Judge *judge, const float *clips) {
    int64_t n_elems = clip_elems(judge), n_prompts = 0;
    float *same = xmalloc((size_t)(judge->n_clips * n_elems) * sizeof *same);
    double sum = 0.0;
    for (int p = 0; p < SHAPE_SPECS; p++) {
        int64_t n_same = 0;
        for (int64_t i = 0; i < judge->n_clips; i++)
            if (same_spec(judge->wanted[i], shapes_spec(p)))
                memcpy(same + n_same++ * n_elems, clips + i * n_elems,
                       (size_t)n_elems * sizeof *same);
        if (n_same < 2) continue;
        sum += frechet_spread(same, n_same, n_elems);
        n_prompts++;
    }
    free(same);
    return n_prompts ? sum / (double)n_prompts : NAN;
}

void judge_clips(const struct Judge *judge, const float *clips, struct Scores *scores) {
    const struct DatasetInfo *info = judge->info;
    struct FrechetStats *stats = xcalloc(sizeof *stats);
    scores->tally = (struct ShapeTally){0};
    for (int64_t i = 0; i < judge->n_clips; i++) {
        const float *clip = clips + i * clip_elems(judge);
        struct ShapeVerdict verdict;
        shapes_recognise(clip, info->frames, info->height, info->width, &verdict);
        shapes_tally(&scores->tally, judge->wanted[i], verdict.seen);
        frechet_add(judge->map, clip, stats);
    }
    scores->frechet = frechet_distance(stats, judge->reference);
    scores->spread = spread_over_prompts(judge, clips);
    free(stats);
}

double two_proportion_z(int64_t k_a, int64_t k_b, int64_t n) {
    double pooled = (double)(k_a + k_b) / (2.0 * (double)n);
    double variance = pooled * (1.0 - pooled) * 2.0 / (double)n;
    if (variance <= 0.0) return 0.0;
    return (double)(k_a - k_b) / (double)n / sqrt(variance);
}
