/* What the stored bytes of a dataset mean: elements to float32 and back, checksums, normalisation.
 */
#ifndef TMD_DATA_DATASET_VALUES_H
#define TMD_DATA_DATASET_VALUES_H

#include <stdbool.h>
#include <stdint.h>

/* Whether videos (`pixels`: of that kind) or text may be stored so. */
bool values_video_element(int element, bool pixels);
bool values_text_element(int element);

/* out[i] = in[i]; u8: value / 127.5 - 1. */
void values_to_f32(float *out, const void *in, int element, int64_t n_elems);
/* The nearest stored value; u8 clamps. */
void values_from_f32(void *out, const float *in, int element, int64_t n_elems);

/* The index of the first value that is not finite, or -1. */
int64_t values_find_nonfinite(const float *values, int64_t n_elems);

/* Wan2.1's normalisation of its 16 latent channels (the constants of its published VAE). */
enum { WAN_LATENT_CHANNELS = 16 };
extern const double wan_latent_mean[WAN_LATENT_CHANNELS], wan_latent_std[WAN_LATENT_CHANNELS];

/* values [n_channels, n_per_channel]: (z - mean) / std, in place. */
void values_normalise(float *values, int64_t n_channels, int64_t n_per_channel, const double *mean,
                      const double *std);

#endif
