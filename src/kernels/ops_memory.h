/* Moving bytes.  Sizes in bytes; regions must not overlap. */
#ifndef TMD_OPS_MEMORY_H
#define TMD_OPS_MEMORY_H

/* upload: device <- host, which has been read when it returns.  download: host <- device, complete when
 * it returns.
 *
 * upload_start: upload beside the operations that were called since the last upload_wait (backend.h),
 * none of which touches `device`; those before it may have.  For the operations behind the next
 * upload_wait the bytes are there.  Two that are started to the same place happen in that order.
 *
 * download_start: download beside the operations behind it, of what those before it have left in
 * `device`.  Until download_wait (backend.h) nothing may write there, and `host` is not to be touched.
 * Only into memory of pinned_alloc the copy really runs beside; into other it may be complete when this
 * returns.
 *
 * copy: device <- device.  copy_rows: the same for n_rows rows of row_bytes, which lie to_stride and
 * from_stride bytes apart.  zero: all bytes to 0. */
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
