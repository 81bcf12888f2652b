/* Weights between a role's device buffers and named tensors of safetensors files. */
#ifndef TMD_WEIGHTS_FILE_H
#define TMD_WEIGHTS_FILE_H

#include "model/params.h"
#include "train/tensor_list.h"

/* Reads every tensor of the weights' table from `path`; missing tensors, unknown ones and wrong shapes
 * are errors. */
bool weights_read_safetensors(struct Weights *weights, const char *path, struct Error *err);

/* Appends the tensors that lie in a flat device buffer (master, grad, ...) as `prefix` + name. */
void weights_list(const struct Weights *weights, const float *buffer, const char *prefix,
                  struct TensorList *list);

#endif
