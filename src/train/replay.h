/* Replay: one evaluation with everything it reads given as files, everything it computes named.
 *
 * A case is a folder:
 *   case.yaml              `kind`, and the sections of a configuration that this kind reads
 *   inputs.safetensors     what a step would otherwise draw (see the kinds below)
 *   <role>.safetensors     weights of teacher, student, fake, discriminator, as the kind needs
 *   expected.safetensors   (optional) out.<name> and grad.<role>.<parameter>, grad.x for the input
 *
 * Kinds and their inputs (B samples; context = text [B, L, text_dim], times float64 [B]):
 *   dit             x, t, context, grad_out      out.velocity, grad.x, grad.teacher.*
 *   teacher         x, x1, t, context            out.loss, grad.teacher.*
 *   kd              x, x1, y1, t_student, context   out.loss, out.x_hat, grad.student.*
 *   stage1          x, x1, y1, t, s, r, drop, context, neg_context
 *                                                out.loss, .u, .v, .jvp, .target, .sq, grad.student.*
 *   student         x, x1, y1, eps, t_student, t, context, neg_context (without roll-out also s, r)
 *                                                out.loss, .vsd, .gan, .x_hat, .g_fake, .g_teacher
 *   critic          as student, without neg_context   out.fake_loss, .disc_loss, .x_hat, grad.fake.*
 *   sample          x1, y1 [M, B, ...], context  out.x, out.effective_nfe
 *   teacher_sample  x1, context, neg_context     out.x
 *   adamw           param, grads [steps, n]      out.param, out.m, out.v */
#ifndef TMD_REPLAY_H
#define TMD_REPLAY_H

#include "kernels/backend.h"
#include "train/tensor_list.h"

/* Evaluates the case on `be`; appends what it computed. */
bool replay_run(const char *folder, const struct Backend *be, struct TensorList *out,
                struct Error *err);

/* `tmd replay DIR [--out FILE] [--tol X]`. */
int cmd_replay(int argc, char **argv);

#endif
