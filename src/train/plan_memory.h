/* Where a GPU's memory goes: bytes by role and part of its weights, and everything else. */
#ifndef TMD_PLAN_MEMORY_H
#define TMD_PLAN_MEMORY_H

#include "train/machine.h"
#include "train/trainer.h"

enum PlanPart {
    PLAN_MASTER,  /* float32 */
    PLAN_COMPUTE, /* what products read, where it is another type */
    PLAN_GRADIENT,
    PLAN_MOMENTS, /* both of AdamW's */
    PLAN_EMA,
    PLAN_PARTS
};
/* "master", "compute", "gradient", "moments", "EMA". */
const char *plan_part_name(enum PlanPart part);

struct PlanMemory {
    int64_t weights[ROLE_COUNT][PLAN_PARTS];
    int64_t batch;    /* and the tables that depend on its shape */
    int64_t units;    /* whole units beside the shares of weights */
    int64_t step;     /* the arena at its peak over all kinds of steps, and previews */
    int64_t reserved; /* the machine's reserved_bytes */
    int64_t host;     /* of the host's memory: the copy from which a checkpoint is written */
};

/* What memory_plan_make finds for a rank of the grid, in parts. */
struct PlanMemory plan_memory_make(const struct Config *config, struct VideoShape video,
                                   const struct RankGrid *grid, enum Dtype act_dtype,
                                   const struct Machine *machine);

int64_t plan_memory_role(const struct PlanMemory *memory, enum Role role);
/* On the GPU. */
int64_t plan_memory_total(const struct PlanMemory *memory);

#endif
