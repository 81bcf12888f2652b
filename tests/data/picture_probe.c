/* Reads the PNG with cairo and looks at every pixel. */
#include "picture_probe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cairo.h>
#include <cmocka.h>

int64_t picture_find_colour(const char *path, int r, int g, int b, double *top, double *bottom) {
    cairo_surface_t *surface = cairo_image_surface_create_from_png(path);
    assert_int_equal(cairo_surface_status(surface), CAIRO_STATUS_SUCCESS);
    int width = cairo_image_surface_get_width(surface);
    int height = cairo_image_surface_get_height(surface);
    int64_t n = 0;
    for (int y = 0; y < height; y++) {
        const unsigned char *row = cairo_image_surface_get_data(surface) +
                                   (long)y * cairo_image_surface_get_stride(surface);
        for (int x = 0; x < width; x++) {
            const unsigned char *bgr = row + 4 * x;
            if (abs(bgr[0] - b) + abs(bgr[1] - g) + abs(bgr[2] - r) > 6) continue;
            *bottom = (double)y / height;
            if (n++ == 0) *top = (double)y / height;
        }
    }
    cairo_surface_destroy(surface);
    return n;
}
