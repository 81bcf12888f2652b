/* Every mistake in a call of the emulated cuBLASLt is told: by the status that the library would
 * return, or, where it could not know, by the end of the program. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cublaslt_call.h"

/* ---- what is refused */

/* One mistake.  The heuristic is asked before `late`, and after `early`. */
struct Mistake {
    const char *name;
    uint32_t epilogue;
    void (*early)(struct Call *call);
    void (*late)(struct Call *call);
    cublasStatus_t expected;
};

static void ld_too_small(struct Call *call) {
    call->a.ld = call->a.rows - 1;
}
static void rows_disagree(struct Call *call) {
    call->d.rows--;
}
static void depths_disagree(struct Call *call) {
    call->b.rows--;
}
static void transpose_forgotten(struct Call *call) {
    call->transposed_a = CUBLAS_OP_T;
}
static void types_mixed(struct Call *call) {
    call->b.type = CUDA_R_32F;
}
static void no_bias(struct Call *call) {
    CUDA_OK(cudaFree(call->bias.device));
    call->bias.device = NULL;
}
static void no_aux(struct Call *call) {
    CUDA_OK(cudaFree(call->aux.device));
    call->aux.device = NULL;
}
static void odd_aux_ld(struct Call *call) {
    call->aux.ld = M + 1;
}
static void short_aux_ld(struct Call *call) {
    call->aux.ld = M - 8;
}
static void no_handle(struct Call *call) {
    OK(cublasLtDestroy(call->handle));
    call->handle = NULL;
}
static void misaligned_a(struct Call *call) {
    call->a.device = (char *)call->a.device + 2;
}
static void misaligned_d(struct Call *call) {
    call->d.device = (char *)call->d.device + 8;
}
static void misaligned_workspace(struct Call *call) {
    call->workspace = (char *)call->workspace + 64;
}
static void small_workspace(struct Call *call) {
    call->workspace_bytes = 1024;
}
static void other_epilogue(struct Call *call) {
    uint32_t plain = PLAIN;
    OK(cublasLtMatmulDescSetAttribute(call->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &plain,
                                      sizeof plain));
}
static void overlapping_c(struct Call *call) {
    call->in_place = false;
    call->c.device = (char *)call->d.device + 16;
}
static void c_in_other_layout(struct Call *call) {
    call->in_place = false;
    call->c.device = call->d.device;
    OK(cublasLtMatrixLayoutDestroy(call->c_layout));
    call->c.ld++;
    call->c_layout = matrix_layout(&call->c);
}
static void no_operand(struct Call *call) {
    call->b.device = NULL;
}

static const struct Mistake mistakes[] = {
    {"ld smaller than rows", PLAIN, ld_too_small, NULL, CUBLAS_STATUS_INVALID_VALUE},
    {"rows of D", PLAIN, rows_disagree, NULL, CUBLAS_STATUS_INVALID_VALUE},
    {"depth of B", PLAIN, depths_disagree, NULL, CUBLAS_STATUS_INVALID_VALUE},
    {"A not transposed", PLAIN, transpose_forgotten, NULL, CUBLAS_STATUS_INVALID_VALUE},
    {"types of A and B", PLAIN, types_mixed, NULL, CUBLAS_STATUS_NOT_SUPPORTED},
    {"no bias", BIAS, no_bias, NULL, CUBLAS_STATUS_INVALID_VALUE},
    {"no place for sums", SUMS, no_bias, NULL, CUBLAS_STATUS_INVALID_VALUE},
    {"no aux", GELU, no_aux, NULL, CUBLAS_STATUS_INVALID_VALUE},
    {"aux ld not a multiple of 8", GELU_GRAD, odd_aux_ld, NULL, CUBLAS_STATUS_INVALID_VALUE},
    {"aux ld smaller than rows", GELU, short_aux_ld, NULL, CUBLAS_STATUS_INVALID_VALUE},
    {"no handle", PLAIN, no_handle, NULL, CUBLAS_STATUS_NOT_INITIALIZED},
    {"A misaligned", PLAIN, NULL, misaligned_a, CUBLAS_STATUS_INVALID_VALUE},
    {"D misaligned", PLAIN, NULL, misaligned_d, CUBLAS_STATUS_INVALID_VALUE},
    {"workspace misaligned", PLAIN, NULL, misaligned_workspace, CUBLAS_STATUS_INVALID_VALUE},
    {"workspace too small", PLAIN, NULL, small_workspace, CUBLAS_STATUS_INVALID_VALUE},
    {"algorithm of another epilogue", BIAS, NULL, other_epilogue, CUBLAS_STATUS_INVALID_VALUE},
    {"C overlaps D", PLAIN, NULL, overlapping_c, CUBLAS_STATUS_INVALID_VALUE},
    {"C is D in another layout", PLAIN, NULL, c_in_other_layout, CUBLAS_STATUS_INVALID_VALUE},
    {"no B", PLAIN, NULL, no_operand, CUBLAS_STATUS_INVALID_VALUE},
};

