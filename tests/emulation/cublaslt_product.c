/* What cublasLtMatmul computes, when its turn comes: operands widened to float32, products by
 * oneDNN, the epilogue on each element in float32, one rounding.
 *
 * dnnl_sgemm thinks in rows; what lies here by columns is for it the transpose, so that it is asked
 * for D^T = op(B)^T op(A)^T. */
#include <dnnl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cublaslt_internal.h"
#include "dtype.h"
#include "error.h"

static enum Dtype dtype_of(cudaDataType type) {
    return type == CUDA_R_32F ? DTYPE_F32 : DTYPE_BF16;
}

static const char *elem_at(const void *base, cudaDataType type, int64_t n_elems) {
    return (const char *)base + n_elems * dtype_bytes(dtype_of(type));
}

/* A dense float32 copy, with columns of x->rows. */
static float *widened(const struct EmulatedMatrixLayout *x, const void *at) {
    float *out = xmalloc((unsigned long)(x->rows * x->cols) * sizeof *out);
    for (int64_t col = 0; col < x->cols; col++)
        dtype_to_f32(out + col * x->rows, elem_at(at, x->type, col * x->ld), dtype_of(x->type),
                     x->rows);
    return out;
}

/* sums [m, n] = op(A) op(B) over k from `first` to `end`. */
static void product_over(float *sums, const struct EmulatedProduct *p, const float *a,
                         const float *b, int64_t first, int64_t end) {
    const float *a_part = a + (p->desc.transposed_a ? first : first * p->a.rows);
    const float *b_part = b + (p->desc.transposed_b ? first * p->b.rows : first);
    dnnl_status_t status =
        dnnl_sgemm(p->desc.transposed_b ? 'T' : 'N', p->desc.transposed_a ? 'T' : 'N', p->n, p->m,
                   end - first, 1.0f, b_part, p->b.rows, a_part, p->a.rows, 0.0f, sums, p->m);
    TMD_CHECK(status == dnnl_success, "oneDNN status %d", (int)status);
}

/* In as many sums as the algorithm splits k into, added up in order. */
static float *product_sums(const struct EmulatedProduct *p, const float *a, const float *b) {
    unsigned long n_bytes = (unsigned long)(p->m * p->n) * sizeof(float);
    float *sums = xmalloc(n_bytes), *part = p->split > 1 ? xmalloc(n_bytes) : NULL;
    product_over(sums, p, a, b, 0, p->k / p->split);
    for (int i = 1; i < p->split; i++) {
        product_over(part, p, a, b, i * p->k / p->split, (i + 1) * p->k / p->split);
        for (int64_t j = 0; j < p->m * p->n; j++) sums[j] += part[j];
    }
    free(part);
    return sums;
}

static float gelu(float z) {
    return 0.5f * z * (1.0f + tanhf((float)sqrt(2.0 / M_PI) * (z + 0.044715f * z * z * z)));
}

static float gelu_slope(float z) {
    float c = (float)sqrt(2.0 / M_PI), t = tanhf(c * (z + 0.044715f * z * z * z));
    return 0.5f * (1.0f + t) + 0.5f * z * (1.0f - t * t) * c * (1.0f + 3.0f * 0.044715f * z * z);
}

/* One column of D from its sums; `old` is that of C, `bias` and `aux` in float32 where there are.
 */
static void finish_column(const struct EmulatedProduct *p, float *column, const float *old,
                          const float *bias, float *aux) {
    for (int64_t i = 0; i < p->m; i++) {
        float value = p->alpha * column[i];
        if (p->beta != 0.0f) value += p->beta * old[i];
        if (p->desc.epilogue == CUBLASLT_EPILOGUE_BIAS) value += bias[i];
        if (p->desc.epilogue == CUBLASLT_EPILOGUE_DGELU) value *= gelu_slope(aux[i]);
        if (p->desc.epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS) {
            aux[i] = value + bias[i];
            value = gelu(aux[i]);
        }
        column[i] = value;
    }
}

static void store_result(const struct EmulatedProduct *p, float *sums) {
    enum Dtype dtype = dtype_of(p->d.type);
    float *old = xcalloc(3 * (unsigned long)p->m * sizeof *old);
    float *bias = old + p->m, *aux = old + 2 * p->m;
    bool aux_in = p->desc.epilogue == CUBLASLT_EPILOGUE_DGELU;
    bool aux_out = p->desc.epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
    if (aux_out || p->desc.epilogue == CUBLASLT_EPILOGUE_BIAS)
        dtype_to_f32(bias, p->desc.bias, dtype, p->m);
    for (int64_t col = 0; col < p->n; col++) {
        char *aux_at = (char *)elem_at(p->desc.aux, p->d.type, col * p->desc.aux_ld);
        char *d_at = (char *)elem_at(p->d_at, p->d.type, col * p->d.ld);
        if (p->beta != 0.0f)
            dtype_to_f32(old, elem_at(p->c_at, p->c.type, col * p->c.ld), dtype, p->m);
        if (aux_in) dtype_to_f32(aux, aux_at, dtype, p->m);
        finish_column(p, sums + col * p->m, old, bias, aux);
        if (aux_out) dtype_from_f32(aux_at, aux, dtype, p->m);
        dtype_from_f32(d_at, sums + col * p->m, dtype, p->m);
    }
    free(old);
}

/* The bias gradient: the sum of each column of op(B), over k. */
static void store_operand_sums(const struct EmulatedProduct *p, const float *b) {
    enum Dtype dtype = dtype_of(p->d.type);
    int64_t k_step = p->desc.transposed_b ? p->n : 1, n_step = p->desc.transposed_b ? 1 : p->k;
    for (int64_t j = 0; j < p->n; j++) {
        float sum = 0.0f;
        for (int64_t i = 0; i < p->k; i++) sum += b[i * k_step + j * n_step];
        dtype_from_f32((char *)elem_at(p->desc.bias, p->d.type, j), &sum, dtype, 1);
    }
}

void emulated_product_run(void *product) {
    const struct EmulatedProduct *p = product;
    memset(p->workspace, 0xff, p->workspace_used); /* it is the library's: NaN to everybody else */
    float *a = widened(&p->a, p->a_at), *b = widened(&p->b, p->b_at);
    float *sums = product_sums(p, a, b);
    store_result(p, sums);
    if (p->desc.epilogue == CUBLASLT_EPILOGUE_BGRADB) store_operand_sums(p, b);
    free(sums);
    free(b);
    free(a);
}
