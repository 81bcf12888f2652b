/* Combinations, captions and drawing of the toy world.  See shapes.h for its geometry. */
#include "data/shapes.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "philox.h"

/* What a Philox draw is for: the third counter word.  "shO" orders, "shP" poses. */
enum { DRAW_ORDER = 0x73684f, DRAW_POSE = 0x736850 };

/* How far poses stray, in sixteenths.  With radius, lane and travel that adds up to less than 8,
 * half the frame: nothing is ever cut off. */
static const double STRAY_ALONG = 0.3, STRAY_ACROSS = 0.3, STRAY_RADIUS = 0.09;

static const char *const KIND_NAMES[SHAPE_KINDS] = {"square", "ring", "triangle", "cross"};
static const char *const COLOUR_NAMES[SHAPE_COLOURS] = {"red", "green", "blue", "yellow"};
static const char *const DIRECTION_NAMES[SHAPE_DIRECTIONS] = {"left", "right", "up", "down"};

struct ShapeSpec shapes_spec(int index) {
    TMD_CHECK(index >= 0 && index < SHAPE_SPECS, "combination %d of %d", index, SHAPE_SPECS);
    return (struct ShapeSpec){
        .kind = index % SHAPE_KINDS,
        .colour = index / SHAPE_KINDS % SHAPE_COLOURS,
        .direction = index / (SHAPE_KINDS * SHAPE_COLOURS),
    };
}

struct ShapeSpec shapes_sample_spec(uint64_t seed, uint64_t sample) {
    uint64_t run = sample / SHAPE_SPECS;
    int order[SHAPE_SPECS];
    for (int i = 0; i < SHAPE_SPECS; i++) { /* Fisher and Yates, inside out */
        struct Philox draw =
            philox(seed, (uint32_t)run, (uint32_t)(run >> 32), DRAW_ORDER, (uint32_t)i);
        int j = (int)(philox_uniform(draw.word[0]) * (i + 1));
        order[i] = order[j];
        order[j] = i;
    }
    return shapes_spec(order[sample % SHAPE_SPECS]);
}

/* Uniform in (-1, 1). */
static double stray(uint32_t word) {
    return 2 * philox_uniform(word) - 1;
}

struct ShapePose shapes_sample_pose(uint64_t seed, uint64_t sample) {
    struct Philox draw = philox(seed, (uint32_t)sample, (uint32_t)(sample >> 32), DRAW_POSE, 0);
    double lane = draw.word[3] & 1 ? SHAPE_LANE : -SHAPE_LANE;
    return (struct ShapePose){
        .along = STRAY_ALONG * stray(draw.word[0]),
        .across = lane + STRAY_ACROSS * stray(draw.word[1]),
        .radius = SHAPE_RADIUS + STRAY_RADIUS * stray(draw.word[2]),
    };
}

const char *shapes_kind_name(int kind) {
    return kind == SHAPE_NONE ? "none" : KIND_NAMES[kind];
}

const char *shapes_colour_name(int colour) {
    return colour == SHAPE_NONE ? "none" : COLOUR_NAMES[colour];
}

const char *shapes_direction_name(int direction) {
    return direction == SHAPE_NONE ? "none" : DIRECTION_NAMES[direction];
}

void shapes_caption(struct ShapeSpec spec, char caption[SHAPE_CAPTION_BYTES]) {
    snprintf(caption, SHAPE_CAPTION_BYTES, "a %s %s moving %s", shapes_colour_name(spec.colour),
             shapes_kind_name(spec.kind), shapes_direction_name(spec.direction));
}

bool shapes_parse_caption(const char *caption, struct ShapeSpec *spec) {
    for (int i = 0; i < SHAPE_SPECS; i++) {
        char known[SHAPE_CAPTION_BYTES];
        shapes_caption(shapes_spec(i), known);
        if (strcmp(caption, known) == 0) {
            *spec = shapes_spec(i);
            return true;
        }
    }
    return false;
}

void shapes_colour_rgb(int colour, double rgb[3]) {
    static const double RGB[SHAPE_COLOURS][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {1, 1, 0}};
    memcpy(rgb, RGB[colour], sizeof RGB[colour]);
}

