/* Samplers: the same noise for all, whatever the batch; the right weights, memory and cost;
 * prompts; what a run and a checkpoint leave. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../data/scratch.h"
#include "sampling_fixture.h"
#include "train/clip_sheet.h"
#include "train/cmd_train.h"
#include "train/draws.h"
#include "train/prompt_set.h"
#include "train/run_state.h"
#include "train/sampling_load.h"

enum { N_CLIPS = 5, N_VIDEO = 3 * 2 * 12 * 12 };

static struct World world;

static int set_up(void **state) {
    (void)state;
    world = world_make();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    world_remove(world);
    return 0;
}

/* Networks with random weights and a few prompts. */
struct Bench {
    struct Config config;
    struct Backend *be;
    struct Networks nets;
    struct Dataset *dataset;
    struct PromptSet prompts;
};

static const struct VideoShape shape = {2, 12, 12};

static void fill_random(const struct ParamTable *table, uint64_t seed, float *host) {
    /* tensors that start at zero would hide whole branches */
    params_initialise(table, seed, host);
    for (int64_t i = 0; i < table->n_elems; i++)
        host[i] += 0.05f * (float)sin((double)(i % 1009) + (double)seed);
}

static void bench_open(struct Bench *b, enum Role role, bool ema, const char *const *overrides) {
    struct Error err;
    char *path = (char *)(uintptr_t)world_path(world, "shapes.h5");
    struct NetworksPlan plan = {.main = role, .ema = ema};
    plan.present[role] = true;
    plan.trained[role] = ema;
    world_config(world, &b->config, overrides);
    b->be = backend_cpu_create();
    networks_init(&b->nets, &b->config, b->be, plan, shape);
    float *host = xmalloc((size_t)networks_table(&b->nets, role)->n_elems * sizeof *host);
    fill_random(networks_table(&b->nets, role), 7, host);
    weights_upload(&b->nets.weights[role], host);
    free(host);
    b->dataset = dataset_open(&path, 1, &err);
    assert_non_null(b->dataset);
    assert_true(
        prompt_set_of_samples(&b->prompts, b->dataset, 0, N_CLIPS, b->config.model.text_len, &err));
}

static void bench_close(struct Bench *b) {
    prompt_set_free(&b->prompts);
    dataset_close(b->dataset);
    networks_free(&b->nets);
    b->be->destroy(b->be);
    config_free(&b->config);
}

static int64_t planned_bytes(const struct Bench *b, struct Sampler sampler, int64_t batch) {
    struct Backend *plan = backend_plan_create(b->be->act_dtype);
    struct Networks nets;
    networks_init(&nets, &b->config, plan, b->nets.plan, shape);
    sampler.nets = &nets;
    int64_t n_bytes = sampler_arena_bytes(&sampler, batch);
    networks_free(&nets);
    plan->destroy(plan);
    return n_bytes;
}

/* Clips first .. first + n - 1 in fresh memory. */
static float *sample(const struct Bench *b, struct Sampler sampler, int64_t first, int64_t n,
                     int64_t batch) {
    float *clips = xcalloc((size_t)(n * N_VIDEO) * sizeof *clips);
    struct Arena arena;
    int64_t n_bytes = planned_bytes(b, sampler, batch);
    arena_init(&arena, b->be, n_bytes);
    struct SampleSet set = {.first = first,
                            .n = n,
                            .text = b->prompts.text + first * networks_text_elems(&b->nets),
                            .neg_text = b->prompts.neg_text,
                            .clips = clips};
    sampler_run(&sampler, set, batch, &arena);
    assert_int_equal(arena.peak, n_bytes); /* the plan is exact */
    assert_int_equal(arena.used, 0);
    arena_free(&arena);
    return clips;
}

static double distance(const float *a, const float *b, int64_t n) {
    double sum = 0.0, norm = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    assert_true(isfinite(sum) && norm > 0.0);
    return sqrt(sum / norm);
}

static const char *const guided[] = {"sampler.guidance=2", "sampler.steps=3", NULL};

