/* Pages, PNG files and wrapped text.  See picture_canvas.h. */
#include "data/picture_canvas.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/atomic_file.h"
#include "data/utf8.h"

const struct Rgb CANVAS_INK = {0.13, 0.15, 0.18}, CANVAS_MUTED = {0.42, 0.45, 0.50},
                 CANVAS_RULE = {0.86, 0.87, 0.89};

static const char ELLIPSIS[] = "\xE2\x80\xA6";

bool canvas_create(struct Canvas *canvas, double width, double height, double scale,
                   struct Error *err) {
    double columns = ceil(width * scale), rows = ceil(height * scale);
    *canvas = (struct Canvas){.width = width, .height = height};
    if (!(columns >= 1 && rows >= 1 && columns <= 32767 && rows <= 32767 &&
          columns * rows <= 256e6))
        return error_set(err,
                         "a picture of %.0f x %.0f pixels is too large: at most 32767 a side "
                         "and 256 million in all",
                         columns, rows);
    cairo_surface_t *surface =
        cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)columns, (int)rows);
    canvas->cr = cairo_create(surface);
    cairo_surface_destroy(surface); /* the context holds on to it */
    cairo_status_t status = cairo_status(canvas->cr);
    if (status != CAIRO_STATUS_SUCCESS) {
        canvas_free(canvas);
        return error_set(err, "no picture of %.0f x %.0f pixels: %s", columns, rows,
                         cairo_status_to_string(status));
    }
    cairo_scale(canvas->cr, scale, scale);
    cairo_set_source_rgb(canvas->cr, 1, 1, 1);
    cairo_paint(canvas->cr);
    return true;
}

void canvas_free(struct Canvas *canvas) {
    if (canvas->cr) cairo_destroy(canvas->cr);
    *canvas = (struct Canvas){0};
}

struct Bytes {
    unsigned char *data;
    size_t n_bytes, room;
};

static cairo_status_t append(void *into, const unsigned char *data, unsigned int n_bytes) {
    struct Bytes *bytes = into;
    if (bytes->n_bytes + n_bytes > bytes->room) {
        bytes->room = 2 * (bytes->n_bytes + n_bytes);
        bytes->data = xrealloc(bytes->data, bytes->room);
    }
    memcpy(bytes->data + bytes->n_bytes, data, n_bytes);
    bytes->n_bytes += n_bytes;
    return CAIRO_STATUS_SUCCESS;
}

bool canvas_write_png(struct Canvas *canvas, const char *path, struct Error *err) {
    struct Bytes png = {0};
    cairo_status_t status = cairo_status(canvas->cr);
    if (status == CAIRO_STATUS_SUCCESS)
        status = cairo_surface_write_to_png_stream(cairo_get_target(canvas->cr), append, &png);
    bool written;
    if (status == CAIRO_STATUS_SUCCESS)
        written = atomic_file_write(path, png.data, png.n_bytes, err);
    else
        written = error_set(err, "%s: cannot be drawn: %s", path, cairo_status_to_string(status));
    free(png.data);
    return written;
}

void canvas_set_colour(cairo_t *cr, struct Rgb colour) {
    cairo_set_source_rgb(cr, colour.r, colour.g, colour.b);
}

