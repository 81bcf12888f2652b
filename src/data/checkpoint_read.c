/* A block that a range covers goes straight to its place; others, two at most of a range, through a
 * buffer. */
#define _GNU_SOURCE /* qsort_r */
#include "data/checkpoint_read.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "data/checkpoint_contents.h"
#include "data/crc32.h"
#include "data/h5_block.h"

/* A block to read. */
struct Job {
    struct H5Block block;
    int64_t part;           /* the range that wants it */
    int64_t number;         /* in its array */
    int64_t n_elems;        /* without padding */
    int64_t from, to;       /* which of its elements are wanted, */
    float *out;             /* and where they go; NULL: nowhere */
    const uint32_t *stored; /* its checksum as it should be; NULL: unknown */
    uint32_t crc32;         /* as it is, once read */
};

/* A range: so many jobs in a row. */
struct Part {
    int64_t first, n;
    bool allow_nonfinite;
    const uint32_t *whole;
    char *where;
};

/* Memory of one thread. */
struct Buffers {
    struct H5BlockBuffers block;
    float *values;
    int64_t n_bytes;
};

struct CkptReading {
    struct Job *jobs;
    struct Part *parts;
    int64_t n_jobs, n_parts, jobs_capacity, parts_capacity;
    int64_t *order; /* [n_jobs]: jobs as they are fetched, */
    int64_t order_capacity, n_fetched; /* and how many have been */
    struct Buffers *buffers; /* [n_buffers], a thread's each */
    int n_buffers;
};

struct CkptReading *ckpt_reading_create(void) {
    return xcalloc(sizeof(struct CkptReading));
}

void ckpt_reading_clear(struct CkptReading *reading) {
    for (int64_t i = 0; i < reading->n_parts; i++) free(reading->parts[i].where);
    reading->n_parts = reading->n_jobs = 0;
}

void ckpt_reading_destroy(struct CkptReading *reading) {
    if (!reading) return;
    ckpt_reading_clear(reading);
    for (int i = 0; i < reading->n_buffers; i++) {
        h5_block_buffers_free(&reading->buffers[i].block);
        free(reading->buffers[i].values);
    }
    free(reading->buffers);
    free(reading->parts);
    free(reading->order);
    free(reading->jobs);
    free(reading);
}

int64_t ckpt_reading_blocks(const struct CkptReading *reading) {
    return reading->n_jobs;
}

/* ---- collecting ---- */

