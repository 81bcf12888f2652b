/* Moving bytes.  Sizes in bytes; regions must not overlap. */
#ifndef TMD_OPS_MEMORY_H
#define TMD_OPS_MEMORY_H

/* upload          device <- host; `host` may be reused when it returns.
 * download        host <- device; complete when it returns.
 *
 * upload_start    begins an upload that runs in parallel with other operations.  Those called
 *                 between the last upload_wait (backend.h) and the next one must not touch
 *                 `device`; those called after the next one see the bytes.  `host` may be reused
 *                 when it returns.  Two uploads to the same place happen in the order in which
 *                 they were started.
 * download_start  begins a download that runs in parallel with the operations called after it, of
 *                 what those called before it have left in `device`.  Until download_wait
 *                 (backend.h) nothing may write to `device`, and `host` must not be touched.  The
 *                 copy is parallel only into memory of pinned_alloc; into other memory it may be
 *                 complete when this returns.
 *
 * copy            device <- device.
 * copy_rows       the same for n_rows rows of row_bytes, to_stride and from_stride bytes apart.
 * zero            sets all bytes to 0. */
#define MEMORY_OPS(OP)                                                                             \
    OP(upload, (void *device, const void *host, int64_t n_bytes), (device, host, n_bytes))         \
    OP(upload_start, (void *device, const void *host, int64_t n_bytes), (device, host, n_bytes))   \
    OP(download, (void *host, const void *device, int64_t n_bytes), (host, device, n_bytes))       \
    OP(download_start, (void *host, const void *device, int64_t n_bytes), (host, device, n_bytes)) \
    OP(copy, (void *to, const void *from, int64_t n_bytes), (to, from, n_bytes))                   \
    OP(copy_rows,                                                                                  \
       (void *to, int64_t to_stride, const void *from, int64_t from_stride, int64_t n_rows,        \
        int64_t row_bytes),                                                                        \
       (to, to_stride, from, from_stride, n_rows, row_bytes))                                      \
    OP(zero, (void *device, int64_t n_bytes), (device, n_bytes))

#endif
