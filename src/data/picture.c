/* Layout and drawing of contact sheets.  See picture.h.
 *
 *     | margin | title                                          |
 *     |        | column title | gap | column title | ...        |
 *     | label  | f0 f1 f2 f3  | gap | f0 f1 f2 f3  | ...        |
 *     | label  | ...                                            | */
#include "data/picture.h"

#include <math.h>
#include <stdlib.h>

#include "data/picture_canvas.h"

/* All lengths in points. */
enum { MAX_FRAME_SIDE = 16384, MAX_STRIP = 8, MAX_LABEL_LINES = 4, MAX_TITLE_LINES = 3 };
static const double MARGIN = 20, LABEL_WIDTH = 120, LABEL_GAP = 14, COLUMN_GAP = 20, ROW_GAP = 10,
                    FRAME_GAP = 2, MIN_COLUMN = 96;
static const struct Font TITLE = {16, true, {0.13, 0.15, 0.18}};
static const struct Font COLUMN = {12, true, {0.13, 0.15, 0.18}};
static const struct Font LABEL = {12, false, {0.13, 0.15, 0.18}};

/* What a cell shows: a strip of frames on paper, one frame in an animation. */
struct Style {
    double frame_side; /* height that a frame should about have, in points */
    double scale;      /* device pixels per point */
    int64_t frame;     /* the one to show; -1: a strip */
};

struct Layout {
    double column_width, row_height, left, top, width, height;
    int title_lines;
};

static int64_t frames_shown(const struct PictureClip *clip, const struct Style *style) {
    if (style->frame >= 0) return 1;
    return clip->frames < MAX_STRIP ? clip->frames : MAX_STRIP;
}

/* Which frame stands in place i of the n that are shown. */
static int64_t frame_at(const struct PictureClip *clip, const struct Style *style, int64_t i,
                        int64_t n) {
    if (style->frame >= 0) return style->frame < clip->frames ? style->frame : clip->frames - 1;
    return n > 1 ? i * (clip->frames - 1) / (n - 1) : 0;
}

/* Points per pixel of a clip: a whole number of device pixels where it is enlarged. */
static double zoom_of(const struct PictureClip *clip, const struct Style *style) {
    double zoom = style->frame_side * style->scale / (double)clip->height;
    return (zoom >= 1 ? floor(zoom) : zoom) / style->scale;
}

static void measure_cells(const struct PictureSheet *sheet, const struct Style *style,
                          struct Layout *layout) {
    layout->column_width = MIN_COLUMN;
    for (int i = 0; i < sheet->n_rows * sheet->n_columns; i++) {
        const struct PictureClip *clip = &sheet->cells[i];
        if (!clip->pixels) continue;
        double zoom = zoom_of(clip, style), n = (double)frames_shown(clip, style);
        double width = n * zoom * (double)clip->width + (n - 1) * FRAME_GAP;
        layout->column_width = fmax(layout->column_width, width);
        layout->row_height = fmax(layout->row_height, zoom * (double)clip->height);
    }
    /* A row is no lower than three lines of its label. */
    if (sheet->row_labels)
        layout->row_height = fmax(layout->row_height, 3 * canvas_line_height(LABEL));
}

/* Needs a context to measure text with; any will do. */
static struct Layout measure_sheet(cairo_t *cr, const struct PictureSheet *sheet,
                                   const struct Style *style) {
    struct Layout layout = {.left = MARGIN, .top = MARGIN};
    measure_cells(sheet, style, &layout);
    if (sheet->row_labels) layout.left += LABEL_WIDTH + LABEL_GAP;
    if (sheet->title) layout.top += 2 * canvas_line_height(TITLE);
    for (int i = 0; sheet->column_titles && i < sheet->n_columns; i++) {
        struct TextBlock block =
            canvas_wrap(cr, COLUMN, sheet->column_titles[i], layout.column_width, MAX_TITLE_LINES);
        if (block.n_lines > layout.title_lines) layout.title_lines = block.n_lines;
        text_block_free(&block);
    }
    layout.top += layout.title_lines * canvas_line_height(COLUMN) + (layout.title_lines ? 8 : 0);
    layout.top = ceil(layout.top); /* frames begin on whole pixels, or their edges blur */
    layout.row_height = ceil(layout.row_height);
    layout.column_width = ceil(layout.column_width);
    layout.width =
        layout.left + sheet->n_columns * (layout.column_width + COLUMN_GAP) - COLUMN_GAP + MARGIN;
    layout.height = layout.top + sheet->n_rows * (layout.row_height + ROW_GAP) - ROW_GAP + MARGIN;
    if (sheet->title) {
        double needed = canvas_text_width(cr, TITLE, sheet->title) + 2 * MARGIN;
        layout.width = fmax(layout.width, fmin(needed, 800));
    }
    return layout;
}

