/* Conversions by bit manipulation, so that they are the same on every machine.  Rounding to nearest
 * even adds half a unit of the last kept bit, less one where that bit is 0, and cuts. */
#include "dtype.h"

#include <string.h>
#include <strings.h>

static const struct {
    const char *name;
    int64_t n_bytes;
} dtypes[DTYPE_COUNT] = {
    [DTYPE_F32] = {"f32", 4}, [DTYPE_BF16] = {"bf16", 2}, [DTYPE_F16] = {"f16", 2},
    [DTYPE_F64] = {"f64", 8}, [DTYPE_I64] = {"i64", 8},
};

int64_t dtype_bytes(enum Dtype dtype) {
    return dtypes[dtype].n_bytes;
}

const char *dtype_name(enum Dtype dtype) {
    return dtypes[dtype].name;
}

bool dtype_parse(const char *name, enum Dtype *out) {
    for (int i = 0; i < DTYPE_COUNT; i++) {
        if (strcasecmp(name, dtypes[i].name) == 0) {
            *out = (enum Dtype)i;
            return true;
        }
    }
    return false;
}

static float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float f16_to_f32(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = (half >> 10) & 31u;
    uint32_t mantissa = half & 0x3ffu;
    if (exponent == 31) return float_of_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24 is exact in float32 */
        float magnitude = (float)mantissa * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    return float_of_bits(sign | (exponent + 112u) << 23 | mantissa << 13);
}

static uint16_t f32_to_f16(float value) {
    uint32_t bits = bits_of_float(value), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (rest >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* rounds beyond 65504 */
    if (rest < 0x38800000u) { /* subnormal half: adding 0.5 rounds at 2^-24, to nearest even */
        float shifted = float_of_bits(rest) + 0.5f;
        return (uint16_t)(sign | (bits_of_float(shifted) - 0x3f000000u));
    }
    rest += 0xfffu + (rest >> 13 & 1u);
    return (uint16_t)(sign | (rest - 0x38000000u) >> 13);
}

static uint16_t f32_to_bf16(float value) {
    uint32_t bits = bits_of_float(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* memcpy of one element: the source may lie at any address inside a file's bytes. */
#define LOAD(type, in, i) ({ type v_; memcpy(&v_, (const char *)(in) + (i) * (int64_t)sizeof v_, sizeof v_); v_; })
#define STORE(type, out, i, value) ({ type v_ = (value); memcpy((char *)(out) + (i) * (int64_t)sizeof v_, &v_, sizeof v_); })

void dtype_to_f32(float *out, const void *in, enum Dtype dtype, int64_t n_elems) {
    switch (dtype) {
    case DTYPE_F32: memcpy(out, in, (size_t)n_elems * sizeof *out); break;
    case DTYPE_BF16:
        for (int64_t i = 0; i < n_elems; i++)
            out[i] = float_of_bits((uint32_t)LOAD(uint16_t, in, i) << 16);
        break;
    case DTYPE_F16:
        for (int64_t i = 0; i < n_elems; i++) out[i] = f16_to_f32(LOAD(uint16_t, in, i));
        break;
    case DTYPE_F64:
        for (int64_t i = 0; i < n_elems; i++) out[i] = (float)LOAD(double, in, i);
        break;
    case DTYPE_I64:
        for (int64_t i = 0; i < n_elems; i++) out[i] = (float)LOAD(int64_t, in, i);
        break;
    case DTYPE_COUNT: break;
    }
}

void dtype_from_f32(void *out, const float *in, enum Dtype dtype, int64_t n_elems) {
    switch (dtype) {
    case DTYPE_F32: memcpy(out, in, (size_t)n_elems * sizeof *in); break;
    case DTYPE_BF16:
        for (int64_t i = 0; i < n_elems; i++) STORE(uint16_t, out, i, f32_to_bf16(in[i]));
        break;
    case DTYPE_F16:
        for (int64_t i = 0; i < n_elems; i++) STORE(uint16_t, out, i, f32_to_f16(in[i]));
        break;
    case DTYPE_F64:
        for (int64_t i = 0; i < n_elems; i++) STORE(double, out, i, (double)in[i]);
        break;
    case DTYPE_I64:
        for (int64_t i = 0; i < n_elems; i++) STORE(int64_t, out, i, (int64_t)in[i]);
        break;
    case DTYPE_COUNT: break;
    }
}