void shapes_direction_vector(int direction, double unit[2]) {
    static const double UNIT[SHAPE_DIRECTIONS][2] = {{-1, 0}, {1, 0}, {0, -1}, {0, 1}};
    memcpy(unit, UNIT[direction], sizeof UNIT[direction]);
}

/* Signed distance, in pixels, from (x, y) to the edge of a shape round (0, 0): negative inside.
 * `r` is half the side of the square, the outer radius of the ring, half the base and half the
 * height of the triangle (apex up), half the length of the cross's arms. */
static double signed_distance(int kind, double x, double y, double r) {
    double ax = fabs(x), ay = fabs(y);
    switch ((enum ShapeKind)kind) {
    case SHAPE_SQUARE:
        return fmax(ax, ay) - r;
    case SHAPE_RING: {
        const double band = 0.28 * r; /* half the width of the ring */
        return fabs(hypot(x, y) - (r - band)) - band;
    }
    case SHAPE_TRIANGLE:
        return fmax(y - r, (2 * ax - (y + r)) / sqrt(5.0)); /* base; slope 2 on both sides */
    case SHAPE_CROSS: {
        const double arm = r / 3; /* half the width of an arm */
        return fmin(fmax(ax - r, ay - arm), fmax(ax - arm, ay - r));
    }
    case SHAPE_KINDS:
        break;
    }
    TMD_CHECK(false, "no shape has the number %d", kind);
}

double shapes_coverage(int kind, double x, double y, double radius) {
    return fmin(fmax(0.5 - signed_distance(kind, x, y, radius), 0), 1);
}

double shapes_centroid_y(int kind) {
    return kind == SHAPE_TRIANGLE ? 1.0 / 3 : 0;
}

/* The share of a pixel that the wake covers: a band as wide as the shape, from its middle backwards.
 * `ahead` and `aside` are the pixel's coordinates along the motion and across it; all in pixels. */
static double wake_coverage(double ahead, double aside, double radius, double length) {
    double middle = -0.5 * (radius + length), half = 0.5 * (radius + length);
    double distance = fmax(fabs(ahead - middle) - half, fabs(aside) - radius);
    return fmin(fmax(0.5 - distance, 0), 1);
}

void shapes_draw(float *clip, struct ShapeSpec spec, struct ShapePose pose, int64_t frames,
                 int64_t height, int64_t width) {
    TMD_CHECK(frames >= SHAPE_MIN_FRAMES && height >= SHAPE_MIN_SIDE && width >= SHAPE_MIN_SIDE,
              "a clip of %lld x %lld x %lld is too small", (long long)frames, (long long)height,
              (long long)width);
    const double unit = (double)(height < width ? height : width) / 16;
    double rgb[3], ahead[2];
    shapes_colour_rgb(spec.colour, rgb);
    shapes_direction_vector(spec.direction, ahead);
    for (int64_t f = 0; f < frames; f++) {
        double along = pose.along + SHAPE_TRAVEL * (2.0 * (double)f / (double)(frames - 1) - 1);
        double cx = (double)width / 2 + unit * (along * ahead[0] - pose.across * ahead[1]);
        double cy = (double)height / 2 + unit * (along * ahead[1] + pose.across * ahead[0]);
        for (int64_t y = 0; y < height; y++) {
            for (int64_t x = 0; x < width; x++) {
                double dx = (double)x + 0.5 - cx, dy = (double)y + 0.5 - cy;
                double radius = unit * pose.radius;
                double cover = shapes_coverage(spec.kind, dx, dy, radius);
                double wake = wake_coverage(dx * ahead[0] + dy * ahead[1],
                                            dx * ahead[1] - dy * ahead[0], radius,
                                            unit * SHAPE_WAKE_LENGTH);
                for (int c = 0; c < SHAPE_CHANNELS; c++) {
                    double light = cover * rgb[c] + (1 - cover) * wake * SHAPE_WAKE_LIGHT;
                    clip[((c * frames + f) * height + y) * width + x] = (float)(2 * light - 1);
                }
            }
        }
    }
}
