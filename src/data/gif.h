/* Animated GIF of a contact sheet: every clip plays in its cell, for ever.  One palette of 256
 * colours for the whole file, chosen by median cut (Heckbert, SIGGRAPH 1982). */
#ifndef TMD_DATA_GIF_H
#define TMD_DATA_GIF_H

#include "data/picture.h"

/* `fps` frames a second, 0.1 .. 50, rounded to whole hundredths of a second a frame.  Written whole
 * or not at all. */
bool gif_write(const char *path, const struct PictureSheet *sheet, double fps, struct Error *err);

#endif
