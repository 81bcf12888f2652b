/* Kernels that are wrong: each mistake that the emulated device promises to find is made, and
 * found. */
#include "device_fixture.h"

#include <cmath>

/* ---- mistakes that make results wrong */

/* A shift by one place through shared memory, with and without its barriers. */
template <bool BEFORE_READ, bool AFTER_READ> __global__ void shift_kernel(float *x, int n_rounds) {
    SHARED_ARRAY(float, row, 128);
    float value = x[threadIdx.x];
    for (int round = 0; round < n_rounds; round++) {
        row[threadIdx.x] = value;
        if (BEFORE_READ) __syncthreads();
        value = row[(threadIdx.x + 1) % blockDim.x];
        if (AFTER_READ) __syncthreads();
    }
    x[threadIdx.x] = value;
}

/* In how many of some launches the kernel shifts wrongly. */
static int n_wrong_shifts(void (*kernel)(float *, int), int n_rounds) {
    Stream stream;
    enum { N = 128 };
    Array<float> x(N);
    int n_wrong = 0;
    for (int launch = 0; launch < 20; launch++) {
        x.write(counting(N), stream);
        EMU_LAUNCH(stream, kernel, 1, N, 0, x, n_rounds);
        std::vector<float> shifted = x.read(stream);
        bool right = true;
        for (int i = 0; i < N; i++) right &= shifted[i] == (float)((i + n_rounds) % N);
        n_wrong += !right;
    }
    return n_wrong;
}

static void a_missing_barrier_shows(void **) {
    assert_int_equal(n_wrong_shifts(shift_kernel<true, true>, 5), 0);
    assert_int_equal(n_wrong_shifts(shift_kernel<true, false>, 1), 0);
    assert_int_equal(n_wrong_shifts(shift_kernel<false, false>, 1), 20);
    assert_int_equal(n_wrong_shifts(shift_kernel<false, true>, 5), 20);
    assert_int_equal(n_wrong_shifts(shift_kernel<true, false>, 5), 20);
}

__global__ void unwritten_shared_kernel(float *out) {
    SHARED_ARRAY(float, row, 32);
    out[threadIdx.x] = row[threadIdx.x];
    row[threadIdx.x] = 1;
}

static void unwritten_memory_is_nan(void **) {
    Stream stream;
    Array<float> x(100), out(64);
    for (float value : x.read(stream)) assert_true(std::isnan(value));
    for (int i = 0; i < 2; i++) {
        EMU_LAUNCH(stream, unwritten_shared_kernel, 2, 32, 0, out);
        for (int j = 0; j < 32; j++) assert_true(std::isnan(out.read(stream)[j]));
    }
}

/* ---- mistakes that end the program */

__global__ void divergent_kernel(float *x) {
    if (threadIdx.x < 16)
        __syncthreads();
    else
        __syncthreads();
    x[0] = 1;
}
static bool diverge(void) {
    Stream stream;
    Array<float> x(1);
    EMU_LAUNCH(stream, divergent_kernel, 1, 64, 0, x);
    must(cudaStreamSynchronize(stream));
    return true;
}

/* What a shuffle can be asked wrongly. */
enum Shuffle { LANES_ENDED, LANES_AT_BARRIER, LANES_ELSEWHERE, MASK_WITHOUT_SELF, VALUE_OF_NOBODY };
__global__ void bad_shuffle_kernel(float *x, Shuffle mistake) {
    float value = (float)threadIdx.x;
    bool half = threadIdx.x < 16;
    if (mistake == LANES_ENDED && !half) return;
    if (mistake == LANES_AT_BARRIER && !half) __syncthreads();
    if (mistake == LANES_ELSEWHERE && !half) {
        __ballot_sync(~0u, 1);
        return;
    }
    unsigned int mask = mistake == MASK_WITHOUT_SELF ? 0xfffffffe
                        : mistake == VALUE_OF_NOBODY ? (half ? 0xffff : 0xffff0000)
                                                     : ~0u;
    x[threadIdx.x] = __shfl_xor_sync(mask, value, 16);
    if (mistake == LANES_AT_BARRIER && half) __syncthreads();
}
template <Shuffle MISTAKE> static bool shuffle_wrongly(void) {
    Stream stream;
    Array<float> x(32);
    EMU_LAUNCH(stream, bad_shuffle_kernel, 1, 32, 0, x, MISTAKE);
    must(cudaStreamSynchronize(stream));
    return true;
}

static void threads_that_wait_in_vain_are_told(void **) {
    expect_rejected(diverge, "divergent barrier");
    expect_rejected(shuffle_wrongly<LANES_ENDED>, "which lane 16 does not reach");
    expect_rejected(shuffle_wrongly<LANES_AT_BARRIER>, "which lane 16 does not reach");
    expect_rejected(shuffle_wrongly<LANES_ELSEWHERE>, "does not reach");
    expect_rejected(shuffle_wrongly<MASK_WITHOUT_SELF>, "which lacks it");
    expect_rejected(shuffle_wrongly<VALUE_OF_NOBODY>, "takes the value of lane");
}

