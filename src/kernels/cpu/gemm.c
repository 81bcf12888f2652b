/* The blocking of Goto & van de Geijn ("Anatomy of high-performance matrix multiplication", 2008):
 *
 *     for each stretch of n, for each depth of k:
 *         op(B) is packed into panels of TILE_COLUMNS columns
 *         for each block of rows and group of panels, one thread:
 *             C block += A block x panel, tile by tile
 *
 * Where the panels divide evenly each thread has its own and packs them itself: nobody waits for
 * them, and no core fetches what another has just written.  Else all pack together, and share the
 * tasks.
 *
 * A block of A that lies with k along its rows is read where it is.  Of a transposed one a tile
 * needs only a few elements of each cache line, so that it is first copied tile by tile. */
#include "kernels/cpu/gemm.h"

#include <omp.h>
#include <string.h>

#include "error.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/transpose.h"
#include "minmax.h"

_Static_assert((int)GEMM_THREAD_FLOATS <= (int)CPU_SCRATCH_FLOATS, "a thread's scratch");

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* Copies `rows` rows of n floats.  With a constant n each row is a few vectors and no call. */
static inline __attribute__((always_inline)) void
copy_rows(float *to, int64_t to_ld, const float *from, int64_t from_ld, int64_t rows, int64_t n) {
    for (int64_t i = 0; i < rows; i++)
        memcpy(to + i * to_ld, from + i * from_ld, (size_t)n * sizeof *to);
}

/* Panel [depth, TILE_COLUMNS] of op(B), whose first element is (k, column). */
static void pack_panel(float *panel, struct GemmOperand b, int64_t k, int64_t depth, int64_t column,
                       int64_t n_columns) {
    if (!b.transposed) {
        const float *rows = b.at + k * b.ld + column;
        if (n_columns == TILE_COLUMNS)
            copy_rows(panel, TILE_COLUMNS, rows, b.ld, depth, TILE_COLUMNS);
        else
            copy_rows(panel, TILE_COLUMNS, rows, b.ld, depth, n_columns);
        return;
    }
    transpose(panel, TILE_COLUMNS, b.at + column * b.ld + k, b.ld, n_columns, depth);
}

/* How a result is cut into tasks: blocks of rows by groups of panels. */
struct Tasks {
    int64_t rows, n_row_blocks, panels, n_panel_groups;
    bool own_panels; /* one group for each thread */
};

/* Blocks as large as the scratch allows, but enough of them for all threads. */
static struct Tasks tasks_of(int64_t m, int64_t n_panels, int64_t n_threads) {
    enum {
        PANELS = 8,
        OWN_PANELS = 4 /* for fewer it does not pay that each thread reads all of A */
    };
    int64_t each = n_panels / n_threads;
    if (n_panels % n_threads == 0 && each >= OWN_PANELS)
        return (struct Tasks){GEMM_ROWS, ceil_div(m, GEMM_ROWS), each, n_threads, true};
    struct Tasks t = {.rows = GEMM_ROWS, .panels = smaller(PANELS, n_panels)};
    int64_t per_thread = ceil_div(ceil_div(m, n_threads), TILE_ROWS) * TILE_ROWS;
    t.rows = smaller(t.rows, per_thread);
    t.n_row_blocks = ceil_div(m, t.rows);
    if (t.n_row_blocks * ceil_div(n_panels, t.panels) < n_threads)
        t.panels = ceil_div(n_panels, ceil_div(n_threads, t.n_row_blocks));
    t.n_panel_groups = ceil_div(n_panels, t.panels);
    return t;
}

/* One stretch of op(B): columns [column, column + n_columns) of terms [k, k + depth).  Its column
 * j, first of a panel, begins at panels + j * per_column; the panel's rows are ld apart. */
struct Stretch {
    int64_t k, depth, column, n_columns;
    const float *panels;
    int64_t per_column, ld;
};

/* Panels [first, end) of the stretch, to where all threads find them. */
static void pack_panels(const struct Gemm *g, const struct Stretch *s, float *panels, int64_t first,
                        int64_t end) {
    for (int64_t p = first; p < end; p++)
        pack_panel(panels + p * TILE_COLUMNS * s->depth, g->b, s->k, s->depth,
                   s->column + p * TILE_COLUMNS,
                   smaller(TILE_COLUMNS, s->n_columns - p * TILE_COLUMNS));
}

/* Terms of the stretch in op(A)'s rows [row, row + n_rows). */
static struct TileOperand block_of_a(const struct Gemm *g, const struct Stretch *s, int64_t row,
                                     int64_t n_rows, float *packed) {
    enum {
        COPIED = 8, /* floats in one move: of a tile's row and of what the next row overwrites */
        LINE = 64 / sizeof(float),
        AHEAD = 8 /* rows: often pages apart, which no hardware foresees */
    };
    if (!g->a.transposed) return tile_operand(g->a.at + row * g->a.ld + s->k, g->a.ld, 1);
    int64_t tile = s->depth * TILE_ROWS + COPIED;
    for (int64_t k = 0; k < s->depth; k++) {
        const float *from = g->a.at + (s->k + k) * g->a.ld + row;
        float *to = packed + k * TILE_ROWS;
        int64_t i = 0;
        if (k + AHEAD < s->depth)
            for (int64_t j = 0; j < n_rows; j += LINE)
                __builtin_prefetch(from + AHEAD * g->a.ld + j);
        for (; i + COPIED <= n_rows; i += TILE_ROWS, to += tile)
            memcpy(to, from + i, COPIED * sizeof *to);
        for (; i < n_rows; i += TILE_ROWS, to += tile)
            for (int64_t j = i; j < smaller(i + TILE_ROWS, n_rows); j++) to[j - i] = from[j];
    }
    return (struct TileOperand){packed, tile, 1, TILE_ROWS};
}

