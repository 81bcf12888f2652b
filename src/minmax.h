/* The smaller and the larger of two integers. */
#ifndef TMD_MINMAX_H
#define TMD_MINMAX_H

#include <stdint.h>

static inline int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static inline int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

#endif
