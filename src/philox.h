/* Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): random
 * numbers as a pure function of a key and a counter.  Every draw of the project is keyed by what it
 * is for, never by who asks or when, so that any number of ranks and any resumed run see the same.
 *
 * Plain functions over integers, usable on host and device alike. */
#ifndef TMD_PHILOX_H
#define TMD_PHILOX_H

#include <stdint.h>

#ifdef __CUDACC__
#define PHILOX_INLINE static __host__ __device__ __forceinline__
#else
#define PHILOX_INLINE static inline
#endif

struct Philox {
    uint32_t word[4];
};

/* The 128 random bits at `counter` of the stream `seed`. */
PHILOX_INLINE struct Philox philox(uint64_t seed, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    struct Philox out = {{c0, c1, c2, c3}};
    return out;
}

/* (0, 1), never an end point: 32 random bits as a double. */
PHILOX_INLINE double philox_uniform(uint32_t word) {
    return ((double)word + 0.5) * 0x1p-32;
}

#endif