static void check_split(enum Role role, const char *const *overrides) {
    struct Bench b;
    bench_open(&b, role, false, overrides);
    struct Sampler sampler = sampler_init(&b.nets, role, true);
    float *whole = sample(&b, sampler, 0, N_CLIPS, N_CLIPS);
    float *again = sample(&b, sampler, 0, N_CLIPS, N_CLIPS);
    float *pairs = sample(&b, sampler, 0, N_CLIPS, 2);
    float *tail = sample(&b, sampler, 3, N_CLIPS - 3, 1);
    assert_memory_equal(whole, again, sizeof *whole * N_CLIPS * N_VIDEO);
    assert_true(distance(pairs, whole, N_CLIPS * N_VIDEO) < 1e-5);
    assert_true(distance(tail, whole + 3 * N_VIDEO, (N_CLIPS - 3) * N_VIDEO) < 1e-5);
    assert_true(distance(whole, whole + N_VIDEO, N_VIDEO) > 0.1);
    sampler.seed++;
    float *other = sample(&b, sampler, 0, N_CLIPS, N_CLIPS);
    assert_true(distance(other, whole, N_CLIPS * N_VIDEO) > 0.1);
    float *all[] = {whole, again, pairs, tail, other};
    for (int i = 0; i < 5; i++) free(all[i]);
    bench_close(&b);
}

static void clips_do_not_depend_on_the_batch(void **state) {
    (void)state;
    check_split(ROLE_TEACHER, guided);
    check_split(ROLE_STUDENT, NULL);
    check_split(ROLE_STUDENT, (const char *[]){"student.head_blocks=0", NULL});
}

/* What sampler_run wraps, called by hand: noise by its documented keys, text as it is. */
static void teacher_starts_from_keyed_noise(void **state) {
    (void)state;
    struct Bench b;
    bench_open(&b, ROLE_TEACHER, false, guided);
    struct Sampler sampler = sampler_init(&b.nets, ROLE_TEACHER, true);
    float *got = sample(&b, sampler, 0, 2, 2);
    float expected[2 * N_VIDEO], neg_text[2 * 6 * 8];
    int64_t n_text = networks_text_elems(&b.nets);
    assert_int_equal(2 * n_text, sizeof neg_text / sizeof *neg_text);
    for (int i = 0; i < 2; i++)
        memcpy(neg_text + i * n_text, b.prompts.neg_text, (size_t)n_text * sizeof *neg_text);
    struct WanTape *tape = xcalloc(sizeof *tape);
    struct Wan wan = networks_wan(&b.nets, ROLE_TEACHER, VIEW_FROZEN);
    struct Arena arena;
    arena_init(&arena, b.be, planned_bytes(&b, sampler, 2));
    b.be->normal_fill(b.be, expected, sampler.seed, draw_stream(0, DRAW_SAMPLER_X1), 0, 2, N_VIDEO);
    teacher_sample(&wan, (struct TeacherSampler){.steps = 3, .shift = 5, .guidance = 2}, 2,
                   expected, (Act *)(void *)b.prompts.text, (Act *)(void *)neg_text, &arena, tape);
    assert_memory_equal(got, expected, sizeof expected);
    arena_free(&arena);
    free(tape);
    free(got);
    bench_close(&b);
}

static void student_takes_keyed_noise_each_outer_step(void **state) {
    (void)state;
    struct Bench b;
    bench_open(&b, ROLE_STUDENT, false, NULL);
    struct Sampler sampler = sampler_init(&b.nets, ROLE_STUDENT, true);
    float *got = sample(&b, sampler, 1, 1, 1);
    float expected[N_VIDEO], y1[2 * N_VIDEO];
    struct GeneratorTape *tape = xcalloc(sizeof *tape);
    struct Student student = networks_student(&b.nets, VIEW_FROZEN);
    struct Arena arena;
    assert_int_equal(student.config->outer_steps, 2);
    arena_init(&arena, b.be, planned_bytes(&b, sampler, 1));
    b.be->normal_fill(b.be, expected, sampler.seed, draw_stream(0, DRAW_SAMPLER_X1), 1, 1, N_VIDEO);
    for (int k = 0; k < 2; k++)
        b.be->normal_fill(b.be, y1 + k * N_VIDEO, sampler.seed, draw_stream(k, DRAW_SAMPLER_Y1), 1,
                          1, N_VIDEO);
    student_sample(&student, 1, expected, y1,
                   (Act *)(void *)(b.prompts.text + networks_text_elems(&b.nets)), &arena, tape);
    assert_memory_equal(got, expected, sizeof expected);
    arena_free(&arena);
    free(tape);
    free(got);
    bench_close(&b);
}

