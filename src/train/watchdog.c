/* Once in an interval the thread listens, tells and judges.  Rank 0 judges all ranks, the others
 * judge rank 0. */
#include "train/watchdog.h"

#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "data/worker_thread.h"
#include "train/star.h"

static const double JOIN_SECONDS = 30.0; /* right behind an operation of all ranks */
static const double GRACE_SECONDS =
    5.0; /* for launchers to end the ranks that another one leaves */

/* How many limits a phase may last. */
static double patience(enum Phase phase) {
    static const double slow[PHASE_ALL] = {[PHASE_SAVE] = 4.0,
                                           [PHASE_PREVIEW] = 4.0,
                                           [PHASE_OPEN] = 4.0,
                                           [PHASE_PAIRS] = 4.0,
                                           [PHASE_CLOSE] = 4.0};
    return fmax(slow[phase], 1.0);
}

/* ---- what the threads tell each other ---- */

enum BeatKind { BEAT_ALIVE, BEAT_GOODBYE, BEAT_END };

struct Beat {
    int32_t kind;
    int32_t exit_code; /* BEAT_END */
    int64_t n_phases;  /* entered so far */
    int64_t n_signs;   /* of work */
    int64_t phase;
};

/* What is known of a rank; times are those of the thread's clock. */
struct Watched {
    struct Beat last;
    double heard_at, worked_at; /* when `last` came; when there was work in it */
    double lost_at;             /* its connection; INFINITY: not so */
    bool left;                  /* it said goodbye */
};

struct Watchdog {
    double limit, interval;
    struct Star star;
    struct Watched *watched; /* [n_ranks]; rank 0 watches all, the others rank 0 */
    pthread_t thread;
    int stop; /* an eventfd */
    /* The thread's own time: it stands still while the thread does, so that a job that was stopped
     * as a whole is not taken for one that hangs. */
    double clock, last_wall;
    /* the main thread's, of which the thread reads any mixture: only news matters */
    _Atomic int64_t n_phases, n_signs, phase;
};

static struct Beat own_beat(struct Watchdog *dog) {
    return (struct Beat){.kind = BEAT_ALIVE,
                         .n_phases = dog->n_phases,
                         .n_signs = dog->n_signs,
                         .phase = dog->phase};
}

static void send_all(struct Watchdog *dog, const struct Beat *beat) {
    for (int r = 0; r < dog->star.n_ranks; r++)
        if (dog->star.peers[r].fd >= 0)
            socket_send(dog->star.peers[r].fd, beat, sizeof *beat, wall_seconds());
}

/* ---- listening ---- */

static void note(struct Watchdog *dog, struct Watched *w, const struct Beat *beat) {
    w->heard_at = dog->clock;
    if (beat->n_signs != w->last.n_signs) w->worked_at = dog->clock;
    w->last = *beat;
}

static void hear(struct Watchdog *dog, int rank) {
    struct Watched *w = &dog->watched[rank];
    struct StarPeer *peer = &dog->star.peers[rank];
    struct Beat beat;
    enum SocketNews news;
    while ((news = socket_news(peer->fd, &beat, sizeof beat)) == SOCKET_MESSAGE) {
        if (beat.kind == BEAT_END) _exit(beat.exit_code);
        if (beat.kind == BEAT_GOODBYE) w->left = true;
        if (beat.kind == BEAT_ALIVE && beat.phase >= 0 && beat.phase < PHASE_ALL)
            note(dog, w, &beat);
    }
    if (news == SOCKET_NOTHING) return;
    close(peer->fd);
    peer->fd = -1;
    w->lost_at = dog->clock;
}

static void hear_all(struct Watchdog *dog) {
    struct Beat own = own_beat(dog);
    for (int r = 0; r < dog->star.n_ranks; r++)
        if (dog->star.peers[r].fd >= 0) hear(dog, r);
    if (dog->star.rank == 0) note(dog, &dog->watched[0], &own);
}

