/* Moving bytes.  Sizes in bytes; regions must not overlap. */
#ifndef TMD_OPS_MEMORY_H
#define TMD_OPS_MEMORY_H

/* upload: device <- host.  download: host <- device, complete when it returns.
 * copy: device <- device.  zero: all bytes to 0. */
#define MEMORY_OPS(OP)                                                                             \
    OP(upload, (void *device, const void *host, int64_t n_bytes), (device, host, n_bytes))         \
    OP(download, (void *host, const void *device, int64_t n_bytes), (host, device, n_bytes))       \
    OP(copy, (void *to, const void *from, int64_t n_bytes), (to, from, n_bytes))                   \
    OP(zero, (void *device, int64_t n_bytes), (device, n_bytes))

#endif
