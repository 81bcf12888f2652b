/* Shared memory of the block that runs: dynamic memory first, then the arrays in the order in which
 * the kernel declares them, red zones between.  A block starts with poison in all of it.  No array
 * is aligned better than its type asks, since nothing promises that. */
#include <cstring>
#include <vector>

#include "device.h"
#include "emulated/kernel_launch.h"

enum { RED_ZONE_BYTES = 64, CAPACITY_BYTES = 512 * 1024 };

struct SharedArray {
    const void *site;
    size_t offset, n_bytes;
};

struct SharedMemory {
    alignas(256) unsigned char bytes[CAPACITY_BYTES];
    std::vector<SharedArray> arrays; /* of the kernel that runs; the first is the dynamic memory */
    size_t end;                      /* of the last red zone */
};

static SharedMemory shared;

static void *add_shared(const void *site, size_t n_bytes, size_t alignment) {
    size_t offset = (shared.end + alignment - 1) / alignment * alignment;
    if (offset % (2 * alignment) == 0) offset += alignment; /* not better than asked */
    size_t end = offset + n_bytes + RED_ZONE_BYTES;
    if (end > sizeof shared.bytes) emu_reject("a block wants %zu bytes of shared memory", end);
    memset(shared.bytes + shared.end, POISON, end - shared.end);
    EMU_HIDE(shared.bytes + shared.end, end - shared.end);
    EMU_SHOW(shared.bytes + offset, n_bytes);
    shared.arrays.push_back({site, offset, n_bytes});
    shared.end = end;
    return shared.bytes + offset;
}

/* As a compiler or a launch would, for the arrays that the kernel has declared by now. */
static void check_shared_limits(void) {
    size_t declared = 0, dynamic = shared.arrays[0].n_bytes;
    for (size_t i = 1; i < shared.arrays.size(); i++) declared += shared.arrays[i].n_bytes;
    size_t most = dynamic > SHARED_BYTES ? (size_t)emu_shared_optin_bytes() : (size_t)SHARED_BYTES;
    if (declared > SHARED_BYTES || declared + dynamic > most)
        emu_reject("%zu bytes of declared and %zu of dynamic shared memory, %zu at most", declared,
                   dynamic, most);
}

void *emu_shared_array(const void *site, size_t n_bytes, size_t alignment) {
    for (const SharedArray &array : shared.arrays)
        if (array.site == site) return shared.bytes + array.offset;
    void *fresh = add_shared(site, n_bytes, alignment);
    check_shared_limits();
    return fresh;
}

void *emu_shared_dynamic(void) {
    return shared.bytes + shared.arrays[0].offset;
}

void emu_shared_begin_grid(size_t dynamic_bytes) {
    EMU_SHOW(shared.bytes, sizeof shared.bytes);
    memset(shared.bytes, POISON, RED_ZONE_BYTES);
    EMU_HIDE(shared.bytes, RED_ZONE_BYTES);
    shared.arrays.clear();
    shared.end = RED_ZONE_BYTES;
    add_shared(NULL, dynamic_bytes, 16);
}

void emu_shared_begin_block(void) {
    for (const SharedArray &array : shared.arrays)
        memset(shared.bytes + array.offset, POISON, array.n_bytes);
}

/* What lies between the arrays must be as it was. */
void emu_shared_check_red_zones(void) {
    size_t begin = 0;
    for (size_t i = 0; i <= shared.arrays.size(); i++) {
        size_t end = i < shared.arrays.size() ? shared.arrays[i].offset : shared.end;
        if (!emu_poison_intact(shared.bytes + begin, end - begin))
            emu_reject("block (%u, %u, %u) wrote beside its shared arrays", blockIdx.x, blockIdx.y,
                       blockIdx.z);
        if (i < shared.arrays.size()) begin = end + shared.arrays[i].n_bytes;
    }
}
