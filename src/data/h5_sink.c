/* A virtual file driver (HDF5's "VFL Technical Note"), reduced to what one growing file needs. */
#include "data/h5_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/h5_driver.h"
#include "error.h"

/* What outlives the driver's file.  The descriptor comes first: what H5Fget_vfd_handle gives is, as
 * with the library's own driver, a pointer to it. */
struct H5Sink {
    int descriptor;
    int error; /* errno of the first failure; 0: none */
    int n_holders;
};

struct SinkFile {
    H5FD_t base; /* the library's part */
    struct H5Sink *sink;
    haddr_t end_of_allocation; /* as the library sets it */
    haddr_t end_of_file;       /* as if all writes had succeeded */
};

static struct H5Sink *sink_of(const H5FD_t *file) {
    return ((const struct SinkFile *)file)->sink;
}

static void note(struct H5Sink *sink) {
    if (!sink->error) sink->error = errno ? errno : EIO;
}

static void drop(struct H5Sink *sink) {
    if (--sink->n_holders == 0) free(sink);
}

/* ---- the driver ---- */

static H5FD_t *sink_open(const char *name, unsigned flags, hid_t list, haddr_t max_address) {
    (void)list, (void)max_address;
    int how = O_RDWR | O_CLOEXEC;
    if (flags & H5F_ACC_TRUNC) how |= O_TRUNC;
    if (flags & H5F_ACC_CREAT) how |= O_CREAT;
    if (flags & H5F_ACC_EXCL) how |= O_EXCL;
    int descriptor = open(name, how, 0666);
    off_t n_bytes = descriptor < 0 ? -1 : lseek(descriptor, 0, SEEK_END);
    if (n_bytes < 0) {
        if (descriptor >= 0) close(descriptor);
        return NULL;
    }
    struct SinkFile *file = xcalloc(sizeof *file);
    file->sink = xcalloc(sizeof *file->sink);
    *file->sink = (struct H5Sink){.descriptor = descriptor, .n_holders = 1};
    file->end_of_file = (haddr_t)n_bytes;
    return &file->base;
}

static herr_t sink_close(H5FD_t *file) {
    struct H5Sink *sink = sink_of(file);
    if (close(sink->descriptor) != 0) note(sink);
    sink->descriptor = -1;
    drop(sink);
    free(file);
    return 0;
}

static herr_t sink_query(const H5FD_t *file, unsigned long *features) {
    (void)file;
    *features = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA |
                H5FD_FEAT_DATA_SIEVE | H5FD_FEAT_AGGREGATE_SMALLDATA |
                H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    return 0;
}

static haddr_t sink_get_eoa(const H5FD_t *file, H5FD_mem_t type) {
    (void)type;
    return ((const struct SinkFile *)file)->end_of_allocation;
}

static herr_t sink_set_eoa(H5FD_t *file, H5FD_mem_t type, haddr_t address) {
    (void)type;
    ((struct SinkFile *)file)->end_of_allocation = address;
    return 0;
}

static haddr_t sink_get_eof(const H5FD_t *file, H5FD_mem_t type) {
    (void)type;
    return ((const struct SinkFile *)file)->end_of_file;
}

static herr_t sink_get_handle(H5FD_t *file, hid_t list, void **handle) {
    (void)list;
    *handle = sink_of(file);
    return 0;
}

/* What lies beyond the end reads as zeros, which the library relies on. */
static herr_t sink_read(H5FD_t *file, H5FD_mem_t type, hid_t list, haddr_t address, size_t n_bytes,
                        void *out) {
    (void)type, (void)list;
    while (n_bytes > 0) {
        ssize_t got = pread(sink_of(file)->descriptor, out, n_bytes, (off_t)address);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -1;
        if (got == 0) {
            memset(out, 0, n_bytes);
            break;
        }
        out = (char *)out + got;
        address += (haddr_t)got;
        n_bytes -= (size_t)got;
    }
    return 0;
}

static herr_t sink_write(H5FD_t *file, H5FD_mem_t type, hid_t list, haddr_t address, size_t n_bytes,
                         const void *in) {
    (void)type, (void)list;
    struct SinkFile *whole = (struct SinkFile *)file;
    if (address + n_bytes > whole->end_of_file) whole->end_of_file = address + n_bytes;
    while (n_bytes > 0 && !whole->sink->error) {
        ssize_t put = pwrite(whole->sink->descriptor, in, n_bytes, (off_t)address);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) {
            note(whole->sink);
            break;
        }
        in = (const char *)in + put;
        address += (haddr_t)put;
        n_bytes -= (size_t)put;
    }
    return 0;
}

/* Brings the file to the length that the library allocated. */
static herr_t sink_truncate(H5FD_t *file, hid_t list, hbool_t closing) {
    (void)list, (void)closing;
    struct SinkFile *whole = (struct SinkFile *)file;
    if (whole->end_of_allocation == whole->end_of_file) return 0;
    if (!whole->sink->error &&
        ftruncate(whole->sink->descriptor, (off_t)whole->end_of_allocation) != 0)
        note(whole->sink);
    whole->end_of_file = whole->end_of_allocation;
    return 0;
}

static const H5FD_class_t sink_class = {
    H5_DRIVER_VERSION(600).name = "tmd_sink",
    .maxaddr = ((haddr_t)1 << 62) - 1,
    .fc_degree = H5F_CLOSE_STRONG,
    .open = sink_open,
    .close = sink_close,
    .query = sink_query,
    .get_eoa = sink_get_eoa,
    .set_eoa = sink_set_eoa,
    .get_eof = sink_get_eof,
    .get_handle = sink_get_handle,
    .read = sink_read,
    .write = sink_write,
    .truncate = sink_truncate,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

/* ---- what the house sees ---- */

bool h5_sink_set(hid_t access_list) {
    hid_t driver = H5FDregister(&sink_class);
    bool set = driver >= 0 && H5Pset_driver(access_list, driver, NULL) >= 0;
    if (driver >= 0) H5FDunregister(driver); /* the list, and then the file, keep it */
    return set;
}

static struct H5Sink *find_sink(hid_t file) {
    void *handle = NULL;
    TMD_CHECK(H5Fget_vfd_handle(file, H5P_DEFAULT, &handle) >= 0 && handle,
              "a file without a driver");
    return handle;
}

int h5_sink_error(hid_t file) {
    return find_sink(file)->error;
}

struct H5Sink *h5_sink_hold(hid_t file) {
    struct H5Sink *sink = find_sink(file);
    sink->n_holders++;
    return sink;
}

int h5_sink_release(struct H5Sink *sink) {
    int error = sink->error;
    drop(sink);
    return error;
}