/* ---- judging ---- */

/* Ends all ranks, also if this one's main thread holds the lock of stderr or of memory. */
_Noreturn static void end_job(struct Watchdog *dog, enum ExitCode exit_code, const char *verdict) {
    struct Beat end = {.kind = BEAT_END, .exit_code = exit_code};
    send_all(dog, &end);
    dprintf(STDERR_FILENO, "tmd: watchdog: %s; ending the job (train.watchdog is %.0f)\n", verdict,
            dog->limit);
    _exit(exit_code);
}

static const char *phase_of(const struct Watched *w) {
    return phase_name((enum Phase)w->last.phase);
}

static bool is_silent(const struct Watchdog *dog, const struct Watched *w) {
    return dog->clock - w->heard_at > dog->limit / 2.0;
}

/* Whether its process is gone, and said nothing. */
static bool judge_lost(struct Watchdog *dog, int rank, double grace) {
    const struct Watched *w = &dog->watched[rank];
    char verdict[256];
    if (w->left || dog->clock < w->lost_at) return false;
    if (dog->clock - w->lost_at < grace) return true;
    snprintf(verdict, sizeof verdict, "rank %d (%s) is gone; it was in phase '%s'", rank,
             dog->star.peers[rank].host, phase_of(w));
    end_job(dog, EXIT_FAILED, verdict);
}

_Noreturn static void tell_silent(struct Watchdog *dog, int rank) {
    const struct Watched *w = &dog->watched[rank];
    char verdict[256];
    snprintf(verdict, sizeof verdict,
             "rank %d (%s) has not answered for %.0f s; it was in phase '%s'", rank,
             dog->star.peers[rank].host, dog->clock - w->heard_at, phase_of(w));
    end_job(dog, EXIT_STUCK, verdict);
}

/* `behind` answers, but works no more. */
_Noreturn static void tell_stuck(struct Watchdog *dog, int behind) {
    const struct Watched *w = &dog->watched[behind];
    int n_there = 0, n_ahead = 0;
    char verdict[256], others[64] = "";
    for (int r = 0; r < dog->star.n_ranks; r++) {
        if (dog->watched[r].left) continue;
        n_there += dog->watched[r].last.n_phases == w->last.n_phases;
        n_ahead += dog->watched[r].last.n_phases > w->last.n_phases;
    }
    if (n_there > 1) snprintf(others, sizeof others, " and %d more", n_there - 1);
    snprintf(verdict, sizeof verdict, "rank %d (%s)%s: no work done in phase '%s' for %.0f s%s",
             behind, dog->star.peers[behind].host, others, phase_of(w), dog->clock - w->worked_at,
             n_ahead ? ", and the other ranks wait" : "");
    end_job(dog, EXIT_STUCK, verdict);
}

/* The rank that the others wait for: one that is silent, else the one that has come least far. */
static bool is_behind(const struct Watchdog *dog, const struct Watched *a,
                      const struct Watched *b) {
    bool silent = is_silent(dog, a);
    return silent != is_silent(dog, b) ? silent : a->last.n_phases < b->last.n_phases;
}

static void judge_all(struct Watchdog *dog) {
    double worked_at = 0.0;
    int behind = -1;
    for (int r = 0; r < dog->star.n_ranks; r++) {
        const struct Watched *w = &dog->watched[r];
        if (judge_lost(dog, r, GRACE_SECONDS)) return;
        if (w->left) continue;
        worked_at = fmax(worked_at, w->worked_at);
        if (behind < 0 || is_behind(dog, w, &dog->watched[behind])) behind = r;
    }
    if (behind < 0) return;
    const struct Watched *w = &dog->watched[behind];
    double quiet = dog->clock - worked_at;
    if (is_silent(dog, w) && quiet > dog->limit) tell_silent(dog, behind);
    if (quiet > dog->limit * patience((enum Phase)w->last.phase)) tell_stuck(dog, behind);
}