__global__ void write_kernel(float *x, long at) {
    x[at] = 1;
}
template <long AT> static bool write_at(void) {
    Stream stream;
    Array<float> before(8), x(10), after(8);
    EMU_LAUNCH(stream, write_kernel, 1, 1, 0, x, AT);
    must(cudaStreamSynchronize(stream));
    return true;
}
__global__ void shared_write_kernel(float *x, int at) {
    SHARED_ARRAY(float, row, 8);
    SHARED_ARRAY(float, other, 8);
    float *begin = row;
    begin[at] = other[0] = 1;
    x[0] = row[0];
}
template <int AT> static bool write_shared_at(void) {
    Stream stream;
    Array<float> x(1);
    EMU_LAUNCH(stream, shared_write_kernel, 1, 1, 0, x, AT);
    must(cudaStreamSynchronize(stream));
    return true;
}

static void writes_beside_are_told(void **) {
    expect_overrun_rejected(write_at<10>,
                            "write_kernel wrote past the end of an allocation of 40 bytes");
    expect_overrun_rejected(write_at<-1>,
                            "write_kernel wrote before the start of an allocation of 40 bytes");
    expect_overrun_rejected(write_at<400>, "bytes after the end of an allocation of 40 bytes");
    expect_overrun_rejected(write_shared_at<8>, "wrote beside its shared arrays");
}

/* Of the first of three pages, 40 bytes are claimed. */
template <long AT> static bool write_at_in_claim(void) {
    Stream stream;
    Array<float> x(3 * 1024);
    emu_claim(stream, x, 40);
    EMU_LAUNCH(stream, write_kernel, 1, 1, 0, x, AT);
    must(cudaStreamSynchronize(stream));
    return true;
}
static bool fill_more_than_claimed(void) {
    Stream stream;
    Array<float> x(100);
    emu_claim(stream, x, 40);
    must(cudaMemsetAsync(x, 0, 44, stream));
    return true;
}
static bool claim_too_much(void) {
    Stream stream;
    Array<float> x(100);
    emu_claim(stream, x, 404);
    return true;
}

static void writes_beside_a_claim_are_told(void **) {
    assert_true(write_at_in_claim<9>());
    expect_overrun_rejected(write_at_in_claim<10>,
                            "write_kernel wrote past the end of a claim of 40 bytes");
    expect_rejected(write_at_in_claim<2500>,
                    "byte 10000 of an allocation of which 40 bytes are claimed");
    expect_rejected(fill_more_than_claimed,
                    "44 bytes from byte 0 on run past the end of a claim of 40 bytes");
    expect_rejected(claim_too_much, "a claim of 404 bytes of an allocation of 400");
}

/* Within a page and over several. */
static void what_is_not_claimed_is_lost(void **) {
    Stream stream;
    enum { N = 5 * 1024 };
    Array<float> x(N);
    for (size_t n_kept : {N - 1, N - 1500, 1024, 7, 0}) {
        x.write(counting(N), stream);
        emu_claim(stream, x, n_kept * sizeof(float));
        emu_claim(stream, x, x.n_bytes());
        std::vector<float> left = x.read(stream);
        for (size_t i = 0; i < N; i++)
            assert_true(i < n_kept ? left[i] == (float)i : std::isnan(left[i]));
    }
}

/* The pointer hides in a structure, where the launch cannot see it. */
struct Hidden {
    float *x;
};
__global__ void hidden_kernel(Hidden hidden) {
    hidden.x[3] = 1;
}
static bool use_after_free(void) {
    Stream stream;
    float *x;
    must(cudaMalloc(&x, 40));
    must(cudaFree(x));
    EMU_LAUNCH(stream, hidden_kernel, 1, 1, 0, Hidden{x});
    must(cudaStreamSynchronize(stream));
    return true;
}
static bool pass_freed_pointer(void) {
    Stream stream;
    float *x;
    must(cudaMalloc(&x, 40));
    must(cudaFree(x));
    EMU_LAUNCH(stream, write_kernel, 1, 1, 0, x, 0);
    return true;
}
static bool pass_host_pointer(void) {
    Stream stream;
    float x[4];
    EMU_LAUNCH(stream, write_kernel, 1, 1, 0, x, 0);
    return true;
}

static void pointers_that_are_none_of_the_device_are_told(void **) {
    expect_rejected(use_after_free, "byte 12 of 40 that were freed");
    expect_rejected(pass_freed_pointer, "allocation of 40 bytes that was freed");
    expect_rejected(pass_host_pointer, "is not device memory");
}

__attribute__((noinline)) static int dig(volatile char *above, int depth) {
    volatile char here[1024];
    here[0] = above[0];
    return depth == 0 ? here[0] : dig(here, depth - 1) + here[0];
}
__global__ void deep_kernel(int *out) {
    char first = 1;
    *out = dig(&first, 100000);
}
static bool recurse(void) {
    Stream stream;
    Array<int> out(1);
    EMU_LAUNCH(stream, deep_kernel, 1, 1, 0, out);
    must(cudaStreamSynchronize(stream));
    return true;
}

static void a_stack_that_is_used_up_is_told(void **) {
    expect_rejected(recurse, "used up its stack");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_barrier_shows),
        cmocka_unit_test(unwritten_memory_is_nan),
        cmocka_unit_test(threads_that_wait_in_vain_are_told),
        cmocka_unit_test(writes_beside_are_told),
        cmocka_unit_test(writes_beside_a_claim_are_told),
        cmocka_unit_test(what_is_not_claimed_is_lost),
        cmocka_unit_test(pointers_that_are_none_of_the_device_are_told),
        cmocka_unit_test(a_stack_that_is_used_up_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
