/* Median-cut palette and GIF89a through giflib.  See gif.h.
 *
 * Frames are drawn twice, once to count colours and once to write them, so that only one is in
 * memory at a time. */
#include "data/gif.h"

#include <errno.h>
#include <gif_lib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/atomic_file.h"

enum { PALETTE = 256, BINS = 1 << 15 }; /* a bin: the five high bits of each channel */

/* The colours that fell into one bin. */
struct Bin {
    int64_t n_pixels, sum[3]; /* sum of 8-bit channel values */
    int number;
};

/* Neighbouring bins that share a palette entry: bins[begin .. end). */
struct Box {
    int begin, end, axis; /* axis: the channel that varies most */
    int extent;           /* by how much, in steps of 1/32 */
    int64_t n_pixels;
};

struct Palette {
    GifColorType colours[PALETTE];
    uint8_t entry[BINS]; /* of the palette, for each bin that occurs */
};

static int bin_number(const uint8_t *rgb) {
    return rgb[0] >> 3 << 10 | rgb[1] >> 3 << 5 | rgb[2] >> 3;
}

static int bin_channel(int number, int channel) {
    return number >> (10 - 5 * channel) & 31;
}

static void count_colours(struct Bin *bins, const struct PictureImage *image) {
    for (int64_t i = 0; i < (int64_t)image->width * image->height; i++) {
        const uint8_t *rgb = image->rgb + 3 * i;
        struct Bin *bin = &bins[bin_number(rgb)];
        bin->n_pixels++;
        for (int c = 0; c < 3; c++) bin->sum[c] += rgb[c];
    }
}

static struct Box make_box(const struct Bin *bins, int begin, int end) {
    struct Box box = {.begin = begin, .end = end};
    for (int i = begin; i < end; i++) box.n_pixels += bins[i].n_pixels;
    for (int c = 0; c < 3; c++) {
        int low = 31, high = 0;
        for (int i = begin; i < end; i++) {
            int value = bin_channel(bins[i].number, c);
            if (value < low) low = value;
            if (value > high) high = value;
        }
        if (high - low > box.extent) {
            box.extent = high - low;
            box.axis = c;
        }
    }
    return box;
}

static int compare_channel(const struct Bin *a, const struct Bin *b, int channel) {
    return bin_channel(a->number, channel) - bin_channel(b->number, channel);
}
static int by_red(const void *a, const void *b) {
    return compare_channel(a, b, 0);
}
static int by_green(const void *a, const void *b) {
    return compare_channel(a, b, 1);
}
static int by_blue(const void *a, const void *b) {
    return compare_channel(a, b, 2);
}

/* Cuts a box across its longest axis where half of its pixels lie on either side; both halves keep
 * at least one bin. */
static void split_box(struct Bin *bins, struct Box *box, struct Box *half) {
    static int (*const ORDER[3])(const void *, const void *) = {by_red, by_green, by_blue};
    qsort(bins + box->begin, (size_t)(box->end - box->begin), sizeof *bins, ORDER[box->axis]);
    int cut = box->begin + 1;
    int64_t below = bins[box->begin].n_pixels;
    while (cut < box->end - 1 && 2 * below < box->n_pixels) below += bins[cut++].n_pixels;
    *half = make_box(bins, cut, box->end);
    *box = make_box(bins, box->begin, cut);
}

/* The box worth splitting most: many pixels times a long way between them.  NULL: none can be. */
static struct Box *widest_box(struct Box *boxes, int n) {
    struct Box *widest = NULL;
    for (int i = 0; i < n; i++) {
        double worth = (double)boxes[i].n_pixels * boxes[i].extent;
        if (worth > 0 && (!widest || worth > (double)widest->n_pixels * widest->extent))
            widest = &boxes[i];
    }
    return widest;
}

/* `bins` holds all BINS counts; on return, those that occur, reordered. */
static void choose_palette(struct Bin *bins, struct Palette *palette) {
    int n_used = 0, n_boxes = 1;
    for (int i = 0; i < BINS; i++) {
        if (bins[i].n_pixels == 0) continue;
        bins[n_used] = bins[i];
        bins[n_used++].number = i;
    }
    struct Box boxes[PALETTE] = {make_box(bins, 0, n_used)};
    for (struct Box *box; n_boxes < PALETTE && (box = widest_box(boxes, n_boxes));)
        split_box(bins, box, &boxes[n_boxes++]);
    *palette = (struct Palette){0};
    for (int b = 0; b < n_boxes; b++) {
        int64_t sum[3] = {0};
        for (int i = boxes[b].begin; i < boxes[b].end; i++) {
            palette->entry[bins[i].number] = (uint8_t)b;
            for (int c = 0; c < 3; c++) sum[c] += bins[i].sum[c];
        }
        int64_t n = boxes[b].n_pixels;
        palette->colours[b] = (GifColorType){.Red = (GifByteType)((sum[0] + n / 2) / n),
                                             .Green = (GifByteType)((sum[1] + n / 2) / n),
                                             .Blue = (GifByteType)((sum[2] + n / 2) / n)};
    }
}

