/* cuBLASLt on the emulated device: the heuristic and the checks of a product, as the vendor
 * documents them.  cublaslt_objects.c has the descriptors; cublaslt_product.c computes.
 *
 * A call that the library would refuse gets the status that the library would return, and a line on
 * stderr that says why.  What the library cannot see and the device would punish ends the program.
 *
 * An algorithm splits the sum over k into 1, 2, 3 or 4 parts, so that another algorithm gives, as
 * on a real device, other bits.  Its 64 bytes say for which types, transposes, epilogue and
 * alignments it was offered; it runs no others.
 *
 * Every epilogue that is declared is offered, but those with GELU for bfloat16 only, so that
 * callers need their own ways, too.  TMD_EMULATED_EPILOGUES=none: plain products only. */
#include <stdlib.h>
#include <string.h>

#include "cublaslt_internal.h"
#include "error.h"

static const uint64_t algo_magic = 0x746d642d616c676f;

enum {
    COUNTER_BYTES = 4096, /* workspace that every algorithm uses */
    AUX_LD_MULTIPLE = 8,  /* elements */
    GREATEST_SPLIT = 4
};

/* ---- whether a product is one */

static bool layout_is_possible(const struct EmulatedMatrixLayout *x) {
    return (x->type == CUDA_R_32F || x->type == CUDA_R_16BF) && x->rows > 0 && x->cols > 0 &&
           x->ld >= x->rows;
}

static bool same_layout(const struct EmulatedMatrixLayout *x,
                        const struct EmulatedMatrixLayout *y) {
    return x->type == y->type && x->rows == y->rows && x->cols == y->cols && x->ld == y->ld;
}

/* Fills what the descriptors say; the addresses come with the call. */
static cublasStatus_t
describe(struct EmulatedProduct *p, cublasLtHandle_t handle, const struct EmulatedMatmulDesc *desc,
         const struct EmulatedMatrixLayout *a, const struct EmulatedMatrixLayout *b,
         const struct EmulatedMatrixLayout *c, const struct EmulatedMatrixLayout *d) {
    if (!emulated_handle_is_live(handle))
        return emulated_refuse(CUBLAS_STATUS_NOT_INITIALIZED, "no handle");
    const struct EmulatedMatrixLayout *layouts[] = {a, b, c, d};
    for (int i = 0; i < 4; i++)
        if (!layout_is_possible(layouts[i]))
            return emulated_refuse(CUBLAS_STATUS_INVALID_VALUE,
                                   "%c: type %d, %lld rows, %lld columns, leading dimension %lld",
                                   'A' + i, (int)layouts[i]->type, (long long)layouts[i]->rows,
                                   (long long)layouts[i]->cols, (long long)layouts[i]->ld);
    *p = (struct EmulatedProduct){.desc = *desc, .a = *a, .b = *b, .c = *c, .d = *d};
    p->m = desc->transposed_a ? a->cols : a->rows;
    p->k = desc->transposed_a ? a->rows : a->cols;
    p->n = desc->transposed_b ? b->rows : b->cols;
    if ((desc->transposed_b ? b->cols : b->rows) != p->k || d->rows != p->m || d->cols != p->n ||
        c->rows != p->m || c->cols != p->n)
        return emulated_refuse(
            CUBLAS_STATUS_INVALID_VALUE,
            "op(A) %lld x %lld, B %lld x %lld, C %lld x %lld, D %lld x %lld do not agree",
            (long long)p->m, (long long)p->k, (long long)b->rows, (long long)b->cols,
            (long long)c->rows, (long long)c->cols, (long long)d->rows, (long long)d->cols);
    if (a->type != b->type || c->type != d->type || (a->type == CUDA_R_32F && d->type != a->type))
        return emulated_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "types %d, %d, %d, %d", (int)a->type,
                               (int)b->type, (int)c->type, (int)d->type);
    return CUBLAS_STATUS_SUCCESS;
}

static bool uses_aux(const struct EmulatedMatmulDesc *desc) {
    return desc->epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS ||
           desc->epilogue == CUBLASLT_EPILOGUE_DGELU;
}

