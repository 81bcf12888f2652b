/* Shapes of tensors in messages: "[1, 6, 1536]". */
#ifndef TMD_DATA_SHAPE_TEXT_H
#define TMD_DATA_SHAPE_TEXT_H

#include <stdbool.h>
#include <stdint.h>

struct ShapeText {
    char s[184]; /* eight numbers of 20 digits with their commas */
};

/* n_dims <= 8.  To be used in place: printf("%s", shape_text(n, shape).s). */
struct ShapeText shape_text(int n_dims, const int64_t *shape);

bool shape_equal(int n_left, const int64_t *left, int n_right, const int64_t *right);

#endif