/* The statuses that the steps of a call ended with; a mistake is made and not taken back, so that
 * all this happens in a process of its own. */
static int run_with_mistake(const struct Mistake *mistake) {
    struct Call call;
    call_begin(&call, (struct Variant){CUDA_R_16BF, CUDA_R_16BF, .epilogue = mistake->epilogue,
                                       .beta = 1.0f});
    if (mistake->early) mistake->early(&call);
    call_describe(&call);
    cublasLtMatmulHeuristicResult_t found[MAX_ALGOS];
    int n_found = 0;
    cublasStatus_t status = call_heuristic(&call, found, &n_found);
    if (status != CUBLAS_STATUS_SUCCESS) return mistake->early ? (int)status : 100;
    if (mistake->late) mistake->late(&call);
    return (int)call_run(&call, &found[0].algo);
}

/* What a child that runs `work` exits with, -1 for a signal; what it says is kept. */
static int in_child(int (*work)(const struct Mistake *), const struct Mistake *mistake,
                    char said[4096]) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        _exit(work(mistake));
    }
    close(ends[1]);
    size_t n = 0;
    for (ssize_t got; (got = read(ends[0], said + n, 4095 - n)) > 0;) n += (size_t)got;
    said[n] = '\0';
    close(ends[0]);
    int status;
    assert_true(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_refused(void **state) {
    (void)state;
    char said[4096];
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        int got = in_child(run_with_mistake, &mistakes[i], said);
        if (got != (int)mistakes[i].expected || !strstr(said, "emulated cuBLASLt: "))
            fail_msg("%s: status %d, expected %d: %s", mistakes[i].name, got,
                     (int)mistakes[i].expected, said);
    }
}

/* ---- what ends the program */

static void ld_too_large(struct Call *call) {
    call->a.ld += 1;
}
static void bytes_for_elements(struct Call *call) {
    call->d.cols *= 2, call->c.cols *= 2, call->b.cols *= 2;
}
static void host_operand(struct Call *call) {
    call->b.device = call->b.values;
}
static void freed_operand(struct Call *call) {
    CUDA_OK(cudaFree(call->b.device));
}
static void host_workspace(struct Call *call) {
    call->workspace = aligned_alloc(256, WORKSPACE);
}
static void d_is_a(struct Call *call) {
    call->d.device = call->a.device;
}
static void aux_ld_too_large(struct Call *call) {
    call->aux.ld += 8;
}
static void sums_of_rows(struct Call *call) { /* as many as D has columns are written */
    CUDA_OK(cudaFree(call->bias.device));
    CUDA_OK(cudaMalloc(&call->bias.device, (N - 1) * 2));
}

static void aux_is_d(struct Call *call) {
    call->aux.ld = M;
    call->aux.device = call->d.device;
}
static void sums_in_workspace(struct Call *call) {
    call->bias.device = (char *)call->workspace + WORKSPACE / 2;
}

static const struct Mistake fatal_mistakes[] = {
    {"A of cublasLtMatmul", PLAIN, ld_too_large, NULL, 0},
    {"of cublasLtMatmul", PLAIN, bytes_for_elements, NULL, 0},
    {"B of cublasLtMatmul", PLAIN, NULL, host_operand, 0},
    {"B of cublasLtMatmul", PLAIN, NULL, freed_operand, 0},
    {"workspace of cublasLtMatmul", PLAIN, NULL, host_workspace, 0},
    {"D of cublasLtMatmul overlaps", PLAIN, NULL, d_is_a, 0},
    {"D of cublasLtMatmul overlaps", GELU, aux_is_d, NULL, 0},
    {"bias of cublasLtMatmul overlaps", SUMS, sums_in_workspace, NULL, 0},
    {"aux of cublasLtMatmul", GELU_GRAD, aux_ld_too_large, NULL, 0},
    {"bias of cublasLtMatmul", SUMS, sums_of_rows, NULL, 0},
};

static void test_fatal(void **state) {
    (void)state;
    char said[4096];
    for (size_t i = 0; i < sizeof fatal_mistakes / sizeof *fatal_mistakes; i++) {
        int got = in_child(run_with_mistake, &fatal_mistakes[i], said);
        if (got != -1 || !strstr(said, fatal_mistakes[i].name))
            fail_msg("mistake %zu: exit %d, expected a death that names '%s': %s", i, got,
                     fatal_mistakes[i].name, said);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_fatal),
    };
    return cmocka_run_group_tests_name("cublaslt_mistakes", tests, NULL, NULL);
}
