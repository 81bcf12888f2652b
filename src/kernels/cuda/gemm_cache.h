/* Which algorithm is fastest for which product on one kind of device: a text file that outlives the
 * run, so that measuring happens once and later runs, resumed ones among them, compute the same
 * bits.
 *
 * The file is $TMD_CACHE_DIR/gemm-<device>-<library version>.txt, or lies in ~/.cache/tmd.  Lines
 * that start with # are comments; each other line is a product:
 *
 *     <key> | fused <microseconds> us | <algorithm, 64 bytes in hexadecimal> | <check>
 *     <key> | separate <microseconds> us | 0000... | <check>
 *
 * `check` is the 64-bit FNV-1a hash of the line before its separator.  Lines that are damaged are
 * passed over, told once, and dropped by the next store.  The file is replaced as a whole; a reader
 * needs no lock.  Without a folder that can be written nothing is kept, and that is told once. */
#ifndef TMD_CUDA_GEMM_CACHE_H
#define TMD_CUDA_GEMM_CACHE_H

#include <cublasLt.h>
#include <stdbool.h>
#include <stddef.h>

struct GemmChoice {
    bool fused;                /* the epilogue is the library's; otherwise it is ours */
    cublasLtMatmulAlgo_t algo; /* zero unless fused */
    float microseconds;        /* measured; 0: not */
};

struct GemmCache;

struct GemmCache *gemm_cache_open(const char *device, size_t library_version);
/* NULL is fine. */
void gemm_cache_close(struct GemmCache *cache);

/* Looks into the file as it is now. */
bool gemm_cache_find(struct GemmCache *cache, const char *key, struct GemmChoice *out);
/* Adds a line, in the place of one with the same key.  To be called under the lock. */
void gemm_cache_store(struct GemmCache *cache, const char *key, const struct GemmChoice *choice);

/* Between these, no other process that uses this file measures; the calls nest.  Who waits longer
 * than a minute goes on without the lock: better to measure twice than to hang. */
void gemm_cache_lock(struct GemmCache *cache);
void gemm_cache_unlock(struct GemmCache *cache);

#endif
