/* A tiny Wan model whose values follow from the tensors' names, written as a folder in every form
 * that users bring, for the tests of import and export.  Any failure is the running test's. */
#ifndef TMD_TESTS_WAN_FIXTURE_H
#define TMD_TESTS_WAN_FIXTURE_H

#include "data/wan_layout.h"
#include "dtype.h"

extern const struct ModelConfig wan_tiny;
enum { WAN_TINY_MAX_ELEMS = 6 * 128 * 128 }; /* of one tensor */

int64_t wan_count_elems(int n_dims, const int64_t *shape);
/* Values that depend on the tensor's original name; exact in bfloat16 and float16. */
void wan_fill(float *out, const char *name, int64_t n_elems);

/* A way to write the tiny model, and what to spoil. */
struct WanForm {
    const char *prefix;
    enum WanLayout layout;
    enum Dtype dtype;
    int64_t max_shard_bytes; /* 0: one file */
    bool flat_patch, with_config;
    const char *left_out, *renamed, *nan, *misshapen; /* original names, or NULL */
};

void wan_write_model(const char *folder, const struct WanForm *form);

/* All tensors of the tiny model are in the group, with the values of wan_fill. */
void wan_check_checkpoint(const char *path, const char *group);

#endif
