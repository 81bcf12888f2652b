/* One table of names and shapes; everything else looks things up in it. */
#include "data/wan_layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

/* ---- the table ---- */

/* Extents of shapes, as functions of the model's sizes. */
enum Extent { NONE, ONE, TWO, SIX, D, D6, F, FREQ, TEXT, IN, PT, PH, PW, OUT };

/* Which tensors a row stands for. */
enum Parts { BARE, WEIGHT, WEIGHT_BIAS };

struct Row {
    const char *stem[WAN_LAYOUT_COUNT]; /* in the original and in the diffusers layout */
    enum Parts parts;
    enum Extent shape[WAN_MAX_DIMS]; /* of the weight; the bias has its first extent */
};

static const struct Row outer_rows[] = {
    {{"patch_embedding", "patch_embedding"}, WEIGHT_BIAS, {D, IN, PT, PH, PW}},
    {{"text_embedding.0", "condition_embedder.text_embedder.linear_1"}, WEIGHT_BIAS, {D, TEXT}},
    {{"text_embedding.2", "condition_embedder.text_embedder.linear_2"}, WEIGHT_BIAS, {D, D}},
    {{"time_embedding.0", "condition_embedder.time_embedder.linear_1"}, WEIGHT_BIAS, {D, FREQ}},
    {{"time_embedding.2", "condition_embedder.time_embedder.linear_2"}, WEIGHT_BIAS, {D, D}},
    {{"time_projection.1", "condition_embedder.time_proj"}, WEIGHT_BIAS, {D6, D}},
    {{"head.modulation", "scale_shift_table"}, BARE, {ONE, TWO, D}},
    {{"head.head", "proj_out"}, WEIGHT_BIAS, {OUT, D}},
};

/* Behind "blocks.<number>.", which both layouts share. */
static const struct Row block_rows[] = {
    {{"modulation", "scale_shift_table"}, BARE, {ONE, SIX, D}},
    {{"self_attn.q", "attn1.to_q"}, WEIGHT_BIAS, {D, D}},
    {{"self_attn.k", "attn1.to_k"}, WEIGHT_BIAS, {D, D}},
    {{"self_attn.v", "attn1.to_v"}, WEIGHT_BIAS, {D, D}},
    {{"self_attn.o", "attn1.to_out.0"}, WEIGHT_BIAS, {D, D}},
    {{"self_attn.norm_q", "attn1.norm_q"}, WEIGHT, {D}},
    {{"self_attn.norm_k", "attn1.norm_k"}, WEIGHT, {D}},
    {{"cross_attn.q", "attn2.to_q"}, WEIGHT_BIAS, {D, D}},
    {{"cross_attn.k", "attn2.to_k"}, WEIGHT_BIAS, {D, D}},
    {{"cross_attn.v", "attn2.to_v"}, WEIGHT_BIAS, {D, D}},
    {{"cross_attn.o", "attn2.to_out.0"}, WEIGHT_BIAS, {D, D}},
    {{"cross_attn.norm_q", "attn2.norm_q"}, WEIGHT, {D}},
    {{"cross_attn.norm_k", "attn2.norm_k"}, WEIGHT, {D}},
    {{"norm3", "norm2"}, WEIGHT_BIAS, {D}},
    {{"ffn.0", "ffn.net.0.proj"}, WEIGHT_BIAS, {F, D}},
    {{"ffn.2", "ffn.net.2"}, WEIGHT_BIAS, {D, F}},
};

enum {
    N_OUTER_ROWS = sizeof outer_rows / sizeof *outer_rows,
    N_BLOCK_ROWS = sizeof block_rows / sizeof *block_rows,
};

/* Seen in single-file checkpoints (model.diffusion_model., diffusion_model.), rCM (net.), and
 * CausVid and Self-Forcing (the rest); of two equally good ones, averaged weights come first. */
static const char *const prefixes[] = {
    "",
    "model.diffusion_model.",
    "diffusion_model.",
    "generator_ema.model.",
    "generator.model.",
    "net.",
    "generator_ema.",
    "generator.",
    "model.",
};

/* ---- shapes ---- */

static int64_t extent_of(enum Extent extent, const struct ModelConfig *model) {
    const int64_t *patch = model->patch_size;
    switch (extent) {
    case NONE:
        break;
    case ONE:
        return 1;
    case TWO:
        return 2;
    case SIX:
        return 6;
    case D:
        return model->dim;
    case D6:
        return 6 * model->dim;
    case F:
        return model->ffn_dim;
    case FREQ:
        return model->freq_dim;
    case TEXT:
        return model->text_dim;
    case IN:
        return model->in_dim;
    case PT:
        return patch[0];
    case PH:
        return patch[1];
    case PW:
        return patch[2];
    case OUT:
        return model->out_dim * patch[0] * patch[1] * patch[2];
    }
    return 0;
}

