/* One slot for work, which the thread empties. */
#include "data/background.h"

#include <pthread.h>
#include <stdlib.h>

#include "data/worker_thread.h"

enum State { EMPTY, HANDED_OVER, DONE };

struct Background {
    pthread_t thread;
    pthread_mutex_t lock; /* of all below; free while work runs */
    pthread_cond_t changed;
    enum State state;
    BackgroundWork *work;
    void *context;
    bool stop, succeeded;
    struct Error err; /* unless it succeeded */
};

static void *serve(void *context) {
    struct Background *b = context;
    pthread_mutex_lock(&b->lock);
    for (;;) {
        while (b->state != HANDED_OVER && !b->stop) pthread_cond_wait(&b->changed, &b->lock);
        if (b->state != HANDED_OVER) break;
        pthread_mutex_unlock(&b->lock);
        bool succeeded = b->work(b->context, &b->err);
        pthread_mutex_lock(&b->lock);
        b->succeeded = succeeded;
        b->state = DONE;
        pthread_cond_broadcast(&b->changed);
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

static void free_background(struct Background *b) {
    pthread_cond_destroy(&b->changed);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

struct Background *background_open(struct Error *err) {
    struct Background *b = xcalloc(sizeof *b);
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->changed, NULL);
    if (worker_thread_start(&b->thread, serve, b)) return b;
    error_set(err, "cannot start the thread that works in the background");
    free_background(b);
    return NULL;
}

void background_close(struct Background *b) {
    if (!b) return;
    pthread_mutex_lock(&b->lock);
    b->stop = true;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
    pthread_join(b->thread, NULL);
    free_background(b);
}

void background_submit(struct Background *b, BackgroundWork *work, void *context) {
    pthread_mutex_lock(&b->lock);
    TMD_CHECK(b->state == EMPTY, "work is handed over before the last one's result was fetched");
    b->work = work;
    b->context = context;
    b->state = HANDED_OVER;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

bool background_is_idle(struct Background *b) {
    pthread_mutex_lock(&b->lock);
    bool idle = b->state != HANDED_OVER;
    pthread_mutex_unlock(&b->lock);
    return idle;
}

bool background_wait(struct Background *b, struct Error *err) {
    pthread_mutex_lock(&b->lock);
    while (b->state == HANDED_OVER) pthread_cond_wait(&b->changed, &b->lock);
    bool good = b->state == EMPTY || b->succeeded;
    if (!good) *err = b->err;
    b->state = EMPTY;
    pthread_mutex_unlock(&b->lock);
    return good;
}
