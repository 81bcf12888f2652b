/* compare_checkpoints A B [GROUP ...]
 *
 * Whether two checkpoints hold the same state, bit for bit: iteration, stage, every value but the
 * configuration (which names the run's folder), and every tensor; and whether each GROUP is among
 * them. Names each that differs.  Exits 1 if anything does, or if there was nothing to compare.
 *
 * compare_checkpoints --only A B GROUP ...
 *
 * The same of the tensors of these groups alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/checkpoint.h"

static struct Ckpt *open_or_exit(const char *path) {
    struct Ckpt *ckpt;
    struct Error err;
    if (ckpt_open(path, &ckpt, &err)) return ckpt;
    exit(error_report(&err));
}

static float *read_or_exit(struct Ckpt *ckpt, const struct CkptTensorInfo *info) {
    struct Error err;
    float *data = xmalloc((size_t)info->n_elems * sizeof *data);
    if (!ckpt_read_f32(ckpt, info->group, info->name, info->n_dims, info->shape, true, data, &err))
        exit(error_report(&err));
    return data;
}

static bool same_value(const struct CkptValue *a, const struct CkptValue *b) {
    if (strcmp(a->key, b->key) != 0 || a->kind != b->kind) return false;
    switch (a->kind) {
    case CKPT_INT:
        return a->integer == b->integer;
    case CKPT_REAL:
        return a->real == b->real;
    case CKPT_TEXT:
        break;
    }
    return strcmp(a->key, CKPT_KEY_CONFIG) == 0 || strcmp(a->text, b->text) == 0;
}

static int compare_values(const struct Ckpt *a, const struct Ckpt *b) {
    int n_differ = 0;
    if (ckpt_iteration(a) != ckpt_iteration(b) || strcmp(ckpt_stage(a), ckpt_stage(b)) != 0) {
        printf("iteration %lld of %s, and %lld of %s\n", (long long)ckpt_iteration(a),
               ckpt_stage(a), (long long)ckpt_iteration(b), ckpt_stage(b));
        n_differ++;
    }
    if (ckpt_value_count(a) != ckpt_value_count(b)) {
        printf("%lld values, and %lld\n", (long long)ckpt_value_count(a),
               (long long)ckpt_value_count(b));
        return n_differ + 1;
    }
    for (int64_t i = 0; i < ckpt_value_count(a); i++) {
        if (same_value(ckpt_value(a, i), ckpt_value(b, i))) continue;
        printf("the value %s differs\n", ckpt_value(a, i)->key);
        n_differ++;
    }
    return n_differ;
}

/* Numbers of a tensor in A and B. */
struct Pair {
    int64_t in_a, in_b;
};

static bool same_tensor(struct Ckpt *a, struct Ckpt *b, struct Pair pair) {
    const struct CkptTensorInfo *x = ckpt_info(a, pair.in_a), *y = ckpt_info(b, pair.in_b);
    if (strcmp(x->group, y->group) != 0 || strcmp(x->name, y->name) != 0 ||
        x->n_dims != y->n_dims ||
        memcmp(x->shape, y->shape, sizeof *x->shape * (size_t)x->n_dims) != 0) {
        printf("%s/%s stands against %s/%s, or has another shape\n", x->group, x->name, y->group,
               y->name);
        return false;
    }
    float *data_x = read_or_exit(a, x), *data_y = read_or_exit(b, y);
    int64_t n_differ = 0;
    for (int64_t k = 0; k < x->n_elems; k++)
        n_differ += memcmp(&data_x[k], &data_y[k], sizeof *data_x) != 0;
    if (n_differ)
        printf("%s/%s differs in %lld of %lld elements\n", x->group, x->name, (long long)n_differ,
               (long long)x->n_elems);
    free(data_x);
    free(data_y);
    return n_differ == 0;
}

static int compare_tensors(struct Ckpt *a, struct Ckpt *b) {
    int n_differ = 0;
    if (ckpt_count(a) != ckpt_count(b)) {
        printf("%lld tensors, and %lld\n", (long long)ckpt_count(a), (long long)ckpt_count(b));
        return 1;
    }
    for (int64_t i = 0; i < ckpt_count(a); i++) n_differ += !same_tensor(a, b, (struct Pair){i, i});
    return n_differ;
}

static int missing_groups(const struct Ckpt *ckpt, char *const *groups, int n_groups) {
    int n_missing = 0;
    for (int i = 0; i < n_groups; i++) {
        int64_t first;
        if (ckpt_group(ckpt, groups[i], &first) > 0) continue;
        printf("%s is missing\n", groups[i]);
        n_missing++;
    }
    return n_missing;
}

/* Tensors of A's groups, of which there is at least one each, in B. */
static int compare_groups(struct Ckpt *a, struct Ckpt *b, char *const *groups, int n_groups) {
    int n_differ = missing_groups(a, groups, n_groups);
    for (int g = 0; g < n_groups; g++) {
        int64_t first_a, first_b, n = ckpt_group(a, groups[g], &first_a);
        if (n && ckpt_group(b, groups[g], &first_b) != n) {
            printf("%s has other tensors\n", groups[g]);
            n_differ++;
            continue;
        }
        for (int64_t i = 0; i < n; i++) {
            n_differ += !same_tensor(a, b, (struct Pair){first_a + i, first_b + i});
        }
    }
    return n_differ;
}

int main(int argc, char **argv) {
    bool only = argc > 1 && strcmp(argv[1], "--only") == 0;
    char **operands = argv + 1 + only;
    int n_groups = argc - 3 - only;
    if (n_groups < only) {
        fprintf(stderr, "usage: compare_checkpoints [--only] A B [GROUP ...]\n");
        return 1;
    }
    struct Ckpt *a = open_or_exit(operands[0]), *b = open_or_exit(operands[1]);
    int n_differ = only ? compare_groups(a, b, operands + 2, n_groups)
                        : compare_values(a, b) + compare_tensors(a, b) +
                              missing_groups(a, operands + 2, n_groups);
    bool any = ckpt_count(a) > 0;
    if (!any) printf("no tensors to compare\n");
    printf("%s, %s: %lld tensors, %d differences\n", operands[0], operands[1],
           (long long)ckpt_count(a), n_differ);
    ckpt_close(a);
    ckpt_close(b);
    return any && n_differ == 0 ? 0 : 1;
}
