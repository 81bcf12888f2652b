/* Elementary functions that compilers turn into vector code: no branches, no table, no errno.  NaN in,
 * NaN out.  Relative error about 2e-7 where the result is a normal number. */
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
