/* Transposes of small float matrices, eight by eight in registers. */
#ifndef TMD_TRANSPOSE_H
#define TMD_TRANSPOSE_H

#include <stdint.h>

typedef float TransposeRow __attribute__((vector_size(32), aligned(sizeof(float)), may_alias));
typedef int32_t TransposeLanes __attribute__((vector_size(32)));

/* to[j, i] = from[i, j] for i, j < 8; rows to_ld and from_ld apart.  Three rounds exchange single
 * elements, pairs and halves between rows that are 1, 2 and 4 apart. */
static inline void transpose_8x8(float *to, int64_t to_ld, const float *from, int64_t from_ld) {
    const TransposeLanes low1 = {0, 8, 1, 9, 4, 12, 5, 13}, high1 = {2, 10, 3, 11, 6, 14, 7, 15};
    const TransposeLanes low2 = {0, 1, 8, 9, 4, 5, 12, 13}, high2 = {2, 3, 10, 11, 6, 7, 14, 15};
    const TransposeLanes low4 = {0, 1, 2, 3, 8, 9, 10, 11}, high4 = {4, 5, 6, 7, 12, 13, 14, 15};
    TransposeRow r[8], s[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) r[i] = *(const TransposeRow *)(from + i * from_ld);
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        s[i] = __builtin_shuffle(r[i], r[i + 1], low1);
        s[i + 1] = __builtin_shuffle(r[i], r[i + 1], high1);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        r[i] = __builtin_shuffle(s[i], s[i + 2], low2);
        r[i + 1] = __builtin_shuffle(s[i], s[i + 2], high2);
        r[i + 2] = __builtin_shuffle(s[i + 1], s[i + 3], low2);
        r[i + 3] = __builtin_shuffle(s[i + 1], s[i + 3], high2);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        *(TransposeRow *)(to + i * to_ld) = __builtin_shuffle(r[i], r[i + 4], low4);
        *(TransposeRow *)(to + (i + 4) * to_ld) = __builtin_shuffle(r[i], r[i + 4], high4);
    }
}

/* to [n_columns, n_rows] = transpose of from [n_rows, n_columns]. */
static inline void transpose(float *to, int64_t to_ld, const float *from, int64_t from_ld,
                             int64_t n_rows, int64_t n_columns) {
    int64_t whole_rows = n_rows / 8 * 8, whole_columns = n_columns / 8 * 8;
    for (int64_t i = 0; i < whole_rows; i += 8)
        for (int64_t j = 0; j < whole_columns; j += 8)
            transpose_8x8(to + j * to_ld + i, to_ld, from + i * from_ld + j, from_ld);
    for (int64_t i = 0; i < n_rows; i++)
        for (int64_t j = i < whole_rows ? whole_columns : 0; j < n_columns; j++)
            to[j * to_ld + i] = from[i * from_ld + j];
}

#endif
