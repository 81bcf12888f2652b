/* One sampler to be evaluated, as the command line spells it:
 *
 *     NAME=PATH[:KEY=VALUE[,KEY=VALUE...]]
 *
 *     "teacher 25 steps=runs/teacher:steps=25,guidance=1.5"
 *     "untrained=runs/teacher:role=untrained,config=configs/tiny/stage1.yaml"
 *
 * NAME is UTF-8 without a comma, PATH a run's folder or a checkpoint.  Keys:
 *     role     teacher, student, or untrained: the student as it starts from the teacher in PATH;
 *              default: what the run trains
 *     ema      yes, no: the averaged weights where there are some (default yes)
 *     config   a file in the place of the configuration that comes with PATH
 *     steps, shift, guidance      of the teacher's sampler (sampler.steps, ...)
 *     section.key                 any other key of the configuration */
#ifndef TMD_EVAL_ROW_H
#define TMD_EVAL_ROW_H

#include "train/sampling_load.h"

enum { EVAL_MAX_NAME = 64 };

struct EvalRow {
    char *name, *path;
    struct Config config;
    struct SampledModel model;
};

/* Reads `spec`; what is wrong is named together with it.  eval_row_free is needed in either case.
 */
bool eval_row_parse(struct EvalRow *row, const char *spec, struct Error *err);
void eval_row_free(struct EvalRow *row);

#endif
