/* The table of contents of a checkpoint: the writer collects it, the reader finds it, and both
 * compute the manifest from it.
 *
 * The manifest is the CRC-32 of these lines, values by key, then tensors by group and name:
 *   KEY int 42
 *   KEY real 3ff0000000000000      the bits of the double
 *   KEY text 0a1b2c3d              the CRC-32 of the text
 *   GROUP/NAME [1, 6, 36] 0a1b2c3d the CRC-32 of the tensor
 * without the explanations, a newline after each line, checksums as eight hexadecimal digits.
 *
 * In a sharded checkpoint a tensor is one or several pieces, ranges of its elements in row-major
 * order; each lies in one shard, in chunks with a checksum each (checkpoint_shards.h).  Its line
 * goes on with each piece, " 2:60-90" (the shard, the first element and the one after the last),
 * and the checksums of the piece's chunks, " 0a1b2c3d".  The tensor's checksum is combined from
 * those: in a shard file, where a tensor has one piece, it is that piece's. */
#ifndef TMD_DATA_CHECKPOINT_CONTENTS_H
#define TMD_DATA_CHECKPOINT_CONTENTS_H

#include <stddef.h>

#include "data/checkpoint.h"

/* Keys of the format itself. */
#define CKPT_KEY_FORMAT "format"
#define CKPT_KEY_VERSION "format_version"
#define CKPT_KEY_ITERATION "iteration"
#define CKPT_KEY_STAGE "stage"
#define CKPT_KEY_SAVE_ID "save_id"
#define CKPT_KEY_SHARDS "n_shards"
#define CKPT_KEY_SHARD "shard" /* of a shard's file */
#define CKPT_KEY_MANIFEST "manifest"
#define CKPT_ATTR_CRC32 "crc32"

struct CkptPiece {
    int shard;
    int64_t begin, end;  /* elements of the tensor, begin < end */
    int64_t first_chunk; /* its checksums are chunk_crc32[first_chunk ...] of the contents */
};

/* Strings belong to the contents. */
struct CkptContents {
    struct CkptValue *values;
    struct CkptTensorInfo *tensors;
    struct CkptPiece *pieces;
    uint32_t *chunk_crc32;
    int64_t n_values, n_tensors, n_pieces, n_chunks;
    int64_t values_capacity, tensors_capacity, pieces_capacity, chunks_capacity;
};

/* Both copy their strings and return the new entry, valid until the next call. */
struct CkptValue *ckpt_contents_add_value(struct CkptContents *contents, const char *key,
                                          enum CkptKind kind, const char *text);
struct CkptTensorInfo *ckpt_contents_add_tensor(struct CkptContents *contents, const char *group,
                                                const char *name, int n_dims, const int64_t *shape);
/* Adds a piece to the tensor that was added last, after its other pieces, with the checksums of
 * its ckpt_piece_chunks(end - begin) chunks. */
void ckpt_contents_add_piece(struct CkptContents *contents, int shard, int64_t begin, int64_t end,
                             const uint32_t *chunk_crc32);
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

/* How the datasets of a checkpoint are cut into chunks, of about 4 MiB and of equal length as far
 * as whole rows allow: the last one is stored as long as the rest.  0: too short to gain from
 * chunks. */
int64_t ckpt_chunk_rows(int64_t n_rows, int64_t row_bytes);
/* A piece of n_elems is stored as so many chunks (one dataset without chunks counts as one), all
 * but the last of so many elements. */
int64_t ckpt_piece_chunks(int64_t n_elems);
int64_t ckpt_piece_chunk_elems(int64_t n_elems);

/* Makes room for n_more items after the n of a list; returns the list's new address. */
void *ckpt_grow(void *items, int64_t n, int64_t n_more, int64_t *capacity, size_t item_bytes);

#endif
