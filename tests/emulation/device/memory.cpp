/* Memory of the emulated devices.
 *
 * Every allocation lies in pages of its own, at addresses that are never used again, between two
 * guards full of poison and behind a page that stays out of bounds:
 *
 *     | guard ... | n_bytes, 256-byte aligned | guard (256 to 511 bytes) | page out of bounds |
 *
 * Fresh memory is poison as well, so that a result computed from memory that nobody wrote is NaN.
 * Freed pages are out of bounds for good.  While the device does nothing, all of it is.
 *
 * Of an allocation that many use in turn, each can claim the beginning (emu_claim): the rest is as
 * if it lay behind the end, poison up to the next page, and from there on out of bounds. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "device.h"

enum : size_t {
    ALIGNMENT = 256,
    GUARD_BYTES = 256,
    PAGE_BYTES = 4096,
    POISON_BYTES = 4 << 20,   /* of the file that fresh memory is mapped from */
    REGION_BYTES = 1ULL << 40 /* of addresses */
};

static size_t round_up(size_t n, size_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

struct Allocation {
    uintptr_t begin;
    size_t n_bytes;
    uintptr_t span; /* of whole pages, guards included */
    size_t span_bytes;
    int device;
    bool live;
    size_t claimed_bytes; /* what calls may name of it */
    size_t open_bytes;    /* what work may touch of it: follows when the claim's turn comes */

    uintptr_t end() const {
        return begin + n_bytes;
    }
    uintptr_t open_end() const {
        return begin + open_bytes;
    }
    uintptr_t open_pages_end() const {
        return round_up(open_end(), PAGE_BYTES);
    }
};

struct Memory {
    uintptr_t region = 0; /* of addresses for all device memory */
    uintptr_t next = 0;
    int poison_file = -1;
    bool open = false;                           /* to be touched */
    std::map<uintptr_t, Allocation> allocations; /* by begin; the freed ones stay, for messages */
    std::map<uintptr_t, Allocation *> live;
    std::map<int, size_t> used_bytes; /* by device */
};

static Memory &memory(void) {
    static Memory &all = *new Memory;
    return all;
}

/* ---- pages */

static void report_leaks(void) {
    size_t n_bytes = 0;
    for (const auto &[begin, allocation] : memory().live) n_bytes += allocation->n_bytes;
    if (!n_bytes) return;
    fprintf(stderr, "emulated device: %zu allocations (%zu bytes) were never freed\n",
            memory().live.size(), n_bytes);
    fflush(NULL);
    _exit(1);
}

static void memory_begin(void) {
    void *region =
        mmap(NULL, REGION_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region == MAP_FAILED) emu_reject("no addresses left for device memory");
    memory().region = memory().next = (uintptr_t)region;

    static char poison[64 * 1024];
    memset(poison, POISON, sizeof poison);
    int file = memfd_create("poison", MFD_CLOEXEC);
    for (size_t n = 0; n < POISON_BYTES; n += sizeof poison)
        if (file < 0 || write(file, poison, sizeof poison) != (ssize_t)sizeof poison)
            emu_reject("no memory for poison");
    memory().poison_file = file;
    if (emu_machine().strict) atexit(report_leaks);
}

/* Maps poison: pages come into being when written to. */
static void map_poison(uintptr_t span, size_t n_bytes) {
    for (size_t done = 0; done < n_bytes; done += POISON_BYTES) {
        size_t n = n_bytes - done < POISON_BYTES ? n_bytes - done : POISON_BYTES;
        if (mmap((void *)(span + done), n, PROT_NONE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
                 memory().poison_file, 0) == MAP_FAILED)
            emu_reject("no memory for an allocation of %zu bytes", n_bytes);
    }
}

static void unmap(uintptr_t span, size_t n_bytes) {
    if (mmap((void *)span, n_bytes, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
        emu_reject("cannot give back an allocation of %zu bytes", n_bytes);
}

static void protect(uintptr_t begin, uintptr_t end, int protection) {
    if (end > begin && mprotect((void *)begin, end - begin, protection) != 0)
        emu_reject("cannot protect device memory");
}

static void protect_all(int protection) {
    for (const auto &[begin, allocation] : memory().live)
        protect(allocation->span, allocation->open_pages_end(), protection);
    memory().open = protection != PROT_NONE;
}

void emu_open_memory(void) {
    if (memory().open) return;
    emu_watch_faults();
    protect_all(PROT_READ | PROT_WRITE);
}

void emu_close_memory(void) {
    if (memory().open) protect_all(PROT_NONE);
}

/* ---- what an address is */

/* The allocation that begins last at or before `address`, living or not. */
static const Allocation *allocation_before(uintptr_t address) {
    auto next = memory().allocations.upper_bound(address);
    return next == memory().allocations.begin() ? NULL : &std::prev(next)->second;
}

bool emu_is_device_address(uintptr_t address) {
    return memory().region && address - memory().region < REGION_BYTES;
}

bool emu_explain_device_address(uintptr_t address, char *text, size_t n_bytes) {
    if (!emu_is_device_address(address)) return false;
    const Allocation *near = allocation_before(address);
    auto next = memory().allocations.upper_bound(address);
    const char *who = emu_work_at_hand() ? "the device" : "host code";
    if (next != memory().allocations.end() && address >= next->second.span)
        snprintf(text, n_bytes, "%s touched %p, %zu bytes before an allocation of %zu bytes", who,
                 (void *)address, (size_t)(next->first - address), next->second.n_bytes);
    else if (!near)
        snprintf(text, n_bytes, "%s touched %p, which was never allocated", who, (void *)address);
    else if (!near->live && address < near->end())
        snprintf(text, n_bytes, "%s touched %p, byte %zu of %zu that were freed", who,
                 (void *)address, (size_t)(address - near->begin), near->n_bytes);
    else if (address < near->end() && address >= near->open_end() && emu_work_at_hand())
        snprintf(text, n_bytes,
                 "%s touched %p, byte %zu of an allocation of which %zu bytes are claimed", who,
                 (void *)address, (size_t)(address - near->begin), near->open_bytes);
    else if (address < near->end())
        snprintf(text, n_bytes, "%s touched device memory at %p, byte %zu of %zu", who,
                 (void *)address, (size_t)(address - near->begin), near->n_bytes);
    else
        snprintf(text, n_bytes,
                 "%s touched %p, %zu bytes after the end of an allocation of %zu bytes", who,
                 (void *)address, (size_t)(address - near->end()), near->n_bytes);
    return true;
}

void emu_require_device(const void *address, size_t n_bytes, const char *what) {
    DeviceLock lock = emu_lock();
    uintptr_t begin = (uintptr_t)address;
    if (!emu_is_device_address(begin))
        emu_reject("%s: %p (%zu bytes) is not device memory", what, address, n_bytes);
    const Allocation *in = allocation_before(begin);
    if (!in || begin >= in->span + in->span_bytes)
        emu_reject("%s: %p (%zu bytes) lies in no allocation", what, address, n_bytes);
    if (!in->live)
        emu_reject("%s: %p lies in an allocation of %zu bytes that was freed", what, address,
                   in->n_bytes);
    uintptr_t end = in->begin + in->claimed_bytes;
    if (begin > end || n_bytes > end - begin)
        emu_reject("%s: %zu bytes from byte %zu on run past the end of %s of %zu bytes", what,
                   n_bytes, (size_t)(begin - in->begin),
                   in->claimed_bytes < in->n_bytes ? "a claim" : "an allocation",
                   in->claimed_bytes);
}

/* ---- guards */

__attribute__((no_sanitize("address"))) bool emu_poison_intact(const void *begin, size_t n_bytes) {
    const unsigned char *bytes = (const unsigned char *)begin;
    unsigned char all = POISON;
    for (size_t i = 0; i < n_bytes; i++) all &= bytes[i];
    return all == POISON;
}

void emu_check_guards(const char *what) {
    for (const auto &[begin, allocation] : memory().live) {
        size_t before = begin - allocation->span;
        size_t after = allocation->open_pages_end() - allocation->open_end();
        if (!emu_poison_intact((void *)allocation->span, before))
            emu_reject("%s wrote before the start of an allocation of %zu bytes", what,
                       allocation->n_bytes);
        if (!emu_poison_intact((void *)allocation->open_end(), after))
            emu_reject("%s wrote past the end of %s of %zu bytes", what,
                       allocation->open_bytes < allocation->n_bytes ? "a claim"
                                                                    : "an allocation",
                       allocation->open_bytes);
    }
}

/* ---- claims */

struct Claim {
    uintptr_t begin;
    size_t n_bytes;
};

static Allocation &claimed(uintptr_t begin) {
    auto found = memory().live.find(begin);
    if (found == memory().live.end())
        emu_reject("a claim of %p, where no allocation begins", (void *)begin);
    return *found->second;
}

/* Of the last page that is open, what lies behind the claim: the sanitizer may know. */
static size_t rest_of_page(const Allocation &a) {
    return std::min(a.end(), a.open_pages_end()) - a.open_end();
}

/* Pages that are forgotten come back as the poison that they were mapped from. */
static void forget(uintptr_t begin, uintptr_t end) {
    if (end > begin && madvise((void *)begin, end - begin, MADV_DONTNEED) != 0)
        emu_reject("cannot poison device memory");
}

/* While memory is open. */
static void claim_run(void *arg) {
    const Claim *claim = (const Claim *)arg;
    Allocation &now = claimed(claim->begin);
    const Allocation before = now;
    now.open_bytes = claim->n_bytes;
    uintptr_t pages_end = now.open_pages_end(), pages_before = before.open_pages_end();
    EMU_SHOW((void *)before.open_end(), rest_of_page(before));
    if (now.open_end() < before.open_end()) {
        uintptr_t poison_end = std::min(before.open_end(), pages_end);
        memset((void *)now.open_end(), POISON, poison_end - now.open_end());
        forget(pages_end, pages_before);
        protect(pages_end, pages_before, PROT_NONE);
    }
    protect(pages_before, pages_end, PROT_READ | PROT_WRITE);
    EMU_HIDE((void *)now.open_end(), rest_of_page(now));
}

void emu_claim(cudaStream_t stream, void *address, size_t n_bytes) {
    DeviceLock lock = emu_lock();
    Allocation &a = claimed((uintptr_t)address);
    if (n_bytes > a.n_bytes)
        emu_reject("a claim of %zu bytes of an allocation of %zu", n_bytes, a.n_bytes);
    a.claimed_bytes = n_bytes;
    emu_enqueue(stream, "a claim", claim_run, new Claim{a.begin, n_bytes},
                [](void *arg) { delete (Claim *)arg; });
}

/* ---- device memory */

bool emu_take_memory(int device, size_t n_bytes) {
    size_t &used = memory().used_bytes[device];
    if (n_bytes > emu_machine().memory_bytes - used) return false;
    used += n_bytes;
    return true;
}

void emu_give_memory_back(int device, size_t n_bytes) {
    memory().used_bytes[device] -= n_bytes;
}

cudaError_t cudaMalloc(void **address, size_t n_bytes) {
    DeviceLock lock = emu_lock();
    Memory &all = memory();
    *address = NULL;
    int n_devices;
    if (emu_work_at_hand()) emu_reject("cudaMalloc by work of the device");
    if (cudaGetDeviceCount(&n_devices) != cudaSuccess || emu_device_died())
        return cudaPeekAtLastError();
    if (emu_capture_forbids(EMU_UNSAFE_FOR_THREAD)) return cudaPeekAtLastError();
    if (n_bytes == 0) return emu_result(cudaSuccess);
    size_t taken = round_up(n_bytes, ALIGNMENT);
    if (taken < n_bytes || !emu_take_memory(emu_current_device(), taken))
        return emu_result(cudaErrorMemoryAllocation);
    if (!all.region) memory_begin();

    Allocation fresh = {};
    fresh.span = all.next;
    fresh.span_bytes = round_up(GUARD_BYTES + taken + GUARD_BYTES, PAGE_BYTES);
    if (fresh.span + fresh.span_bytes + PAGE_BYTES > all.region + REGION_BYTES)
        emu_reject("the addresses for device memory are used up");
    all.next += fresh.span_bytes + PAGE_BYTES;
    fresh.begin = fresh.span + fresh.span_bytes - GUARD_BYTES - taken;
    fresh.n_bytes = n_bytes;
    fresh.device = emu_current_device();
    fresh.live = true;
    fresh.claimed_bytes = fresh.open_bytes = n_bytes;
    map_poison(fresh.span, fresh.span_bytes);
    EMU_HIDE((void *)fresh.span, fresh.span_bytes);
    EMU_SHOW((void *)fresh.begin, fresh.n_bytes);
    all.live[fresh.begin] = &(all.allocations[fresh.begin] = fresh);
    *address = (void *)fresh.begin;
    emu_watch_faults();
    return emu_result(cudaSuccess);
}

cudaError_t cudaFree(void *address) {
    if (!address) return emu_result(cudaSuccess);
    DeviceLock lock = emu_lock();
    Memory &all = memory();
    auto found = all.allocations.find((uintptr_t)address);
    if (found == all.allocations.end())
        emu_reject("cudaFree(%p), which no cudaMalloc returned", address);
    Allocation &old = found->second;
    if (!old.live) emu_reject("cudaFree of %zu bytes that were freed already", old.n_bytes);
    if (emu_capture_forbids(EMU_UNSAFE_FOR_THREAD)) return cudaPeekAtLastError();
    emu_finish_all(); /* as the real one, which waits for the device */
    old.live = false;
    all.live.erase(old.begin);
    emu_give_memory_back(old.device, round_up(old.n_bytes, ALIGNMENT));
    unmap(old.span, old.span_bytes);
    return emu_result(cudaSuccess);
}

cudaError_t cudaMemGetInfo(size_t *n_free, size_t *n_total) {
    DeviceLock lock = emu_lock();
    *n_total = emu_machine().memory_bytes;
    *n_free = *n_total - memory().used_bytes[emu_current_device()];
    return emu_result(cudaSuccess);
}