static void averaged_weights_are_used_if_wanted(void **state) {
    (void)state;
    struct Bench b;
    bench_open(&b, ROLE_STUDENT, true, NULL);
    struct Weights *w = &b.nets.weights[ROLE_STUDENT];
    struct Sampler plain = sampler_init(&b.nets, ROLE_STUDENT, false);
    struct Sampler averaged = sampler_init(&b.nets, ROLE_STUDENT, true);
    fill_random(w->table, 8, w->ema);
    float *from_master = sample(&b, plain, 0, 2, 2), *from_ema = sample(&b, averaged, 0, 2, 2);
    assert_true(distance(from_ema, from_master, 2 * N_VIDEO) > 0.01);
    weights_upload(w, w->ema);
    float *as_master = sample(&b, plain, 0, 2, 2);
    assert_memory_equal(from_ema, as_master, 2 * N_VIDEO * sizeof *as_master);
    free(from_master);
    free(from_ema);
    free(as_master);
    bench_close(&b);
}

static double nfe_of(enum Role role, const char *const *overrides) {
    struct Bench b;
    bench_open(&b, role, false, overrides);
    struct Sampler sampler = sampler_init(&b.nets, role, true);
    double nfe = sampler_nfe(&sampler);
    bench_close(&b);
    return nfe;
}

static void cost_counts_guidance_and_inner_steps(void **state) {
    (void)state;
    assert_true(nfe_of(ROLE_TEACHER, guided) == 6.0);
    assert_true(nfe_of(ROLE_TEACHER, (const char *[]){"sampler.guidance=1", NULL}) == 2.0);
    /* M (1 + (N - 1) H / L) */
    assert_true(fabs(nfe_of(ROLE_STUDENT, NULL) - 2.0 * (1.0 + 1.0 / 3.0)) < 1e-12);
    assert_true(nfe_of(ROLE_STUDENT, (const char *[]){"student.head_blocks=0", NULL}) == 2.0);
}

static void toy_prompts_read_and_embedded_agree(void **state) {
    (void)state;
    struct Bench b;
    struct Error err;
    struct PromptSet embedded;
    bench_open(&b, ROLE_TEACHER, false, NULL);
    assert_true(prompt_set_of_texts(&embedded, b.dataset, (const char *const *)b.prompts.prompts,
                                    N_CLIPS, 6, &err));
    assert_memory_equal(embedded.text, b.prompts.text, N_CLIPS * 6 * 8 * sizeof(float));
    assert_memory_equal(embedded.neg_text, b.prompts.neg_text, 6 * 8 * sizeof(float));
    assert_int_equal(prompt_text_rows(embedded.text, 6, 8), 5); /* "a red square moving left" */
    assert_int_equal(prompt_text_rows(embedded.neg_text, 6, 8), 1);
    prompt_set_free(&embedded);
    const char *long_prompt = "one two three four five six seven";
    assert_false(prompt_set_of_texts(&embedded, b.dataset, &long_prompt, 1, 6, &err));
    assert_non_null(strstr(err.text, "7 words"));
    bench_close(&b);
}

/* ---- what comes from files ---- */

/* The host values of a whole role, tensor behind tensor. */
static float *values_of(const struct Weights *w) {
    float *host = xcalloc((size_t)w->table->n_elems * sizeof *host);
    for (int p = 0; p < w->table->n_params; p++)
        weights_get(w, p, host + w->table->params[p].offset);
    return host;
}

/* The student is the checkpoint's teacher, over initial values. */
static void check_untrained(const struct Networks *nets, const char *file) {
    static const char *const teacher[] = {"teacher"};
    struct WeightsSource source = {.path = file, .roles = teacher, .n_roles = 1, .partial = true};
    const struct Weights *student = &nets->weights[ROLE_STUDENT];
    size_t n_bytes = (size_t)student->table->n_elems * sizeof(float);
    struct Weights other;
    struct Error err;
    weights_alloc(&other, nets->be, student->table, 0);
    run_fresh_weights(&other, 0);
    float *fresh = values_of(&other);
    struct Comm *alone = comm_self_create(NULL);
    assert_true(run_read_weights(&source, &other, alone, &err));
    alone->destroy(alone);
    float *expected = values_of(&other), *got = values_of(student);
    assert_memory_equal(got, expected, n_bytes);
    assert_memory_not_equal(fresh, expected, n_bytes);
    float *all[] = {fresh, expected, got};
    for (int i = 0; i < 3; i++) free(all[i]);
    weights_free(&other);
}

