/* Matrix products on the calling thread, of operands that lie in a cache: what gemm.c is made of,
 * and what attention uses for its blocks. */
#ifndef TMD_TILE_GEMM_H
#define TMD_TILE_GEMM_H

#include <stdint.h>

enum {
    /* Floats in the widest vector of the compiler's target. */
    TILE_LANES = __BIGGEST_ALIGNMENT__ / sizeof(float),
    /* A tile of C: its sums stay in registers, of which there are 32 or, of narrower vectors, 16.
     */
    TILE_ROWS = 6,
    TILE_VECTORS = TILE_LANES == 16 ? 4 : 2,
    TILE_COLUMNS = TILE_VECTORS * TILE_LANES
};

/* Rows of B must be readable up to here. */
static inline int64_t tile_padded(int64_t n_columns) {
    return (n_columns + TILE_LANES - 1) / TILE_LANES * TILE_LANES;
}

/* Element (i, k) lies at at[i / TILE_ROWS * tile + i % TILE_ROWS * row + k * column]. */
struct TileOperand {
    const float *at;
    int64_t tile, row, column;
};

/* Element (i, k) at at[i * row + k * column]. */
static inline struct TileOperand tile_operand(const float *at, int64_t row, int64_t column) {
    return (struct TileOperand){at, TILE_ROWS * row, row, column};
}

/* What the product is added to: rows `row` elements apart, 0 for one row that serves all; `at`
 * NULL: nothing. */
struct TileAddend {
    const float *at;
    int64_t row;
};

/* C = alpha A B + D.  C, D [m, n], rows of C ldc apart; D may be C.  A [m, k]; B [k,
 * tile_padded(n)], rows ldb apart, whose columns beyond n may hold anything.  Each element is one
 * sum in the order of k. */
void tile_gemm(int64_t m, int64_t n, int64_t k, float alpha, struct TileOperand a, const float *b,
               int64_t ldb, struct TileAddend d, float *c, int64_t ldc);

#endif
