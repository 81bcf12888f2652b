/* A block that a range covers goes straight to its place; others, two at most of a range, through a
 * buffer. */
#include "data/checkpoint_read.h"

#include <math.h>
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "data/checkpoint_contents.h"
#include "data/crc32.h"
#include "data/h5_block.h"
#include "data/worker_thread.h"

/* A block to read. */
struct Job {
    struct H5Block block;
    int64_t number;         /* in its array */
    int64_t n_elems;        /* without padding */
    int64_t from, to;       /* which of its elements are wanted, */
    float *out;             /* and where they go; NULL: nowhere */
    bool allow_nonfinite;
    const uint32_t *stored; /* its checksum as it should be; NULL: unknown */
    uint32_t crc32;         /* as it is, once read */
};

/* A range: so many jobs in a row. */
struct Part {
    int64_t first, n;
    const uint32_t *whole;
    char *where;
};

/* Memory of one thread. */
struct Buffers {
    struct H5BlockBuffers block;
    float *values;
    int64_t n_bytes;
};

struct Worker {
    struct CkptReading *reading;
    pthread_t thread;
    struct Buffers buffers;
};

/* The first job that failed, and why; INT64_MAX: none. */
struct Failure {
    int64_t job;
    struct Error err;
};

struct CkptReading {
    struct Part *parts;
    int64_t n_parts, parts_capacity, jobs_capacity;
    int64_t n_bytes; /* of all jobs, decoded */

    pthread_mutex_t lock; /* of what follows, up to the empty line */
    pthread_cond_t news;  /* another job, or `complete` */
    struct Job *jobs;
    int64_t n_jobs, n_taken;
    bool complete; /* no job will be added any more */
    struct Failure failure;

    pthread_mutex_t disk;   /* held by the one who fetches */
    struct Worker *workers; /* [n_workers]; the first is whoever calls ckpt_reading_run, */
    int n_workers;
    int n_started; /* and the others threads, of which so many run */
};

static void forget_jobs(struct CkptReading *reading) {
    for (int64_t i = 0; i < reading->n_parts; i++) free(reading->parts[i].where);
    reading->n_parts = reading->n_jobs = reading->n_taken = reading->n_bytes = 0;
    reading->complete = false;
    reading->failure.job = INT64_MAX;
}

struct CkptReading *ckpt_reading_create(void) {
    struct CkptReading *reading = xcalloc(sizeof *reading);
    pthread_mutex_init(&reading->lock, NULL);
    pthread_mutex_init(&reading->disk, NULL);
    pthread_cond_init(&reading->news, NULL);
    reading->n_workers = 1 + omp_get_max_threads(); /* one waits for the disk, the others decode */
    reading->workers = xcalloc((size_t)reading->n_workers * sizeof *reading->workers);
    for (int w = 0; w < reading->n_workers; w++) reading->workers[w].reading = reading;
    forget_jobs(reading);
    return reading;
}

void ckpt_reading_destroy(struct CkptReading *reading) {
    if (!reading) return;
    ckpt_reading_clear(reading);
    for (int w = 0; w < reading->n_workers; w++) {
        h5_block_buffers_free(&reading->workers[w].buffers.block);
        free(reading->workers[w].buffers.values);
    }
    free(reading->workers);
    pthread_cond_destroy(&reading->news);
    pthread_mutex_destroy(&reading->disk);
    pthread_mutex_destroy(&reading->lock);
    free(reading->parts);
    free(reading->jobs);
    free(reading);
}

int64_t ckpt_reading_blocks(const struct CkptReading *reading) {
    return reading->n_jobs;
}

/* ---- reading ---- */

static float *need_values(struct Buffers *buffers, int64_t n_bytes) {
    if (buffers->n_bytes < n_bytes) {
        free(buffers->values);
        buffers->values = xmalloc((size_t)n_bytes);
        buffers->n_bytes = n_bytes;
    }
    return buffers->values;
}

