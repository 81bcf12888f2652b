/* Contact sheets and animations, read back with the libraries' own decoders. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <cairo.h>
#include <gif_lib.h>

#include "data/gif.h"
#include "data/picture.h"
#include "data/picture_canvas.h"
#include "scratch.h"

enum { RED = 0xFF0000, GREEN = 0x00FF00, BLUE = 0x0000FF, MAGENTA = 0xFF00FF };

/* A decoded PNG. */
struct Png {
    int width, height;
    uint32_t *pixels; /* [height, width] 0xRRGGBB */
};

static struct Png read_png(const char *path) {
    cairo_surface_t *surface = cairo_image_surface_create_from_png(path);
    assert_int_equal(cairo_surface_status(surface), CAIRO_STATUS_SUCCESS);
    struct Png png = {.width = cairo_image_surface_get_width(surface),
                      .height = cairo_image_surface_get_height(surface)};
    png.pixels = xmalloc((unsigned long)png.width * (unsigned long)png.height * 4);
    for (int y = 0; y < png.height; y++) {
        const unsigned char *row = cairo_image_surface_get_data(surface) +
                                   (long)y * cairo_image_surface_get_stride(surface);
        for (int x = 0; x < png.width; x++) {
            uint32_t pixel;
            memcpy(&pixel, row + 4 * x, 4);
            png.pixels[y * png.width + x] = pixel & 0xFFFFFF;
        }
    }
    cairo_surface_destroy(surface);
    return png;
}

static int64_t count_colour(const struct Png *png, uint32_t colour) {
    int64_t n = 0;
    for (int64_t i = 0; i < (int64_t)png->width * png->height; i++) n += png->pixels[i] == colour;
    return n;
}

static struct Png draw_png(const struct PictureSheet *sheet) {
    struct Error err = {.text = ""};
    char *path = scratch_path(scratch_folder(), "sheet.png");
    if (!picture_write_png(path, sheet, &err)) fail_msg("%s", err.text);
    struct Png png = read_png(path);
    free(path);
    return png;
}

/* One clip of `frames` frames of 2 x 2: red, green / blue, and a last pixel of its own value. */
static void fill_clip(float *pixels, int64_t frames, float last) {
    for (int64_t f = 0; f < frames; f++) {
        const float rgb[3][4] = {{1, -1, -1, last}, {-1, 1, -1, last}, {-1, -1, 1, last}};
        for (int64_t c = 0; c < 3; c++)
            memcpy(pixels + (c * frames + f) * 4, rgb[c], sizeof rgb[c]);
    }
}

static void test_pixels_become_even_squares(void **state) {
    (void)state;
    float pixels[3 * 3 * 4];
    fill_clip(pixels, 3, NAN);
    struct PictureClip clip = {pixels, 3, 3, 2, 2};
    struct PictureSheet sheet = {.n_rows = 1, .n_columns = 1, .cells = &clip};
    struct Png png = draw_png(&sheet);
    int64_t square = count_colour(&png, RED) / 3, side = lrint(sqrt((double)square));
    assert_true(side >= 20);
    assert_int_equal(side * side, square); /* no blending at the edges */
    assert_int_equal(count_colour(&png, RED), 3 * square);
    assert_int_equal(count_colour(&png, GREEN), 3 * square);
    assert_int_equal(count_colour(&png, BLUE), 3 * square);
    assert_int_equal(count_colour(&png, MAGENTA), 3 * square);
    assert_int_equal(count_colour(&png, 0xFFFFFF) + 12 * square, (int64_t)png.width * png.height);

    uint32_t *first = png.pixels;
    while (*first == 0xFFFFFF) first++;
    assert_int_equal(first[0], RED); /* top left: red, then green; below red: blue */
    assert_int_equal(first[side], GREEN);
    assert_int_equal(first[side * png.width], BLUE);
    assert_int_equal(first[side * png.width + side], MAGENTA);
    free(png.pixels);
}