static int64_t lesser(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t greater(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* `job` has what all blocks of the array have in common. */
static bool add_job(struct CkptReading *reading, const struct H5Array *array, struct Job job,
                    const struct CkptRange *range, const uint32_t *block_crc32, struct Error *err) {
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
    reading->jobs = ckpt_grow(reading->jobs, reading->n_jobs, 1, &reading->jobs_capacity,
                              sizeof *reading->jobs);
    reading->jobs[reading->n_jobs++] = job;
    return true;
}

bool ckpt_reading_add(struct CkptReading *reading, const struct H5Array *array,
                      const struct CkptRange *range, struct CkptSums sums, const char *where,
                      struct Error *err) {
    int64_t block_elems = h5_block_rows(array) * array->row_elems, first = reading->n_jobs;
    struct Job job = {.part = reading->n_parts, .number = range->begin / block_elems};
    bool added = h5_block_begin(array, &job.block, err);
    for (; added && job.number * block_elems < range->end; job.number++)
        added = add_job(reading, array, job, range, sums.blocks, err);
    if (!added) return error_prefix(err, "%s", where);
    reading->parts = ckpt_grow(reading->parts, reading->n_parts, 1, &reading->parts_capacity,
                               sizeof *reading->parts);
    reading->parts[reading->n_parts++] = (struct Part){.first = first,
                                                       .n = reading->n_jobs - first,
                                                       .allow_nonfinite = range->allow_nonfinite,
                                                       .whole = sums.whole,
                                                       .where = xstrdup(where)};
    return true;
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

static bool damaged_chunk(const struct Job *job, struct Error *err) {
    return error_prefix(err, "chunk %lld", (long long)job->number);
}

/* From the buffers, where the block has been fetched, to its place. */
static bool decode_job(struct Job *job, bool allow_nonfinite, struct Buffers *buffers,
                       struct Error *err) {
    int64_t n_wanted = job->to - job->from, n_bytes = job->n_elems * (int64_t)sizeof(float);
    bool direct = job->out && n_bytes == job->block.n_bytes && n_wanted == job->n_elems;
    float *values = direct ? job->out : need_values(buffers, job->block.n_bytes);
    if (!h5_block_decode(&job->block, &buffers->block, values, err)) return damaged_chunk(job, err);
    job->crc32 = crc32_after(0, values, n_bytes);
    if (!check_sum(job, err)) return false;
    if (!allow_nonfinite && !check_finite(values + job->from, n_wanted, err)) return false;
    if (job->out && !direct)
        memcpy(job->out, values + job->from, (size_t)n_wanted * sizeof *values);
    return true;
}

/* The first job that failed, and why; n_jobs: none. */
struct Failure {
    int64_t job;
    struct Error err;
};

static void note(struct Failure *failure, int64_t job, const struct Error *err) {
#pragma omp critical(ckpt_reading_failure)
    if (job < failure->job) {
        failure->job = job;
        failure->err = *err;
    }
}

/* One waits for the disk, the others decode; but no more than have something to do for longer than it
 * takes to wake them. */
static int count_threads(const struct CkptReading *reading) {
    enum { LEAST_BYTES = 1 << 20 };
    int64_t n_bytes = 0;
    for (int64_t i = 0; i < reading->n_jobs; i++) n_bytes += reading->jobs[i].block.n_bytes;
    int64_t n_most = lesser(reading->n_jobs, 1 + n_bytes / LEAST_BYTES);
    return (int)lesser(1 + omp_get_max_threads(), n_most);
}

static void need_buffers(struct CkptReading *reading, int n) {
    if (n <= reading->n_buffers) return;
    reading->buffers = xrealloc(reading->buffers, (size_t)n * sizeof *reading->buffers);
    for (int i = reading->n_buffers; i < n; i++) reading->buffers[i] = (struct Buffers){0};
    reading->n_buffers = n;
}

static int by_place(const void *left, const void *right, void *context) {
    const struct Job *jobs = context;
    const struct H5Block *a = &jobs[*(const int64_t *)left].block;
    const struct H5Block *b = &jobs[*(const int64_t *)right].block;
    if (a->descriptor != b->descriptor) return a->descriptor < b->descriptor ? -1 : 1;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

/* The jobs in the order of the files, which the disk reads fastest. */
static void sort_jobs(struct CkptReading *reading) {
    reading->order =
        ckpt_grow(reading->order, 0, reading->n_jobs, &reading->order_capacity, sizeof(int64_t));
    for (int64_t i = 0; i < reading->n_jobs; i++) reading->order[i] = i;
    qsort_r(reading->order, (size_t)reading->n_jobs, sizeof(int64_t), by_place, reading->jobs);
}

/* Fetches the block of the next job, *i (n_jobs: none is left).  One thread at a time: the system sees
 * a file read from its beginning to its end, and reads ahead. */
static bool fetch_next(struct CkptReading *reading, struct Buffers *buffers, int64_t *i,
                       struct Error *err) {
    bool fetched = true;
#pragma omp critical(ckpt_reading_fetch)
    if (reading->n_fetched == reading->n_jobs) {
        *i = reading->n_jobs;
    } else {
        *i = reading->order[reading->n_fetched++];
        fetched = h5_block_fetch(&reading->jobs[*i].block, &buffers->block, err);
    }
    return fetched || damaged_chunk(&reading->jobs[*i], err);
}

static void read_jobs(struct CkptReading *reading, struct Failure *failure) {
    int n_threads = count_threads(reading);
    need_buffers(reading, n_threads);
    sort_jobs(reading);
    reading->n_fetched = 0;
#pragma omp parallel num_threads(n_threads)
    for (;;) {
        struct Buffers *buffers = &reading->buffers[omp_get_thread_num()];
        struct Error err;
        int64_t i;
        bool good = fetch_next(reading, buffers, &i, &err);
        if (i == reading->n_jobs) break;
        struct Job *job = &reading->jobs[i];
        good = good && decode_job(job, reading->parts[job->part].allow_nonfinite, buffers, &err);
        if (!good) note(failure, i, &err);
    }
}

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
    struct Failure failure = {.job = reading->n_jobs};
    if (reading->n_jobs > 0) read_jobs(reading, &failure);
    bool good = true;
    for (int64_t i = 0; good && i < reading->n_parts; i++) {
        const struct Part *part = &reading->parts[i];
        bool read = failure.job >= part->first + part->n;
        if (!read) *err = failure.err;
        good = (read && check_whole(reading, part, err)) || error_prefix(err, "%s", part->where);
    }
    ckpt_reading_clear(reading);
    return good;
}