/* One pixel as cairo's 0x00RRGGBB. */
static uint32_t pixel_at(const struct PictureClip *clip, int64_t offset) {
    uint32_t packed = 0;
    for (int64_t c = 0; c < 3; c++) {
        int64_t plane = clip->channels < 3 ? 0 : c;
        float value = clip->pixels[plane * clip->frames * clip->height * clip->width + offset];
        if (!isfinite(value)) return 0xFF00FF;
        float level = fminf(fmaxf(0.5f * (value + 1), 0), 1);
        packed = packed << 8 | (uint32_t)lrintf(255 * level);
    }
    return packed;
}

/* Frame `frame` of a clip with its top left corner at (x, y). */
static void draw_frame(cairo_t *cr, const struct PictureClip *clip, int64_t frame, double x,
                       double y, double zoom) {
    cairo_surface_t *image =
        cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)clip->width, (int)clip->height);
    if (cairo_surface_status(image) == CAIRO_STATUS_SUCCESS) {
        cairo_surface_flush(image);
        unsigned char *data = cairo_image_surface_get_data(image);
        int stride = cairo_image_surface_get_stride(image);
        for (int64_t row = 0; row < clip->height; row++) {
            uint32_t *pixels = (uint32_t *)(void *)(data + row * stride);
            for (int64_t column = 0; column < clip->width; column++)
                pixels[column] =
                    pixel_at(clip, (frame * clip->height + row) * clip->width + column);
        }
        cairo_surface_mark_dirty(image);
    }
    cairo_save(cr);
    cairo_translate(cr, x, y);
    cairo_scale(cr, zoom, zoom);
    cairo_set_source_surface(cr, image, 0, 0);
    double device = 1, unused = 0;
    cairo_user_to_device_distance(cr, &device, &unused); /* device pixels per pixel of the clip */
    cairo_pattern_set_filter(cairo_get_source(cr),
                             device >= 1 ? CAIRO_FILTER_NEAREST : CAIRO_FILTER_GOOD);
    cairo_rectangle(cr, 0, 0, (double)clip->width, (double)clip->height);
    cairo_fill(cr);
    cairo_restore(cr);
    cairo_surface_destroy(image);
}

static void draw_cell(cairo_t *cr, const struct PictureClip *clip, const struct Style *style,
                      const struct Layout *layout, double x, double y) {
    double zoom = zoom_of(clip, style), step = zoom * (double)clip->width + FRAME_GAP;
    int64_t n = frames_shown(clip, style);
    x += floor(0.5 * (layout->column_width - ((double)n * step - FRAME_GAP)));
    y += floor(0.5 * (layout->row_height - zoom * (double)clip->height));
    for (int64_t i = 0; i < n; i++)
        draw_frame(cr, clip, frame_at(clip, style, i, n), x + (double)i * step, y, zoom);
}

static void draw_words(cairo_t *cr, const struct PictureSheet *sheet, const struct Layout *layout) {
    if (sheet->title) {
        struct TextBlock block =
            canvas_wrap(cr, TITLE, sheet->title, layout->width - 2 * MARGIN, 1);
        canvas_block(cr, TITLE, MARGIN, MARGIN + 0.5 * canvas_line_height(TITLE), ALIGN_LEFT,
                     &block);
        text_block_free(&block);
    }
    for (int i = 0; sheet->column_titles && i < sheet->n_columns; i++) {
        double x = layout->left + i * (layout->column_width + COLUMN_GAP);
        struct TextBlock block =
            canvas_wrap(cr, COLUMN, sheet->column_titles[i], layout->column_width, MAX_TITLE_LINES);
        double y = layout->top - 8 - 0.5 * layout->title_lines * canvas_line_height(COLUMN);
        canvas_block(cr, COLUMN, x + 0.5 * layout->column_width, y, ALIGN_CENTRE, &block);
        text_block_free(&block);
    }
    for (int i = 0; sheet->row_labels && i < sheet->n_rows; i++) {
        double y = layout->top + i * (layout->row_height + ROW_GAP) + 0.5 * layout->row_height;
        struct TextBlock block =
            canvas_wrap(cr, LABEL, sheet->row_labels[i], LABEL_WIDTH, MAX_LABEL_LINES);
        canvas_block(cr, LABEL, MARGIN, y, ALIGN_LEFT, &block);
        text_block_free(&block);
    }
}