/* All are looked at, which vectors do faster than stopping at the first. */
static bool check_finite(const float *values, int64_t n_elems, struct Error *err) {
    int found = 0;
    for (int64_t i = 0; i < n_elems; i++) found |= !isfinite(values[i]);
    return !found || error_set(err, "contains a value that is not finite");
}

static bool check_sum(const struct Job *job, struct Error *err) {
    return !job->stored || job->crc32 == *job->stored ||
           error_set(err, "is damaged: chunk %lld has checksum %08x, stored is %08x",
                     (long long)job->number, job->crc32, *job->stored);
}

/* From the buffers, where the block has been fetched, to its place. */
static bool decode(struct Job *job, struct Buffers *buffers, struct Error *err) {
    int64_t n_wanted = job->to - job->from, n_bytes = job->n_elems * (int64_t)sizeof(float);
    bool direct = job->out && n_bytes == job->block.n_bytes && n_wanted == job->n_elems;
    float *values = direct ? job->out : need_values(buffers, job->block.n_bytes);
    if (!h5_block_decode(&job->block, &buffers->block, values, err))
        return error_prefix(err, "chunk %lld", (long long)job->number);
    job->crc32 = crc32_after(0, values, n_bytes);
    if (!check_sum(job, err)) return false;
    if (!job->allow_nonfinite && !check_finite(values + job->from, n_wanted, err)) return false;
    if (job->out && !direct)
        memcpy(job->out, values + job->from, (size_t)n_wanted * sizeof *values);
    return true;
}

/* The number of the next job, once there is one, and a copy of it; -1: all have been taken. */
static int64_t take_job(struct CkptReading *reading, struct Job *job) {
    int64_t i = -1;
    pthread_mutex_lock(&reading->lock);
    while (reading->n_taken == reading->n_jobs && !reading->complete)
        pthread_cond_wait(&reading->news, &reading->lock);
    if (reading->n_taken < reading->n_jobs) {
        i = reading->n_taken++;
        *job = reading->jobs[i];
    }
    pthread_mutex_unlock(&reading->lock);
    return i;
}

/* Takes a job and fetches its block.  One thread at a time: the system sees a file read from its
 * beginning to its end, and reads ahead. */
static int64_t fetch_job(struct Worker *w, struct Job *job, bool *fetched, struct Error *err) {
    pthread_mutex_lock(&w->reading->disk);
    int64_t i = take_job(w->reading, job);
    *fetched = i >= 0 && (h5_block_fetch(&job->block, &w->buffers.block, err) ||
                          error_prefix(err, "chunk %lld", (long long)job->number));
    pthread_mutex_unlock(&w->reading->disk);
    return i;
}

static void report(struct CkptReading *reading, int64_t i, uint32_t crc32, const struct Error *err) {
    pthread_mutex_lock(&reading->lock);
    reading->jobs[i].crc32 = crc32;
    if (err && i < reading->failure.job) reading->failure = (struct Failure){i, *err};
    pthread_mutex_unlock(&reading->lock);
}

/* Job after job, until all are taken. */
static void *work(void *context) {
    struct Worker *w = context;
    struct Job job;
    struct Error err;
    bool good;
    for (int64_t i; (i = fetch_job(w, &job, &good, &err)) >= 0;) {
        good = good && decode(&job, &w->buffers, &err);
        report(w->reading, i, job.crc32, good ? NULL : &err);
    }
    return NULL;
}

/* A thread more, once there is so much to read that it has something to do for longer than it takes to
 * wake it.  Without it, others do its work. */
static void start_worker(struct CkptReading *reading) {
    enum { LEAST_BYTES = 1 << 20 };
    struct Worker *w = &reading->workers[1 + reading->n_started];
    if (1 + reading->n_started == reading->n_workers) return;
    if (reading->n_bytes < (1 + reading->n_started) * (int64_t)LEAST_BYTES) return;
    if (worker_thread_start(&w->thread, work, w)) reading->n_started++;
}

/* Says that no job will be added, and helps with what there is. */
static void finish_jobs(struct CkptReading *reading) {
    pthread_mutex_lock(&reading->lock);
    reading->complete = true;
    pthread_cond_broadcast(&reading->news);
    pthread_mutex_unlock(&reading->lock);
    work(&reading->workers[0]);
    for (; reading->n_started > 0; reading->n_started--)
        pthread_join(reading->workers[reading->n_started].thread, NULL);
}

