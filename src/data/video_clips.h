/* Clips of equal length, cut out of a video file. */
#ifndef TMD_DATA_VIDEO_CLIPS_H
#define TMD_DATA_VIDEO_CLIPS_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

struct ClipPlan {
    int64_t frames, height, width; /* of a clip */
    double fps;
    int64_t stride;    /* frames from the start of a clip to the start of the next */
    int64_t max_clips; /* per file; 0: as many as there are */
};

/* Takes one clip, float [3, frames, height, width] in [-1, 1].  False ends the cutting with its
 * error. */
typedef bool (*clip_taker)(void *context, const float *clip, struct Error *err);

/* Cuts the video at `path` and hands over its clips in their order.  *n_clips is how many there
 * were; a video that is too short has none, which is no error. */
bool video_clips_cut(const char *path, const struct ClipPlan *plan, clip_taker take, void *context,
                     int64_t *n_clips, struct Error *err);

#endif
