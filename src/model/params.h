/* The table of a network's parameters: their names, shapes, initial values, and their order in flat
 * buffers (weights.h has the buffers).
 *
 * Parameters are grouped into *units*: the embeddings, each block, the output head, the flow head's
 * own tensors.  A unit is what ranks sum, shard and gather as one.  Within a unit, tensors that
 * operations read in float32 come first; the others, which matrix products read, are stored apart
 * from them. */
#ifndef TMD_PARAMS_H
#define TMD_PARAMS_H

#include <stdint.h>

enum { PARAM_MAX_DIMS = 5, PARAM_NAME_MAX = 64 };

/* How a tensor of a fresh network starts.  `init_scale` is the constant, the deviation of NORMAL,
 * the bound of UNIFORM. */
enum ParamInit { INIT_ZERO, INIT_CONSTANT, INIT_NORMAL, INIT_UNIFORM, INIT_IDENTITY_AND_NORMAL };

enum ParamFlags {
    PARAM_F32 = 1,   /* operations read the float32 master: norms, modulation, the time path */
    PARAM_JOINED = 2 /* follows the previous tensor without a gap, so that one product serves both */
};

struct ParamDesc {
    char name[PARAM_NAME_MAX]; /* the checkpoint's name */
    int n_dims;
    int64_t shape[PARAM_MAX_DIMS];
    int64_t n_elems;
    int64_t offset; /* elements from the start of the flat buffer; final once its unit is complete */
    int unit;
    int flags;
    enum ParamInit init;
    double init_scale;
};

struct UnitDesc {
    char name[PARAM_NAME_MAX];
    int64_t offset, n_elems; /* of the flat buffer, gaps included */
    int64_t n_f32;           /* of these, first, the tensors of PARAM_F32 */
    int first_param, n_params;
};

struct ParamTable {
    struct ParamDesc *params;
    int n_params;
    struct UnitDesc *units;
    int n_units;
    int64_t n_elems; /* of the flat buffer, gaps included */
    int64_t n_parameters; /* without the gaps */
};

/* Starts the next unit. */
void params_add_unit(struct ParamTable *table, const char *name);
/* Adds a tensor to the last unit; returns its index.  Dimensions that are 0 end the shape. */
int params_add(struct ParamTable *table, const char *name, int flags, enum ParamInit init,
               double init_scale, const int64_t shape[PARAM_MAX_DIMS]);
/* Index of the tensor of that name, or -1. */
int params_find(const struct ParamTable *table, const char *name);
/* Elements of the largest tensor. */
int64_t params_largest(const struct ParamTable *table);
void params_free(struct ParamTable *table);

/* out[i] = initial value of element begin + i of tensor `param`, i < end - begin.  Each is a function of
 * (seed, the tensor's name, its place in the tensor) only. */
void params_initial_values(const struct ParamTable *table, int param, uint64_t seed, int64_t begin,
                           int64_t end, float *out);
/* Fills host memory [table->n_elems] with all of them; gaps are 0. */
void params_initialise(const struct ParamTable *table, uint64_t seed, float *host);

#endif
