/* A backend whose downloads arrive late: what download_start was called for is copied when the test
 * says so, or when the thread that made the backend waits.  Any other thread that waits, waits for
 * that. */
#ifndef TMD_LATE_BACKEND_H
#define TMD_LATE_BACKEND_H

#include <pthread.h>

#include "kernels/backend.h"

enum {
    LATE_MAX = 32,
    LATE_MILLISECONDS = 20 /* that they take when they are waited for */
};

struct LateBackend {
    struct Backend table; /* first: what operations get is this */
    struct Backend *inner;
    pthread_t maker;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t arrived;
    struct {
        void *host;
        const void *device;
        int64_t n_bytes;
    } downloads[LATE_MAX];
    int n_downloads; /* under way */
    bool pins;       /* whether pinned_alloc gives memory */
    int n_pinned;    /* pieces of it that have not been given back */
};

/* `inner` is destroyed with it. */
void late_backend_init(struct LateBackend *late, struct Backend *inner);
/* Milliseconds from now, in the calling thread, all that is under way arrives. */
void late_backend_arrive(struct LateBackend *late, int milliseconds);
bool late_backend_under_way(struct LateBackend *late);

#endif
