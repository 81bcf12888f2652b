/* Operations that visit every element once, each independent of the others.
 *
 * An operation is a functor F with
 *
 *     template <int N> __device__ ... at(int64_t row, int64_t i) const
 *
 * that does elements i .. i + N - 1 of a row.  each() gives every thread one run of EACH_WIDTH
 * elements where the addresses allow 16-byte accesses, and single elements otherwise; what is left
 * over at the end of a row is done one by one by the row's last thread.  Eight elements are one
 * access for bfloat16 and two for float32, which keeps enough of them in flight to fill the
 * memory's time. */
#ifndef TMD_ELEMENTWISE_CUH
#define TMD_ELEMENTWISE_CUH

#include <utility>

#include "kernels/cuda/kernel.cuh"

enum { EACH_WIDTH = 8, EACH_BLOCK = 256 };

/* N consecutive elements of any type, as float32: in packs where N is so many, else one by one. */
template <int N> struct Run { float at[N]; };
template <int N, typename T> __device__ __forceinline__ Run<N> run_load(const T *from) {
    Run<N> run;
    if constexpr (N % Pack<T>::WIDTH != 0) {
        for (int k = 0; k < N; k++) run.at[k] = to_f32(from[k]);
    } else {
        for (int first = 0; first < N; first += Pack<T>::WIDTH) {
            Pack<T> pack = pack_load(from + first);
            for (int k = 0; k < Pack<T>::WIDTH; k++) run.at[first + k] = to_f32(pack.elems[k]);
        }
    }
    return run;
}
template <int N, typename T> __device__ __forceinline__ void run_store(T *to, const Run<N> &run) {
    if constexpr (N % Pack<T>::WIDTH != 0) {
        for (int k = 0; k < N; k++) to[k] = from_f32<T>(run.at[k]);
    } else {
        for (int first = 0; first < N; first += Pack<T>::WIDTH) {
            Pack<T> pack;
            for (int k = 0; k < Pack<T>::WIDTH; k++) pack.elems[k] = from_f32<T>(run.at[first + k]);
            pack_store(to + first, pack);
        }
    }
}

/* Whether rows `stride` elements apart, from each of `base` on, can be read in runs of EACH_WIDTH.
 * A base that is NULL is not read at all. */
template <typename... T> inline bool runs_fit(int64_t rows, int64_t stride, const T *...base) {
    return (packs_fit(base, rows > 1 ? stride : 0, 0) && ...);
}

template <int N, typename F>
__global__ void __launch_bounds__(EACH_BLOCK)
    each_kernel(F f, int64_t n_elems, unsigned int blocks_per_row) {
    int64_t row = blockIdx.x / blocks_per_row;
    int64_t i = ((int64_t)(blockIdx.x % blocks_per_row) * EACH_BLOCK + threadIdx.x) * N;
    if (i + N <= n_elems)
        f.template at<N>(row, i);
    else
        for (; i < n_elems; i++) f.template at<1>(row, i);
}

/* f on every element of [rows, n_elems]; `wide`: runs_fit() for all that f reads and writes. */
template <typename F>
void each(const struct Backend *be, bool wide, int64_t rows, int64_t n_elems, const F &f) {
    if (rows == 0 || n_elems == 0) return;
    unsigned int per_row = blocks_for(n_elems, EACH_BLOCK * (wide ? EACH_WIDTH : 1), INT32_MAX);
    TMD_CHECK(rows <= INT32_MAX / per_row, "%lld rows of %lld elements are too many blocks",
              (long long)rows, (long long)n_elems);
    unsigned int grid = (unsigned int)rows * per_row;
    if (wide)
        CUDA_LAUNCH(be, (each_kernel<EACH_WIDTH, F>), grid, EACH_BLOCK, 0, f, n_elems, per_row);
    else
        CUDA_LAUNCH(be, (each_kernel<1, F>), grid, EACH_BLOCK, 0, f, n_elems, per_row);
}

/* One float out of the floats at the same place in every input. */
template <typename Op, int N_INPUTS, typename Out, typename In> struct Map {
    Op op;
    Out *out;
    const In *in[N_INPUTS];

    template <int N> __device__ __forceinline__ void at(int64_t, int64_t i) const {
        run_store(out + i, apply<N>(i, std::make_integer_sequence<int, N_INPUTS>{}));
    }
    template <int N, int... INPUT>
    __device__ __forceinline__ Run<N> apply(int64_t i, std::integer_sequence<int, INPUT...>) const {
        Run<N> x[N_INPUTS] = {run_load<N>(in[INPUT] + i)...}, y;
        for (int k = 0; k < N; k++) y.at[k] = op(x[INPUT].at[k]...);
        return y;
    }
};

/* out[i] = op(in[i], more[i]...); out may be one of the inputs. */
template <typename Op, typename Out, typename In, typename... More>
void map(const struct Backend *be, int64_t n_elems, const Op &op, Out *out, const In *in,
         const More *...more) {
    each(be, runs_fit(1, n_elems, out, in, more...), 1, n_elems,
         Map<Op, 1 + sizeof...(More), Out, In>{op, out, {in, more...}});
}

#endif
