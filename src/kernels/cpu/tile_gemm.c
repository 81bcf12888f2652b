/* For each k a tile loads TILE_VECTORS vectors of a row of B and broadcasts TILE_ROWS elements of
 * A: 10 loads for 24 multiply-adds of 16 lanes.  gcc's vector types make the sums registers; on
 * loops over plain floats it does not find this arrangement. */
#include "kernels/cpu/tile_gemm.h"

#include <stddef.h>

#include "minmax.h"

enum { WIDEST_TILE = 4 }; /* TILE_VECTORS is at most this */

/* As in memory: at any address. */
typedef float Vector
    __attribute__((vector_size(__BIGGEST_ALIGNMENT__), aligned(sizeof(float)), may_alias));

struct Product {
    int64_t k, ldb, ldc, d_row;
    float alpha;
    struct TileOperand a;
};

/* c[0 .. n_lanes) = d + value; d may be NULL. */
static inline __attribute__((always_inline)) void store(float *c, const float *d, Vector value,
                                                        int64_t n_lanes) {
    if (n_lanes == TILE_LANES) {
        if (d) value += *(const Vector *)d;
        *(Vector *)c = value;
        return;
    }
    for (int64_t j = 0; j < n_lanes; j++) c[j] = d ? value[j] + d[j] : value[j];
}

/* `rows` and `vectors` are constants where this is called; the last vector of C has `last_lanes`
 * columns. */
static inline __attribute__((always_inline)) void tile(int rows, int vectors,
                                                       const struct Product *p, const float *a,
                                                       const float *b, const float *d, float *c,
                                                       int64_t last_lanes) {
    Vector sum[TILE_ROWS][WIDEST_TILE] = {0};
    /* While the sums run, the tile of C travels here; rows far apart are beyond what hardware
     * foresees. */
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) __builtin_prefetch(c + i * p->ldc + v * TILE_LANES, 1);
    for (int64_t k = 0; k < p->k; k++) {
        Vector bk[WIDEST_TILE];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            bk[v] = *(const Vector *)(b + k * p->ldb + v * TILE_LANES);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            float ai = a[i * p->a.row + k * p->a.column];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[i][v] += ai * bk[v];
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            store(c + i * p->ldc + v * TILE_LANES, d ? d + i * p->d_row + v * TILE_LANES : NULL,
                  p->alpha * sum[i][v], v == vectors - 1 ? last_lanes : TILE_LANES);
}

typedef void TileFunction(const struct Product *p, const float *a, const float *b, const float *d,
                          float *c, int64_t last_lanes);

#define TILE_FUNCTION(rows, vectors)                                                               \
    static void tile_##rows##_##vectors(const struct Product *p, const float *a, const float *b,   \
                                        const float *d, float *c, int64_t last_lanes) {            \
        tile(rows, vectors, p, a, b, d, c, last_lanes);                                            \
    }
#define TILE_FUNCTIONS(rows)                                                                       \
    TILE_FUNCTION(rows, 1) TILE_FUNCTION(rows, 2) TILE_FUNCTION(rows, 3) TILE_FUNCTION(rows, 4)
/* clang-format off */
#define TILE_ENTRIES(rows) {tile_##rows##_1, tile_##rows##_2, tile_##rows##_3, tile_##rows##_4}
TILE_FUNCTIONS(1) TILE_FUNCTIONS(2) TILE_FUNCTIONS(3)
TILE_FUNCTIONS(4) TILE_FUNCTIONS(5) TILE_FUNCTIONS(6)

static TileFunction *const tiles[TILE_ROWS][WIDEST_TILE] = {
    TILE_ENTRIES(1), TILE_ENTRIES(2), TILE_ENTRIES(3),
    TILE_ENTRIES(4), TILE_ENTRIES(5), TILE_ENTRIES(6),
};
/* clang-format on */

void tile_gemm(int64_t m, int64_t n, int64_t k, float alpha, struct TileOperand a, const float *b,
               int64_t ldb, struct TileAddend d, float *c, int64_t ldc) {
    const struct Product p = {k, ldb, ldc, d.row, alpha, a};
    for (int64_t column = 0; column < n; column += TILE_COLUMNS) {
        int64_t columns = smaller(TILE_COLUMNS, n - column);
        int64_t vectors = tile_padded(columns) / TILE_LANES;
        int64_t last_lanes = columns - (vectors - 1) * TILE_LANES;
        for (int64_t row = 0; row < m; row += TILE_ROWS)
            tiles[smaller(TILE_ROWS, m - row) - 1][vectors - 1](
                &p, a.at + row / TILE_ROWS * a.tile, b + column,
                d.at ? d.at + row * d.row + column : NULL, c + row * ldc + column, last_lanes);
    }
}
