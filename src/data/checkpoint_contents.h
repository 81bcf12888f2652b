/* The table of contents of a checkpoint: what the writer collects, the reader finds, and both sum
 * up in the manifest.
 *
 * The manifest is the CRC-32 of these lines, values by key, then tensors by group and name:
 *   KEY int 42
 *   KEY real 3ff0000000000000      the bits of the double
 *   KEY text 0a1b2c3d              the CRC-32 of the text
 *   GROUP/NAME [1, 6, 36] 0a1b2c3d the CRC-32 of the tensor
 * without the explanations, a newline after each line, checksums as eight hexadecimal digits. */
#ifndef TMD_DATA_CHECKPOINT_CONTENTS_H
#define TMD_DATA_CHECKPOINT_CONTENTS_H

#include "data/checkpoint.h"

/* Keys of the format itself. */
#define CKPT_KEY_FORMAT "format"
#define CKPT_KEY_VERSION "format_version"
#define CKPT_KEY_ITERATION "iteration"
#define CKPT_KEY_STAGE "stage"
#define CKPT_KEY_MANIFEST "manifest"
#define CKPT_ATTR_CRC32 "crc32"

/* Strings belong to the contents. */
struct CkptContents {
    struct CkptValue *values;
    struct CkptTensorInfo *tensors;
    int64_t n_values, n_tensors, values_capacity, tensors_capacity;
};

/* Both copy their strings and return the new entry, valid until the next call. */
struct CkptValue *ckpt_contents_add_value(struct CkptContents *contents, const char *key,
                                          enum CkptKind kind, const char *text);
struct CkptTensorInfo *ckpt_contents_add_tensor(struct CkptContents *contents, const char *group,
                                                const char *name, int n_dims, const int64_t *shape);
/* To be called once all is added: the functions below need the order. */
void ckpt_contents_sort(struct CkptContents *contents);
void ckpt_contents_free(struct CkptContents *contents);

const struct CkptValue *ckpt_contents_find_value(const struct CkptContents *contents,
                                                 const char *key);
int64_t ckpt_contents_find_tensor(const struct CkptContents *contents, const char *group,
                                  const char *name);
uint32_t ckpt_contents_manifest(const struct CkptContents *contents);

/* Whether a key or a tensor's name is printable, of 1 to CKPT_MAX_NAME bytes, without a slash. */
bool ckpt_name_is_sane(const char *name);

/* Continues a CRC-32 (starting value 0) over n_bytes. */
uint32_t ckpt_crc32(uint32_t crc, const void *bytes, int64_t n_bytes);

#endif
