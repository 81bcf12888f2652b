/* Shapes as text. */
#include "data/shape_text.h"

#include <stdio.h>
#include <string.h>

#include "error.h"

struct ShapeText shape_text(int n_dims, const int64_t *shape) {
    TMD_CHECK(n_dims >= 0 && n_dims <= 8, "a shape of %d dimensions", n_dims);
    struct ShapeText text = {"["};
    int used = 1;
    for (int d = 0; d < n_dims; d++)
        used += snprintf(text.s + used, sizeof text.s - (size_t)used, d ? ", %lld" : "%lld",
                         (long long)shape[d]);
    text.s[used] = ']';
    text.s[used + 1] = '\0';
    return text;
}

bool shape_equal(int n_left, const int64_t *left, int n_right, const int64_t *right) {
    return n_left == n_right && memcmp(left, right, (size_t)n_left * sizeof *left) == 0;
}