static bool draw_sheet(struct Canvas *canvas, const struct PictureSheet *sheet,
                       const struct Style *style, struct Error *err) {
    TMD_CHECK(sheet->n_rows > 0 && sheet->n_columns > 0, "a sheet without cells");
    for (int i = 0; i < sheet->n_rows * sheet->n_columns; i++) {
        const struct PictureClip *clip = &sheet->cells[i];
        if (clip->pixels && (clip->height > MAX_FRAME_SIDE || clip->width > MAX_FRAME_SIDE))
            return error_set(err,
                             "a frame of %lld x %lld pixels is too large to show: at most %d "
                             "a side",
                             (long long)clip->height, (long long)clip->width, MAX_FRAME_SIDE);
    }
    struct Canvas ruler; /* one point of paper, to measure text with */
    if (!canvas_create(&ruler, 1, 1, 1, err)) return false;
    struct Layout layout = measure_sheet(ruler.cr, sheet, style);
    canvas_free(&ruler);
    if (!canvas_create(canvas, layout.width, layout.height, style->scale, err)) return false;
    draw_words(canvas->cr, sheet, &layout);
    for (int i = 0; i < sheet->n_rows * sheet->n_columns; i++) {
        int row = i / sheet->n_columns, column = i % sheet->n_columns;
        if (sheet->cells[i].pixels)
            draw_cell(canvas->cr, &sheet->cells[i], style, &layout,
                      layout.left + column * (layout.column_width + COLUMN_GAP),
                      layout.top + row * (layout.row_height + ROW_GAP));
    }
    cairo_status_t status = cairo_status(canvas->cr);
    if (status == CAIRO_STATUS_SUCCESS) return true;
    return error_set(err, "a contact sheet cannot be drawn: %s", cairo_status_to_string(status));
}

bool picture_write_png(const char *path, const struct PictureSheet *sheet, struct Error *err) {
    const struct Style style = {.frame_side = 48, .scale = 2, .frame = -1};
    struct Canvas canvas;
    bool written = draw_sheet(&canvas, sheet, &style, err) && canvas_write_png(&canvas, path, err);
    canvas_free(&canvas);
    return written;
}

int64_t picture_frames(const struct PictureSheet *sheet) {
    int64_t most = 0;
    for (int i = 0; i < sheet->n_rows * sheet->n_columns; i++)
        if (sheet->cells[i].pixels && sheet->cells[i].frames > most) most = sheet->cells[i].frames;
    return most;
}

bool picture_draw_frame(const struct PictureSheet *sheet, int64_t frame, struct PictureImage *image,
                        struct Error *err) {
    const struct Style style = {.frame_side = 96, .scale = 1, .frame = frame};
    struct Canvas canvas;
    *image = (struct PictureImage){0};
    bool drawn = draw_sheet(&canvas, sheet, &style, err);
    if (drawn) {
        cairo_surface_t *surface = cairo_get_target(canvas.cr);
        cairo_surface_flush(surface);
        const unsigned char *data = cairo_image_surface_get_data(surface);
        int stride = cairo_image_surface_get_stride(surface);
        image->width = cairo_image_surface_get_width(surface);
        image->height = cairo_image_surface_get_height(surface);
        image->rgb = xmalloc((unsigned long)image->width * (unsigned long)image->height * 3);
        uint8_t *out = image->rgb;
        for (int row = 0; row < image->height; row++) {
            const uint32_t *pixels = (const uint32_t *)(const void *)(data + (long)row * stride);
            for (int column = 0; column < image->width; column++)
                for (int shift = 16; shift >= 0; shift -= 8)
                    *out++ = (uint8_t)(pixels[column] >> shift);
        }
    }
    canvas_free(&canvas);
    return drawn;
}
