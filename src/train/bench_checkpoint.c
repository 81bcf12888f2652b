/* How fast a sharded checkpoint is written and read again by another number of ranks, beside a
 * plain read of the same bytes.
 *
 * What is read comes from the disk: its files leave the page cache before each measurement, where
 * the system does as it is told; then once more from the cache, which shows what the processor can
 * do.  A plain read: threads read 4 MiB at a time and do nothing with them; one thread, and as many
 * as there are processors; the faster counts.  The rows give bytes of files per second.  A load makes
 * more bytes of weights from them, as long as they are compressed; the ratio compares those with the
 * bytes of a plain read.
 *
 * A rank is a thread here, with a share of the processors for its load, as it would be a process with
 * such a share on one machine. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/checkpoint_folder.h"
#include "data/checkpoint_shards.h"
#include "train/bench.h"
#include "train/phase_timer.h"

/* A transformer's block, 64 MiB of weights. */
enum { WIDTH = 1024, BLOCK_MIB = 64, BLOCK_TENSORS = 12, MAX_NAME = 64 };
static const struct {
    const char *name;
    int n_dims;
    int64_t shape[2];
} block_tensors[BLOCK_TENSORS] = {
    {"self.q", 2, {WIDTH, WIDTH}},   {"self.k", 2, {WIDTH, WIDTH}},  {"self.v", 2, {WIDTH, WIDTH}},
    {"self.o", 2, {WIDTH, WIDTH}},   {"cross.q", 2, {WIDTH, WIDTH}}, {"cross.k", 2, {WIDTH, WIDTH}},
    {"cross.v", 2, {WIDTH, WIDTH}},  {"cross.o", 2, {WIDTH, WIDTH}}, {"up", 2, {4 * WIDTH, WIDTH}},
    {"down", 2, {WIDTH, 4 * WIDTH}}, {"up.bias", 1, {4 * WIDTH}},    {"down.bias", 1, {WIDTH}},
};
static const char group[] = "student/param";

enum { LONGEST = 4 * WIDTH * WIDTH, PIECE_BYTES = 4 << 20 };

struct CheckpointBench {
    struct BenchReport *report;
    struct CkptSave save;
    char *folder, *path; /* of our own; of the master */
    int64_t n_ranks, n_tensors;
    float *noise;              /* [LONGEST + n_tensors]; tensor i begins at element i */
    struct CkptWanted *wanted; /* [n_ranks][n_tensors] */
    char (*names)[MAX_NAME];   /* [n_tensors] */
    char **files;              /* [n_shards] */
    int64_t *file_bytes;       /* [n_shards] */
    float *loaded;             /* [n_ranks][rank_elems]: the ranks' weights */
    int64_t rank_elems;        /* at most */
    double n_bytes;            /* of all files, */
    double weight_bytes;       /* and of the weights in them */
    bool dropped;              /* the page cache was empty whenever it should be */
};

/* ---- what is written ---- */

/* The share [begin, end) of tensor t that part `part` of n_parts has. */
static struct CkptWanted part_of(const struct CheckpointBench *b, int64_t t, int64_t part,
                                 int64_t n_parts) {
    int k = (int)(t % BLOCK_TENSORS), n_dims = block_tensors[k].n_dims;
    int64_t n_elems = block_tensors[k].shape[0] * (n_dims > 1 ? block_tensors[k].shape[1] : 1);
    return (struct CkptWanted){.group = group,
                               .name = b->names[t],
                               .n_dims = n_dims,
                               .shape = block_tensors[k].shape,
                               .begin = n_elems * part / n_parts,
                               .end = n_elems * (part + 1) / n_parts};
}