static void checkpoints_bring_weights_and_configuration(void **state) {
    (void)state;
    struct Config config;
    struct Error err;
    struct LoadedSampler loaded;
    char *file = xstrdup(world_path(world, "run/checkpoints/step-00000003.h5"));
    char *folder = xstrdup(world_path(world, "run"));
    const char *const paths[] = {file, folder};
    for (int i = 0; i < 2; i++) {
        config_init(&config);
        assert_true(sampling_config_load(&config, paths[i], &err));
        assert_int_equal(config.model.dim, 24);
        assert_true(sampling_config_check(&config, ROLE_STUDENT, &err));
        struct SampledModel model = {.path = paths[i], .role = ROLE_STUDENT, .untrained = true};
        assert_true(loaded_sampler_open(&loaded, &config, model, shape, 2, &err));
        check_untrained(&loaded.nets, file);
        loaded_sampler_close(&loaded);
        model.untrained = false; /* a teacher's checkpoint holds no student */
        assert_false(loaded_sampler_open(&loaded, &config, model, shape, 2, &err));
        assert_non_null(strstr(err.text, "student"));
        config_free(&config);
    }
    config_init(&config);
    assert_false(sampling_config_load(&config, world_path(world, "shapes.h5"), &err));
    assert_false(sampling_config_load(&config, world_path(world, "nothing"), &err));
    config_free(&config);
    free(file);
    free(folder);
}

static void check_picture_files(const char *stem) {
    static const unsigned char png[] = {0x89, 'P', 'N', 'G', 0x0D, 0x0A, 0x1A, 0x0A};
    char *png_path = xprintf("%s.png", stem), *gif_path = xprintf("%s.gif", stem);
    size_t n_png, n_gif;
    unsigned char *png_bytes = scratch_read(png_path, &n_png);
    unsigned char *gif_bytes = scratch_read(gif_path, &n_gif);
    assert_true(n_png > 100 && n_gif > 100);
    assert_memory_equal(png_bytes, png, sizeof png);
    assert_memory_equal(png_bytes + n_png - 8, "IEND", 4);
    assert_memory_equal(gif_bytes, "GIF89a", 6);
    assert_int_equal(gif_bytes[n_gif - 1], 0x3B);
    free(png_bytes);
    free(gif_bytes);
    free(png_path);
    free(gif_path);
}

static void a_run_leaves_previews(void **state) {
    (void)state;
    check_picture_files(world_path(world, "run/previews/step-00000002"));
    check_picture_files(world_path(world, "run/previews/step-00000003"));          /* the end */
    assert_int_equal(scratch_count(world_path(world, "run/previews"), ""), 4 + 2); /* . and .. */
}

static int train(const char *out, const char *override) {
    char *assignment = xprintf("out=%s", world_path(world, out));
    int exit_code = world_command(cmd_train, "train", world_path(world, "tiny.yaml"), assignment,
                                  override, NULL);
    free(assignment);
    return exit_code;
}

static void previews_can_be_off_or_impossible(void **state) {
    (void)state;
    assert_int_equal(train("quiet", "preview.every=0"), EXIT_OK);
    assert_false(scratch_exists(world_path(world, "quiet/previews")));
    assert_int_equal(train("wordy", "preview.prompts=[one two three four five six seven]"),
                     EXIT_USER);
}

static void latents_are_shown_in_false_colours(void **state) {
    (void)state;
    enum { CHANNELS = 16, N = CHANNELS * 2 * 4 * 4 };
    struct DatasetInfo info = {
        .kind = DATASET_LATENTS, .channels = CHANNELS, .frames = 2, .height = 4, .width = 4};
    float *clips = xmalloc(2 * N * sizeof *clips);
    for (int i = 0; i < 2 * N; i++) clips[i] = 1000.0f + (float)(i % 7);
    for (int i = 0; i < N / CHANNELS; i++) clips[i] = 5.0f; /* a constant channel */
    const char *const prompts[] = {"one", "two"};
    struct ClipColumn column = {.clips = clips};
    struct ClipSheet sheet = {
        .info = &info, .n_rows = 2, .n_columns = 1, .prompts = prompts, .columns = &column};
    struct Error err;
    assert_true(clip_sheet_write(&sheet, world_path(world, "latents"), &err));
    check_picture_files(world_path(world, "latents"));
    assert_false(clip_sheet_write(&sheet, world_path(world, "no/such/folder"), &err));
    free(clips);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clips_do_not_depend_on_the_batch),
        cmocka_unit_test(teacher_starts_from_keyed_noise),
        cmocka_unit_test(student_takes_keyed_noise_each_outer_step),
        cmocka_unit_test(averaged_weights_are_used_if_wanted),
        cmocka_unit_test(cost_counts_guidance_and_inner_steps),
        cmocka_unit_test(toy_prompts_read_and_embedded_agree),
        cmocka_unit_test(checkpoints_bring_weights_and_configuration),
        cmocka_unit_test(a_run_leaves_previews),
        cmocka_unit_test(previews_can_be_off_or_impossible),
        cmocka_unit_test(latents_are_shown_in_false_colours),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
