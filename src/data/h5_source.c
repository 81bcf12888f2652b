/* A virtual file driver (HDF5's "VFL Technical Note"), reduced to what reading one file needs. */
#include "data/h5_source.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/file_io.h"
#include "data/h5_driver.h"
#include "error.h"

struct SourceFile {
    H5FD_t base; /* the library's part */
    int descriptor;
    haddr_t end_of_allocation; /* as the library sets it */
    haddr_t end_of_file;
    dev_t device; /* with inode: which file it is */
    ino_t inode;
};

static H5FD_t *source_open(const char *name, unsigned flags, hid_t list, haddr_t max_address) {
    (void)flags, (void)list, (void)max_address;
    struct Error ignored; /* the library has its own words */
    struct stat status;
    int descriptor;
    int64_t n_bytes;
    if (!file_open_read(name, &descriptor, &n_bytes, &ignored)) return NULL;
    if (fstat(descriptor, &status) != 0) {
        close(descriptor);
        return NULL;
    }
    struct SourceFile *file = xcalloc(sizeof *file);
    file->descriptor = descriptor;
    file->end_of_file = (haddr_t)n_bytes;
    file->device = status.st_dev;
    file->inode = status.st_ino;
    return &file->base;
}

static herr_t source_close(H5FD_t *file) {
    close(((struct SourceFile *)file)->descriptor);
    free(file);
    return 0;
}

/* By this the library knows a file that is open already. */
static int source_compare(const H5FD_t *left, const H5FD_t *right) {
    const struct SourceFile *a = (const struct SourceFile *)left;
    const struct SourceFile *b = (const struct SourceFile *)right;
    if (a->device != b->device) return a->device < b->device ? -1 : 1;
    return a->inode < b->inode ? -1 : a->inode > b->inode;
}

static herr_t source_query(const H5FD_t *file, unsigned long *features) {
    (void)file;
    *features = H5FD_FEAT_DATA_SIEVE;
    return 0;
}

static haddr_t source_get_eoa(const H5FD_t *file, H5FD_mem_t type) {
    (void)type;
    return ((const struct SourceFile *)file)->end_of_allocation;
}

static herr_t source_set_eoa(H5FD_t *file, H5FD_mem_t type, haddr_t address) {
    (void)type;
    ((struct SourceFile *)file)->end_of_allocation = address;
    return 0;
}

static haddr_t source_get_eof(const H5FD_t *file, H5FD_mem_t type) {
    (void)type;
    return ((const struct SourceFile *)file)->end_of_file;
}

static herr_t source_get_handle(H5FD_t *file, hid_t list, void **handle) {
    (void)list;
    *handle = &((struct SourceFile *)file)->descriptor;
    return 0;
}

static herr_t source_read(H5FD_t *file, H5FD_mem_t type, hid_t list, haddr_t address,
                          size_t n_bytes, void *out) {
    (void)type, (void)list;
    const struct SourceFile *whole = (const struct SourceFile *)file;
    struct Error ignored;
    bool inside = address <= whole->end_of_file && n_bytes <= whole->end_of_file - address;
    return inside && file_read_at(whole->descriptor, "", out, (int64_t)n_bytes, (int64_t)address,
                                  &ignored)
               ? 0
               : -1;
}

static herr_t source_write(H5FD_t *file, H5FD_mem_t type, hid_t list, haddr_t address,
                           size_t n_bytes, const void *in) {
    (void)file, (void)type, (void)list, (void)address, (void)n_bytes, (void)in;
    return -1;
}

static const H5FD_class_t source_class = {
    H5_DRIVER_VERSION(601).name = "tmd_source",
    .maxaddr = ((haddr_t)1 << 62) - 1,
    .fc_degree = H5F_CLOSE_STRONG,
    .open = source_open,
    .close = source_close,
    .cmp = source_compare,
    .query = source_query,
    .get_eoa = source_get_eoa,
    .set_eoa = source_set_eoa,
    .get_eof = source_get_eof,
    .get_handle = source_get_handle,
    .read = source_read,
    .write = source_write,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

bool h5_source_set(hid_t access_list) {
    hid_t driver = H5FDregister(&source_class);
    bool set = driver >= 0 && H5Pset_driver(access_list, driver, NULL) >= 0;
    if (driver >= 0) H5FDunregister(driver); /* the list, and then the file, keep it */
    return set;
}