static bool write_shard(const struct CheckpointBench *b, int shard, struct Error *err) {
    struct CkptWriter *writer;
    if (!ckpt_shard_open(&b->save, shard, &writer, err)) return false;
    for (int64_t t = 0; t < b->n_tensors; t++) {
        struct CkptWanted own = part_of(b, t, shard, b->save.n_shards);
        if (!ckpt_shard_write_f32(writer, group, own.name, own.n_dims, own.shape, own.begin,
                                  own.end, b->noise + t + own.begin, err)) {
            ckpt_writer_abandon(writer);
            return false;
        }
    }
    return ckpt_writer_commit(writer, err);
}

static bool write_all(const struct CheckpointBench *b, struct Error *err) {
    struct CkptWriter *writer;
    for (int s = 0; s < b->save.n_shards; s++)
        if (!write_shard(b, s, err)) return false;
    return ckpt_master_open(&b->save, &writer, err) && ckpt_writer_commit(writer, err);
}

/* ---- reading it ---- */

static bool load_rank(const struct CheckpointBench *b, int64_t rank, struct Error *err) {
    struct Ckpt *ckpt;
    struct CkptWanted *wanted = b->wanted + rank * b->n_tensors;
    float *at = b->loaded + rank * b->rank_elems;
    for (int64_t t = 0; t < b->n_tensors; t++) {
        wanted[t] = part_of(b, t, rank, b->n_ranks);
        wanted[t].out = at;
        at += wanted[t].end - wanted[t].begin;
    }
    if (!ckpt_open(b->path, &ckpt, err)) return false;
    bool read = ckpt_read_ranges_f32(ckpt, b->n_tensors, wanted, false, err);
    ckpt_close(ckpt);
    return read;
}

static bool load(struct CheckpointBench *b, int n_threads, struct Error *err) {
    int n_shared = n_threads / (int)b->n_ranks;
    bool good = true;
    omp_set_max_active_levels(2); /* a rank's own threads, too */
#pragma omp parallel for num_threads((int)b->n_ranks) schedule(static, 1)
    for (int64_t rank = 0; rank < b->n_ranks; rank++) {
        struct Error failure;
        omp_set_num_threads(n_shared > 1 ? n_shared : 1);
        if (load_rank(b, rank, &failure)) continue;
#pragma omp critical(bench_load_failed)
        {
            good = false;
            *err = failure;
        }
    }
    return good;
}

static bool read_file(const char *path, int64_t n_bytes, int n_threads) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool good = fd >= 0;
#pragma omp parallel num_threads(n_threads) reduction(&& : good)
    {
        char *buffer = xmalloc(PIECE_BYTES);
#pragma omp for schedule(dynamic)
        for (int64_t at = 0; at < n_bytes; at += PIECE_BYTES)
            good = good && pread(fd, buffer, PIECE_BYTES, at) > 0;
        free(buffer);
    }
    if (fd >= 0) close(fd);
    return good;
}

static bool read_plain(struct CheckpointBench *b, int n_threads, struct Error *err) {
    for (int s = 0; s < b->save.n_shards; s++)
        if (!read_file(b->files[s], b->file_bytes[s], n_threads))
            return error_set(err, "%s: cannot be read: %s", b->files[s], strerror(errno));
    return true;
}

/* ---- the page cache ---- */

/* Whether no page of the file is in memory any more. */
static bool drop_file(const char *path, int64_t n_bytes) {
    int64_t page = sysconf(_SC_PAGESIZE), n_pages = (n_bytes + page - 1) / page;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    unsigned char *resident = xmalloc((size_t)n_pages);
    void *map = mmap(NULL, (size_t)n_bytes, PROT_READ, MAP_SHARED, fd, 0);
    bool gone = map != MAP_FAILED && mincore(map, (size_t)n_bytes, resident) == 0;
    for (int64_t i = 0; gone && i < n_pages; i++) gone = !(resident[i] & 1);
    if (map != MAP_FAILED) munmap(map, (size_t)n_bytes);
    free(resident);
    close(fd);
    return gone;
}

