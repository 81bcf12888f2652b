/* The results of an evaluation: a table for people, the same numbers as JSON, and verdicts. */
#ifndef TMD_EVAL_REPORT_H
#define TMD_EVAL_REPORT_H

#include <stdio.h>

#include "train/eval_scores.h"

/* A line of the table. */
struct Line {
    const char *name;
    const char *source; /* where the weights lie; NULL: real clips */
    struct Scores scores;
};

/* Whether line `a` is better than line `b`, and clearly. */
struct Verdict {
    const struct Line *a, *b;
    double z;   /* of the shares of clips that match in shape, colour and direction */
    bool clear; /* z > VERDICT_LEAST_Z, and a's Frechet distance is the smaller */
};

#define VERDICT_LEAST_Z 3.0

struct Report {
    const char *data; /* path of the held-out clips */
    int64_t n_clips, seed;
    const struct Line *lines;
    int n_lines;
    const struct Verdict *verdicts;
    int n_verdicts;
};

struct Verdict verdict_make(const struct Line *a, const struct Line *b);

void report_print(const struct Report *report, FILE *out);
/* Writes <folder>/table.txt and <folder>/table.json.  A number that is not known is null in JSON.
 */
bool report_write(const struct Report *report, const char *folder, struct Error *err);

#endif
