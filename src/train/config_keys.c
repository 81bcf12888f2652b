/* The table of keys.  A row's macro names type, section, key, range, default and help; it yields
 * the field's offset and refuses to compile when the field has another type than the row says. */
#include "config_keys.h"

#include <math.h>

#include "config.h"

typedef int64_t Triple[3];
typedef double Pair[2];

/* offsetof, and a zero that exists only if `member` is a `c_type`. */
#define OFFSET(c_type, member)                                                                     \
    (offsetof(struct Config, member) +                                                             \
     0 * sizeof(char[_Generic(&((struct Config *)0)->member, c_type * : 1)]))

#define ROW(section_, name_, type_, c_type, member, default_, help_, ...)                          \
    {                                                                                              \
        .section = section_, .name = name_, .type = type_, .offset = OFFSET(c_type, member),       \
        .default_text = default_, .help = help_, __VA_ARGS__                                       \
    }

#define INT(section, name, bounds, default_, help)                                                 \
    ROW(#section, #name, KEY_INT, int64_t, section.name, default_, help, .range = bounds)
#define REAL(section, name, bounds, default_, help)                                                \
    ROW(#section, #name, KEY_REAL, double, section.name, default_, help, .range = bounds)
#define BOOL(section, name, default_, help)                                                        \
    ROW(#section, #name, KEY_BOOL, bool, section.name, default_, help)
#define ENUM(section, name, c_enum, names, default_, help)                                         \
    ROW(#section, #name, KEY_ENUM, enum c_enum, section.name, default_, help, .choices = names)
#define STRING(section, name, default_, help)                                                      \
    ROW(#section, #name, KEY_STRING, char *, section.name, default_, help, .range = FROM(0))
#define INTS(section, name, bounds, default_, help)                                                \
    ROW(#section, #name, KEY_INTS, Triple, section.name, default_, help, .range = bounds,          \
        .n_items = 3)
#define REALS(section, name, bounds, default_, help)                                               \
    ROW(#section, #name, KEY_REALS, Pair, section.name, default_, help, .range = bounds,           \
        .n_items = 2)
#define INT_LIST(section, name, bounds, default_, help)                                            \
    ROW(#section, #name, KEY_INT_LIST, struct IntList, section.name, default_, help,               \
        .range = bounds, .n_items = MODEL_MAX_INTS)
#define STRING_LIST(section, name, default_, help)                                                 \
    ROW(#section, #name, KEY_STRING_LIST, struct StringList, section.name, default_, help,         \
        .range = FROM(1), .n_items = CONFIG_MAX_LIST)

#define ANY                                                                                        \
    { -INFINITY, INFINITY, false, false }
#define FROM(low)                                                                                  \
    { low, INFINITY, false, false }
#define ABOVE(low)                                                                                 \
    { low, INFINITY, true, false }
#define WITHIN(low, high)                                                                          \
    { low, high, false, false }
#define BETWEEN(low, high)                                                                         \
    { low, high, true, true }
#define FROM_TO_BELOW(low, high)                                                                   \
    { low, high, false, true }

/* Upper bounds of integers keep every product that the program forms within 64 bits. */
#define COUNT(low) WITHIN(low, 1000000000)
#define BLOCK WITHIN(0, 999)
#define TIME BETWEEN(0, 1)
#define SHARE WITHIN(0, 1)

static const struct KeyChoice stages[] = {{"teacher", STAGE_TEACHER},
                                          {"kd", STAGE_KD},
                                          {"stage1", STAGE_STAGE1},
                                          {"stage2", STAGE_STAGE2},
                                          {NULL, 0}};
static const struct KeyChoice methods[] = {
    {"meanflow", STAGE1_MEANFLOW}, {"tm", STAGE1_TM}, {NULL, 0}};
static const struct KeyChoice vsd_norms[] = {
    {"paper", VSD_NORM_PAPER}, {"dmd2", VSD_NORM_DMD2}, {NULL, 0}};
static const struct KeyChoice recomputes[] = {{"none", RECOMPUTE_NONE},
                                              {"full", RECOMPUTE_FULL},
                                              {"keep_attention", RECOMPUTE_KEEP_ATTENTION},
                                              {NULL, 0}};
static const struct KeyChoice schedules[] = {
    {"constant", SCHEDULE_CONSTANT}, {"cosine", SCHEDULE_COSINE}, {NULL, 0}};
static const struct KeyChoice fusions[] = {
    {"gated", FUSION_GATED}, {"concat", FUSION_CONCAT}, {NULL, 0}};
static const struct KeyChoice backends[] = {
    {"cpu", BACKEND_CPU}, {"cuda", BACKEND_CUDA}, {NULL, 0}};
static const struct KeyChoice precisions[] = {
    {"bf16", DTYPE_BF16}, {"f32", DTYPE_F32}, {NULL, 0}};
static const struct KeyChoice discriminators[] = {{"conv3d", DISCRIMINATOR_CONV3D},
                                                  {"separable", DISCRIMINATOR_SEPARABLE},
                                                  {"attention", DISCRIMINATOR_ATTENTION},
                                                  {"none", DISCRIMINATOR_NONE},
                                                  {NULL, 0}};
static const struct KeyChoice shards[] = {{"none", SHARD_NONE},
                                          {"optimizer", SHARD_OPTIMIZER},
                                          {"full", SHARD_FULL},
                                          {NULL, 0}};
static const struct KeyChoice solvers[] = {{"euler", SOLVER_EULER}, {NULL, 0}};

const struct ConfigSection config_sections[] = {
    {"", "top level"},
    {"model", "the video transformer from which every network starts"},
    {"student", "how the transformer is cut into main backbone and flow head"},
    {"discriminator", "its heads on features of the frozen teacher"},
    {"teacher", "training a teacher from scratch by flow matching"},
    {"kd", "one-step warm-up on samples of the teacher"},
    {"stage1", "pre-training by transition matching with MeanFlow"},
    {"stage2", "distribution matching with roll-out of the flow head"},
    {"optimizer", "AdamW and its learning rate"},
    {"ema", "moving average of the weights that are trained"},
    {"train", "the run"},
    {"device", "what computes"},
    {"parallel", "how ranks share the work and the weights"},
    {"data", "the data set"},
    {"init", "weights to start from: a checkpoint, or the folder of a run"},
    {"checkpoint", "what is saved, and for how long"},
    {"preview", "clips drawn while training"},
    {"sampler", "how the teacher is sampled"},
};
const int config_n_sections = sizeof config_sections / sizeof *config_sections;

const struct ConfigKey config_keys[] = {
    {.section = "",
     .name = "base",
     .type = KEY_BASE,
     .default_text = "\"\"",
     .help =
         "another file, relative to this one, that is read first; what stands here goes over it"},
    ROW("", "out", KEY_STRING, char *, out, "\"\"",
        "folder of the run: metrics, previews, checkpoints", .range = FROM(0)),
    ROW("", "resume", KEY_STRING, char *, resume, "none",
        "none, auto (the newest valid checkpoint in out), or the path of a checkpoint",
        .range = FROM(1)),
    ROW("", "kind", KEY_STRING, char *, kind, "\"\"", "replay cases only: what the case evaluates",
        .range = FROM(0)),
    ROW("", "skip_layers", KEY_INT_LIST, struct IntList, skip_layers, "[]",
        "replay cases only: blocks that the pass leaves out", .range = BLOCK,
        .n_items = MODEL_MAX_INTS),

    INT(model, dim, WITHIN(1, 65536), "1536", "width of a token, D"),
    INT(model, ffn_dim, WITHIN(1, 1048576), "8960", "width inside a feed-forward layer"),
    INT(model, num_heads, WITHIN(1, 1024), "12", "attention heads; their width is dim / num_heads"),
    INT(model, num_layers, WITHIN(1, 64), "30", "transformer blocks, L"),
    INT(model, freq_dim, WITHIN(2, 65536), "256", "width of the sinusoidal time embedding; even"),
    INT(model, text_dim, WITHIN(1, 65536), "4096", "width of a text embedding"),
    INT(model, text_len, WITHIN(1, 65536), "512", "text tokens; shorter prompts are zero-padded"),
    INT(model, in_dim, WITHIN(1, 4096), "16", "channels of a latent"),
    INT(model, out_dim, WITHIN(1, 4096), "16", "channels of a prediction"),
    INTS(model, patch_size, WITHIN(1, 64), "[1, 2, 2]", "frames, rows, columns that make a token"),
    REAL(model, eps, BETWEEN(0, 1), "1e-06", "added to the variance in layer and RMS norm"),

    INT(student, head_blocks, BLOCK, "5",
        "the last H blocks are the flow head; 0: no head, the DMD2-v baseline"),
    INT(student, inner_steps, WITHIN(1, 16), "2", "passes of the flow head per outer step, N"),
    INT(student, outer_steps, WITHIN(1, 64), "2", "passes of the main backbone per sample, M"),
    REAL(student, outer_shift, ABOVE(0), "10",
         "shift of the outer time grid; the paper prefers 5 for 3 and 4 outer steps"),
    REAL(student, inner_shift, ABOVE(0), "10", "shift of the inner time grid"),
    REAL(student, t_max, TIME, "0.999", "noisiest time of both grids"),
    ENUM(student, fusion, Fusion, fusions, "gated",
         "how the flow head joins backbone and noisy input"),
    REAL(student, fusion_gate_init, ANY, "-6",
         "logit of the gate at the start; at -6 the untrained student repeats the teacher"),

    ENUM(discriminator, type, DiscriminatorType, discriminators, "conv3d",
         "3D convolutions, each split into space and time, or a query that attends to all tokens; "
         "none: no discriminator, whatever stage2.gan_weight is"),
    INT_LIST(discriminator, features, BLOCK, "[15, 22, 29]",
             "teacher blocks whose outputs are judged, ascending; one head each"),
    INTS(discriminator, channels, WITHIN(1, 65536), "[256, 512, 512]",
         "widths of the four layers, the last two alike; attention has the last alone"),
    INT(discriminator, mlp_dim, WITHIN(1, 65536), "256",
        "hidden width of the layers that give a head's logit"),

    REAL(teacher, t_shift, ABOVE(0), "5", "shift of the training times; above 1 favours noise"),
    REAL(teacher, text_dropout, SHARE, "0.1", "share of samples trained on the negative prompt"),

    INT(kd, pairs, COUNT(1), "10000", "noise-data pairs that the teacher makes"),
    REAL(kd, guidance, FROM(0), "5", "guidance scale while making them; 1: none"),
    INT_LIST(kd, skip_layers, BLOCK, "[10]", "blocks left out of the negative pass"),

    ENUM(stage1, method, Stage1Method, methods, "meanflow",
         "meanflow, or tm: plain transition matching"),
    REAL(stage1, guidance, FROM(0), "3", "guidance scale in the target; 1: none"),
    REAL(stage1, fd_delta, BETWEEN(0, 0.5), "0.005", "step of the finite difference in time"),
    REAL(stage1, s_min, TIME, "0.001", "inner times are clipped from below"),
    REAL(stage1, s_max, TIME, "0.999", "inner times are clipped from above"),
    REAL(stage1, s_shift, ABOVE(0), "3", "shift of the inner times"),
    REAL(stage1, norm_const_per_dim, ABOVE(0), "1",
         "c / d in the loss |e|^2 / (|e|^2 + c) of d elements; 1 for 1.3B, 1e-5 for 14B"),
    REAL(stage1, tm_prob, SHARE, "0.75", "share of samples with r = s: plain transition matching"),
    REAL(stage1, text_dropout, SHARE, "0.1",
         "share of samples trained on the negative prompt, without guidance"),

    REAL(stage2, guidance, FROM(0), "5", "guidance scale of the teacher; 1: none"),
    REAL(stage2, gan_weight, FROM(0), "0.03",
         "weight of the adversarial loss; 0: no discriminator, as with discriminator.type none"),
    ENUM(stage2, vsd_norm, VsdNorm, vsd_norms, "paper",
         "gradient over |fake - teacher| (paper) or over |x - teacher| (dmd2)"),
    REAL(stage2, t_shift, ABOVE(0), "5", "shift of the times at which samples are judged"),
    REAL(stage2, t_min, TIME, "0.001", "those times are clipped from below"),
    REAL(stage2, t_max, TIME, "0.999", "those times are clipped from above"),
    INT(stage2, student_every, COUNT(1), "5",
        "iterations from one student update to the next; the others train the critics"),
    BOOL(stage2, rollout, "true",
         "all N passes of the head; false: one inner step drawn from data"),

    REAL(optimizer, lr, FROM(0), "1e-05", "learning rate"),
    REALS(optimizer, betas, FROM_TO_BELOW(0, 1), "[0.9, 0.99]", "decay of the two moments"),
    REAL(optimizer, eps, ABOVE(0), "1e-08", "added to the root of the second moment"),
    REAL(optimizer, weight_decay, FROM(0), "0.01", "decoupled from the gradient"),
    REAL(optimizer, lr_fake, FROM(0), "0", "learning rate of the fake score; 0: lr"),
    REAL(optimizer, lr_discriminator, FROM(0), "0", "learning rate of the discriminator; 0: lr"),
    REAL(optimizer, grad_clip, FROM(0), "0", "largest global norm of a gradient; 0: not clipped"),
    ENUM(optimizer, schedule, Schedule, schedules, "constant", "learning rate after the warm-up"),
    INT(optimizer, warmup, COUNT(0), "0", "iterations of linear warm-up"),
    REAL(optimizer, lr_min_ratio, SHARE, "0", "where cosine ends, as a share of lr"),

    REAL(ema, decay, FROM_TO_BELOW(0, 1), "0", "share of the old average kept; 0: no average"),

    ENUM(train, stage, Stage, stages, "teacher", "what is trained"),
    INT(train, seed, FROM(0), "0", "of every random draw"),
    INT(train, iterations, COUNT(1), "4000", "iterations of the whole run"),
    INT(train, global_batch, WITHIN(1, 1000000), "64", "samples per update, over all ranks"),
    INT(train, micro_batch, WITHIN(1, 256), "1",
        "samples per rank and pass; the rest is gradient accumulation"),
    ENUM(train, recompute, Recompute, recomputes, "none",
         "what backward computes again: none; full: a block's activations from its input; "
         "keep_attention: those but what its attentions gave; less memory, the same bits"),
    INT(train, max_skipped, COUNT(1), "10", "non-finite steps in a row that end the run"),
    INT(train, log_every, COUNT(1), "10", "iterations from one logged line to the next"),
    INT(train, watchdog, COUNT(0), "600",
        "seconds without work done in any rank that end the run, four times that while opening or "
        "saving; a pass, with what is tuned in the first, must take less; 0: never"),
    INT(train, dump_at, COUNT(-1), "-1", "iteration to write as a replay case; -1: none"),

    ENUM(device, backend, BackendKind, backends, "cpu", "cpu, or cuda: one device for each rank"),
    ENUM(device, precision, Dtype, precisions, "bf16",
         "cuda: of activations and of weights in products; masters and sums are f32, as is the cpu"),
    BOOL(device, deterministic, "false",
         "cuda: the same bits every time, from the attention's backward too"),
    BOOL(device, tune_gemm, "true",
         "cuda: time the library's algorithms for each matrix product once, and keep the fastest"),
    BOOL(device, graphs, "true",
         "cuda: passes without gradient are kept as CUDA graphs and launched whole; the same bits"),

    ENUM(parallel, shard, ShardMode, shards, "none",
         "none: each rank has everything; optimizer: masters, moments, averages and summed gradients "
         "are divided among ranks (ZeRO-1); full: the weights too (ZeRO-3)"),
    INT(parallel, replicas, COUNT(1), "1",
        "copies of what is sharded: each of this many groups of neighbouring ranks holds all of it"),
    INT(parallel, sequence, WITHIN(1, 64), "1",
        "neighbouring ranks that share the tokens of their samples; divides model.num_heads"),

    STRING_LIST(data, files, "[]", "HDF5 files that together form the data set"),
    INT(data, prefetch, WITHIN(1, 1024), "2", "batches read ahead"),

    STRING(init, teacher, "\"\"", "weights of the teacher; fake score and student start there too"),
    STRING(init, student, "\"\"", "weights of the student, from an earlier stage"),
    BOOL(init, use_ema, "true", "take the averaged weights where they were saved"),

    INT(checkpoint, every, COUNT(1), "500", "iterations from one checkpoint to the next"),
    INT(checkpoint, keep_last, COUNT(1), "3", "newest checkpoints that are kept"),
    INT(checkpoint, keep_every, COUNT(0), "0", "multiples of this iteration are kept too; 0: none"),
    INT(checkpoint, zstd_level, WITHIN(1, 22), "1", "compression, fast to small"),

    INT(preview, every, COUNT(0), "0", "iterations from one preview to the next; 0: none"),
    STRING_LIST(preview, prompts, "[]", "prompts of the data set; none: its first ones"),
    INT(preview, count, WITHIN(1, CONFIG_MAX_LIST), "4", "clips when no prompts are listed"),

    ENUM(sampler, solver, Solver, solvers, "euler", "integrator of the teacher's flow"),
    INT(sampler, steps, WITHIN(1, 100000), "50", "steps from noise to data"),
    REAL(sampler, shift, ABOVE(0), "5", "shift of its time grid; 3 is usual at 480p"),
    REAL(sampler, guidance, FROM(0), "5", "guidance scale; 1: none"),
    INT(sampler, seed, FROM(0), "0", "of the noise that samples start from"),
};
const int config_n_keys = sizeof config_keys / sizeof *config_keys;
