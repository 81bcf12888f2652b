/* The thread fills a ring of batches; the consumer takes them out in order.  One lock guards the
 * two counters between them. */
#include "data/loader.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "data/sample_order.h"
#include "data/worker_thread.h"

/* A ring of batches.  Of the n_slots, those from `n_taken` up to `n_filled` (counted since the
 * start) wait for the consumer; the one before them, n_taken - 1, is in the consumer's hands. */
struct Loader {
    struct Dataset *dataset;
    struct LoaderPlan plan;
    int64_t video_elems, text_elems; /* of one sample */
    int64_t n_slots;
    float *video;     /* [n_slots, n_local, video_elems] */
    float *text;      /* [n_slots, n_local, text_elems] */
    int64_t *samples; /* [n_slots, n_local] */

    pthread_t thread;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t changed;
    int64_t n_filled, n_taken;
    bool stop, failed;
    struct Error err; /* when failed */
};

/* Waits for a slot that neither waits nor is in use.  False: the loader closes. */
static bool wait_for_room(struct Loader *loader) {
    pthread_mutex_lock(&loader->lock);
    enum { IN_HAND = 1 };
    while (!loader->stop && loader->n_filled - loader->n_taken + IN_HAND >= loader->n_slots)
        pthread_cond_wait(&loader->changed, &loader->lock);
    bool go_on = !loader->stop;
    pthread_mutex_unlock(&loader->lock);
    return go_on;
}

static bool is_stopping(struct Loader *loader) {
    pthread_mutex_lock(&loader->lock);
    bool stop = loader->stop;
    pthread_mutex_unlock(&loader->lock);
    return stop;
}

/* Reads batch number `n` (counted since the start) into its slot.  False: an error, or the loader
 * closes. */
static bool fill_batch(struct Loader *loader, int64_t n, struct Error *err) {
    const struct LoaderPlan *plan = &loader->plan;
    int64_t n_samples = dataset_info(loader->dataset)->n_samples;
    int64_t first = (plan->first_iteration + n) * plan->global_batch + plan->first_in_batch;
    for (int64_t i = 0; i < plan->n_local; i++) {
        if (is_stopping(loader)) return false;
        int64_t place = n % loader->n_slots * plan->n_local + i;
        loader->samples[place] = sample_order_at(plan->seed, n_samples, first + i);
        if (!dataset_read_sample(loader->dataset, loader->samples[place], plan->text_len,
                                 loader->video + place * loader->video_elems,
                                 loader->text + place * loader->text_elems, err))
            return false;
    }
    return true;
}

static void *read_ahead(void *context) {
    struct Loader *loader = context;
    struct Error err;
    bool good = true;
    for (int64_t n = 0; good && wait_for_room(loader); n++) {
        good = fill_batch(loader, n, &err);
        pthread_mutex_lock(&loader->lock);
        loader->n_filled += good;
        if (!good && !loader->stop) {
            loader->failed = true;
            loader->err = err;
        }
        pthread_cond_broadcast(&loader->changed);
        pthread_mutex_unlock(&loader->lock);
    }
    return NULL;
}

static void free_loader(struct Loader *loader) {
    pthread_cond_destroy(&loader->changed);
    pthread_mutex_destroy(&loader->lock);
    free(loader->video);
    free(loader->text);
    free(loader->samples);
    free(loader);
}

struct Loader *loader_open(struct Dataset *dataset, const struct LoaderPlan *plan,
                           struct Error *err) {
    TMD_CHECK(plan->n_local >= 1 && plan->n_prefetch >= 1 && plan->first_in_batch >= 0 &&
                  plan->first_in_batch + plan->n_local <= plan->global_batch &&
                  plan->first_iteration >= 0 && plan->text_len >= 1,
              "impossible batch");
    const struct DatasetInfo *info = dataset_info(dataset);
    if (info->max_text_rows > plan->text_len) {
        error_set(err, "the dataset has prompts of %lld text rows, more than text_len %lld",
                  (long long)info->max_text_rows, (long long)plan->text_len);
        return NULL;
    }
    struct Loader *loader = xcalloc(sizeof *loader);
    loader->dataset = dataset;
    loader->plan = *plan;
    loader->video_elems = dataset_video_elems(dataset);
    loader->text_elems = plan->text_len * info->text_dim;
    loader->n_slots = plan->n_prefetch + 1;
    unsigned long n_places = (unsigned long)(loader->n_slots * plan->n_local);
    loader->video = xmalloc(n_places * (unsigned long)loader->video_elems * sizeof(float));
    loader->text = xmalloc(n_places * (unsigned long)loader->text_elems * sizeof(float));
    loader->samples = xmalloc(n_places * sizeof *loader->samples);
    pthread_mutex_init(&loader->lock, NULL);
    pthread_cond_init(&loader->changed, NULL);
    if (worker_thread_start(&loader->thread, read_ahead, loader)) return loader;
    error_set(err, "cannot start the thread that reads ahead");
    free_loader(loader);
    return NULL;
}

/* Batch number `n`, whose slot has been filled. */
static struct Batch batch_at(const struct Loader *loader, int64_t n) {
    int64_t place = n % loader->n_slots * loader->plan.n_local;
    return (struct Batch){
        .iteration = loader->plan.first_iteration + n,
        .video = loader->video + place * loader->video_elems,
        .text = loader->text + place * loader->text_elems,
        .samples = loader->samples + place,
    };
}

bool loader_next(struct Loader *loader, struct Batch *batch, struct Error *err) {
    pthread_mutex_lock(&loader->lock);
    while (loader->n_filled == loader->n_taken && !loader->failed)
        pthread_cond_wait(&loader->changed, &loader->lock);
    bool good = loader->n_filled > loader->n_taken;
    if (good) *batch = batch_at(loader, loader->n_taken++); /* gives the one before it back */
    if (!good) *err = loader->err;
    pthread_cond_broadcast(&loader->changed);
    pthread_mutex_unlock(&loader->lock);
    return good;
}

bool loader_peek(struct Loader *loader, struct Batch *batch) {
    pthread_mutex_lock(&loader->lock);
    bool there = loader->n_filled > loader->n_taken;
    if (there) *batch = batch_at(loader, loader->n_taken);
    pthread_mutex_unlock(&loader->lock);
    return there;
}

void loader_close(struct Loader *loader) {
    if (!loader) return;
    pthread_mutex_lock(&loader->lock);
    loader->stop = true;
    pthread_cond_broadcast(&loader->changed);
    pthread_mutex_unlock(&loader->lock);
    pthread_join(loader->thread, NULL);
    free_loader(loader);
}
