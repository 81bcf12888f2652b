/* A toy world of captioned clips: one solid shape of one colour crosses a black frame in one
 * direction, "a red square moving left".
 *
 * It is made so that a very small model learns it and so that pixels alone tell whether it did:
 * every combination is drawn as often as every other, a shape fills almost half the width of the
 * frame, crosses another half of it and stays inside.  What the caption leaves open is mainly the
 * lane: the path lies to one side or the other of the frame's middle.  That choice is what makes
 * few sampling steps hard (half-way between two lanes there is no shape), as in real videos; beyond
 * it position and extent vary by a few percent.
 *
 * A shape leaves a dim grey wake behind it, like motion blur.  A Wan DiT knows positions only relative to
 * each other (rotary embedding); with nothing in a frame that tells left from right, a small one draws
 * steady motion but never finds which way the caption means.  The recogniser (shapes_recognise.h, the
 * way back from pixels to words) does not see the wake: it is below what counts as present.
 *
 * A clip is float [3, frames, height, width] in [-1, 1], black = -1, x to the right, y down.
 * Lengths are in units of 1/16 of the frame's shorter side ("sixteenths"), so a 16 x 16 frame
 * counts them in pixels; the world is the centred square of that side. */
#ifndef TMD_DATA_SHAPES_H
#define TMD_DATA_SHAPES_H

#include <stdbool.h>
#include <stdint.h>

enum ShapeKind { SHAPE_SQUARE, SHAPE_RING, SHAPE_TRIANGLE, SHAPE_CROSS, SHAPE_KINDS };
enum ShapeColour { SHAPE_RED, SHAPE_GREEN, SHAPE_BLUE, SHAPE_YELLOW, SHAPE_COLOURS };
enum ShapeDirection { SHAPE_LEFT, SHAPE_RIGHT, SHAPE_UP, SHAPE_DOWN, SHAPE_DIRECTIONS };

enum {
    SHAPE_NONE = -1, /* a kind, colour or direction that nobody could make out */
    SHAPE_SPECS = SHAPE_KINDS * SHAPE_COLOURS * SHAPE_DIRECTIONS,
    SHAPE_CHANNELS = 3,
    SHAPE_CAPTION_BYTES = 64, /* room for any caption with its NUL */
    SHAPE_MIN_FRAMES = 2,
    SHAPE_MIN_SIDE = 12, /* pixels; below that a ring has no hole */
    SHAPE_MAX_FRAMES = 1024,
    SHAPE_MAX_SIDE = 1024,
};

/* What a caption says.  Each field is of the enum of its name, or SHAPE_NONE. */
struct ShapeSpec {
    int kind, colour, direction;
};

/* How one clip differs from the others of its caption, in sixteenths. */
struct ShapePose {
    double along, across; /* shift of the whole path along the motion and to its right: the lane */
    double radius;        /* half the extent of the shape */
};

/* Nominal geometry, in sixteenths. */
#define SHAPE_RADIUS 3.6 /* half the extent of a shape */
#define SHAPE_TRAVEL 3.6 /* the path goes from -SHAPE_TRAVEL to +SHAPE_TRAVEL about the centre */
#define SHAPE_LANE 3.6   /* the lanes' distance from the middle */
#define SHAPE_WAKE_LENGTH 5.0 /* of the wake behind the middle of the shape's edge */
#define SHAPE_WAKE_LIGHT 0.2  /* of it, as a share of full light */

/* Combination `index` of 0 .. SHAPE_SPECS-1. */
struct ShapeSpec shapes_spec(int index);

/* The combination of sample `sample`: each run of SHAPE_SPECS samples holds every combination once,
 * in an order keyed by seed and run. */
struct ShapeSpec shapes_sample_spec(uint64_t seed, uint64_t sample);

/* The pose of sample `sample`, keyed by seed and sample. */
struct ShapePose shapes_sample_pose(uint64_t seed, uint64_t sample);

/* The words of a spec without SHAPE_NONE: "a red square moving left". */
void shapes_caption(struct ShapeSpec spec, char caption[SHAPE_CAPTION_BYTES]);

/* The inverse of shapes_caption.  Returns false, and leaves *spec alone, for any other text. */
bool shapes_parse_caption(const char *caption, struct ShapeSpec *spec);

/* Names for tables: "square", "red", "left"; "none" for SHAPE_NONE. */
const char *shapes_kind_name(int kind);
const char *shapes_colour_name(int colour);
const char *shapes_direction_name(int direction);

/* The colour in [0, 1], each channel 0 or 1. */
void shapes_colour_rgb(int colour, double rgb[3]);

/* The unit vector of a direction, y down. */
void shapes_direction_vector(int direction, double unit[2]);

/* The share, in [0, 1], of the pixel centred at (x, y) that a shape of half extent `radius` round
 * (0, 0) covers; all in pixels.  Approximated from the signed distance to the edge. */
double shapes_coverage(int kind, double x, double y, double radius);

/* How far below the middle of its bounding box the centroid of a shape lies, in radii. */
double shapes_centroid_y(int kind);

/* Draws clip [3, frames, height, width].  frames >= SHAPE_MIN_FRAMES, sides >= SHAPE_MIN_SIDE. */
void shapes_draw(float *clip, struct ShapeSpec spec, struct ShapePose pose, int64_t frames,
                 int64_t height, int64_t width);

#endif
