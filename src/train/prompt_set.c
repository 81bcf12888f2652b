/* Prompts come from samples of the data, or are given; then a toy encoder embeds them, or the
 * sample with the same prompt lends its embedding. */
#include "train/prompt_set.h"

#include <stdlib.h>
#include <string.h>

#include "data/toy_text.h"

static bool begin(struct PromptSet *set, struct Dataset *dataset, int64_t n, int64_t text_len,
                  struct Error *err) {
    int64_t text_dim = dataset_info(dataset)->text_dim;
    int64_t n_text = text_len * text_dim;
    *set = (struct PromptSet){.n = n, .text_len = text_len, .text_dim = text_dim};
    set->prompts = xcalloc((size_t)n * sizeof *set->prompts);
    set->text = xcalloc((size_t)(n * n_text) * sizeof *set->text);
    set->neg_text = xmalloc((size_t)n_text * sizeof *set->neg_text);
    return dataset_read_negative(dataset, text_len, set->neg_text, err);
}

static float *text_of(const struct PromptSet *set, int64_t i) {
    return set->text + i * set->text_len * set->text_dim;
}

static bool read_sample(struct PromptSet *set, int64_t i, struct Dataset *dataset, int64_t sample,
                        struct Error *err) {
    return dataset_read_prompt(dataset, sample, &set->prompts[i], err) &&
           dataset_read_text(dataset, sample, set->text_len, text_of(set, i), err);
}

static bool embed(struct PromptSet *set, int64_t i, const char *prompt, struct Error *err) {
    set->prompts[i] = xstrdup(prompt);
    int64_t n_words = toy_text_embed(prompt, set->text_dim, text_of(set, i), set->text_len);
    if (n_words <= set->text_len) return true;
    return error_set(err, "prompt '%.64s' has %lld words, model.text_len is %lld", prompt,
                     (long long)n_words, (long long)set->text_len);
}

bool prompt_set_of_samples(struct PromptSet *set, struct Dataset *dataset, int64_t first, int64_t n,
                           int64_t text_len, struct Error *err) {
    bool ok = begin(set, dataset, n, text_len, err);
    for (int64_t i = 0; ok && i < n; i++) ok = read_sample(set, i, dataset, first + i, err);
    if (!ok) prompt_set_free(set);
    return ok;
}

bool prompt_set_of_texts(struct PromptSet *set, struct Dataset *dataset, const char *const *texts,
                         int64_t n, int64_t text_len, struct Error *err) {
    bool toy = strcmp(dataset_info(dataset)->text_encoder, TOY_TEXT_ENCODER) == 0;
    bool ok = begin(set, dataset, n, text_len, err);
    for (int64_t i = 0; ok && i < n; i++) {
        int64_t sample;
        if (toy)
            ok = embed(set, i, texts[i], err);
        else
            ok = dataset_find_prompt(dataset, texts[i], &sample, err) &&
                 read_sample(set, i, dataset, sample, err);
    }
    if (!ok) prompt_set_free(set);
    return ok;
}

void prompt_set_free(struct PromptSet *set) {
    for (int64_t i = 0; set->prompts && i < set->n; i++) free(set->prompts[i]);
    free(set->prompts);
    free(set->text);
    free(set->neg_text);
    *set = (struct PromptSet){0};
}

int64_t prompt_text_rows(const float *text, int64_t text_len, int64_t text_dim) {
    int64_t n = text_len * text_dim;
    while (n > 0 && text[n - 1] == 0.0f) n--;
    return (n + text_dim - 1) / text_dim;
}