static void drop_files(struct CheckpointBench *b) {
    for (int s = 0; s < b->save.n_shards; s++)
        b->dropped = drop_file(b->files[s], b->file_bytes[s]) && b->dropped;
}

/* ---- measuring ---- */

enum Read { PLAIN_ONE, PLAIN_MANY, LOAD, CACHED_PLAIN, CACHED_LOAD, N_READS };
static const struct {
    const char *name;
    bool (*run)(struct CheckpointBench *b, int n_threads, struct Error *err);
    bool many, cached;
} reads[N_READS] = {
    [PLAIN_ONE] = {"plain read, one thread", read_plain, false, false},
    [PLAIN_MANY] = {"plain read, all threads", read_plain, true, false},
    [LOAD] = {"load", load, true, false},
    [CACHED_PLAIN] = {"plain read, from the page cache", read_plain, true, true},
    [CACHED_LOAD] = {"load, from the page cache", load, true, true},
};

static void add_row(const struct CheckpointBench *b, const char *name, double seconds) {
    bench_row(b->report, name,
              (struct OpTally){.calls = 1, .seconds = seconds, .bytes = b->n_bytes});
}

/* All kinds of reading in turn, so that what else the machine does meets them alike. */
static bool measure_reads(struct CheckpointBench *b, double seconds[N_READS], struct Error *err) {
    enum { AT_LEAST = 3, AT_MOST = 100 };
    double samples[N_READS][AT_MOST], begin = wall_seconds();
    int n = 0;
    for (;
         n < AT_MOST && (n < AT_LEAST || wall_seconds() - begin < bench_report_seconds(b->report));
         n++)
        for (int r = 0; r < N_READS; r++) {
            if (!reads[r].cached) drop_files(b);
            double start = wall_seconds();
            if (!reads[r].run(b, reads[r].many ? omp_get_max_threads() : 1, err)) return false;
            samples[r][n] = wall_seconds() - start;
        }
    for (int r = 0; r < N_READS; r++) seconds[r] = bench_choose(b->report, samples[r], n);
    return true;
}

static DIR *opendir_below(const char *folder, const char *name) {
    char *path = xprintf("%s/%s", folder, name);
    DIR *dir = opendir(path);
    free(path);
    return dir;
}

/* The shards: all that lies in their folder. */
static bool list_files(struct CheckpointBench *b, struct Error *err) {
    char *name = ckpt_shards_name(b->save.iteration, b->save.id);
    DIR *dir = opendir_below(b->folder, name);
    struct stat status;
    int n = 0;
    for (struct dirent *entry; dir && n < b->save.n_shards && (entry = readdir(dir));) {
        if (fstatat(dirfd(dir), entry->d_name, &status, 0) != 0 || !S_ISREG(status.st_mode))
            continue;
        b->files[n] = xprintf("%s/%s/%s", b->folder, name, entry->d_name);
        b->file_bytes[n++] = status.st_size;
        b->n_bytes += (double)status.st_size;
    }
    if (dir) closedir(dir);
    free(name);
    return n == b->save.n_shards ||
           error_set(err, "%s: expected %d shards, found %d", b->folder, b->save.n_shards, n);
}

static bool measure(struct CheckpointBench *b, struct Error *err) {
    double start = wall_seconds(), seconds[N_READS];
    if (!write_all(b, err)) return false;
    double write_seconds = wall_seconds() - start;
    if (!list_files(b, err) || !measure_reads(b, seconds, err)) return false;
    add_row(b, "save, one thread, to the disk", write_seconds);
    for (int r = 0; r < N_READS; r++) add_row(b, reads[r].name, seconds[r]);
    double plain =
        seconds[PLAIN_ONE] < seconds[PLAIN_MANY] ? seconds[PLAIN_ONE] : seconds[PLAIN_MANY];
    bench_ratio(b->report, "bytes per second: weights of a load / plain read",
                b->weight_bytes / seconds[LOAD] * plain / b->n_bytes, BENCH_AT_LEAST, 0.9);
    bench_note(b->report, b->dropped
                              ? "the files were not in the page cache, but where the row says so"
                              : "the files were in the page cache: this system does not drop them");
    return true;
}

