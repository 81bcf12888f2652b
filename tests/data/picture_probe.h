/* What tests see of a PNG file. */
#ifndef TMD_PICTURE_PROBE_H
#define TMD_PICTURE_PROBE_H

#include <stdint.h>

/* Counts pixels near a colour (0 .. 255 each); *top and *bottom: the first and last row with one,
 * in shares of the height, unchanged where there is none.  A file that is no PNG fails the test. */
int64_t picture_find_colour(const char *path, int r, int g, int b, double *top, double *bottom);

#endif