static void test_values_are_clipped_and_channels_chosen(void **state) {
    (void)state;
    const float grey[2] = {7, -9}, wide[4 * 2] = {1e30f, -1, -3, 1, 0, 0, INFINITY, INFINITY};
    struct PictureClip cells[2] = {{grey, 1, 1, 1, 2}, {wide, 4, 1, 1, 2}};
    struct PictureSheet sheet = {.n_rows = 1, .n_columns = 2, .cells = cells};
    struct Png png = draw_png(&sheet);
    int64_t square = count_colour(&png, 0x000000);
    assert_true(square > 0);
    /* The fourth channel is not looked at. */
    assert_int_equal(count_colour(&png, 0xFF0080), square);
    assert_int_equal(count_colour(&png, 0x00FF80), square);
    assert_int_equal(count_colour(&png, MAGENTA), 0);
    free(png.pixels);
}

static void test_strips_show_first_and_last(void **state) {
    (void)state;
    enum { FRAMES = 100 };
    float pixels[FRAMES], few[8] = {-1, 0, 0, 0, 0, 0, 0, 1};
    for (int f = 0; f < FRAMES; f++) pixels[f] = f == 0 ? -1 : f == FRAMES - 1 ? 1 : 0;
    struct PictureClip clip = {pixels, 1, FRAMES, 1, 1};
    struct PictureSheet sheet = {.n_rows = 1, .n_columns = 1, .cells = &clip};
    struct Png many = draw_png(&sheet);
    clip = (struct PictureClip){few, 1, 8, 1, 1};
    struct Png eight = draw_png(&sheet);
    assert_int_equal(many.width, eight.width);
    assert_int_equal(many.height, eight.height);
    assert_memory_equal(many.pixels, eight.pixels, (size_t)many.width * (size_t)many.height * 4);
    assert_true(count_colour(&many, 0) > 0);
    free(many.pixels);
    free(eight.pixels);
}

static void test_words_take_their_place(void **state) {
    (void)state;
    float pixels[3 * 4];
    fill_clip(pixels, 1, -1);
    struct PictureClip cells[4] = {
        {pixels, 3, 1, 2, 2}, {pixels, 3, 1, 2, 2}, {NULL, 0, 0, 0, 0}, {pixels, 3, 1, 2, 2}};
    struct PictureSheet sheet = {.n_rows = 2, .n_columns = 2, .cells = cells};
    struct Png bare = draw_png(&sheet);
    char endless[5000];
    memset(endless, 'w', sizeof endless);
    endless[sizeof endless - 1] = '\0';
    const char *labels[2] = {"a red square moving left", endless};
    const char *titles[2] = {"bytes \xFF\xC3 that are no text\n", ""};
    sheet.title = "title";
    sheet.row_labels = labels;
    sheet.column_titles = titles;
    struct Png worded = draw_png(&sheet);
    assert_true(worded.width > bare.width && worded.height > bare.height);
    assert_true(worded.width < bare.width + 400 && worded.height < bare.height + 400);
    assert_int_equal(count_colour(&bare, RED), count_colour(&worded, RED));
    assert_true(count_colour(&bare, RED) > 0);
    assert_int_equal(count_colour(&bare, 0x21262E), 0);
    assert_true(count_colour(&worded, 0x21262E) > 100); /* ink */
    free(bare.pixels);
    free(worded.pixels);
}

static void test_large_frames_are_reduced(void **state) {
    (void)state;
    enum { SIDE = 1000 };
    float *pixels = xmalloc(SIDE * SIDE * sizeof *pixels);
    for (int i = 0; i < SIDE * SIDE; i++) pixels[i] = -1;
    struct PictureClip clip = {pixels, 1, 1, SIDE, SIDE};
    struct PictureSheet sheet = {.n_rows = 1, .n_columns = 1, .cells = &clip};
    struct Png png = draw_png(&sheet);
    assert_true(png.width < 400 && png.height < 400);
    assert_true(count_colour(&png, 0) > 80 * 80);
    free(png.pixels);
    free(pixels);
}

