/* From decoded frames of any kind to RGB pictures of one extent.
 *
 * The picture is what a player would show (non-square pixels, rotation by quarter turns, BT.601 or
 * BT.709 colours, limited or full range), scaled bicubically until it just covers the wanted
 * extent, and cropped to it around its centre. */
#ifndef TMD_DATA_VIDEO_FRAME_H
#define TMD_DATA_VIDEO_FRAME_H

#include <libavutil/frame.h>
#include <libswscale/swscale.h>
#include <stdbool.h>
#include <stdint.h>

#include "error.h"

struct VideoScaler {
    int width, height;       /* wanted */
    int quarter_turns;       /* clockwise, 0 to 3 */
    struct SwsContext *sws;  /* fits the last frame */
    uint8_t *scaled;         /* [scaled_height, scaled_width, 3] before turn and crop */
    int64_t scaled_capacity; /* bytes */
};

/* rgb [height, width, 3].  `pixel_aspect`: width of a pixel over its height. */
bool video_scaler_apply(struct VideoScaler *scaler, const AVFrame *frame, double pixel_aspect,
                        uint8_t *rgb, struct Error *err);
void video_scaler_free(struct VideoScaler *scaler);

#endif
