/* Noise, linear combinations and patches of latent videos. */
#include <math.h>
#include <stdlib.h>

#include "op_check.h"
#include "philox.h"

static const uint64_t seed = 0x123456789abcdefu, stream = 0xfedcba987654321u;

static struct OpTensor *draw(struct OpCase *c, uint64_t with_seed, uint64_t with_stream,
                             int64_t first_sample, int64_t batch, int64_t n) {
    struct OpTensor *out = op_output(c, "noise", OP_F32, batch, n);
    c->be->normal_fill(c->be, op_f32(out), with_seed, with_stream, first_sample, batch, n);
    return out;
}

/* However a batch is cut, whatever follows in a sample: a draw depends on its own place only. */
static void test_noise_is_keyed_by_place(void **state) {
    struct OpCase c;
    op_case_begin(&c, *state, "normal_fill by place");
    struct OpTensor *all = draw(&c, seed, stream, 5, 4, 1031);
    const double *values = op_download(&c, all);
    const int64_t lengths[] = {1031, 1, 77, 6};
    for (int64_t b = 0; b < 4; b++)
        op_check_exact(&c, draw(&c, seed, stream, 5 + b, 1, lengths[b]), values + b * 1031);
    op_check_exact(&c, draw(&c, seed, stream, 6, 3, 1031), values + 1031);
    op_check_exact(&c, draw(&c, seed, stream, 5, 4, 1031), values);
    op_check_exact(&c, all, values);
    op_case_end(&c);
}

/* The same numbers on every backend: Box and Muller's transform of Philox blocks, in double. */
static void test_noise_is_the_documented_one(void **state) {
    enum { BATCH = 2, N = 4099, FIRST = 11 };
    struct OpCase c;
    op_case_begin(&c, *state, "normal_fill values");
    struct OpTensor *t = draw(&c, seed, stream, FIRST, BATCH, N);
    double *expected = op_array(&c, t->n_elems);
    for (int64_t i = 0; i < t->n_elems; i++) {
        uint32_t sample = (uint32_t)(FIRST + i / N), at = (uint32_t)(i % N), pair = at % 4 / 2 * 2;
        struct Philox bits =
            philox(seed, at / 4, sample, (uint32_t)stream, (uint32_t)(stream >> 32));
        double radius = sqrt(-2.0 * log((float)philox_uniform(bits.word[pair])));
        double angle = 2.0 * M_PI * (float)philox_uniform(bits.word[pair + 1]);
        expected[i] = radius * (at % 2 ? sin(angle) : cos(angle));
    }
    op_check_values(&c, t, expected, op_tolerance(t, 1));
    op_case_end(&c);
}

static double correlation(const double *a, const double *b, int64_t n) {
    return op_dot(a, b, n) / sqrt(op_dot(a, a, n) * op_dot(b, b, n));
}

