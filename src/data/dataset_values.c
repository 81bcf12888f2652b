/* Conversions between stored elements and float32, and normalisation by channel.  The constants are
 * those of Wan2.1's VAE. */
#include "data/dataset_values.h"

#include <math.h>

#include "data/h5_element.h"

const double wan_latent_mean[WAN_LATENT_CHANNELS] = {
    -0.7571, -0.7089, -0.9113, 0.1075,  -0.1745, 0.9653,  -0.1517, 1.5508,
    0.4134,  -0.0715, 0.5517,  -0.3632, -0.1922, -0.9497, 0.2503,  -0.2921,
};
const double wan_latent_std[WAN_LATENT_CHANNELS] = {
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
};

bool values_text_element(int element) {
    return element == DTYPE_F32 || element == DTYPE_F16 || element == DTYPE_BF16;
}

bool values_video_element(int element, bool pixels) {
    return values_text_element(element) || (pixels && element == H5_U8);
}

void values_to_f32(float *out, const void *in, int element, int64_t n_elems) {
    if (element != H5_U8) {
        dtype_to_f32(out, in, (enum Dtype)element, n_elems);
        return;
    }
    const uint8_t *bytes = in;
    for (int64_t i = 0; i < n_elems; i++) out[i] = (float)bytes[i] / 127.5f - 1.0f;
}

void values_from_f32(void *out, const float *in, int element, int64_t n_elems) {
    if (element != H5_U8) {
        dtype_from_f32(out, in, (enum Dtype)element, n_elems);
        return;
    }
    uint8_t *bytes = out;
    for (int64_t i = 0; i < n_elems; i++) {
        float level = (in[i] + 1.0f) * 127.5f;
        bytes[i] = (uint8_t)(level <= 0.0f ? 0.0f : level >= 255.0f ? 255.0f : rintf(level));
    }
}

int64_t values_find_nonfinite(const float *values, int64_t n_elems) {
    for (int64_t i = 0; i < n_elems; i++)
        if (!isfinite(values[i])) return i;
    return -1;
}

void values_normalise(float *values, int64_t n_channels, int64_t n_per_channel, const double *mean,
                      const double *std) {
    for (int64_t c = 0; c < n_channels; c++)
        for (int64_t i = 0; i < n_per_channel; i++) {
            float *value = &values[c * n_per_channel + i];
            *value = (float)((*value - mean[c]) / std[c]);
        }
}