/* Rank 1 speaks for the others, which wait a little longer. */
static void judge_first(struct Watchdog *dog) {
    const struct Watched *w = &dog->watched[0];
    double later = dog->star.rank > 1 ? 2.0 : 0.0;
    if (w->left || judge_lost(dog, 0, GRACE_SECONDS + later)) return;
    if (dog->clock - w->heard_at > dog->limit + 2.0 * dog->interval + later) tell_silent(dog, 0);
}

/* ---- the thread ---- */

/* Until the next round; false: it is the last. */
static bool rest(struct Watchdog *dog) {
    struct pollfd stop = {.fd = dog->stop, .events = POLLIN};
    bool last = poll(&stop, 1, (int)(1e3 * dog->interval)) > 0;
    double now = wall_seconds();
    dog->clock += fmin(now - dog->last_wall, 2.0 * dog->interval);
    dog->last_wall = now;
    return !last;
}

static void *watch(void *context) {
    struct Watchdog *dog = context;
    while (rest(dog)) {
        struct Beat own = own_beat(dog);
        hear_all(dog);
        send_all(dog, &own);
        (dog->star.rank ? judge_first : judge_all)(dog);
    }
    struct Beat goodbye = {.kind = BEAT_GOODBYE};
    send_all(dog, &goodbye);
    return NULL;
}

/* ---- the main thread's side ---- */

static bool join(struct Comm *comm, struct Star *star, struct Error *err) {
    struct StarAddress address = {0};
    double until = wall_seconds() + JOIN_SECONDS;
    if (comm->n_ranks == 1) {
        *star = star_alone();
        return true;
    }
    int listening = comm->rank ? -1 : star_listen(&address, err);
    comm->broadcast(comm, &address, sizeof address, 0);
    if (!*address.where) return comm->rank == 0 ? false : error_set(err, "rank 0 cannot listen");
    return comm->rank
               ? star_follow(star, comm->rank, comm->n_ranks, star_find_known, &address, until, err)
               : star_lead(star, listening, &address, comm->n_ranks, until, err);
}

static void free_dog(struct Watchdog *dog) {
    if (dog->stop >= 0) close(dog->stop);
    star_close(&dog->star);
    free(dog->watched);
    free(dog);
}

bool watchdog_start(struct Comm *comm, double limit, struct Watchdog **started, struct Error *err) {
    *started = NULL;
    if (limit <= 0.0) return true;
    struct Star star;
    if (!join(comm, &star, err)) return error_prefix(err, "watchdog");
    struct Watchdog *dog = xcalloc(sizeof *dog);
    dog->limit = limit;
    dog->interval = fmin(1.0, limit / 8.0);
    dog->star = star;
    dog->watched = xcalloc((size_t)comm->n_ranks * sizeof *dog->watched);
    dog->stop = eventfd(0, EFD_CLOEXEC);
    dog->last_wall = wall_seconds();
    dog->phase = PHASE_OPEN;
    for (int r = 0; r < comm->n_ranks; r++)
        dog->watched[r] = (struct Watched){.last.phase = PHASE_OPEN, .lost_at = INFINITY};
    if (dog->stop < 0 || !worker_thread_start(&dog->thread, watch, dog)) {
        free_dog(dog);
        return error_set(err, "watchdog: cannot start its thread");
    }
    *started = dog;
    return true;
}

void watchdog_alive(struct Watchdog *dog) {
    if (dog) dog->n_signs++;
}

void watchdog_enter(struct Watchdog *dog, enum Phase phase) {
    if (!dog) return;
    dog->phase = phase;
    dog->n_phases++;
    dog->n_signs++;
}

void watchdog_stop(struct Watchdog *dog) {
    if (!dog) return;
    eventfd_write(dog->stop, 1);
    pthread_join(dog->thread, NULL);
    free_dog(dog);
}