/* Every part of the key counts, the high halves of its words too. */
static void test_noise_keys_are_independent(void **state) {
    enum { N = 20001 };
    const struct {
        uint64_t seed, stream;
        int64_t sample;
    } keys[] = {
        {seed, stream, 7},
        {seed + 1, stream, 7},
        {seed + (1ull << 40), stream, 7},
        {seed, stream + 1, 7},
        {seed, stream + (1ull << 40), 7},
        {seed, stream, 8},
        {seed, stream, 7 + (1 << 20)},
        {stream, seed, 7},
    };
    enum { N_KEYS = sizeof keys / sizeof *keys };
    struct OpCase c;
    op_case_begin(&c, *state, "normal_fill keys");
    const double *noise[N_KEYS];
    for (int i = 0; i < N_KEYS; i++) {
        struct OpTensor *t = draw(&c, keys[i].seed, keys[i].stream, keys[i].sample, 1, N);
        noise[i] = op_download(&c, t);
        op_check_exact(&c, t, noise[i]);
        for (int k = 0; k < i; k++)
            if (!(fabs(correlation(noise[i], noise[k], N)) < 4.5 / sqrt(N)))
                fail_msg("%s: keys %d and %d give related noise", c.label, k, i);
    }
    op_case_end(&c);
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void check_near(const char *what, double got, double expected, double bound) {
    if (!(fabs(got - expected) <= bound))
        fail_msg("normal_fill: %s is %g, should be %g within %g", what, got, expected, bound);
}

/* Moments, independence of neighbours, and the distribution function (Kolmogorov and Smirnov), each
 * within bounds that a right generator misses about once in ten thousand seeds. */
static void test_noise_is_normal(void **state) {
    enum { N = 200003 };
    struct OpCase c;
    op_case_begin(&c, *state, "normal_fill distribution");
    struct OpTensor *t = draw(&c, seed, stream, 0, 1, N);
    double *x = op_download(&c, t), mean = 0.0, square = 0.0, cube = 0.0, fourth = 0.0;
    op_check_exact(&c, t, x);
    for (int64_t i = 0; i < N; i++) {
        mean += x[i] / N;
        square += x[i] * x[i] / N;
        cube += x[i] * x[i] * x[i] / N;
        fourth += x[i] * x[i] * x[i] * x[i] / N;
    }
    check_near("mean", mean, 0.0, 4.0 / sqrt(N));
    check_near("second moment", square, 1.0, 4.0 * sqrt(2.0 / N));
    check_near("third moment", cube, 0.0, 4.0 * sqrt(15.0 / N));
    check_near("fourth moment", fourth, 3.0, 4.0 * sqrt(96.0 / N));
    for (int64_t lag = 1; lag <= 8; lag++)
        check_near("correlation of neighbours", correlation(x, x + lag, N - lag), 0.0,
                   4.0 / sqrt(N));
    qsort(x, N, sizeof *x, compare_doubles);
    double distance = 0.0;
    for (int64_t i = 0; i < N; i++) {
        double below = 0.5 * erfc(-x[i] / M_SQRT2);
        distance = fmax(distance, fmax(below - (double)i / N, (double)(i + 1) / N - below));
    }
    check_near("distance of distribution functions", distance, 0.0, 2.2 / sqrt(N));
    op_case_end(&c);
}

/* in_place: -1, or the input that is also the output. */
static void check_combine(void *suite, int n_terms, int64_t batch, int64_t n, int in_place) {
    struct OpCase c;
    op_case_begin(&c, suite, "combine %d terms %dx%d in place %d", n_terms, (int)batch, (int)n,
                  in_place);
    struct OpTensor *in[COMBINE_MAX_TERMS], *out = NULL;
    const float *pointers[COMBINE_MAX_TERMS];
    double *coef = op_array(&c, n_terms * batch), *expected = op_array(&c, batch * n);
    op_random(&c, coef, n_terms * batch);
    for (int k = 0; k < n_terms; k++) {
        in[k] = op_strided(&c, k == in_place ? OP_UPDATED : OP_INPUT, "in", OP_F32, batch, n, n, 0);
        pointers[k] = op_f32(in[k]);
        if (k == in_place) out = in[k];
        for (int64_t i = 0; i < batch * n; i++)
            expected[i] += coef[k * batch + i / n] * in[k]->values[i];
    }
    if (!out) out = op_output(&c, "out", OP_F32, batch, n);
    c.be->combine(c.be, op_f32(out), n_terms, pointers, coef, batch, n);
    op_check_values(&c, out, expected, op_tolerance(out, n_terms));
    op_case_end(&c);
}

static void test_combine(void **state) {
    for (int n_terms = 1; n_terms <= COMBINE_MAX_TERMS; n_terms++) {
        for (int in_place = -1; in_place < n_terms; in_place++) {
            check_combine(*state, n_terms, 1, 5, in_place);
            check_combine(*state, n_terms, 3, 77, in_place);
            check_combine(*state, n_terms, 2, 1031, in_place);
            check_combine(*state, n_terms, 131, 16, in_place);
        }
    }
}

static const struct PatchShape patch_shapes[] = {
    {2, 3, 4, 6, 8, {1, 2, 2}, false}, {1, 16, 3, 4, 4, {1, 2, 2}, false},
    {1, 1, 2, 3, 5, {1, 1, 1}, false}, {2, 5, 4, 4, 6, {2, 2, 3}, false},
    {3, 2, 1, 2, 2, {1, 2, 2}, false}, {2, 70, 3, 8, 6, {1, 2, 2}, false},
};
enum { N_PATCH_SHAPES = sizeof patch_shapes / sizeof *patch_shapes };
/* Above that many elements, finite differences take too long. */
enum { MAX_DIFFERENTIATED = 2000 };

static int64_t token_elems(struct PatchShape s) {
    return s.channels * s.patch[0] * s.patch[1] * s.patch[2];
}

/* The index in the video of element k of the tokens. */
static int64_t video_index(struct PatchShape s, int64_t k) {
    int64_t token = k / token_elems(s), elem = k % token_elems(s);
    int64_t nw = s.width / s.patch[2], nh = s.height / s.patch[1], nf = s.frames / s.patch[0];
    int64_t volume = s.patch[0] * s.patch[1] * s.patch[2];
    int64_t channel = s.channels_last ? elem % s.channels : elem / volume;
    int64_t place = s.channels_last ? elem / s.channels : elem % volume;
    int64_t w = token % nw * s.patch[2] + place % s.patch[2];
    int64_t h = token / nw % nh * s.patch[1] + place / s.patch[2] % s.patch[1];
    int64_t f = token / nw / nh % nf * s.patch[0] + place / s.patch[2] / s.patch[1];
    int64_t b = token / nw / nh / nf;
    return (((b * s.channels + channel) * s.frames + f) * s.height + h) * s.width + w;
}

struct Patches {
    struct PatchShape shape;
    int64_t n_elems;
    double *tokens, *video; /* one is the operand, the other the cotangent */
};

static double patches_loss(const void *problem) {
    const struct Patches *p = problem;
    double sum = 0.0;
    for (int64_t k = 0; k < p->n_elems; k++)
        sum += p->tokens[k] * p->video[video_index(p->shape, k)];
    return sum;
}

/* Gathering and scattering are each other's way back, so each is checked as an operation, exactly,
 * and as the gradient of the other. */
static void check_patches(void *suite, struct PatchShape s, enum OpKind video_kind) {
    struct OpCase c;
    op_case_begin(&c, suite, "patches channels %d patch %dx%dx%d %s %s", (int)s.channels,
                  (int)s.patch[0], (int)s.patch[1], (int)s.patch[2],
                  s.channels_last ? "channels last" : "channels first",
                  video_kind == OP_ACT ? "act" : "f32");
    int64_t planes = s.batch * s.channels * s.frames, area = s.height * s.width;
    int64_t n = planes * area, width = token_elems(s);
    struct OpTensor *video = op_input(&c, "video", video_kind, planes, area);
    struct OpTensor *tokens = op_input(&c, "tokens", OP_ACT, n / width, width);
    struct OpTensor *gathered = op_output(&c, "gathered", OP_ACT, n / width, width);
    struct OpTensor *scattered = op_output(&c, "scattered", video_kind, planes, area);
    if (video_kind == OP_ACT) {
        c.be->act_patches_gather(c.be, op_act(gathered), op_act(video), s);
        c.be->act_patches_scatter(c.be, op_act(scattered), op_act(tokens), s);
    } else {
        c.be->patches_gather(c.be, op_act(gathered), op_f32(video), s);
        c.be->patches_scatter(c.be, op_f32(scattered), op_act(tokens), s);
    }
    double *expected_tokens = op_array(&c, n), *expected_video = op_array(&c, n);
    for (int64_t k = 0; k < n; k++) {
        expected_tokens[k] = video->values[video_index(s, k)];
        expected_video[video_index(s, k)] = tokens->values[k];
    }
    op_check_exact(&c, gathered, expected_tokens);
    op_check_exact(&c, scattered, expected_video);
    struct Patches p = {s, n, tokens->values, video->values};
    if (n <= MAX_DIFFERENTIATED) {
        op_check_gradient(&c, gathered, op_finite_differences(&c, p.tokens, n, patches_loss, &p),
                          op_tolerance(gathered, 1));
        op_check_gradient(&c, scattered, op_finite_differences(&c, p.video, n, patches_loss, &p),
                          op_tolerance(scattered, 1));
    }
    op_case_end(&c);
}

static void test_patches(void **state) {
    for (int i = 0; i < 2 * N_PATCH_SHAPES; i++) {
        struct PatchShape s = patch_shapes[i / 2];
        s.channels_last = i % 2;
        check_patches(*state, s, OP_F32);
        check_patches(*state, s, OP_ACT);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_noise_is_keyed_by_place),
        cmocka_unit_test(test_noise_is_the_documented_one),
        cmocka_unit_test(test_noise_keys_are_independent),
        cmocka_unit_test(test_noise_is_normal),
        cmocka_unit_test(test_combine),
        cmocka_unit_test(test_patches),
    };
    return op_run_tests("video", tests, sizeof tests / sizeof *tests);
}
