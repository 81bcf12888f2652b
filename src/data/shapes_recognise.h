/* From the pixels of a clip back to the words of its caption, without a trained network: did a
 * sampler draw what the prompt asked for?
 *
 * A pixel's presence is how much its brightest channel stands out of the black ground, soft between
 * a quarter and three quarters of full brightness.
 *   colour     the angle between the mean colour of what is present and each pure colour;
 *   direction  the least-squares velocity of the centroid of presence;
 *   shape      the correlation of presence with drawn templates of every shape, over small shifts
 *              and extents, averaged over frames.
 * Each answer is SHAPE_NONE unless the evidence is good: a blank clip, a grey blur and plain noise
 * match nothing. */
#ifndef TMD_DATA_SHAPES_RECOGNISE_H
#define TMD_DATA_SHAPES_RECOGNISE_H

#include <stdint.h>

#include "data/shapes.h"

struct ShapeVerdict {
    struct ShapeSpec seen; /* SHAPE_NONE where nothing is clear enough */
    double correlation;    /* of the best shape with the clip, in [-1, 1] */
    double colour_cosine;  /* between mean colour and the nearest pure one, in [0, 1] */
    double velocity[2];    /* x, y of the centroid, pixels per frame, y down */
};

/* Judges clip [3, frames, height, width]; values beyond [-1, 1] count as clipped, and a clip with a
 * value that is not finite, or that shapes_draw could not have drawn for its size, is none of
 * anything. */
void shapes_recognise(const float *clip, int64_t frames, int64_t height, int64_t width,
                      struct ShapeVerdict *verdict);

/* How many clips of a set match their captions. */
struct ShapeTally {
    int64_t clips, kind, colour, direction, all; /* all: all three at once */
};

/* Counts one clip.  A tally starts as zeros. */
void shapes_tally(struct ShapeTally *tally, struct ShapeSpec wanted, struct ShapeSpec seen);

#endif
