/* The inside of the emulated cuBLASLt: its objects, and one product on its way from the call, where
 * it is checked (cublaslt.c), to the device, where it is computed (cublaslt_product.c). */
#ifndef TMD_EMULATED_CUBLASLT_INTERNAL_H
#define TMD_EMULATED_CUBLASLT_INTERNAL_H

#include <cublasLt.h>
#include <stdbool.h>

#include "emulation.h"

enum { CUBLASLT_ALIGNMENT = 256 }; /* bytes: assumed of operands, wanted of the workspace */

struct cublasLtContext {
    uint64_t magic;
};
/* Whether cublasLtCreate made it. */
bool emulated_handle_is_live(cublasLtHandle_t handle);

struct EmulatedMatmulPreference {
    uint64_t workspace_bytes;
    uint32_t reductions, alignment[4]; /* of A, B, C, D */
};

/* [rows, cols] by columns, `ld` elements apart. */
struct EmulatedMatrixLayout {
    cudaDataType type;
    int64_t rows, cols, ld;
};

struct EmulatedMatmulDesc {
    int32_t transposed_a, transposed_b; /* a cublasOperation_t */
    uint32_t epilogue;
    void *bias, *aux;
    int64_t aux_ld;
};

/* D [m, n] = epilogue(alpha op(A) [m, k] op(B) [k, n] + beta C) */
struct EmulatedProduct {
    struct EmulatedMatmulDesc desc;
    struct EmulatedMatrixLayout a, b, c, d;
    int64_t m, n, k;
    float alpha, beta;
    const void *a_at, *b_at, *c_at;
    void *d_at;
    int split; /* the sum over k is made of so many sums */
    void *workspace;
    size_t workspace_bytes, workspace_used; /* what there is, and of it the algorithm's */
};

/* Computes the product; `product` points to a struct EmulatedProduct. */
void emulated_product_run(void *product);

/* Returns the status, after a line on stderr that says why. */
cublasStatus_t emulated_refuse(cublasStatus_t status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
