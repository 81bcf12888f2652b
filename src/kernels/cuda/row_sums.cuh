/* Sums over the elements of each row, in float64 and the same every time.
 *
 * A term is a functor as elementwise.cuh describes them whose at<N>(row, i) returns the sum over
 * its N elements as a double or Two<double> (and may write per-element results on the way).  A row
 * is summed by as many blocks as its length alone decides, each of which leaves one partial sum in
 * the workspace; a second kernel, a block per row, adds these up and hands the total to
 * `finish(row, total)` on one thread.  No block waits for another, and nothing depends on which one
 * ends first. */
#ifndef TMD_ROW_SUMS_CUH
#define TMD_ROW_SUMS_CUH

#include "kernels/cuda/elementwise.cuh"

enum {
    MAX_PARTS = 1024 /* blocks per row: fills the largest devices, and is soon added up */
};

/* What a term's at() returns. */
template <typename Term>
using SumOf = decltype(std::declval<Term>().template at<1>(int64_t(), int64_t()));

template <int N, typename Sum, typename Term>
__global__ void __launch_bounds__(EACH_BLOCK)
    row_parts_kernel(Sum *parts, Term term, int64_t n_elems, unsigned int n_parts) {
    SHARED_ARRAY(Sum, partial, EACH_BLOCK / WARP);
    int64_t row = blockIdx.x / n_parts, part = blockIdx.x % n_parts;
    int64_t step = (int64_t)n_parts * EACH_BLOCK * N;
    Sum sum(0);
    for (int64_t i = (part * EACH_BLOCK + threadIdx.x) * N; i < n_elems; i += step) {
        if (i + N <= n_elems)
            sum += term.template at<N>(row, i);
        else
            for (int64_t last = i; last < n_elems; last++) sum += term.template at<1>(row, last);
    }
    sum = block_sum(sum, partial);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

template <typename Sum, typename Finish>
__global__ void __launch_bounds__(EACH_BLOCK)
    row_totals_kernel(const Sum *parts, unsigned int n_parts, Finish finish) {
    SHARED_ARRAY(Sum, partial, EACH_BLOCK / WARP);
    int64_t row = blockIdx.x;
    Sum sum(0);
    for (unsigned int i = threadIdx.x; i < n_parts; i += EACH_BLOCK)
        sum += parts[row * n_parts + i];
    sum = block_sum(sum, partial);
    if (threadIdx.x == 0) finish(row, sum);
}

/* finish(row, sum of term over the row) for every row of [rows, n_elems]; `wide` as for each(). The
 * first kept_bytes of the workspace (a multiple of 16) are left alone: there finish may put what
 * later kernels need. */
template <typename Term, typename Finish>
void row_sums(const struct Backend *be, bool wide, int64_t rows, int64_t n_elems, Term term,
              Finish finish, int64_t kept_bytes = 0) {
    using Sum = SumOf<Term>;
    if (rows == 0) return;
    unsigned int n_parts = blocks_for(n_elems, EACH_BLOCK * EACH_WIDTH, MAX_PARTS);
    TMD_CHECK(rows <= INT32_MAX / n_parts, "%lld rows are too many", (long long)rows);
    unsigned int n_rows = (unsigned int)rows, grid = n_rows * n_parts;
    int64_t parts_bytes = (int64_t)grid * (int64_t)sizeof(Sum);
    Sum *parts = (Sum *)((char *)cuda_workspace(be, kept_bytes + parts_bytes) + kept_bytes);
    if (wide)
        CUDA_LAUNCH(be, (row_parts_kernel<EACH_WIDTH, Sum, Term>), grid, EACH_BLOCK, 0, parts, term,
                    n_elems, n_parts);
    else
        CUDA_LAUNCH(be, (row_parts_kernel<1, Sum, Term>), grid, EACH_BLOCK, 0, parts, term, n_elems,
                    n_parts);
    CUDA_LAUNCH(be, (row_totals_kernel<Sum, Finish>), n_rows, EACH_BLOCK, 0, parts, n_parts,
                finish);
}

#endif
