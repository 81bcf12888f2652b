/* The recogniser of the toy world.  See shapes_recognise.h for the measurements. */
#include "data/shapes_recognise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

/* What counts as good evidence.  Drawn clips under noise of sigma 0.2 pass all of it with room to
 * spare (tests/data/test_shapes.c); what fails is not a shape of this world. */
static const double MIN_AREA = 13, MAX_AREA = 80; /* per frame, in square sixteenths */
static const double MIN_COSINE = 0.94;            /* 20 degrees */
static const double MIN_SPEED = 0.4;              /* as a share of the nominal speed */
static const double MAX_DRIFT = 0.5;              /* speed across as a share of speed along */
static const double MAX_UNSTEADY = 0.25;          /* of the path's variance that is no line */
static const double MIN_CORRELATION = 0.75, MIN_LEAD = 0.02; /* lead over the next shape */

/* One frame's presence with its moments. */
struct Frame {
    const double *presence; /* [height, width] */
    int64_t height, width;
    double mass, squares; /* sums of presence and of its square */
    double cx, cy;        /* centroid in pixels */
};

/* From brightness or coverage in [0, 1] to presence: noise near black and near full light is gone,
 * an edge at one half stays where it is. */
static double presence_of(double level) {
    return fmin(fmax(2 * level - 0.5, 0), 1);
}

static double level_of(float value) {
    return fmin(fmax(0.5 * ((double)value + 1), 0), 1);
}

/* Presence of every pixel [frames, height, width], and the sum of colour weighted with it.  Returns
 * false when a value is not finite. */
static bool find_presence(const float *clip, int64_t n_pixels, double *presence, double rgb[3]) {
    for (int64_t i = 0; i < n_pixels; i++) {
        double level[SHAPE_CHANNELS], brightest = 0;
        for (int c = 0; c < SHAPE_CHANNELS; c++) {
            if (!isfinite(clip[c * n_pixels + i])) return false;
            level[c] = level_of(clip[c * n_pixels + i]);
            brightest = fmax(brightest, level[c]);
        }
        presence[i] = presence_of(brightest);
        for (int c = 0; c < SHAPE_CHANNELS; c++) rgb[c] += presence[i] * level[c];
    }
    return true;
}

static struct Frame measure_frame(const double *presence, int64_t height, int64_t width) {
    struct Frame frame = {.presence = presence, .height = height, .width = width};
    for (int64_t y = 0; y < height; y++) {
        for (int64_t x = 0; x < width; x++) {
            double p = presence[y * width + x];
            frame.mass += p;
            frame.squares += p * p;
            frame.cx += p * ((double)x + 0.5);
            frame.cy += p * ((double)y + 0.5);
        }
    }
    if (frame.mass > 0) {
        frame.cx /= frame.mass;
        frame.cy /= frame.mass;
    }
    return frame;
}

static void judge_colour(const double rgb[3], struct ShapeVerdict *verdict) {
    double norm = sqrt(rgb[0] * rgb[0] + rgb[1] * rgb[1] + rgb[2] * rgb[2]);
    for (int colour = 0; colour < SHAPE_COLOURS; colour++) {
        double pure[3];
        shapes_colour_rgb(colour, pure);
        double dot = rgb[0] * pure[0] + rgb[1] * pure[1] + rgb[2] * pure[2];
        double cosine = dot / (norm * sqrt(pure[0] + pure[1] + pure[2]));
        if (cosine > verdict->colour_cosine) {
            verdict->colour_cosine = cosine;
            if (cosine >= MIN_COSINE) verdict->seen.colour = colour;
        }
    }
}

/* Fits position = a + velocity * f.  `unsteady` is the share of the variance of x and y together
 * that the line leaves unexplained. */
static void fit_velocity(const struct Frame *frames, int64_t n, double velocity[2],
                         double *unsteady) {
    double mid = 0.5 * (double)(n - 1), mean[2] = {0, 0}, ff = 0, fp[2] = {0, 0}, total = 0;
    for (int64_t f = 0; f < n; f++) {
        mean[0] += frames[f].cx / (double)n;
        mean[1] += frames[f].cy / (double)n;
    }
    for (int64_t f = 0; f < n; f++) {
        double t = (double)f - mid, dx = frames[f].cx - mean[0], dy = frames[f].cy - mean[1];
        ff += t * t;
        fp[0] += t * dx;
        fp[1] += t * dy;
        total += dx * dx + dy * dy;
    }
    velocity[0] = fp[0] / ff;
    velocity[1] = fp[1] / ff;
    *unsteady = total > 0 ? 1 - (fp[0] * fp[0] + fp[1] * fp[1]) / (ff * total) : 1;
}

