/* The model's sizes and the student's recipe as values of a checkpoint, so that whoever samples
 * from it or exports it need not read the run's configuration.
 *
 * Keys, integers unless noted, named as in the configuration:
 *   model.dim .ffn_dim .num_heads .num_layers .freq_dim .text_dim .text_len .in_dim .out_dim
 *   model.patch_size.0 .1 .2             frame, row, column
 *   model.eps                            real
 *   student.head_blocks .inner_steps .outer_steps        H, N, M
 *   student.inner_shift .outer_shift .t_max              real
 *   student.fusion                       text, "gated" or "concat" */
#ifndef TMD_DATA_CHECKPOINT_MODEL_H
#define TMD_DATA_CHECKPOINT_MODEL_H

#include "data/checkpoint.h"
#include "data/checkpoint_writer.h"
#include "model/model_config.h"

bool ckpt_set_model(struct CkptWriter *w, const struct ModelConfig *model, struct Error *err);
/* fusion_gate_init is not kept: the learnt gate is among the tensors. */
bool ckpt_set_student(struct CkptWriter *w, const struct StudentConfig *student, struct Error *err);

/* Missing keys and impossible values are errors. */
bool ckpt_get_model(const struct Ckpt *ckpt, struct ModelConfig *model, struct Error *err);
bool ckpt_get_student(const struct Ckpt *ckpt, struct StudentConfig *student, struct Error *err);

/* "gated", "concat" */
const char *fusion_text(enum Fusion fusion);

#endif
