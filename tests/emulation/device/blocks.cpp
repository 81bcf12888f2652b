/* Kernels: the blocks of a grid one after the other, the threads of a block as fibers.
 *
 * A warp runs as far as it can without the others: until all its threads have ended or wait at a
 * barrier.  So one warp is a whole phase ahead of the next, and a missing __syncthreads shows
 * whatever the direction of the hazard.  Orders of blocks, warps and lanes change from launch to
 * launch and from phase to phase, always in the same way. */
#include <cstdio>
#include <cstring>
#include <map>
#include <numeric>
#include <vector>

#include "device.h"
#include "emulated/kernel_launch.h"
#include "fiber.h"

uint3 threadIdx, blockIdx;
dim3 blockDim(0, 0, 0), gridDim(0, 0, 0);

enum { MAX_THREADS = 1024, LANES = 32 };

/* ---- orders */

static uint64_t scramble(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

/* A permutation of 0 .. n-1: forward, backward, or in strides, as `key` has it. */
class Order {
    uint64_t n, at, step, n_left;

  public:
    Order() : n(0), at(0), step(0), n_left(0) {
    }
    Order(uint64_t n_, uint64_t key) : n(n_), at(0), step(1), n_left(n_) {
        uint64_t random = scramble(key);
        if (random % 3 == 0 || n < 2) return;
        at = n - 1;
        step = n - 1;
        if (random % 3 == 1) return;
        at = (random >> 8) % n;
        step = 1 + (random >> 40) % (n - 1);
        while (std::gcd(step, n) != 1) step++;
    }
    /* Whether one is left; then it is `*next`. */
    bool take(uint64_t *next) {
        if (n_left == 0) return false;
        n_left--;
        *next = at;
        at += step;
        if (at >= n) at -= n;
        return true;
    }
};

/* ---- the block that runs */

enum class State { READY, AT_BARRIER, AT_WARP_OPERATION, ENDED };

struct Thread {
    State state;
    Fiber *fiber; /* NULL before it starts and after it ends */
    uint3 index;
    const char *file; /* where it waits, and for what */
    int line;
    const char *operation;
    unsigned int mask;
    uint64_t given;
};

struct Multiprocessor {
    const EmuLaunch *launch;
    void (*body)(void *arg);
    void *arg;
    uint64_t n_launches, n_phases;
    int n_threads;
    Thread threads[MAX_THREADS];
    uint64_t taken[MAX_THREADS]; /* by thread: what it gave to the warp operation that was last */
    int warp;                    /* that runs now */
    Order lanes;                 /* of it that may still be let go on in this sweep */
    Thread *running;
    Fiber host;
    std::vector<Fiber *> idle_fibers;
    std::map<const void *, int> shared_limits; /* of kernels that cudaFuncSetAttribute has raised */
};

static Multiprocessor mp;

void emu_describe_thread(char *text, size_t n_bytes) {
    if (!mp.running) return;
    snprintf(text, n_bytes, ", block (%u, %u, %u), thread (%u, %u, %u)", blockIdx.x, blockIdx.y,
             blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
}

/* ---- threads */

/* The next thread of this sweep over the warp that can go on; NULL at the end of the sweep. */
static Thread *next_ready(void) {
    for (uint64_t lane; mp.lanes.take(&lane);) {
        Thread *thread = &mp.threads[mp.warp * LANES + (int)lane];
        if (thread->state == State::READY) return thread;
    }
    return NULL;
}

/* Makes `thread` the one that runs: what is left to do is to switch to its fiber. */
static void make_current(Thread *thread) {
    mp.running = thread;
    if (thread) threadIdx = thread->index;
}

static void fiber_main(void);

/* The fiber of a thread that may not have started yet; the host's for NULL. */
static Fiber *fiber_of(Thread *thread) {
    if (!thread) return &mp.host;
    if (!thread->fiber && mp.idle_fibers.empty())
        mp.idle_fibers.push_back(fiber_create(fiber_main));
    if (!thread->fiber) {
        thread->fiber = mp.idle_fibers.back();
        mp.idle_fibers.pop_back();
    }
    return thread->fiber;
}

/* Threads that start one after the other and never wait share a fiber. */
static void fiber_main(void) {
    Fiber *self = mp.running->fiber;
    fiber_arrive(self);
    for (;;) {
        mp.body(mp.arg);
        mp.running->state = State::ENDED;
        mp.running->fiber = NULL;
        Thread *next = next_ready();
        make_current(next);
        if (next && !next->fiber) {
            next->fiber = self;
            continue;
        }
        mp.idle_fibers.push_back(self);
        fiber_switch(self, fiber_of(next));
    }
}

/* The thread that calls from there. */
static Thread *caller(const char *file, int line) {
    if (!mp.running) emu_reject("%s:%d waits for threads outside of a kernel", file, line);
    return mp.running;
}

static void wait_as(Thread *self, State state, const char *file, int line) {
    self->state = state;
    self->file = file;
    self->line = line;
    Thread *next = next_ready();
    make_current(next);
    fiber_switch(self->fiber, fiber_of(next));
}

void emu_wait_block(const char *file, int line) {
    wait_as(caller(file, line), State::AT_BARRIER, file, line);
}

int emu_lane(void) {
    return (int)(mp.running - mp.threads) % LANES;
}

const uint64_t *emu_wait_warp(const char *operation, unsigned int mask, uint64_t value,
                              const char *file, int line) {
    Thread *self = caller(file, line);
    if (!(mask >> emu_lane() & 1))
        emu_reject("%s:%d: lane %d calls %s with mask %08x, which lacks it", file, line, emu_lane(),
                   operation, mask);
    self->operation = operation;
    self->mask = mask;
    self->given = value;
    wait_as(self, State::AT_WARP_OPERATION, file, line);
    return &mp.taken[(self - mp.threads) / LANES * LANES];
}

void emu_require_lane(const char *operation, unsigned int mask, int lane, const char *file,
                      int line) {
    if (lane < 0 || lane >= LANES || !(mask >> lane & 1))
        emu_reject("%s:%d: %s with mask %08x takes the value of lane %d", file, line, operation,
                   mask, lane);
}

/* ---- warps */

static int lanes_of(int warp) {
    int n_left = mp.n_threads - warp * LANES;
    return n_left < LANES ? n_left : LANES;
}

static bool same_operation(const Thread &a, const Thread &b) {
    return a.state == State::AT_WARP_OPERATION && b.state == a.state && a.mask == b.mask &&
           (a.operation == b.operation || strcmp(a.operation, b.operation) == 0);
}

/* Whether all lanes that `leader` names wait for the same operation as it does. */
static bool group_complete(const Thread *warp, int n_lanes, const Thread &leader) {
    for (int lane = 0; lane < LANES; lane++) {
        bool named = leader.mask >> lane & 1;
        if (named && (lane >= n_lanes || !same_operation(leader, warp[lane]))) return false;
    }
    return true;
}

/* Lets the groups go on whose lanes have all arrived.  Returns whether there was one. */
static bool release_groups(int warp_number) {
    Thread *warp = &mp.threads[warp_number * LANES];
    int n_lanes = lanes_of(warp_number);
    bool released = false;
    for (int first = 0; first < n_lanes; first++) {
        unsigned int mask = warp[first].mask;
        if (warp[first].state != State::AT_WARP_OPERATION ||
            !group_complete(warp, n_lanes, warp[first]))
            continue;
        for (int lane = 0; lane < n_lanes; lane++)
            if (mask >> lane & 1) {
                mp.taken[warp_number * LANES + lane] = warp[lane].given;
                warp[lane].state = State::READY;
            }
        released = true;
    }
    return released;
}

/* No lane of the warp can go on: none may be left at a warp operation then. */
static void require_no_group(int warp_number) {
    Thread *warp = &mp.threads[warp_number * LANES];
    for (int lane = 0; lane < lanes_of(warp_number); lane++) {
        const Thread &stuck = warp[lane];
        if (stuck.state != State::AT_WARP_OPERATION) continue;
        int missing = 0;
        while (!(stuck.mask >> missing & 1) ||
               (missing < lanes_of(warp_number) && same_operation(stuck, warp[missing])))
            missing++;
        threadIdx = stuck.index;
        emu_reject("%s:%d: lane %d waits in %s with mask %08x, which lane %d does not reach",
                   stuck.file, stuck.line, lane, stuck.operation, stuck.mask, missing);
    }
}

static void run_warp(int warp) {
    mp.warp = warp;
    do {
        mp.lanes = Order((uint64_t)lanes_of(warp), mp.n_phases++ ^ mp.n_launches << 32);
        Thread *first = next_ready();
        make_current(first);
        if (first) fiber_switch(&mp.host, fiber_of(first));
    } while (release_groups(warp));
    require_no_group(warp);
}

/* ---- blocks */

static void begin_block(void) {
    const dim3 &block = mp.launch->block;
    mp.n_threads = (int)(block.x * block.y * block.z);
    for (int i = 0; i < mp.n_threads; i++) {
        unsigned int n = (unsigned int)i;
        mp.threads[i] = Thread{};
        mp.threads[i].index = {n % block.x, n / block.x % block.y, n / block.x / block.y};
    }
    emu_shared_begin_block();
}

/* Lets all threads that have not ended pass the barrier.  Returns whether there were any. */
static bool release_barrier(void) {
    const Thread *first = NULL;
    for (Thread *thread = mp.threads; thread < mp.threads + mp.n_threads; thread++) {
        if (thread->state == State::ENDED) continue;
        if (!first) first = thread;
        if (thread->line != first->line || strcmp(thread->file, first->file) != 0)
            emu_reject("divergent barrier: thread %d waits at %s:%d, thread %d at %s:%d",
                       (int)(first - mp.threads), first->file, first->line,
                       (int)(thread - mp.threads), thread->file, thread->line);
        thread->state = State::READY;
    }
    return first != NULL;
}

static void run_block(void) {
    begin_block();
    int n_warps = (mp.n_threads + LANES - 1) / LANES;
    do {
        Order warps((uint64_t)n_warps, mp.n_phases++ ^ mp.n_launches << 32);
        for (uint64_t warp; warps.take(&warp);) run_warp((int)warp);
    } while (release_barrier());
    emu_shared_check_red_zones();
}

void emu_run_grid(const EmuLaunch *launch, void (*thread)(void *arg), void *arg) {
    mp.launch = launch;
    mp.body = thread;
    mp.arg = arg;
    mp.n_launches++;
    mp.n_phases = 0;
    blockDim = launch->block;
    gridDim = launch->grid;
    emu_shared_begin_grid(launch->shared_bytes);
    uint64_t plane = (uint64_t)gridDim.x * gridDim.y;
    Order blocks(plane * gridDim.z, mp.n_launches << 32);
    for (uint64_t block; blocks.take(&block);) {
        blockIdx = {(unsigned int)(block % gridDim.x), (unsigned int)(block % plane / gridDim.x),
                    (unsigned int)(block / plane)};
        run_block();
    }
}

/* ---- what a launch may ask for */

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attribute, int value) {
    DeviceLock lock = emu_lock();
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || value > emu_shared_optin_bytes()) return emu_result(cudaErrorInvalidValue);
    mp.shared_limits[kernel] = value;
    return cudaSuccess;
}

bool emu_launch_allowed(const EmuLaunch *launch) {
    DeviceLock lock = emu_lock();
    const dim3 &grid = launch->grid, &block = launch->block;
    auto raised = mp.shared_limits.find(launch->function);
    size_t shared_limit = SHARED_BYTES;
    if (raised != mp.shared_limits.end() && raised->second > SHARED_BYTES)
        shared_limit = (size_t)raised->second;
    uint64_t n_threads = (uint64_t)block.x * block.y * block.z;
    if (grid.x >= 1 && grid.x <= INT32_MAX && grid.y >= 1 && grid.y <= 65535 && grid.z >= 1 &&
        grid.z <= 65535 && n_threads >= 1 && n_threads <= MAX_THREADS && block.z <= 64 &&
        launch->shared_bytes <= shared_limit)
        return true;
    fprintf(stderr,
            "emulated device: %s cannot be launched with grid (%u, %u, %u), block (%u, %u, %u) and "
            "%zu bytes of shared memory (%zu at most)\n",
            launch->kernel, grid.x, grid.y, grid.z, block.x, block.y, block.z, launch->shared_bytes,
            shared_limit);
    emu_result(cudaErrorInvalidConfiguration);
    return false;
}
