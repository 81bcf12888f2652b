/* Asking: each rank looks round, and all exchange what they found. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "train/environment.h"

#include <omp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/library_versions.h"
#include "train/clock_offsets.h"
#include "train/comm_describe.h"
#include "train/comm_gather.h"

static void name_software(char text[ENVIRONMENT_TEXT], const struct Comm *comm,
                          const struct Comm *device_comm) {
    char data[64], host[64], device[64] = "";
    data_library_versions(data, sizeof data);
    comm_describe(comm, host, sizeof host);
    if (device_comm != comm) comm_describe(device_comm, device, sizeof device);
    snprintf(text, ENVIRONMENT_TEXT, "tmd " TMD_VERSION ", %s%s%s, %s", host,
             *device ? " and " : "", device, data);
}

/* Stays empty on a machine of more processors than fit. */
static void find_processors(uint64_t processors[ENVIRONMENT_MAX_PROCESSORS / 64]) {
    cpu_set_t set;
    _Static_assert(CPU_SETSIZE == ENVIRONMENT_MAX_PROCESSORS, "as many bits");
    if (sched_getaffinity(0, sizeof set, &set) != 0) return;
    for (int i = 0; i < ENVIRONMENT_MAX_PROCESSORS; i++)
        if (CPU_ISSET(i, &set)) processors[i / 64] |= (uint64_t)1 << i % 64;
}

static struct RankFacts *look_round(const struct Comm *comm, const struct Comm *device_comm,
                                    const struct Backend *be) {
    struct RankFacts *facts = xcalloc(sizeof *facts);
    if (gethostname(facts->host, sizeof facts->host - 1) != 0) strcpy(facts->host, "?");
    be->describe(be, facts->device, sizeof facts->device);
    name_software(facts->software, comm, device_comm);
    facts->n_threads = omp_get_max_threads();
    find_processors(facts->processors);
    return facts;
}

void environment_survey(struct Environment *env, struct Comm *comm, const struct Comm *device_comm,
                        const struct Backend *be) {
    size_t n = (size_t)comm->n_ranks;
    *env = (struct Environment){.n_ranks = comm->n_ranks,
                                .ranks = xcalloc(n * sizeof *env->ranks),
                                .clock_ahead = xcalloc(n * sizeof *env->clock_ahead)};
    struct RankFacts *own = look_round(comm, device_comm, be);
    comm_gather_host(comm, env->ranks, own, sizeof *own);
    clock_offsets_measure(comm, clock_now, env->clock_ahead, &env->clock_uncertainty);
    free(own);
}

void environment_free(struct Environment *env) {
    free(env->ranks);
    free(env->clock_ahead);
    *env = (struct Environment){0};
}