static bool collect_palette(const struct PictureSheet *sheet, struct Palette *palette,
                            struct Error *err) {
    struct Bin *bins = xcalloc(BINS * sizeof *bins);
    bool counted = true;
    for (int64_t f = 0; counted && f < picture_frames(sheet); f++) {
        struct PictureImage image;
        counted = picture_draw_frame(sheet, f, &image, err);
        if (counted) count_colours(bins, &image);
        free(image.rgb);
    }
    if (counted) choose_palette(bins, palette);
    free(bins);
    return counted;
}

/* Screen, palette, and the extension of 1995 that means "for ever". */
static bool put_head(GifFileType *gif, const struct Palette *palette,
                     const struct PictureImage *image) {
    ColorMapObject *map = GifMakeMapObject(PALETTE, palette->colours);
    TMD_CHECK(map, "out of memory for a colour map");
    EGifSetGifVersion(gif, true);
    bool put = EGifPutScreenDesc(gif, image->width, image->height, 8, 0, map) == GIF_OK;
    GifFreeMapObject(map);
    const unsigned char loop[3] = {1, 0, 0};
    return put && EGifPutExtensionLeader(gif, APPLICATION_EXT_FUNC_CODE) == GIF_OK &&
           EGifPutExtensionBlock(gif, 11, "NETSCAPE2.0") == GIF_OK &&
           EGifPutExtensionBlock(gif, sizeof loop, loop) == GIF_OK &&
           EGifPutExtensionTrailer(gif) == GIF_OK;
}

static bool put_frame(GifFileType *gif, const struct Palette *palette,
                      const struct PictureImage *image, int hundredths) {
    GraphicsControlBlock control = {.DisposalMode = DISPOSE_DO_NOT,
                                    .DelayTime = hundredths,
                                    .TransparentColor = NO_TRANSPARENT_COLOR};
    GifByteType packed[4];
    EGifGCBToExtension(&control, packed);
    if (EGifPutExtension(gif, GRAPHICS_EXT_FUNC_CODE, sizeof packed, packed) != GIF_OK ||
        EGifPutImageDesc(gif, 0, 0, image->width, image->height, false, NULL) != GIF_OK)
        return false;
    GifPixelType *line = xmalloc((unsigned long)image->width);
    bool put = true;
    for (int y = 0; put && y < image->height; y++) {
        for (int x = 0; x < image->width; x++)
            line[x] = palette->entry[bin_number(image->rgb + 3 * ((int64_t)y * image->width + x))];
        put = EGifPutLine(gif, line, image->width) == GIF_OK;
    }
    free(line);
    return put;
}

static int write_to_stream(GifFileType *gif, const GifByteType *bytes, int n_bytes) {
    return (int)fwrite(bytes, 1, (size_t)n_bytes, gif->UserData);
}

/* Fills an open stream.  `err` is set by what failed. */
static bool write_frames(FILE *stream, const char *path, const struct PictureSheet *sheet,
                         const struct Palette *palette, int hundredths, struct Error *err) {
    int code = 0;
    GifFileType *gif = EGifOpen(stream, write_to_stream, &code);
    if (!gif) return error_set(err, "%s: no GIF can be begun: %s", path, GifErrorString(code));
    bool drawn = true, put = true;
    for (int64_t f = 0; drawn && put && f < picture_frames(sheet); f++) {
        struct PictureImage image;
        drawn = picture_draw_frame(sheet, f, &image, err);
        if (drawn && f == 0) put = put_head(gif, palette, &image);
        if (drawn && put) put = put_frame(gif, palette, &image, hundredths);
        free(image.rgb);
    }
    if (EGifCloseFile(gif, &code) != GIF_OK) put = false;
    if (drawn && !put) error_set(err, "%s: the GIF cannot be written: %s", path, strerror(errno));
    return drawn && put;
}

bool gif_write(const char *path, const struct PictureSheet *sheet, double fps, struct Error *err) {
    TMD_CHECK(fps >= 0.1 && fps <= 50, "%g frames a second", fps);
    if (picture_frames(sheet) == 0) return error_set(err, "%s: there is no clip to show", path);
    struct Palette *palette = xmalloc(sizeof *palette);
    char *partial = atomic_file_partial(path);
    FILE *stream = NULL;
    bool written = collect_palette(sheet, palette, err);
    if (written) {
        stream = fopen(partial, "wbe");
        if (!stream)
            written = error_set(err, "%s: cannot be written: %s", partial, strerror(errno));
    }
    if (stream) {
        written = write_frames(stream, path, sheet, palette, (int)lrint(100 / fps), err);
        if (fclose(stream) != 0 && written)
            written = error_set(err, "%s: cannot be written: %s", partial, strerror(errno));
        if (written)
            written = atomic_file_publish(partial, path, err);
        else
            unlink(partial);
    }
    free(partial);
    free(palette);
    return written;
}