static void run_task(const struct Gemm *g, const struct Stretch *s, const struct Tasks *t,
                     int64_t row_block, int64_t panel_group, float *packed_a) {
    int64_t row = row_block * t->rows, n_rows = smaller(t->rows, g->m - row);
    int64_t first = panel_group * t->panels * TILE_COLUMNS;
    int64_t end = smaller(first + t->panels * TILE_COLUMNS, s->n_columns);
    struct TileOperand a = block_of_a(g, s, row, n_rows, packed_a);
    struct TileAddend d = s->k ? (struct TileAddend){g->c, g->ldc} : g->addend;
    if (d.at) d.at += row * d.row + s->column;
    float *c = g->c + row * g->ldc + s->column;
    for (int64_t j = first; j < end; j += TILE_COLUMNS)
        tile_gemm(n_rows, smaller(TILE_COLUMNS, end - j), s->depth, 1.0f, a,
                  s->panels + j * s->per_column, s->ld,
                  (struct TileAddend){d.at ? d.at + j : NULL, d.row}, c + j, g->ldc);
    if (g->finish.run && s->k + s->depth == g->k)
        g->finish.run(g->finish.context, row, n_rows, s->column + first, end - first);
}

/* Packing B pays by its use for many rows, and where its own rows are pages apart.  Whole vectors
 * of its last row must not lead beyond it. */
static bool usable_as_it_lies(const struct Gemm *g) {
    enum { FEW_ROWS = 512, NEAR = 1024 };
    return !g->b.transposed && g->m <= FEW_ROWS && g->b.ld <= NEAR && tile_padded(g->n) == g->n;
}

/* All threads of a team together, each with the same `t`. */
static void multiply_own_panels(const struct Gemm *g, const struct Stretch *s,
                                const struct Tasks *t, float *panels, float *packed_a) {
    int64_t group = omp_get_thread_num();
    if (panels) pack_panels(g, s, panels, group * t->panels, (group + 1) * t->panels);
    for (int64_t block = 0; block < t->n_row_blocks; block++)
        run_task(g, s, t, block, group, packed_a);
#pragma omp barrier
}

static void multiply_shared_panels(const struct Gemm *g, const struct Stretch *s,
                                   const struct Tasks *t, float *panels, float *packed_a) {
    if (panels) {
#pragma omp for schedule(static)
        for (int64_t p = 0; p < ceil_div(s->n_columns, TILE_COLUMNS); p++)
            pack_panels(g, s, panels, p, p + 1);
    }
#pragma omp for schedule(static) collapse(2)
    for (int64_t block = 0; block < t->n_row_blocks; block++)
        for (int64_t group = 0; group < t->n_panel_groups; group++)
            run_task(g, s, t, block, group, packed_a);
}

/* All threads of a team together. */
static void multiply_stretch(const struct Gemm *g, struct Stretch s, float *panels,
                             float *packed_a) {
    struct Tasks t = tasks_of(g->m, ceil_div(s.n_columns, TILE_COLUMNS), omp_get_num_threads());
    if (usable_as_it_lies(g)) {
        s.panels = g->b.at + s.k * g->b.ld + s.column;
        s.per_column = 1;
        s.ld = g->b.ld;
        panels = NULL;
    } else {
        s.panels = panels;
        s.per_column = s.depth;
        s.ld = TILE_COLUMNS;
    }
    (t.own_panels ? multiply_own_panels : multiply_shared_panels)(g, &s, &t, panels, packed_a);
}

/* By all threads of a team, or by one thread outside any. */
static void multiply(const struct Backend *be, const struct Gemm *g) {
    const struct CpuState *state = be->state;
    int64_t depth = ceil_div(g->k, ceil_div(g->k, GEMM_DEPTH));
    for (int64_t column = 0; column < g->n; column += GEMM_COLUMNS)
        for (int64_t k = 0; k < g->k; k += depth)
            multiply_stretch(g,
                             (struct Stretch){.k = k,
                                              .depth = smaller(depth, g->k - k),
                                              .column = column,
                                              .n_columns = smaller(GEMM_COLUMNS, g->n - column)},
                             state->panels, cpu_thread_scratch(be));
}

/* A product too small for a team does without one in so many words: with an `if` clause libgomp
 * would allocate a team of one, and the next larger team anew. */
void cpu_gemm(const struct Backend *be, const struct Gemm *g) {
    const double worth_a_team = 2e6; /* multiply-adds: some ten microseconds of one thread */
    TMD_CHECK(g->k > 0, "a product over %lld terms", (long long)g->k);
    if ((double)g->m * (double)g->n * (double)g->k <= worth_a_team) {
        multiply(be, g);
    } else {
#pragma omp parallel
        multiply(be, g);
    }
}
