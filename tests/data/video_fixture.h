/* Tiny lossless videos (FFV1 in QuickTime) for the tests of video ingestion. */
#ifndef TMD_TESTS_VIDEO_FIXTURE_H
#define TMD_TESTS_VIDEO_FIXTURE_H

#include <stdint.h>

struct VideoFixture {
    int width, height, n_frames;
    int fps;       /* frame t is shown at t / fps seconds */
    int late_from; /* frames from this one on come `late_by` frames later; 0: none */
    int late_by;
    int quarter_turns; /* clockwise, that a player is told to apply */
};

/* The colour of frame t in the cell (x * 4 / width, y * 4 / height): different for every cell and
 * frame, and far from its neighbours. */
void video_fixture_colour(int t, int column, int row, uint8_t rgb[3]);

/* Writes the video; any failure ends the test program. */
void video_fixture_write(const char *path, const struct VideoFixture *fixture);

#endif
