/* Weights between a role's device buffers and named tensors of safetensors files. */
#ifndef TMD_WEIGHTS_FILE_H
#define TMD_WEIGHTS_FILE_H

#include "model/weights.h"
#include "train/tensor_list.h"

/* Reads every tensor of the weights' table from `path`; missing tensors, unknown ones, wrong shapes
 * and integers are errors. */
bool weights_read_safetensors(struct Weights *weights, const char *path, struct Error *err);

/* Appends the role's tensors, named `prefix` + name; of a sharded role as products read them, and
 * all ranks call it together. */
void weights_list_values(const struct Weights *weights, const char *prefix, struct TensorList *list);
/* The part in it of a rank that lists nothing. */
void weights_list_help(const struct Weights *weights);
/* The same of the gradients of a role that is whole. */
void weights_list_gradients(const struct Weights *weights, const char *prefix,
                            struct TensorList *list);

#endif
