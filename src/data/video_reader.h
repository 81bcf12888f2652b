/* Video files as RGB frames at a steady rate, through libavformat, libavcodec and libswscale.
 *
 * Frame k of the output is the stored frame nearest to k / fps seconds after the first one (the
 * earlier of two that are equally near), so that a file read at its own rate gives its own frames.
 * The last stored frame lasts as long as the one before it.
 *
 * Only local files of common containers are opened; playlists and other formats that name further
 * files or addresses are refused. */
#ifndef TMD_DATA_VIDEO_READER_H
#define TMD_DATA_VIDEO_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

struct VideoReader;

/* Frames of `width` x `height` pixels (video_frame.h), `fps` of them per second.  NULL after an
 * error. */
struct VideoReader *video_reader_open(const char *path, int width, int height, double fps,
                                      struct Error *err);
/* The next frame, rgb [height, width, 3].  *end: there was none, and `rgb` is as before. */
bool video_reader_next(struct VideoReader *reader, uint8_t *rgb, bool *end, struct Error *err);
/* Harmless on NULL. */
void video_reader_close(struct VideoReader *reader);

#endif