void ckpt_reading_clear(struct CkptReading *reading) {
    pthread_mutex_lock(&reading->lock);
    reading->n_taken = reading->n_jobs;
    pthread_mutex_unlock(&reading->lock);
    finish_jobs(reading);
    forget_jobs(reading);
}

/* ---- collecting ---- */

static int64_t lesser(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t greater(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static void add_job(struct CkptReading *reading, const struct Job *job) {
    pthread_mutex_lock(&reading->lock);
    reading->jobs = ckpt_grow(reading->jobs, reading->n_jobs, 1, &reading->jobs_capacity,
                              sizeof *reading->jobs);
    reading->jobs[reading->n_jobs++] = *job;
    pthread_cond_signal(&reading->news);
    pthread_mutex_unlock(&reading->lock);
    reading->n_bytes += job->block.n_bytes;
    start_worker(reading);
}

/* `job` has what all blocks of the array have in common. */
static bool add_block(struct CkptReading *reading, const struct H5Array *array, struct Job job,
                      const struct CkptRange *range, const uint32_t *block_crc32,
                      struct Error *err) {
    int64_t rows = h5_block_rows(array), row = job.number * rows;
    int64_t begin = row * array->row_elems;
    int64_t end = begin + lesser(rows, array->n_rows - row) * array->row_elems;
    int64_t from = greater(begin, range->begin), to = lesser(end, range->end);
    job.n_elems = end - begin;
    job.from = from - begin;
    job.to = to - begin;
    job.out = range->out ? range->out + (from - range->begin) : NULL;
    job.stored = block_crc32 ? &block_crc32[job.number] : NULL;
    if (!h5_block_locate(array, job.number, &job.block, err)) return false;
    add_job(reading, &job);
    return true;
}

bool ckpt_reading_add(struct CkptReading *reading, const struct H5Array *array,
                      const struct CkptRange *range, struct CkptSums sums, const char *where,
                      struct Error *err) {
    int64_t block_elems = h5_block_rows(array) * array->row_elems, first = reading->n_jobs;
    struct Job job = {.number = range->begin / block_elems,
                      .allow_nonfinite = range->allow_nonfinite};
    bool added = h5_block_begin(array, &job.block, err);
    for (; added && job.number * block_elems < range->end; job.number++)
        added = add_block(reading, array, job, range, sums.blocks, err);
    if (!added) return error_prefix(err, "%s", where);
    reading->parts = ckpt_grow(reading->parts, reading->n_parts, 1, &reading->parts_capacity,
                               sizeof *reading->parts);
    reading->parts[reading->n_parts++] = (struct Part){.first = first,
                                                       .n = reading->n_jobs - first,
                                                       .whole = sums.whole,
                                                       .where = xstrdup(where)};
    return true;
}

/* ---- the end ---- */

/* The checksum of an array that is known only as a whole. */
static bool check_whole(const struct CkptReading *reading, const struct Part *part,
                        struct Error *err) {
    uint32_t crc32 = 0;
    for (int64_t i = part->first; i < part->first + part->n; i++) {
        const struct Job *job = &reading->jobs[i];
        crc32 = crc32_joined(crc32, job->crc32, job->n_elems * (int64_t)sizeof(float));
    }
    return !part->whole || crc32 == *part->whole ||
           error_set(err, "is damaged: its checksum is %08x, stored is %08x", crc32, *part->whole);
}

bool ckpt_reading_run(struct CkptReading *reading, struct Error *err) {
    bool good = true;
    finish_jobs(reading);
    for (int64_t i = 0; good && i < reading->n_parts; i++) {
        const struct Part *part = &reading->parts[i];
        bool read = reading->failure.job >= part->first + part->n;
        if (!read) *err = reading->failure.err;
        good = (read && check_whole(reading, part, err)) || error_prefix(err, "%s", part->where);
    }
    forget_jobs(reading);
    return good;
}