static bool uses_bias(const struct EmulatedMatmulDesc *desc) {
    return desc->epilogue == CUBLASLT_EPILOGUE_BIAS ||
           desc->epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS ||
           desc->epilogue == CUBLASLT_EPILOGUE_BGRADB;
}

static cublasStatus_t check_epilogue(const struct EmulatedProduct *p) {
    const struct EmulatedMatmulDesc *desc = &p->desc;
    if (uses_bias(desc) && !desc->bias)
        return emulated_refuse(CUBLAS_STATUS_INVALID_VALUE, "epilogue %u without a bias pointer",
                               desc->epilogue);
    if (!uses_aux(desc)) return CUBLAS_STATUS_SUCCESS;
    if (!desc->aux)
        return emulated_refuse(CUBLAS_STATUS_INVALID_VALUE, "epilogue %u without an aux pointer",
                               desc->epilogue);
    if (desc->aux_ld < p->m || desc->aux_ld % AUX_LD_MULTIPLE != 0)
        return emulated_refuse(
            CUBLAS_STATUS_INVALID_VALUE,
            "leading dimension %lld of aux for %lld rows: expected a multiple of %d",
            (long long)desc->aux_ld, (long long)p->m, AUX_LD_MULTIPLE);
    return CUBLAS_STATUS_SUCCESS;
}

static bool epilogue_is_offered(const struct EmulatedProduct *p) {
    const char *offered = getenv("TMD_EMULATED_EPILOGUES");
    if (p->desc.epilogue == CUBLASLT_EPILOGUE_DEFAULT) return true;
    if (offered && strcmp(offered, "none") == 0) return false;
    return uses_aux(&p->desc) ? p->d.type == CUDA_R_16BF : uses_bias(&p->desc);
}

/* ---- algorithms */

static uint64_t address_alignment(const void *address) {
    uint64_t bits = (uint64_t)(uintptr_t)address | CUBLASLT_ALIGNMENT;
    return bits & -bits;
}

/* What an algorithm was made for.  In the 64 bytes of the library's type. */
struct Algo {
    uint64_t magic;
    uint32_t split, epilogue;
    uint16_t alignment[4], bias_alignment, aux_alignment; /* bytes */
    uint16_t type_in, type_out, transposed_a, transposed_b, unused[2];
    uint64_t check; /* the sum of the words before */
    uint64_t unused_words[2];
};
_Static_assert(sizeof(struct Algo) == sizeof(cublasLtMatmulAlgo_t), "an algorithm has 64 bytes");

static uint64_t algo_check(const struct Algo *algo) {
    uint64_t words[sizeof *algo / sizeof(uint64_t)], sum = 0;
    memcpy(words, algo, sizeof words);
    for (size_t i = 0; i < offsetof(struct Algo, check) / sizeof(uint64_t); i++) sum += words[i];
    return sum;
}

static uint64_t algo_workspace(const struct Algo *algo, const struct EmulatedProduct *p) {
    uint64_t partial_sums = (uint64_t)(p->m * p->n) * sizeof(float);
    return COUNTER_BYTES + (algo->split > 1 ? algo->split * partial_sums : 0);
}

