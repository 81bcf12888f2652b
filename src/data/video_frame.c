/* libswscale converts and scales a frame; turning and cropping are done here while the pixels are
 * copied. */
#include "data/video_frame.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Extent to which a frame is scaled, before it is turned. */
struct Extent {
    int width, height;
};

/* The smallest extent of the frame's proportions that covers the wanted one once turned. */
static struct Extent covering_extent(const struct VideoScaler *scaler, const AVFrame *frame,
                                     double pixel_aspect) {
    bool sideways = scaler->quarter_turns % 2 == 1;
    int width = sideways ? scaler->height : scaler->width;
    int height = sideways ? scaler->width : scaler->height;
    double shown_width = frame->width * pixel_aspect, shown_height = frame->height;
    double scale = fmax(width / shown_width, height / shown_height);
    double full_width = round(shown_width * scale), full_height = round(shown_height * scale);
    struct Extent extent = {width, height};
    if (full_width > width) extent.width = (int)fmin(full_width, 1 << 15);
    if (full_height > height) extent.height = (int)fmin(full_height, 1 << 15);
    return extent;
}

/* Which matrix the colours of a frame were made with; unmarked video follows its height, as players
 * assume. */
static const int *colour_matrix(const AVFrame *frame) {
    enum { HIGH_DEFINITION = 720 };
    if (frame->colorspace == AVCOL_SPC_UNSPECIFIED || frame->colorspace == AVCOL_SPC_RGB)
        return sws_getCoefficients(frame->height >= HIGH_DEFINITION ? SWS_CS_ITU709
                                                                    : SWS_CS_ITU601);
    return sws_getCoefficients(frame->colorspace);
}

static bool scale_frame(struct VideoScaler *scaler, const AVFrame *frame, struct Extent extent,
                        struct Error *err) {
    int64_t n_bytes = (int64_t)extent.width * extent.height * 3;
    if (n_bytes > scaler->scaled_capacity) {
        enum { SLACK = 64 }; /* swscale's vector code may write beyond a line's end */
        scaler->scaled = xrealloc(scaler->scaled, (unsigned long)n_bytes + SLACK);
        scaler->scaled_capacity = n_bytes;
    }
    scaler->sws = sws_getCachedContext(
        scaler->sws, frame->width, frame->height, (enum AVPixelFormat)frame->format, extent.width,
        extent.height, AV_PIX_FMT_RGB24,
        SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP, NULL, NULL, NULL);
    if (!scaler->sws)
        return error_set(err, "frames of %d x %d pixels cannot be scaled to %d x %d", frame->width,
                         frame->height, extent.width, extent.height);
    int unit = 1 << 16, full_range = 1;
    sws_setColorspaceDetails(scaler->sws, colour_matrix(frame),
                             frame->color_range == AVCOL_RANGE_JPEG,
                             sws_getCoefficients(SWS_CS_DEFAULT), full_range, 0, unit, unit);
    uint8_t *planes[4] = {scaler->scaled};
    int strides[4] = {3 * extent.width};
    int n_rows = sws_scale(scaler->sws, (const uint8_t *const *)frame->data, frame->linesize, 0,
                           frame->height, planes, strides);
    return n_rows == extent.height || error_set(err, "a frame cannot be converted to RGB");
}

/* Where the pixel (x, y) of the turned picture lies in the scaled one. */
static const uint8_t *turned_pixel(const struct VideoScaler *scaler, struct Extent extent, int x,
                                   int y) {
    int from_x = x, from_y = y;
    switch (scaler->quarter_turns) {
    case 1:
        from_x = y, from_y = extent.height - 1 - x;
        break;
    case 2:
        from_x = extent.width - 1 - x, from_y = extent.height - 1 - y;
        break;
    case 3:
        from_x = extent.width - 1 - y, from_y = x;
        break;
    }
    return scaler->scaled + 3 * ((int64_t)from_y * extent.width + from_x);
}

bool video_scaler_apply(struct VideoScaler *scaler, const AVFrame *frame, double pixel_aspect,
                        uint8_t *rgb, struct Error *err) {
    struct Extent extent = covering_extent(scaler, frame, pixel_aspect);
    if (!scale_frame(scaler, frame, extent, err)) return false;
    bool sideways = scaler->quarter_turns % 2 == 1;
    int left = ((sideways ? extent.height : extent.width) - scaler->width) / 2;
    int top = ((sideways ? extent.width : extent.height) - scaler->height) / 2;
    for (int y = 0; y < scaler->height; y++)
        for (int x = 0; x < scaler->width; x++)
            memcpy(rgb + 3 * ((int64_t)y * scaler->width + x),
                   turned_pixel(scaler, extent, left + x, top + y), 3);
    return true;
}

void video_scaler_free(struct VideoScaler *scaler) {
    sws_freeContext(scaler->sws);
    free(scaler->scaled);
    *scaler = (struct VideoScaler){0};
}
