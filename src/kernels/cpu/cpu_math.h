/* Elementary functions that compilers turn into vector code: no branches, no table, no errno.  NaN
 * in, NaN out.  Relative error about 2e-7 where the result is a normal number. */
#ifndef TMD_CPU_MATH_H
#define TMD_CPU_MATH_H

#include <stdint.h>
#include <string.h>

/* e^x: x = n ln 2 + r with |r| <= ln(2)/2, a polynomial for e^r, and n added to the exponent.  The
 * result saturates at 2^-126 and about 2^127. */
static inline float fast_exp(float x) {
    const float log2_e = 1.44269504f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    const float round_magic = 12582912.0f; /* 1.5 * 2^23: adding it leaves the nearest integer */
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float shifted = x * log2_e + round_magic;
    uint32_t n_bits;
    memcpy(&n_bits, &shifted, sizeof n_bits);
    float n = shifted - round_magic;
    float r = x - n * ln2_high - n * ln2_low;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t scale_bits = (n_bits - 0x4B400000u + 127u) << 23;
    float scale;
    memcpy(&scale, &scale_bits, sizeof scale);
    return p * scale;
}

/* ln x for normal x > 0: x = 2^e m with sqrt(1/2) <= m < sqrt(2), and a polynomial in m - 1
 * (Cephes, logf). */
static inline float fast_log(float x) {
    const float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    const uint32_t sqrt_half = 0x3F3504F3u, mantissa = 0x007FFFFFu;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits += 0x3F800000u - sqrt_half; /* so that the exponent's field is that of m = 1 */
    float e = (float)((int32_t)(bits >> 23) - 127), m;
    bits = (bits & mantissa) + sqrt_half;
    memcpy(&m, &bits, sizeof m);
    m -= 1.0f;
    float p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    float z = m * m;
    return m + (p * m * z + e * ln2_low - 0.5f * z) + e * ln2_high;
}

/* Sine and cosine of `turns` full turns, 0 <= turns <= 1: quarters by exact subtraction, a
 * polynomial for the rest of at most an eighth (Cephes, sinf and cosf). */
static inline void fast_sincos(float turns, float *sine, float *cosine) {
    const float round_magic = 12582912.0f; /* as in fast_exp */
    float shifted = 4.0f * turns + round_magic;
    uint32_t quarter;
    memcpy(&quarter, &shifted, sizeof quarter);
    float r = (4.0f * turns - (shifted - round_magic)) * 1.57079632679f, z = r * r;
    float s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * r + r;
    float c =
        ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z -
        0.5f * z + 1.0f;
    float a = quarter & 1u ? c : s, b = quarter & 1u ? s : c;
    *sine = quarter & 2u ? -a : a;
    *cosine = (quarter + 1u) & 2u ? -b : b;
}

static inline float fast_sigmoid(float x) {
    return 1.0f / (1.0f + fast_exp(-x));
}

/* gelu(z) = z/2 (1 + tanh(u)) = z sigmoid(2u), u = sqrt(2/pi) (z + 0.044715 z^3); without the
 * cancellation of 1 + tanh for negative u. */
static inline float fast_gelu(float z) {
    float two_u = 1.5957691216f * (z + 0.044715f * z * z * z);
    return z * fast_sigmoid(two_u);
}

static inline float fast_gelu_grad(float z) {
    float two_u = 1.5957691216f * (z + 0.044715f * z * z * z);
    float s = fast_sigmoid(two_u);
    return s + z * s * (1.0f - s) * 1.5957691216f * (1.0f + 3.0f * 0.044715f * z * z);
}

#endif