static void test_failures_leave_nothing(void **state) {
    (void)state;
    struct Error err;
    const float pixel = 0;
    struct PictureClip clip = {&pixel, 1, 1, 1, 1};
    struct PictureSheet sheet = {.n_rows = 1, .n_columns = 1, .cells = &clip};
    char *path = scratch_path(scratch_folder(), "none/sheet.png"),
         *gif = scratch_path(scratch_folder(), "none/sheet.gif");
    assert_false(picture_write_png(path, &sheet, &err));
    assert_non_null(strstr(err.text, path));
    assert_false(gif_write(gif, &sheet, 4, &err));
    assert_non_null(strstr(err.text, gif));
    free(gif);
    free(path);

    path = scratch_path(scratch_folder(), "large.png");
    clip.width = 1LL << 40;
    assert_false(picture_write_png(path, &sheet, &err));
    assert_non_null(strstr(err.text, "too large"));
    assert_false(scratch_exists(path));
    clip.width = 1;
    struct PictureClip *cells = xcalloc(5000 * sizeof *cells);
    for (int i = 0; i < 5000; i++) cells[i] = clip;
    sheet = (struct PictureSheet){.n_rows = 5000, .n_columns = 1, .cells = cells};
    assert_false(picture_write_png(path, &sheet, &err));
    assert_non_null(strstr(err.text, "too large"));
    free(cells);
    assert_int_equal(scratch_count(scratch_folder(), ".partial"), 0);
    free(path);
}

static GifFileType *read_gif(const char *path) {
    int code;
    GifFileType *gif = DGifOpenFileName(path, &code);
    assert_non_null(gif);
    assert_int_equal(DGifSlurp(gif), GIF_OK);
    return gif;
}

static int64_t count_gif_colour(const GifFileType *gif, int frame, uint32_t colour) {
    int64_t n = 0;
    const SavedImage *image = &gif->SavedImages[frame];
    for (int i = 0; i < image->ImageDesc.Width * image->ImageDesc.Height; i++) {
        GifColorType c = gif->SColorMap->Colors[image->RasterBits[i]];
        n += (uint32_t)(c.Red << 16 | c.Green << 8 | c.Blue) == colour;
    }
    return n;
}

/* Few colours: every one of them is in the palette unchanged. */
static void test_animation(void **state) {
    (void)state;
    struct Error err;
    const float pixels[3 * 3] = {1, -1, -1, -1, 1, -1, -1, -1, 1}; /* red, green, blue frames */
    const float still[3] = {-1, -1, -1};
    struct PictureClip cells[2] = {{pixels, 3, 3, 1, 1}, {still, 3, 1, 1, 1}};
    struct PictureSheet sheet = {.n_rows = 1, .n_columns = 2, .cells = cells};
    char *path = scratch_path(scratch_folder(), "sheet.gif");
    assert_true(gif_write(path, &sheet, 4, &err));
    GifFileType *gif = read_gif(path);
    assert_int_equal(gif->ImageCount, 3);
    static const uint32_t COLOURS[3] = {RED, GREEN, BLUE};
    int64_t square = count_gif_colour(gif, 0, RED);
    assert_true(square > 50 * 50);
    for (int f = 0; f < 3; f++) {
        GraphicsControlBlock control;
        assert_int_equal(DGifSavedExtensionToGCB(gif, f, &control), GIF_OK);
        assert_int_equal(control.DelayTime, 25);
        for (int c = 0; c < 3; c++)
            assert_int_equal(count_gif_colour(gif, f, COLOURS[c]), c == f ? square : 0);
        assert_int_equal(count_gif_colour(gif, f, 0), square); /* the still one stays */
    }
    const ExtensionBlock *loop = gif->SavedImages[0].ExtensionBlocks;
    assert_int_equal(loop[0].Function, APPLICATION_EXT_FUNC_CODE);
    assert_memory_equal(loop[0].Bytes, "NETSCAPE2.0", 11);
    assert_memory_equal(loop[1].Bytes, "\1\0\0", 3); /* no end */
    DGifCloseFile(gif, NULL);
    free(path);
}