static void select_font(cairo_t *cr, struct Font font) {
    cairo_select_font_face(cr, "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                           font.bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cr, font.points);
}

double canvas_line_height(struct Font font) {
    return 1.3 * font.points;
}

/* A copy that cairo accepts, on one line: a context that is handed anything but UTF-8 draws nothing
 * from then on. */
static char *drawable(const char *text) {
    char *copy = xstrdup(text);
    bool valid = utf8_valid(text);
    for (char *c = copy; *c; c++) {
        if ((unsigned char)*c < ' ') *c = ' ';
        if (!valid && (unsigned char)*c >= 0x80) *c = '?';
    }
    return copy;
}

double canvas_text_width(cairo_t *cr, struct Font font, const char *text) {
    cairo_text_extents_t extents;
    char *copy = drawable(text);
    select_font(cr, font);
    cairo_text_extents(cr, copy, &extents);
    free(copy);
    return extents.x_advance;
}

void canvas_text(cairo_t *cr, struct Font font, double x, double y, enum Align align,
                 const char *text) {
    char *copy = drawable(text);
    double width = canvas_text_width(cr, font, copy);
    if (align == ALIGN_CENTRE) x -= width / 2;
    if (align == ALIGN_RIGHT) x -= width;
    canvas_set_colour(cr, font.colour);
    cairo_move_to(cr, x, y + 0.36 * font.points); /* capitals are 0.72 em high */
    cairo_show_text(cr, copy);
    free(copy);
}

/* Bytes of the longest start of `text` that fits; at a blank if there is one, else between two
 * characters; at least one character. */
static size_t line_bytes(cairo_t *cr, struct Font font, const char *text, double width) {
    size_t n_bytes = strlen(text), fits = 0, blank = 0;
    char *start = xstrdup(text);
    for (size_t end = 1; end <= n_bytes; end++) {
        if (((unsigned char)text[end] & 0xC0) == 0x80) continue; /* within a character */
        start[end] = '\0';
        bool too_wide = canvas_text_width(cr, font, start) > width;
        start[end] = text[end];
        if (too_wide && fits > 0) break;
        fits = end;
        if (text[end] == ' ' || text[end] == '\0') blank = end;
        if (too_wide) break;
    }
    free(start);
    return blank > 0 ? blank : fits;
}

/* `line` with its end replaced by an ellipsis so that it fits. */
static char *shortened(cairo_t *cr, struct Font font, char *line, double width) {
    char *cut = xprintf("%s%s", line, ELLIPSIS);
    for (size_t end = strlen(line); end > 0 && canvas_text_width(cr, font, cut) > width;) {
        do end--;
        while (end > 0 && ((unsigned char)line[end] & 0xC0) == 0x80);
        free(cut);
        cut = xprintf("%.*s%s", (int)end, line, ELLIPSIS);
    }
    free(line);
    return cut;
}

static struct TextBlock wrap_greedily(cairo_t *cr, struct Font font, const char *text, double width,
                                      int max_lines) {
    struct TextBlock block = {.lines = xcalloc((unsigned long)max_lines * sizeof *block.lines)};
    const char *rest = text + strspn(text, " ");
    while (*rest && block.n_lines < max_lines) {
        size_t n_bytes = line_bytes(cr, font, rest, width);
        size_t n_ink = n_bytes;
        while (rest[n_ink - 1] == ' ') n_ink--;
        block.lines[block.n_lines++] = xprintf("%.*s", (int)n_ink, rest);
        rest += n_bytes;
        rest += strspn(rest, " ");
    }
    block.complete = *rest == '\0';
    if (!block.complete) {
        char **last = &block.lines[block.n_lines - 1];
        *last = shortened(cr, font, *last, width);
    }
    return block;
}

struct TextBlock canvas_wrap(cairo_t *cr, struct Font font, const char *text, double width,
                             int max_lines) {
    char *copy = drawable(text);
    struct TextBlock block = wrap_greedily(cr, font, copy, width, max_lines);
    /* As long as the same number of lines will do, narrower ones are more even. */
    for (double narrow = 0.95 * width; block.n_lines > 1 && block.complete; narrow *= 0.95) {
        struct TextBlock even = wrap_greedily(cr, font, copy, narrow, max_lines);
        bool better = even.complete && even.n_lines == block.n_lines &&
                      canvas_text_width(cr, font, even.lines[0]) <= narrow;
        text_block_free(better ? &block : &even);
        if (!better) break;
        block = even;
    }
    free(copy);
    return block;
}

void text_block_free(struct TextBlock *block) {
    for (int i = 0; i < block->n_lines; i++) free(block->lines[i]);
    free(block->lines);
    *block = (struct TextBlock){0};
}

void canvas_block(cairo_t *cr, struct Font font, double x, double y, enum Align align,
                  const struct TextBlock *block) {
    double step = canvas_line_height(font), top = y - 0.5 * step * (block->n_lines - 1);
    for (int i = 0; i < block->n_lines; i++)
        canvas_text(cr, font, x, top + step * i, align, block->lines[i]);
}
