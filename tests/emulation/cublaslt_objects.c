/* Handles, descriptors and preferences of the emulated cuBLASLt. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cublaslt_internal.h"
#include "error.h"

static const uint64_t context_magic = 0x746d642d626c6173;

cublasStatus_t emulated_refuse(cublasStatus_t status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("emulated cuBLASLt: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return status;
}

bool emulated_handle_is_live(cublasLtHandle_t handle) {
    return handle && handle->magic == context_magic;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
    *handle = xcalloc(sizeof **handle);
    (*handle)->magic = context_magic;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    free(handle);
    return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion(void) {
    return 130100;
}

const char *cublasLtGetStatusString(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "the library was not initialized";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "the requested functionality is not supported";
    default:
        return "a status that the emulated library never returns";
    }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld) {
    *layout = xcalloc(sizeof **layout);
    **layout = (struct EmulatedMatrixLayout){type, (int64_t)rows, (int64_t)cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    free(layout);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType scale) {
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F)
        return emulated_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "compute type %d with scale type %d",
                               (int)compute, (int)scale);
    *desc = xcalloc(sizeof **desc);
    (*desc)->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
    free(desc);
    return CUBLAS_STATUS_SUCCESS;
}

/* Copies an attribute's value to its field, if it has that size. */
static cublasStatus_t set_attribute(void *field, size_t field_bytes, int attribute,
                                    const void *value, size_t n_bytes) {
    if (!value || n_bytes != field_bytes)
        return emulated_refuse(CUBLAS_STATUS_INVALID_VALUE, "attribute %d has %zu bytes, got %zu",
                               attribute, field_bytes, n_bytes);
    memcpy(field, value, n_bytes);
    return CUBLAS_STATUS_SUCCESS;
}
#define SET(field) set_attribute(&(field), sizeof(field), (int)attribute, value, n_bytes)

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t n_bytes) {
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return SET(desc->transposed_a);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return SET(desc->transposed_b);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return SET(desc->epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return SET(desc->bias);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
        return SET(desc->aux);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
        return SET(desc->aux_ld);
    }
    return emulated_refuse(CUBLAS_STATUS_INVALID_VALUE, "product attribute %d", (int)attribute);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
    *preference = xcalloc(sizeof **preference);
    (*preference)->reductions = CUBLASLT_REDUCTION_SCHEME_INPLACE |
                                CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE |
                                CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
    for (int i = 0; i < 4; i++) (*preference)->alignment[i] = CUBLASLT_ALIGNMENT;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    free(preference);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t n_bytes) {
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return SET(preference->workspace_bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return SET(preference->reductions);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return SET(preference->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES]);
    }
    return emulated_refuse(CUBLAS_STATUS_INVALID_VALUE, "preference %d", (int)attribute);
}
