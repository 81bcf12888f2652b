/* Prompts with the text embeddings that samplers condition on, in host memory. */
#ifndef TMD_PROMPT_SET_H
#define TMD_PROMPT_SET_H

#include "data/dataset.h"

struct PromptSet {
    int64_t n, text_len, text_dim;
    char **prompts;  /* [n] */
    float *text;     /* [n, text_len, text_dim], zero after a prompt's rows */
    float *neg_text; /* [text_len, text_dim]: the data set's negative prompt */
};

/* The prompts of samples first .. first + n - 1. */
bool prompt_set_of_samples(struct PromptSet *set, struct Dataset *dataset, int64_t first, int64_t n,
                           int64_t text_len, struct Error *err);
/* These very prompts.  Where the data's text is the toy encoder's (toy_text.h) they are embedded on
 * the spot; else each must be the prompt of a sample. */
bool prompt_set_of_texts(struct PromptSet *set, struct Dataset *dataset, const char *const *texts,
                         int64_t n, int64_t text_len, struct Error *err);
/* Harmless on zeros and after an error. */
void prompt_set_free(struct PromptSet *set);

/* Rows of `text` [text_len, text_dim] up to the last that is not all zero: those of the prompt. */
int64_t prompt_text_rows(const float *text, int64_t text_len, int64_t text_dim);

#endif