/* Many colours: the palette's come near. */
static void test_palette(void **state) {
    (void)state;
    enum { SIDE = 96 };
    struct Error err;
    float *pixels = xmalloc(3 * SIDE * SIDE * sizeof *pixels);
    for (int i = 0; i < SIDE * SIDE; i++) {
        pixels[i] = 2.0f * (float)(i % SIDE) / (SIDE - 1) - 1;
        pixels[SIDE * SIDE + i] = 2.0f * (float)(i / SIDE) / (SIDE - 1) - 1;
        pixels[2 * SIDE * SIDE + i] = pixels[i] * pixels[SIDE * SIDE + i];
    }
    struct PictureClip clip = {pixels, 3, 1, SIDE, SIDE};
    struct PictureSheet sheet = {.n_rows = 1, .n_columns = 1, .cells = &clip};
    struct PictureImage image;
    char *path = scratch_path(scratch_folder(), "many.gif");
    assert_true(picture_draw_frame(&sheet, 0, &image, &err));
    assert_true(gif_write(path, &sheet, 10, &err));
    GifFileType *gif = read_gif(path);
    assert_int_equal(gif->SWidth, image.width);
    assert_int_equal(gif->SHeight, image.height);
    double squares = 0;
    for (int64_t i = 0; i < (int64_t)image.width * image.height; i++) {
        GifColorType c = gif->SColorMap->Colors[gif->SavedImages[0].RasterBits[i]];
        squares += pow(c.Red - image.rgb[3 * i], 2) + pow(c.Green - image.rgb[3 * i + 1], 2) +
                   pow(c.Blue - image.rgb[3 * i + 2], 2);
    }
    assert_true(sqrt(squares / (3.0 * image.width * image.height)) < 6); /* of 255 */
    DGifCloseFile(gif, NULL);
    free(image.rgb);
    free(path);
    free(pixels);
}

static void test_wrapping(void **state) {
    (void)state;
    struct Error err;
    struct Canvas canvas;
    const struct Font font = {12, false, CANVAS_INK};
    assert_true(canvas_create(&canvas, 10, 10, 1, &err));
    double width = canvas_text_width(canvas.cr, font, "a red square");
    struct TextBlock block = canvas_wrap(canvas.cr, font, " a red  square moving left ", width, 3);
    assert_true(block.complete);
    assert_int_equal(block.n_lines, 3);
    assert_string_equal(block.lines[0], "a red");
    text_block_free(&block);
    block = canvas_wrap(canvas.cr, font, "a red square moving left", width + 0.1, 1);
    assert_false(block.complete);
    assert_int_equal(block.n_lines, 1);
    assert_non_null(strstr(block.lines[0], "\xE2\x80\xA6"));
    assert_true(canvas_text_width(canvas.cr, font, block.lines[0]) <= width + 0.1);
    text_block_free(&block);
    block =
        canvas_wrap(canvas.cr, font, "\xC3\xA9\xC3\xA9\xC3\xA9", 1, 9); /* e acute, three times */
    assert_int_equal(block.n_lines, 3);
    assert_string_equal(block.lines[2], "\xC3\xA9");
    text_block_free(&block);
    block = canvas_wrap(canvas.cr, font, "  ", width, 2);
    assert_int_equal(block.n_lines, 0);
    text_block_free(&block);
    canvas_free(&canvas);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pixels_become_even_squares),
        cmocka_unit_test(test_values_are_clipped_and_channels_chosen),
        cmocka_unit_test(test_strips_show_first_and_last),
        cmocka_unit_test(test_words_take_their_place),
        cmocka_unit_test(test_large_frames_are_reduced),
        cmocka_unit_test(test_failures_leave_nothing),
        cmocka_unit_test(test_animation),
        cmocka_unit_test(test_palette),
        cmocka_unit_test(test_wrapping),
    };
    return cmocka_run_group_tests(tests, scratch_group_set_up, scratch_group_tear_down);
}
