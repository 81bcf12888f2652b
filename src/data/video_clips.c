/* A window of frames slides over the video; each time it is full, it is a clip. */
#include "data/video_clips.h"

#include <stdlib.h>
#include <string.h>

#include "data/video_reader.h"

/* The frames of the clip that is being collected, oldest first. */
struct Window {
    uint8_t *rgb; /* [frames, height, width, 3] */
    int64_t n_frames, frame_bytes;
    int64_t n_to_skip; /* frames before the next clip begins */
};

/* clip [3, frames, height, width] from rgb [frames, height, width, 3]. */
static void planar_floats(float *clip, const uint8_t *rgb, int64_t n_pixels) {
    for (int64_t c = 0; c < 3; c++)
        for (int64_t i = 0; i < n_pixels; i++)
            clip[c * n_pixels + i] = (float)rgb[3 * i + c] / 127.5f - 1.0f;
}

/* Makes room for the next clip, which begins `stride` frames behind this one. */
static void slide(struct Window *window, int64_t stride) {
    int64_t n_dropped = stride < window->n_frames ? stride : window->n_frames;
    window->n_to_skip = stride - n_dropped;
    window->n_frames -= n_dropped;
    memmove(window->rgb, window->rgb + n_dropped * window->frame_bytes,
            (size_t)(window->n_frames * window->frame_bytes));
}

static bool read_clips(struct VideoReader *reader, struct Window *window,
                       const struct ClipPlan *plan, float *clip, clip_taker take, void *context,
                       int64_t *n_clips, struct Error *err) {
    bool end = false;
    while (plan->max_clips == 0 || *n_clips < plan->max_clips) {
        uint8_t *frame = window->rgb + window->n_frames * window->frame_bytes;
        if (!video_reader_next(reader, frame, &end, err)) return false;
        if (end) return true;
        if (window->n_to_skip > 0) {
            window->n_to_skip--;
            continue;
        }
        if (++window->n_frames < plan->frames) continue;
        planar_floats(clip, window->rgb, plan->frames * plan->height * plan->width);
        if (!take(context, clip, err)) return false;
        ++*n_clips;
        slide(window, plan->stride);
    }
    return true;
}

bool video_clips_cut(const char *path, const struct ClipPlan *plan, clip_taker take, void *context,
                     int64_t *n_clips, struct Error *err) {
    *n_clips = 0;
    struct VideoReader *reader =
        video_reader_open(path, (int)plan->width, (int)plan->height, plan->fps, err);
    if (!reader) return false;
    struct Window window = {.frame_bytes = 3 * plan->height * plan->width};
    unsigned long n_bytes = (unsigned long)(plan->frames * window.frame_bytes);
    window.rgb = xmalloc(n_bytes);
    float *clip = xmalloc(n_bytes * sizeof *clip);
    bool good = read_clips(reader, &window, plan, clip, take, context, n_clips, err);
    free(clip);
    free(window.rgb);
    video_reader_close(reader);
    return good;
}
