/* Which convolutions a layer of the discriminator consists of. */
#ifndef TMD_DISCRIMINATOR_CONV_H
#define TMD_DISCRIMINATOR_CONV_H

#include "model/discriminator.h"

/* One after the other, with nothing in between; the norm comes after the last. */
struct ConvLayer {
    int n;
    struct ConvShape convs[LAYER_MAX_CONVS];
};

/* The layers of a head of type conv3d or separable; the input of the first is the tap.  No layer
 * may starve. */
void discriminator_conv_layers(struct ConvLayer layers[DISCRIMINATOR_LAYERS],
                               const struct ModelConfig *model,
                               const struct DiscriminatorConfig *config, int64_t batch,
                               struct VideoShape shape);

#endif
