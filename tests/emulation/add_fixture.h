/* A kernel that adds, and what it should have made of counting(): work for streams and graphs. */
#ifndef TMD_ADD_FIXTURE_H
#define TMD_ADD_FIXTURE_H

#include "device_fixture.h"

enum { N = 300 };

/* to = from + more, of N elements. */
__global__ inline void add_kernel(float *to, const float *from, float more) {
    for (int i = threadIdx.x; i < N; i += blockDim.x) to[i] = from[i] + more;
}

/* Whether x is counting() + more. */
inline bool holds(const std::vector<float> &x, float more) {
    for (int i = 0; i < N; i++)
        if (x[i] != (float)i + more) return false;
    return true;
}

#endif
