/* Reads the environment, then meets over an address that all know or over a file that rank 0
 * writes. */
#include "train/rendezvous.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/atomic_file.h"
#include "data/file_io.h"
#include "fnv.h"
#include "train/phase_timer.h"

/* ---- the environment ---- */

bool launch_wanted(void) {
    const char *place = getenv("TMD_RENDEZVOUS");
    return place && *place;
}

/* A variable that holds a number from `low` to `high`. */
static bool read_number(const char *name, double low, double high, double *number,
                        struct Error *err) {
    const char *text = getenv(name);
    char *end;
    *number = text ? strtod(text, &end) : NAN;
    if (text && end != text && !*end && *number >= low && *number <= high) return true;
    return error_set(err, "$%s: expected a number from %.0f to %.0f, got %s%s%s", name, low, high,
                     text ? "'" : "nothing", text ? text : "", text ? "'" : "");
}

static bool read_integer(const char *name, int low, int high, int *integer, struct Error *err) {
    double number;
    if (!read_number(name, low, high, &number, err)) return false;
    *integer = (int)number;
    return number == *integer ||
           error_set(err, "$%s: expected a whole number, got %s", name, getenv(name));
}

static bool read_ranks(struct Launch *launch, struct Error *err) {
    static const struct {
        const char *rank, *n_ranks, *local_rank;
    } launchers[] = {{"TMD_RANK", "TMD_WORLD_SIZE", "TMD_LOCAL_RANK"},
                     {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
                     {"RANK", "WORLD_SIZE", "LOCAL_RANK"},
                     {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"}};
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++) {
        if (!getenv(launchers[i].rank)) continue;
        launch->local_rank = -1;
        return read_integer(launchers[i].n_ranks, 1, 1000000, &launch->n_ranks, err) &&
               read_integer(launchers[i].rank, 0, launch->n_ranks - 1, &launch->rank, err) &&
               (!getenv(launchers[i].local_rank) ||
                read_integer(launchers[i].local_rank, 0, launch->n_ranks - 1, &launch->local_rank,
                             err));
    }
    return error_set(err,
                     "$TMD_RENDEZVOUS is set, but neither $TMD_RANK nor the variables of mpirun, "
                     "torchrun or srun say which rank this process is");
}

/* A restart of a job is another job. */
static void read_job(char *job, size_t n_bytes) {
    static const char *const names[] = {"SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT",
                                        "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"};
    const char *own = getenv("TMD_JOB");
    size_t used = (size_t)snprintf(job, n_bytes, "%s", own ? own : "");
    for (size_t i = 0; !own && i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (value && used < n_bytes)
            used += (size_t)snprintf(job + used, n_bytes - used, "%s%s", used ? "." : "", value);
    }
}

bool launch_read(struct Launch *launch, struct Error *err) {
    *launch = (struct Launch){.place = getenv("TMD_RENDEZVOUS"), .seconds = 60.0};
    read_job(launch->job, sizeof launch->job);
    if (getenv("TMD_RENDEZVOUS_SECONDS") &&
        !read_number("TMD_RENDEZVOUS_SECONDS", 1, 86400, &launch->seconds, err))
        return false;
    return read_ranks(launch, err);
}

/* ---- meeting ---- */

/* What two ends of a connection compare. */
static uint64_t key_of(const char *job) {
    return fnv_hash(job, strlen(job));
}

/* "HOST:PORT" or "[HOST]:PORT" as an address; `port` as a string of its own. */
static bool parse_tcp(const char *text, struct StarAddress *address, char port[16],
                      struct Error *err) {
    const char *colon = strrchr(text, ':');
    bool bracketed = *text == '[' && colon && colon > text && colon[-1] == ']';
    char *end = NULL;
    long number = colon ? strtol(colon + 1, &end, 10) : 0;
    int n_host = colon ? (int)(colon - text) - 2 * bracketed : 0;
    if (n_host < 1 || n_host > 255 || *end || number < 1 || number > 65535)
        return error_set(err, "$TMD_RENDEZVOUS: expected tcp://HOST:PORT, got 'tcp://%s'", text);
    snprintf(port, 16, "%ld", number);
    snprintf(address->where, sizeof address->where, "%ld %.*s", number, n_host, text + bracketed);
    return true;
}

static bool meet_over_tcp(const struct Launch *launch, const char *text, double until,
                          struct Star *star, struct Error *err) {
    struct StarAddress address = {.key = key_of(launch->job)};
    char port[16];
    if (!parse_tcp(text, &address, port, err)) return false;
    if (launch->rank)
        return star_follow(star, launch->rank, launch->n_ranks, star_find_known, &address, until,
                           err);
    int listening = socket_listen(port, err);
    return listening >= 0 && star_lead(star, listening, &address, launch->n_ranks, until, err);
}

/* The file is one line: "tmd-rendezvous KEY PORT HOST [HOST ...]", the key in hexadecimal. */
struct FilePlace {
    const char *path;
    uint64_t job;
};

/* An address that is of this job, as far as one can tell; a connection will show. */
static bool find_in_file(const void *context, struct StarAddress *address) {
    const struct FilePlace *place = context;
    unsigned long long key;
    int at = 0;
    char line[sizeof address->where + 64] = "";
    struct Error ignored; /* not there yet, or not any more */
    FILE *file = file_open_stream(place->path, &ignored);
    bool found = file && fgets(line, sizeof line, file) &&
                 sscanf(line, "tmd-rendezvous %llx %n", &key, &at) == 1 && at && key == place->job;
    if (file) fclose(file);
    if (!found) return false;
    *address = (struct StarAddress){.key = key};
    snprintf(address->where, sizeof address->where, "%.*s", (int)strcspn(line + at, "\n"),
             line + at);
    return true;
}

static bool meet_over_file(const struct Launch *launch, const char *path, double until,
                           struct Star *star, struct Error *err) {
    struct FilePlace place = {.path = path, .job = key_of(launch->job)};
    if (launch->rank)
        return star_follow(star, launch->rank, launch->n_ranks, find_in_file, &place, until, err);
    struct StarAddress address;
    int listening = star_listen(&address, err);
    if (listening < 0) return false;
    address.key = place.job;
    char *line =
        xprintf("tmd-rendezvous %llx %s\n", (unsigned long long)address.key, address.where);
    bool ok = atomic_file_write(path, line, strlen(line), err);
    free(line);
    if (!ok) {
        close(listening);
        return false;
    }
    ok = star_lead(star, listening, &address, launch->n_ranks, until, err);
    unlink(path);
    return ok;
}

bool rendezvous(const struct Launch *launch, struct Star *star, struct Error *err) {
    static const struct {
        const char *scheme;
        bool (*meet)(const struct Launch *, const char *, double, struct Star *, struct Error *);
    } ways[] = {{"tcp://", meet_over_tcp}, {"file://", meet_over_file}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        size_t n_chars = strlen(ways[i].scheme);
        if (strncmp(launch->place, ways[i].scheme, n_chars) == 0)
            return ways[i].meet(launch, launch->place + n_chars, wall_seconds() + launch->seconds,
                                star, err);
    }
    return error_set(err, "$TMD_RENDEZVOUS: expected tcp://HOST:PORT or file://PATH, got '%s'",
                     launch->place);
}
