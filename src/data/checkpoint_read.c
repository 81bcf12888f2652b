/* A block that a range covers goes straight to its place; others, two at most of a range, through a
 * buffer. */
#include "data/checkpoint_read.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "data/checkpoint_contents.h"
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

static bool add_job(struct CkptReading *reading, const struct H5Array *array, int64_t number,
                    const struct CkptRange *range, const uint32_t *block_crc32, struct Error *err) {
    int64_t rows = h5_block_rows(array), row = number * rows;
    int64_t begin = row * array->row_elems;
    int64_t end = begin + lesser(rows, array->n_rows - row) * array->row_elems;
    int64_t from = greater(begin, range->begin), to = lesser(end, range->end);
    struct Job job = {
        .part = reading->n_parts,
        .number = number,
        .n_elems = end - begin,
        .from = from - begin,
        .to = to - begin,
        .out = range->out ? range->out + (from - range->begin) : NULL,
        .stored = block_crc32 ? &block_crc32[number] : NULL,
    };
    if (!h5_block_locate(array, number, &job.block, err)) return false;
    h5_block_prefetch(&job.block); /* while the next are located */
    reading->jobs = ckpt_grow(reading->jobs, reading->n_jobs, 1, &reading->jobs_capacity,
                              sizeof *reading->jobs);
    reading->jobs[reading->n_jobs++] = job;
    return true;
}

bool ckpt_reading_add(struct CkptReading *reading, const struct H5Array *array,
                      const struct CkptRange *range, struct CkptSums sums, const char *where,
                      struct Error *err) {
    int64_t block_elems = h5_block_rows(array) * array->row_elems, first = reading->n_jobs;
    for (int64_t block = range->begin / block_elems; block * block_elems < range->end; block++)
        if (!add_job(reading, array, block, range, sums.blocks, err))
            return error_prefix(err, "%s", where);
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

static bool read_job(struct Job *job, bool allow_nonfinite, struct Buffers *buffers,
                     struct Error *err) {
    int64_t n_wanted = job->to - job->from, n_bytes = job->n_elems * (int64_t)sizeof(float);
    bool direct = job->out && n_bytes == job->block.n_bytes && n_wanted == job->n_elems;
    float *values = direct ? job->out : need_values(buffers, job->block.n_bytes);
    if (!h5_block_read(&job->block, &buffers->block, values, err))
        return error_prefix(err, "chunk %lld", (long long)job->number);
    job->crc32 = ckpt_crc32(0, values, n_bytes);
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

/* As many as have something to do for longer than it takes to wake them. */
static int count_threads(const struct CkptReading *reading) {
    enum { THREADS_PER_PROCESSOR = 2, LEAST_BYTES = 1 << 20 };
    int64_t n_bytes = 0;
    for (int64_t i = 0; i < reading->n_jobs; i++) n_bytes += reading->jobs[i].block.n_bytes;
    int64_t n_most = lesser(reading->n_jobs, 1 + n_bytes / LEAST_BYTES);
    return (int)lesser(THREADS_PER_PROCESSOR * omp_get_max_threads(), n_most);
}

static void need_buffers(struct CkptReading *reading, int n) {
    if (n <= reading->n_buffers) return;
    reading->buffers = xrealloc(reading->buffers, (size_t)n * sizeof *reading->buffers);
    for (int i = reading->n_buffers; i < n; i++) reading->buffers[i] = (struct Buffers){0};
    reading->n_buffers = n;
}

static void read_jobs(struct CkptReading *reading, struct Failure *failure) {
    int n_threads = count_threads(reading);
    need_buffers(reading, n_threads);
#pragma omp parallel for num_threads(n_threads) schedule(dynamic)
    for (int64_t i = 0; i < reading->n_jobs; i++) {
        struct Error err;
        struct Job *job = &reading->jobs[i];
        struct Buffers *buffers = &reading->buffers[omp_get_thread_num()];
        if (!read_job(job, reading->parts[job->part].allow_nonfinite, buffers, &err))
            note(failure, i, &err);
    }
}

/* The checksum of an array that is known only as a whole. */
static bool check_whole(const struct CkptReading *reading, const struct Part *part,
                        struct Error *err) {
    uint32_t crc32 = 0;
    for (int64_t i = part->first; i < part->first + part->n; i++) {
        const struct Job *job = &reading->jobs[i];
        crc32 = ckpt_crc32_combine(crc32, job->crc32, job->n_elems * (int64_t)sizeof(float));
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
