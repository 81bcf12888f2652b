/* Reads a collection as a whole, keeps it for the next string, and checks every length before it is
 * used. */
#include "data/h5_heap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { COLLECTION_HEADER = 8, OBJECT_HEADER = 8 }; /* before the length field that ends each */

/* Longer collections hold a single long string; ours are bounded. */
#define MAX_COLLECTION_BYTES ((int64_t)16 << 20)

static bool read_widths(hid_t location, int *address_bytes, int *length_bytes, int64_t *base) {
    hid_t file = H5Iget_file_id(location), list = H5Fget_create_plist(file);
    size_t address = 0, length = 0;
    hsize_t user_block = 0;
    bool good =
        H5Pget_sizes(list, &address, &length) >= 0 && H5Pget_userblock(list, &user_block) >= 0;
    H5Pclose(list);
    H5Fclose(file);
    *address_bytes = (int)address;
    *length_bytes = (int)length;
    *base = (int64_t)user_block;
    return good && address >= 2 && address <= 8 && length >= 2 && length <= 8;
}

int64_t h5_heap_reference_bytes(hid_t location) {
    int address_bytes, length_bytes;
    int64_t base;
    bool good = read_widths(location, &address_bytes, &length_bytes, &base);
    return good ? 4 + address_bytes + 4 : 0;
}

bool h5_heap_open(struct H5Heap *heap, hid_t location, struct Error *err) {
    *heap = (struct H5Heap){.descriptor = -1, .collection_address = -1};
    void *handle = NULL;
    hid_t file = H5Iget_file_id(location);
    if (H5Fget_vfd_handle(file, H5P_DEFAULT, &handle) >= 0 && handle)
        heap->descriptor = *(int *)handle; /* of the plain driver, which h5_file.c asks for */
    H5Fclose(file);
    if (heap->descriptor < 0 ||
        !read_widths(location, &heap->address_bytes, &heap->length_bytes, &heap->base))
        return error_set(err, "the file's strings cannot be found");
    return true;
}

void h5_heap_close(struct H5Heap *heap) {
    free(heap->collection);
    *heap = (struct H5Heap){.descriptor = -1, .collection_address = -1};
}

bool h5_heap_pread(const struct H5Heap *heap, void *out, int64_t n_bytes, int64_t offset,
                   struct Error *err) {
    for (int64_t n_done = 0; n_done < n_bytes;) {
        ssize_t n = pread(heap->descriptor, (char *)out + n_done, (size_t)(n_bytes - n_done),
                          (off_t)(offset + n_done));
        if (n == 0) return error_set(err, "the file ends too early");
        if (n < 0 && errno != EINTR) return error_set(err, "cannot be read: %s", strerror(errno));
        if (n > 0) n_done += n;
    }
    return true;
}

static uint64_t load(const unsigned char *in, int n_bytes) {
    uint64_t value = 0;
    for (int i = n_bytes - 1; i >= 0; i--) value = value << 8 | in[i];
    return value;
}

/* Makes heap->collection the collection at `address`. */
static bool fetch_collection(struct H5Heap *heap, int64_t address, struct Error *err) {
    if (heap->collection_address == address) return true;
    heap->collection_address = -1;
    unsigned char header[COLLECTION_HEADER + 8];
    int64_t header_bytes = COLLECTION_HEADER + heap->length_bytes;
    if (!h5_heap_pread(heap, header, header_bytes, heap->base + address, err)) return false;
    uint64_t n_bytes = load(header + COLLECTION_HEADER, heap->length_bytes);
    if (memcmp(header, "GCOL\1", 5) != 0 || n_bytes < (uint64_t)header_bytes ||
        n_bytes > (uint64_t)MAX_COLLECTION_BYTES)
        return error_set(err, "the heap of strings is damaged");
    if ((int64_t)n_bytes > heap->capacity) {
        heap->collection = xrealloc(heap->collection, n_bytes);
        heap->capacity = (int64_t)n_bytes;
    }
    heap->n_bytes = (int64_t)n_bytes;
    if (!h5_heap_pread(heap, heap->collection, heap->n_bytes, heap->base + address, err))
        return false;
    heap->collection_address = address;
    return true;
}

/* The bytes of object `index` > 0 of the fetched collection; NULL: not there. */
static const unsigned char *find_object(const struct H5Heap *heap, uint32_t index,
                                        uint64_t *n_bytes) {
    int64_t header_bytes = OBJECT_HEADER + heap->length_bytes;
    int64_t at = COLLECTION_HEADER + heap->length_bytes;
    at = (at + 7) / 8 * 8;
    while (at + header_bytes <= heap->n_bytes) {
        const unsigned char *object = heap->collection + at;
        uint64_t found = load(object, 2), room = (uint64_t)(heap->n_bytes - at - header_bytes);
        *n_bytes = load(object + OBJECT_HEADER, heap->length_bytes);
        if (found == 0 || *n_bytes > room) return NULL;
        if (found == index) return object + header_bytes;
        at += header_bytes + (int64_t)((*n_bytes + 7) / 8 * 8);
    }
    return NULL;
}

bool h5_heap_read(struct H5Heap *heap, const unsigned char *reference, int64_t max_bytes,
                  char **text, struct Error *err) {
    uint32_t length = (uint32_t)load(reference, 4);
    uint64_t address = load(reference + 4, heap->address_bytes);
    uint32_t index = (uint32_t)load(reference + 4 + heap->address_bytes, 4);
    if ((int64_t)length > max_bytes)
        return error_set(err, "expected a text of at most %lld bytes, got %u", (long long)max_bytes,
                         length);
    if (length == 0) { /* whether or not an empty object was stored */
        *text = xstrdup("");
        return true;
    }
    if (address > INT64_MAX / 2) return error_set(err, "the reference to the text is damaged");
    if (!fetch_collection(heap, (int64_t)address, err)) return false;
    uint64_t n_bytes = 0;
    const unsigned char *bytes = find_object(heap, index, &n_bytes);
    if (!bytes || n_bytes != length || memchr(bytes, 0, length))
        return error_set(err, "the text is not where its reference says");
    *text = xcalloc((unsigned long)length + 1);
    memcpy(*text, bytes, length);
    return true;
}
