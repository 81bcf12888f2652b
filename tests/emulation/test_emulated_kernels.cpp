/* Kernels that are right: the emulated device computes what a device would, and refuses the
 * launches that one would refuse. */
#include "device_fixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <cuda_bf16.h>

enum { WARP = 32 };

template <typename T>
__global__ void __launch_bounds__(1024) sum_kernel(const T *x, int n, T *sums) {
    SHARED_ARRAY(T, partial, 32);
    T sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
    for (int offset = WARP / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
    if (threadIdx.x % WARP == 0) partial[threadIdx.x / WARP] = sum;
    __syncthreads();
    sum = 0;
    for (unsigned int i = 0; i < blockDim.x / WARP; i++) sum += partial[i];
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

template <typename T> static void check_sums(void) {
    Stream stream;
    enum { N = 777, BLOCKS = 5 };
    std::vector<T> x(N);
    std::iota(x.begin(), x.end(), T(1));
    Array<T> device_x(N), sums(BLOCKS);
    device_x.write(x, stream);
    for (int block : {32, 64, 96, 256, 1024}) {
        EMU_LAUNCH(stream, (sum_kernel<T>), BLOCKS, block, 0, device_x, N, sums);
        for (T sum : sums.read(stream)) assert_true(sum == N * (N + 1) / 2);
    }
}

static void block_sums_are_right(void **) {
    check_sums<float>();
    check_sums<double>();
    check_sums<int>();
}

__global__ void place_kernel(int *places) {
    int block = (int)((blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x);
    int thread = (int)((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x);
    int n_threads = (int)(blockDim.x * blockDim.y * blockDim.z);
    places[block * n_threads + thread] += 1000 * block + thread;
}

static void every_thread_of_every_block_runs_once(void **) {
    Stream stream;
    enum { BLOCKS = 3 * 4 * 2, THREADS = 5 * 3 * 3 };
    Array<int> places(BLOCKS * THREADS);
    for (int repeat = 0; repeat < 12; repeat++) { /* orders differ from launch to launch */
        must(cudaMemsetAsync(places, 0, places.n_bytes(), stream));
        EMU_LAUNCH(stream, place_kernel, dim3(3, 4, 2), dim3(5, 3, 3), 0, places);
        std::vector<int> host = places.read(stream);
        for (int i = 0; i < BLOCKS * THREADS; i++)
            assert_int_equal(host[i], 1000 * (i / THREADS) + i % THREADS);
    }
}

/* Wrong on a device, and here the way to see who ran when. */
__global__ void order_kernel(int *order, int *n_before) {
    order[(*n_before)++] = (int)(blockIdx.x * blockDim.x + threadIdx.x);
}

static void orders_differ_from_launch_to_launch(void **) {
    Stream stream;
    enum { THREADS = 96, BLOCKS = 3, N = THREADS * BLOCKS };
    Array<int> order(N), n_before(1);
    bool blocks_vary = false, warps_vary = false, lanes_vary = false;
    for (int launch = 0; launch < 20; launch++) {
        must(cudaMemsetAsync(n_before, 0, sizeof(int), stream));
        EMU_LAUNCH(stream, order_kernel, BLOCKS, THREADS, 0, order, n_before);
        std::vector<int> host = order.read(stream);
        blocks_vary |= host[0] / THREADS != 0;
        warps_vary |= host[0] % THREADS / WARP != 0;
        lanes_vary |= host[0] % WARP != 0;
        std::vector<bool> seen(N, false);
        for (int thread : host) seen[thread] = true;
        assert_true(std::count(seen.begin(), seen.end(), true) == N);
    }
    assert_true(blocks_vary && warps_vary && lanes_vary);
}

__global__ void shuffle_kernel(int *out) {
    int lane = (int)threadIdx.x;
    out[lane] = __shfl_sync(~0u, lane, 7);
    out[32 + lane] = __shfl_sync(~0u, lane, 3, 8);
    out[64 + lane] = __shfl_xor_sync(~0u, lane, 5);
    out[96 + lane] = __shfl_down_sync(~0u, lane, 2);
    out[128 + lane] = __shfl_up_sync(~0u, lane, 3, 16);
    out[160 + lane] = (int)__ballot_sync(~0u, lane % 3 == 0);
}

static void warp_operations_move_what_they_should(void **) {
    Stream stream;
    Array<int> out(6 * WARP);
    EMU_LAUNCH(stream, shuffle_kernel, 1, WARP, 0, out);
    std::vector<int> host = out.read(stream);
    for (int lane = 0; lane < WARP; lane++) {
        assert_int_equal(host[lane], 7);
        assert_int_equal(host[32 + lane], lane / 8 * 8 + 3);
        assert_int_equal(host[64 + lane], lane ^ 5);
        assert_int_equal(host[96 + lane], lane < 30 ? lane + 2 : lane);
        assert_int_equal(host[128 + lane], lane % 16 >= 3 ? lane - 3 : lane);
        assert_int_equal(host[160 + lane], 0x49249249);
    }
}

/* Threads without work leave early, whole warps and parts of one. */
__global__ void early_exit_kernel(float *x, unsigned int n) {
    SHARED_DYNAMIC(float, copy);
    if (threadIdx.x >= n) return;
    copy[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = copy[n - 1 - threadIdx.x];
}

static void ended_threads_are_not_waited_for(void **) {
    Stream stream;
    enum { N = 70 };
    Array<float> x(N);
    x.write(counting(N), stream);
    EMU_LAUNCH(stream, early_exit_kernel, 1, 256, N * sizeof(float), x, N);
    std::vector<float> host = x.read(stream);
    for (int i = 0; i < N; i++) assert_true(host[i] == N - 1 - i);
}

__global__ void big_shared_kernel(float *out, int n) {
    SHARED_DYNAMIC(float, big);
    big[n - 1] = 3;
    *out = big[n - 1];
}

static void shared_memory_can_be_raised(void **) {
    Stream stream;
    Array<float> out(1);
    enum { N_BYTES = 100 * 1024 };
    EMU_LAUNCH(stream, big_shared_kernel, 1, 1, N_BYTES, out, N_BYTES / 4);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    must(cudaFuncSetAttribute(big_shared_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              N_BYTES));
    EMU_LAUNCH(stream, big_shared_kernel, 1, 1, N_BYTES, out, N_BYTES / 4);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    assert_true(out.read(stream)[0] == 3);
    assert_int_equal(cudaFuncSetAttribute(big_shared_kernel,
                                          cudaFuncAttributeMaxDynamicSharedMemorySize, 228 * 1024),
                     cudaErrorInvalidValue);
    cudaGetLastError();
}

__global__ void argument_kernel(float *out, double x) {
    *out = (float)x;
}

static void arguments_convert_and_are_kept_as_of_the_launch(void **) {
    Stream stream;
    Array<float> out(1);
    int x = 7;
    EMU_LAUNCH(stream, argument_kernel, 1, 1, 0, out, x);
    x = 8;
    assert_true(out.read(stream)[0] == 7);
}

static void bfloat16_rounds_to_nearest_even(void **) {
    struct {
        float from;
        unsigned short bits;
    } cases[] = {{1.0f, 0x3f80},     {1.00390625f, 0x3f80}, {1.01171875f, 0x3f82},
                 {3.4e38f, 0x7f80},  {-INFINITY, 0xff80},   {NAN, 0x7fff},
                 {1.0e-40f, 0x0001}, {-0.0f, 0x8000},       {1.00390637f, 0x3f81}};
    for (const auto &test : cases)
        assert_int_equal(__bfloat16_as_ushort(__float2bfloat16(test.from)), test.bits);
    assert_true(__bfloat162float(__ushort_as_bfloat16(0x3f82)) == 1.015625f);
}

/* ---- launches that a device refuses */

static void launches_beyond_the_limits_fail(void **) {
    Stream stream;
    Array<int> places(1), many(3 * 5 * 1024);
    struct {
        dim3 grid, block;
        size_t shared_bytes;
    } bad[] = {
        {1, 1025, 0}, {1, dim3(32, 33), 0},    {1, dim3(1, 1, 65), 0},     {0, 32, 0},
        {1, 0, 0},    {dim3(1, 65536), 32, 0}, {dim3(1, 1, 65536), 32, 0}, {1, 32, 48 * 1024 + 1}};
    for (const auto &launch : bad) {
        EMU_LAUNCH(stream, place_kernel, launch.grid, launch.block, launch.shared_bytes, places);
        assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    }
    EMU_LAUNCH(stream, place_kernel, dim3(1, 3, 5), dim3(32, 32), 48 * 1024, many);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_sums_are_right),
        cmocka_unit_test(every_thread_of_every_block_runs_once),
        cmocka_unit_test(orders_differ_from_launch_to_launch),
        cmocka_unit_test(warp_operations_move_what_they_should),
        cmocka_unit_test(ended_threads_are_not_waited_for),
        cmocka_unit_test(shared_memory_can_be_raised),
        cmocka_unit_test(arguments_convert_and_are_kept_as_of_the_launch),
        cmocka_unit_test(bfloat16_rounds_to_nearest_even),
        cmocka_unit_test(launches_beyond_the_limits_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
