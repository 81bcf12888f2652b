/* Noise, linear combinations of latent videos, and patches. */
#include <math.h>
#include <string.h>

#include "error.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/cpu_math.h"
#include "philox.h"

enum { BLOCKS = 16 }; /* Philox blocks, of four normals each, that vectors work on side by side */

/* Normals of the blocks first, first + 1, ... by Box and Muller's transform: words 0 and 1 of a
 * block give its first two, words 2 and 3 the others. */
static void normals_of_blocks(float out[4 * BLOCKS], uint64_t seed, uint32_t first, uint32_t sample,
                              uint64_t stream) {
    float uniform[4][BLOCKS], normal[4][BLOCKS];
#pragma omp simd
    for (uint32_t i = 0; i < BLOCKS; i++) {
        struct Philox bits =
            philox(seed, first + i, sample, (uint32_t)stream, (uint32_t)(stream >> 32));
        for (int word = 0; word < 4; word++)
            uniform[word][i] = (float)philox_uniform(bits.word[word]);
    }
    for (int pair = 0; pair < 4; pair += 2)
#pragma omp simd
        for (int i = 0; i < BLOCKS; i++) {
            float radius = sqrtf(-2.0f * fast_log(uniform[pair][i])), sine, cosine;
            fast_sincos(uniform[pair + 1][i], &sine, &cosine);
            normal[pair][i] = radius * cosine;
            normal[pair + 1][i] = radius * sine;
        }
    for (int i = 0; i < BLOCKS; i++)
        for (int word = 0; word < 4; word++) out[4 * i + word] = normal[word][i];
}

void cpu_normal_fill(const struct Backend *be, float *out, uint64_t seed, uint64_t stream,
                     int64_t first_sample, int64_t batch, int64_t n_per_sample) {
    (void)be;
    int64_t n_groups = (n_per_sample + 4 * BLOCKS - 1) / (4 * BLOCKS);
#pragma omp parallel for schedule(static) collapse(2)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t group = 0; group < n_groups; group++) {
            float normals[4 * BLOCKS];
            int64_t at = group * 4 * BLOCKS, left = n_per_sample - at;
            normals_of_blocks(normals, seed, (uint32_t)(group * BLOCKS),
                              (uint32_t)(first_sample + b), stream);
            memcpy(out + b * n_per_sample + at, normals,
                   (size_t)(left < 4 * BLOCKS ? left : 4 * BLOCKS) * sizeof *out);
        }
}

void cpu_combine(const struct Backend *be, float *out, int n_terms, const float *const *in,
                 const double *host_coef, int64_t batch, int64_t n_per_sample) {
    (void)be;
    TMD_CHECK(n_terms >= 1 && n_terms <= COMBINE_MAX_TERMS, "%d terms", n_terms);
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < batch; b++) {
        int64_t at = b * n_per_sample;
        float c[COMBINE_MAX_TERMS] = {0};
        const float *x[COMBINE_MAX_TERMS];
        for (int k = 0; k < COMBINE_MAX_TERMS; k++) {
            if (k < n_terms) c[k] = (float)host_coef[k * batch + b];
            x[k] = in[k < n_terms ? k : 0] + at;
        }
        float *o = out + at;
        switch (n_terms) {
        case 1:
            for (int64_t i = 0; i < n_per_sample; i++) o[i] = c[0] * x[0][i];
            break;
        case 2:
            for (int64_t i = 0; i < n_per_sample; i++) o[i] = c[0] * x[0][i] + c[1] * x[1][i];
            break;
        case 3:
            for (int64_t i = 0; i < n_per_sample; i++)
                o[i] = c[0] * x[0][i] + c[1] * x[1][i] + c[2] * x[2][i];
            break;
        default:
            for (int64_t i = 0; i < n_per_sample; i++)
                o[i] = c[0] * x[0][i] + c[1] * x[1][i] + c[2] * x[2][i] + c[3] * x[3][i];
        }
    }
}

/* Visits every element of every patch.  `gather` copies video to tokens, otherwise tokens to video;
 * patches do not overlap, so that either direction writes each element once. */
static void patches_move(float *tokens, float *video, struct PatchShape s, bool gather) {
    int64_t pt = s.patch[0], ph = s.patch[1], pw = s.patch[2], volume = pt * ph * pw;
    int64_t nf = s.frames / pt, nh = s.height / ph, nw = s.width / pw;
    int64_t token_elems = s.channels * volume;
    int64_t channel_step = s.channels_last ? 1 : volume,
            offset_step = s.channels_last ? s.channels : 1;
#pragma omp parallel for schedule(static) collapse(2)
    for (int64_t b = 0; b < s.batch; b++)
        for (int64_t f = 0; f < nf; f++)
            for (int64_t h = 0; h < nh; h++)
                for (int64_t w = 0; w < nw; w++) {
                    float *token = tokens + (((b * nf + f) * nh + h) * nw + w) * token_elems;
                    for (int64_t c = 0; c < s.channels; c++)
                        for (int64_t i = 0; i < pt * ph; i++) {
                            int64_t frame = f * pt + i / ph, row = h * ph + i % ph;
                            float *line =
                                video +
                                (((b * s.channels + c) * s.frames + frame) * s.height + row) *
                                    s.width +
                                w * pw;
                            float *t = token + c * channel_step + i * pw * offset_step;
                            for (int64_t x = 0; x < pw; x++) {
                                if (gather)
                                    t[x * offset_step] = line[x];
                                else
                                    line[x] = t[x * offset_step];
                            }
                        }
                }
}

void cpu_patches_gather(const struct Backend *be, Act *tokens, const float *video,
                        struct PatchShape shape) {
    (void)be;
    patches_move(act_f32(tokens), (float *)(uintptr_t)video, shape, true);
}

void cpu_patches_scatter(const struct Backend *be, float *video, const Act *tokens,
                         struct PatchShape shape) {
    (void)be;
    patches_move((float *)(uintptr_t)tokens, video, shape, false);
}

void cpu_act_patches_gather(const struct Backend *be, Act *tokens, const Act *video,
                            struct PatchShape shape) {
    cpu_patches_gather(be, tokens, act_const_f32(video), shape);
}

void cpu_act_patches_scatter(const struct Backend *be, Act *video, const Act *tokens,
                             struct PatchShape shape) {
    cpu_patches_scatter(be, act_f32(video), tokens, shape);
}