static int count_parts(const struct Row *row) {
    return row->parts == WEIGHT_BIAS ? 2 : 1;
}

static int64_t count_tensors(const struct Row *rows, int n_rows) {
    int64_t n = 0;
    for (int r = 0; r < n_rows; r++) n += count_parts(&rows[r]);
    return n;
}

const char *wan_layout_name(enum WanLayout layout) {
    return layout == WAN_ORIGINAL ? "original" : "diffusers";
}

int64_t wan_layout_count(const struct ModelConfig *model) {
    return count_tensors(outer_rows, N_OUTER_ROWS) +
           model->num_layers * count_tensors(block_rows, N_BLOCK_ROWS);
}

/* The ending of part 0 or 1 of a row. */
static const char *part_suffix(const struct Row *row, int part) {
    return row->parts == BARE ? "" : part == 0 ? ".weight" : ".bias";
}

struct WanTensor wan_layout_tensor(const struct ModelConfig *model, enum WanLayout layout,
                                   int64_t i) {
    TMD_CHECK(i >= 0 && i < wan_layout_count(model), "tensor %lld", (long long)i);
    int64_t n_outer = count_tensors(outer_rows, N_OUTER_ROWS);
    int64_t per_block = count_tensors(block_rows, N_BLOCK_ROWS);
    const struct Row *row = i < n_outer ? outer_rows : block_rows;
    struct WanTensor tensor = {.n_dims = 0};
    char block[32] = "";
    int64_t within = i;
    if (i >= n_outer) {
        snprintf(block, sizeof block, "blocks.%lld.", (long long)((i - n_outer) / per_block));
        within = (i - n_outer) % per_block;
    }
    for (; within >= count_parts(row); row++) within -= count_parts(row);
    snprintf(tensor.name, sizeof tensor.name, "%s%s%s", block, row->stem[layout],
             part_suffix(row, (int)within));
    int max_dims = within == 1 ? 1 : WAN_MAX_DIMS;
    while (tensor.n_dims < max_dims && row->shape[tensor.n_dims] != NONE) {
        tensor.shape[tensor.n_dims] = extent_of(row->shape[tensor.n_dims], model);
        tensor.n_dims++;
    }
    return tensor;
}

/* ---- names ---- */

/* Whether `name` is a tensor of this row: its stem with one of its endings, which is returned. */
static const char *match_row(const struct Row *row, enum WanLayout layout, const char *name) {
    size_t n_stem = strlen(row->stem[layout]);
    if (strncmp(name, row->stem[layout], n_stem) != 0) return NULL;
    for (int part = 0; part < count_parts(row); part++) {
        if (strcmp(name + n_stem, part_suffix(row, part)) == 0) return part_suffix(row, part);
    }
    return NULL;
}

/* The length of "blocks.<number>." at the start of `name`; 0 if it starts otherwise. */
static int match_block(const char *name) {
    int number, n_read = 0;
    if (sscanf(name, "blocks.%4d.%n", &number, &n_read) != 1 || n_read == 0) return 0;
    char spelt[32];
    snprintf(spelt, sizeof spelt, "blocks.%d.", number);
    return number >= 0 && strncmp(name, spelt, strlen(spelt)) == 0 ? n_read : 0;
}

bool wan_layout_rename(const char *name, enum WanLayout from, enum WanLayout to,
                       char out[WAN_MAX_NAME]) {
    int n_block = match_block(name);
    const struct Row *rows = n_block ? block_rows : outer_rows;
    int n_rows = n_block ? N_BLOCK_ROWS : N_OUTER_ROWS;
    for (int r = 0; r < n_rows; r++) {
        const char *suffix = match_row(&rows[r], from, name + n_block);
        if (!suffix) continue;
        snprintf(out, WAN_MAX_NAME, "%.*s%s%s", n_block, name, rows[r].stem[to], suffix);
        return true;
    }
    return false;
}

struct WanNaming wan_layout_recognise(const char *const *names, int64_t n_names) {
    struct WanNaming best = {.prefix = ""};
    for (size_t p = 0; p < sizeof prefixes / sizeof *prefixes; p++) {
        for (int layout = 0; layout < WAN_LAYOUT_COUNT; layout++) {
            struct WanNaming naming = {prefixes[p], (enum WanLayout)layout, 0, 0};
            size_t n_prefix = strlen(prefixes[p]);
            char renamed[WAN_MAX_NAME];
            for (int64_t i = 0; i < n_names; i++) {
                if (strncmp(names[i], prefixes[p], n_prefix) != 0)
                    naming.n_outside++;
                else if (wan_layout_rename(names[i] + n_prefix, naming.layout, WAN_ORIGINAL,
                                           renamed))
                    naming.n_known++;
            }
            if (naming.n_known > best.n_known) best = naming;
        }
    }
    return best;
}