static bool algo_matches(const struct Algo *algo, const struct EmulatedProduct *p) {
    return algo->magic == algo_magic && algo->check == algo_check(algo) && algo->split >= 1 &&
           algo->split <= GREATEST_SPLIT && algo->split <= p->k &&
           algo->epilogue == p->desc.epilogue && algo->type_in == p->a.type &&
           algo->type_out == p->d.type && algo->transposed_a == p->desc.transposed_a &&
           algo->transposed_b == p->desc.transposed_b;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int n_wanted,
                                              cublasLtMatmulHeuristicResult_t *results,
                                              int *n_results) {
    struct EmulatedProduct p = {0};
    *n_results = 0;
    cublasStatus_t status = describe(&p, handle, desc, a, b, c, d);
    if (status == CUBLAS_STATUS_SUCCESS) status = check_epilogue(&p);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (n_wanted <= 0)
        return emulated_refuse(CUBLAS_STATUS_INVALID_VALUE, "%d algorithms", n_wanted);
    if (!epilogue_is_offered(&p)) return CUBLAS_STATUS_NOT_SUPPORTED;

    struct Algo algo = {.magic = algo_magic,
                        .epilogue = desc->epilogue,
                        .bias_alignment = (uint16_t)address_alignment(desc->bias),
                        .aux_alignment = (uint16_t)address_alignment(desc->aux),
                        .type_in = (uint16_t)a->type,
                        .type_out = (uint16_t)d->type,
                        .transposed_a = (uint16_t)desc->transposed_a,
                        .transposed_b = (uint16_t)desc->transposed_b};
    for (int i = 0; i < 4; i++) algo.alignment[i] = (uint16_t)preference->alignment[i];
    for (algo.split = 1; algo.split <= GREATEST_SPLIT && *n_results < n_wanted; algo.split++) {
        bool split_allowed = preference->reductions & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
        uint64_t workspace_bytes = algo_workspace(&algo, &p);
        if (algo.split > p.k || (algo.split > 1 && !split_allowed)) break;
        if (workspace_bytes > preference->workspace_bytes) break;
        algo.check = algo_check(&algo);
        cublasLtMatmulHeuristicResult_t *result = &results[(*n_results)++];
        *result = (cublasLtMatmulHeuristicResult_t){
            .workspaceSize = workspace_bytes, .state = CUBLAS_STATUS_SUCCESS, .wavesCount = 1.0f};
        memcpy(&result->algo, &algo, sizeof algo);
    }
    return *n_results > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result) {
    struct EmulatedProduct p = {0};
    struct Algo inside;
    cublasStatus_t status = describe(&p, handle, desc, a, b, c, d);
    if (status == CUBLAS_STATUS_SUCCESS) status = check_epilogue(&p);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    memcpy(&inside, algo, sizeof inside);
    if (!algo_matches(&inside, &p)) return CUBLAS_STATUS_INVALID_VALUE;
    *result = (cublasLtMatmulHeuristicResult_t){.workspaceSize = algo_workspace(&inside, &p),
                                                .state = CUBLAS_STATUS_SUCCESS,
                                                .wavesCount = 1.0f};
    return epilogue_is_offered(&p) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* ---- the call */

static cublasStatus_t check_alignment(const struct Algo *algo, const struct EmulatedProduct *p) {
    const struct {
        const char *name;
        const void *address;
        uint64_t promised;
    } operands[] = {
        {"A", p->a_at, algo->alignment[0]},           {"B", p->b_at, algo->alignment[1]},
        {"C", p->c_at, algo->alignment[2]},           {"D", p->d_at, algo->alignment[3]},
        {"bias", p->desc.bias, algo->bias_alignment}, {"aux", p->desc.aux, algo->aux_alignment}};
    for (size_t i = 0; i < sizeof operands / sizeof *operands; i++)
        if (address_alignment(operands[i].address) < operands[i].promised)
            return emulated_refuse(CUBLAS_STATUS_INVALID_VALUE,
                                   "%s is not aligned to the %llu bytes that "
                                   "its algorithm was asked for",
                                   operands[i].name, (unsigned long long)operands[i].promised);
    return CUBLAS_STATUS_SUCCESS;
}

static size_t type_bytes(cudaDataType type) {
    return type == CUDA_R_32F ? sizeof(float) : sizeof(uint16_t);
}

static size_t extent_bytes(const struct EmulatedMatrixLayout *x) {
    return (size_t)((x->cols - 1) * x->ld + x->rows) * type_bytes(x->type);
}

static bool overlap(const void *x, size_t x_bytes, const void *y, size_t y_bytes) {
    return (uintptr_t)x < (uintptr_t)y + y_bytes && (uintptr_t)y < (uintptr_t)x + x_bytes;
}

/* What the device must have at `at`: every byte in one allocation, none of them in the workspace.
 */
static void require_memory(const struct EmulatedProduct *p, const void *at,
                           const struct EmulatedMatrixLayout *x, const char *what) {
    emu_require_device(at, extent_bytes(x), what);
    if (overlap(at, extent_bytes(x), p->workspace, p->workspace_bytes))
        emu_reject("%s overlaps the workspace", what);
}

static void require_all_memory(const struct EmulatedProduct *p) {
    const struct EmulatedMatmulDesc *desc = &p->desc;
    emu_require_device(p->workspace, p->workspace_bytes, "workspace of cublasLtMatmul");
    require_memory(p, p->a_at, &p->a, "A of cublasLtMatmul");
    require_memory(p, p->b_at, &p->b, "B of cublasLtMatmul");
    require_memory(p, p->d_at, &p->d, "D of cublasLtMatmul");
    if (p->beta != 0.0f) require_memory(p, p->c_at, &p->c, "C of cublasLtMatmul");
    int64_t n_bias = desc->epilogue == CUBLASLT_EPILOGUE_BGRADB ? p->n : p->m;
    struct EmulatedMatrixLayout bias = {p->d.type, n_bias, 1, n_bias};
    struct EmulatedMatrixLayout aux = {p->d.type, p->m, p->n, desc->aux_ld};
    if (uses_bias(desc)) require_memory(p, desc->bias, &bias, "bias of cublasLtMatmul");
    if (uses_aux(desc)) require_memory(p, desc->aux, &aux, "aux of cublasLtMatmul");
    size_t d_bytes = extent_bytes(&p->d);
    if (overlap(p->d_at, d_bytes, p->a_at, extent_bytes(&p->a)) ||
        overlap(p->d_at, d_bytes, p->b_at, extent_bytes(&p->b)) ||
        (uses_aux(desc) && overlap(p->d_at, d_bytes, desc->aux, extent_bytes(&aux))))
        emu_reject("D of cublasLtMatmul overlaps A, B or aux");
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream) {
    struct EmulatedProduct p = {0};
    struct Algo inside;
    cublasStatus_t status = describe(&p, handle, desc, a_layout, b_layout, c_layout, d_layout);
    if (status == CUBLAS_STATUS_SUCCESS) status = check_epilogue(&p);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (!alpha || !beta || !a || !b || !d)
        return emulated_refuse(CUBLAS_STATUS_INVALID_VALUE, "an operand or scalar is NULL");
    memcpy(&p.alpha, alpha, sizeof p.alpha);
    memcpy(&p.beta, beta, sizeof p.beta);
    p.a_at = a, p.b_at = b, p.c_at = c, p.d_at = d;
    if (p.beta != 0.0f && c != d && overlap(c, extent_bytes(&p.c), d, extent_bytes(&p.d)))
        return emulated_refuse(CUBLAS_STATUS_INVALID_VALUE, "C and D overlap and are not the same");
    if (c == d && !same_layout(&p.c, &p.d))
        return emulated_refuse(CUBLAS_STATUS_INVALID_VALUE, "C and D are one place in two layouts");

    if (!algo) return emulated_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "no algorithm (not emulated)");
    memcpy(&inside, algo, sizeof inside);
    if (!algo_matches(&inside, &p) || !epilogue_is_offered(&p))
        return emulated_refuse(CUBLAS_STATUS_INVALID_VALUE,
                               "the algorithm is not for this product");
    p.split = (int)inside.split;
    p.workspace = workspace;
    p.workspace_bytes = workspace_bytes;
    p.workspace_used = algo_workspace(&inside, &p);
    if (!workspace || p.workspace_used > workspace_bytes ||
        address_alignment(workspace) < CUBLASLT_ALIGNMENT)
        return emulated_refuse(CUBLAS_STATUS_INVALID_VALUE,
                               "workspace %p of %zu bytes: the algorithm wants %zu, aligned to %d",
                               workspace, workspace_bytes, p.workspace_used, CUBLASLT_ALIGNMENT);
    status = check_alignment(&inside, &p);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    require_all_memory(&p);

    struct EmulatedProduct *queued = xmalloc(sizeof *queued);
    *queued = p;
    emu_enqueue(stream, "cublasLtMatmul", emulated_product_run, queued, free);
    return CUBLAS_STATUS_SUCCESS;
}
