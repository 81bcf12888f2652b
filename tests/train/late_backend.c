/* A list of copies under a lock; a condition for those who wait until it is empty. */
#include "late_backend.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "error.h"

static struct LateBackend *late_of(const struct Backend *be) {
    return (struct LateBackend *)(uintptr_t)be;
}

static void late_download_start(const struct Backend *be, void *host, const void *device,
                                int64_t n_bytes) {
    struct LateBackend *late = late_of(be);
    pthread_mutex_lock(&late->lock);
    TMD_CHECK(late->n_downloads < LATE_MAX, "more than %d downloads", LATE_MAX);
    int i = late->n_downloads++;
    late->downloads[i].host = host;
    late->downloads[i].device = device;
    late->downloads[i].n_bytes = n_bytes;
    pthread_mutex_unlock(&late->lock);
}

void late_backend_arrive(struct LateBackend *late, int milliseconds) {
    nanosleep(&(struct timespec){.tv_nsec = milliseconds * 1000000L}, NULL);
    pthread_mutex_lock(&late->lock);
    for (int i = 0; i < late->n_downloads; i++)
        late->inner->download(late->inner, late->downloads[i].host, late->downloads[i].device,
                              late->downloads[i].n_bytes);
    late->n_downloads = 0;
    pthread_cond_broadcast(&late->arrived);
    pthread_mutex_unlock(&late->lock);
}

bool late_backend_under_way(struct LateBackend *late) {
    pthread_mutex_lock(&late->lock);
    bool under_way = late->n_downloads > 0;
    pthread_mutex_unlock(&late->lock);
    return under_way;
}

static void late_download_wait(const struct Backend *be) {
    struct LateBackend *late = late_of(be);
    if (pthread_equal(pthread_self(), late->maker)) {
        if (late_backend_under_way(late)) late_backend_arrive(late, LATE_MILLISECONDS);
        return;
    }
    pthread_mutex_lock(&late->lock);
    while (late->n_downloads > 0) pthread_cond_wait(&late->arrived, &late->lock);
    pthread_mutex_unlock(&late->lock);
}

/* With bytes that are no weights. */
static void *late_pinned_alloc(const struct Backend *be, int64_t n_bytes) {
    struct LateBackend *late = late_of(be);
    if (!late->pins) return NULL;
    late->n_pinned++;
    return memset(xmalloc((size_t)n_bytes), 0xff, (size_t)n_bytes);
}

static void late_pinned_free(const struct Backend *be, void *memory) {
    late_of(be)->n_pinned--;
    free(memory);
}

static void late_destroy(struct Backend *be) {
    struct LateBackend *late = late_of(be);
    late->inner->destroy(late->inner);
    pthread_cond_destroy(&late->arrived);
    pthread_mutex_destroy(&late->lock);
}

void late_backend_init(struct LateBackend *late, struct Backend *inner) {
    *late = (struct LateBackend){
        .table = *inner, .inner = inner, .maker = pthread_self(), .pins = true};
    pthread_mutex_init(&late->lock, NULL);
    pthread_cond_init(&late->arrived, NULL);
    late->table.download_start = late_download_start;
    late->table.download_wait = late_download_wait;
    late->table.pinned_alloc = late_pinned_alloc;
    late->table.pinned_free = late_pinned_free;
    late->table.destroy = late_destroy;
}