/* ---- setting up and removing ---- */

static void make_noise(struct CheckpointBench *b, const struct Backend *be) {
    struct BenchOperands operands = {.be = be};
    int64_t n_elems = LONGEST + b->n_tensors;
    float *noise = bench_floats(&operands, n_elems);
    b->noise = xmalloc((size_t)n_elems * sizeof *noise);
    be->scale_f32(be, noise, 0.02, n_elems);
    be->download(be, b->noise, noise, n_elems * (int64_t)sizeof *noise);
    bench_operands_free(&operands);
}

static void allocate(struct CheckpointBench *b, const struct Backend *be, int64_t n_blocks) {
    b->rank_elems = (n_blocks * BLOCK_MIB << 18) / b->n_ranks + b->n_tensors * (4 * WIDTH + 1);
    size_t n_loaded = (size_t)(b->n_ranks * b->rank_elems) * sizeof *b->loaded;
    b->names = xmalloc((size_t)b->n_tensors * sizeof *b->names);
    for (int64_t t = 0; t < b->n_tensors; t++)
        snprintf(b->names[t], MAX_NAME, "blocks.%lld.%s", (long long)(t / BLOCK_TENSORS),
                 block_tensors[t % BLOCK_TENSORS].name);
    for (int64_t t = 0; t < b->n_tensors; t++) {
        struct CkptWanted whole = part_of(b, t, 0, 1);
        b->weight_bytes += (double)(whole.end - whole.begin) * sizeof *b->loaded;
    }
    b->wanted = xmalloc((size_t)(b->n_ranks * b->n_tensors) * sizeof *b->wanted);
    b->files = xcalloc((size_t)b->save.n_shards * sizeof *b->files);
    b->file_bytes = xcalloc((size_t)b->save.n_shards * sizeof *b->file_bytes);
    b->loaded = xmalloc(n_loaded);
    memset(b->loaded, 1, n_loaded); /* its pages are there before anything is measured */
    make_noise(b, be);
}

static void free_all(struct CheckpointBench *b) {
    for (int s = 0; s < b->save.n_shards; s++) free(b->files[s]);
    free(b->files);
    free(b->file_bytes);
    free(b->loaded);
    free(b->wanted);
    free(b->names);
    free(b->noise);
}

bool bench_checkpoint(struct BenchReport *report, const struct Backend *be,
                      const struct BenchCheckpoint *how, struct Error *err) {
    struct CheckpointBench b = {.report = report, .n_ranks = how->n_ranks, .dropped = true};
    int64_t n_blocks = (how->mib + BLOCK_MIB - 1) / BLOCK_MIB;
    b.folder = xprintf("%s/tmd-bench-XXXXXX", how->folder);
    if (!mkdtemp(b.folder)) {
        error_set(err, "%s: cannot be created: %s", b.folder, strerror(errno));
        free(b.folder);
        return false;
    }
    b.save = (struct CkptSave){.folder = b.folder,
                               .stage = "bench",
                               .id = ckpt_save_id(),
                               .n_shards = (int)how->n_shards,
                               .zstd_level = (int)how->zstd_level};
    b.path = ckpt_step_path(b.folder, 0);
    b.n_tensors = n_blocks * BLOCK_TENSORS;
    allocate(&b, be, n_blocks);
    bench_section(report, "checkpoint: %lld MiB in %d shards, loaded by %lld ranks",
                  (long long)(n_blocks * BLOCK_MIB), b.save.n_shards, (long long)b.n_ranks);
    bool good = measure(&b, err);
    unlink(b.path);
    ckpt_save_abandon(&b.save);
    rmdir(b.folder);
    free_all(&b);
    free(b.path);
    free(b.folder);
    return good;
}