static void judge_direction(const struct Frame *frames, int64_t n, double unit,
                            struct ShapeVerdict *verdict) {
    double unsteady;
    double *v = verdict->velocity;
    fit_velocity(frames, n, v, &unsteady);
    bool sideways = fabs(v[0]) > fabs(v[1]);
    double along = sideways ? v[0] : v[1], across = sideways ? v[1] : v[0];
    double nominal = 2 * SHAPE_TRAVEL * unit / (double)(n - 1);
    if (fabs(along) < MIN_SPEED * nominal || fabs(across) > MAX_DRIFT * fabs(along) ||
        unsteady > MAX_UNSTEADY)
        return;
    if (sideways)
        verdict->seen.direction = along < 0 ? SHAPE_LEFT : SHAPE_RIGHT;
    else
        verdict->seen.direction = along < 0 ? SHAPE_UP : SHAPE_DOWN;
}

/* Pearson correlation over the whole frame between presence and a template whose bounding box is
 * centred at (cx, cy).  Beyond the box the template is zero, so only the box is visited. */
static double correlate(const struct Frame *frame, int kind, double cx, double cy, double radius) {
    int64_t x0 = (int64_t)fmax(floor(cx - radius - 1), 0);
    int64_t y0 = (int64_t)fmax(floor(cy - radius - 1), 0);
    int64_t x1 = (int64_t)fmin(ceil(cx + radius + 1), (double)frame->width);
    int64_t y1 = (int64_t)fmin(ceil(cy + radius + 1), (double)frame->height);
    double sum = 0, squares = 0, cross = 0;
    for (int64_t y = y0; y < y1; y++) {
        for (int64_t x = x0; x < x1; x++) {
            double t = presence_of(
                shapes_coverage(kind, (double)x + 0.5 - cx, (double)y + 0.5 - cy, radius));
            sum += t;
            squares += t * t;
            cross += t * frame->presence[y * frame->width + x];
        }
    }
    double n = (double)(frame->height * frame->width);
    double scatter = (squares - sum * sum / n) * (frame->squares - frame->mass * frame->mass / n);
    return scatter > 0 ? (cross - sum * frame->mass / n) / sqrt(scatter) : 0;
}

/* The best correlation of a shape with a frame over a few shifts and extents. */
static double best_correlation(const struct Frame *frame, int kind, double unit) {
    double best = -1;
    for (int extent = -1; extent <= 1; extent++) {
        double radius = unit * SHAPE_RADIUS * (1 + 0.08 * extent);
        for (int shift = 0; shift < 9; shift++) {
            double cx = frame->cx + 0.4 * unit * (shift % 3 - 1);
            double cy = frame->cy + 0.4 * unit * (shift / 3 - 1) - shapes_centroid_y(kind) * radius;
            best = fmax(best, correlate(frame, kind, cx, cy, radius));
        }
    }
    return best;
}

static void judge_kind(const struct Frame *frames, int64_t n, double unit,
                       struct ShapeVerdict *verdict) {
    double best = -1, second = -1;
    int kind = SHAPE_NONE;
    for (int k = 0; k < SHAPE_KINDS; k++) {
        double mean = 0;
        for (int64_t f = 0; f < n; f++) mean += best_correlation(&frames[f], k, unit) / (double)n;
        if (mean > best) {
            second = best;
            best = mean;
            kind = k;
        } else {
            second = fmax(second, mean);
        }
    }
    verdict->correlation = best;
    if (best >= MIN_CORRELATION && best - second >= MIN_LEAD) verdict->seen.kind = kind;
}

void shapes_recognise(const float *clip, int64_t frames, int64_t height, int64_t width,
                      struct ShapeVerdict *verdict) {
    *verdict = (struct ShapeVerdict){.seen = {SHAPE_NONE, SHAPE_NONE, SHAPE_NONE}};
    if (frames < SHAPE_MIN_FRAMES || height < SHAPE_MIN_SIDE || width < SHAPE_MIN_SIDE) return;
    const int64_t n_pixels = frames * height * width;
    const double unit = (double)(height < width ? height : width) / 16;
    double *presence = xmalloc((unsigned long)n_pixels * sizeof *presence);
    struct Frame *measured = xmalloc((unsigned long)frames * sizeof *measured);
    double rgb[3] = {0, 0, 0};
    bool plausible = find_presence(clip, n_pixels, presence, rgb);
    for (int64_t f = 0; plausible && f < frames; f++) {
        measured[f] = measure_frame(presence + f * height * width, height, width);
        double area = measured[f].mass / (unit * unit);
        plausible = area >= MIN_AREA && area <= MAX_AREA;
    }
    if (plausible) {
        judge_colour(rgb, verdict);
        judge_direction(measured, frames, unit, verdict);
        judge_kind(measured, frames, unit, verdict);
    }
    free(measured);
    free(presence);
}

void shapes_tally(struct ShapeTally *tally, struct ShapeSpec wanted, struct ShapeSpec seen) {
    bool kind = wanted.kind == seen.kind, colour = wanted.colour == seen.colour;
    bool direction = wanted.direction == seen.direction;
    tally->clips++;
    tally->kind += kind;
    tally->colour += colour;
    tally->direction += direction;
    tally->all += kind && colour && direction;
}
