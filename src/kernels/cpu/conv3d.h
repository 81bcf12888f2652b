/* Convolutions that oneDNN has been asked for: one prepared plan per shape, made on first use. */
#ifndef TMD_CPU_CONV3D_H
#define TMD_CPU_CONV3D_H

struct CpuConv;

struct CpuConv *cpu_conv_create(void);
/* Accepts NULL. */
void cpu_conv_destroy(struct CpuConv *conv);

#endif
