/* HDF5 files that may come from anywhere: opening, creating, committing, and finding objects in
 * them.
 *
 * An HDF5 file can name other files (external links, external storage, virtual datasets), code
 * (filter plug-ins, user-defined links) and itself (soft links).  Nothing of the project needs any
 * of these, so all of them are refused here and in h5_array.h, and the file that a user named is
 * the only one that is ever read.  Plug-in loading is switched off for the whole process; the one
 * filter that we bring ourselves is in h5_zstd.h.
 *
 * Attributes: h5_attr.h.  Datasets: h5_array.h.
 *
 * Threads.  The library itself must have been built thread-safe (as Debian's is; h5_open_read and
 * h5_create fail otherwise): each call into it takes its own process-wide lock, so that a reader
 * thread and a thread that writes a checkpoint may use different files at once.  Objects of ours
 * that carry buffers (struct H5Array) belong to one thread at a time.
 *
 * Errors are one sentence that names file and object, closed by HDF5's innermost reason in
 * brackets. */
#ifndef TMD_DATA_H5_FILE_H
#define TMD_DATA_H5_FILE_H

#include <hdf5.h>
#include <stdbool.h>

#include "error.h"

/* Opens an existing file for reading, without locking it (it may lie on read-only media).  The
 * caller closes it with H5Fclose, which also closes what is still open inside. */
bool h5_open_read(const char *path, hid_t *file, struct Error *err);

/* Creates a file, replacing what has the name.  Files that must never be seen half-written are
 * created under a temporary name (atomic_file_partial) and end with h5_commit or h5_discard.
 *
 * Once the disk is full, writing goes on as if nothing had happened (h5_sink.h says why); h5_commit
 * tells, and h5_check_written does at any time before. */
bool h5_create(const char *path, hid_t *file, struct Error *err);

/* Whether all that HDF5 has written to a file of h5_create so far got there. */
bool h5_check_written(hid_t file, const char *path, struct Error *err);

/* Closes `file` and publishes it (atomic_file.h) from `temporary` to `path`.  `file` is closed in
 * any case; after a failure `temporary` is removed. */
bool h5_commit(hid_t file, const char *temporary, const char *path, struct Error *err);

/* Closes `file` and removes it: the way out after an error. */
void h5_discard(hid_t file, const char *temporary);

/* Opens the group (H5I_GROUP) or dataset (H5I_DATASET) `name`, "a/b/c", below `location`.  Every
 * component must be a hard link.  Close it with H5Oclose. */
bool h5_open_object(hid_t location, const char *name, H5I_type_t type, hid_t *object,
                    struct Error *err);

/* Whether the last component of `name` exists below `location` (all before it must exist). */
bool h5_exists(hid_t location, const char *name);

/* Creates the group `name` below `location`.  Close it with H5Gclose. */
bool h5_create_group(hid_t location, const char *name, hid_t *group, struct Error *err);

/* error_set followed by HDF5's innermost reason for the call that just failed.  Returns false. */
bool h5_error(struct Error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "'/object' of 'file'" for messages, in fresh memory that the caller frees. */
char *h5_where(hid_t object);

/* Stops HDF5 from printing on stderr in the calling thread (its switch is per thread).  All
 * functions here do it; a thread that calls HDF5 directly does it once. */
void h5_quiet(void);

#endif
