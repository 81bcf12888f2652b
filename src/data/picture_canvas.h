/* A white page to draw on, with text that fits: what contact sheets and plots share.  Drawn with
 * cairo; lengths are in points of 1/96 inch, several device pixels each if `scale` says so. */
#ifndef TMD_DATA_PICTURE_CANVAS_H
#define TMD_DATA_PICTURE_CANVAS_H

#include <cairo.h>
#include <stdbool.h>
#include <stddef.h>

#include "error.h"

struct Canvas {
    cairo_t *cr; /* NULL: no page */
    double width, height;
};

struct Rgb {
    double r, g, b; /* in [0, 1] */
};

/* The few colours that everything but the data uses. */
extern const struct Rgb CANVAS_INK, CANVAS_MUTED, CANVAS_RULE;

struct Font {
    double points; /* height of the em square */
    bool bold;
    struct Rgb colour;
};

enum Align { ALIGN_LEFT, ALIGN_CENTRE, ALIGN_RIGHT };

/* A white page.  Fails when a side exceeds what cairo can hold (32,767 device pixels) or the page
 * 256 million pixels. */
bool canvas_create(struct Canvas *canvas, double width, double height, double scale,
                   struct Error *err);
void canvas_free(struct Canvas *canvas);

/* Writes the page as PNG, whole or not at all. */
bool canvas_write_png(struct Canvas *canvas, const char *path, struct Error *err);

void canvas_set_colour(cairo_t *cr, struct Rgb colour);

/* Distance between two lines of text. */
double canvas_line_height(struct Font font);

/* Width of one line of text. */
double canvas_text_width(cairo_t *cr, struct Font font, const char *text);

/* Draws one line; y is the middle of its capital letters.  Text that is no UTF-8 is drawn with its
 * foreign bytes as question marks. */
void canvas_text(cairo_t *cr, struct Font font, double x, double y, enum Align align,
                 const char *text);

/* Lines of a text broken at blanks (or within a word that is too wide on its own). */
struct TextBlock {
    char **lines;
    int n_lines;
    bool complete; /* nothing had to be left out */
};

/* Breaks `text` into at most max_lines lines of at most `width`, as few and then as even as can be;
 * an ellipsis stands for the rest. */
struct TextBlock canvas_wrap(cairo_t *cr, struct Font font, const char *text, double width,
                             int max_lines);
void text_block_free(struct TextBlock *block);

/* Draws a block whose vertical middle is y. */
void canvas_block(cairo_t *cr, struct Font font, double x, double y, enum Align align,
                  const struct TextBlock *block);

#endif
