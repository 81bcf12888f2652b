/* Backward of the student as a generator: gated and concat fusion, rolled out over one to three
 * inner steps, the ablation of a single inner step, and the baseline without a flow head. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "error.h"
#include "gradient_check.h"
#include "network_fixture.h"

struct Case {
    struct StudentConfig student;
    bool rollout;
};

/* What the loss is of, and how. */
struct Run {
    struct NetworkFixture *f;
    bool rollout;
    int n_announced[NETWORK_LAYERS + 3];
    float *announced; /* gradients as they were when their unit was announced */
};

static struct GeneratorInputs inputs_of(const struct Run *run) {
    static const double s[NETWORK_BATCH] = {0.9, 0.4}, r[NETWORK_BATCH] = {0.5, 0.0};
    const struct NetworkFixture *f = run->f;
    struct GeneratorInputs in = {.wan = f->in, .x1 = f->x1, .y1 = f->y1};
    if (!run->rollout) {
        in.y_s = f->dx; /* any latent will do */
        in.host_s = s;
        in.host_r = r;
    }
    return in;
}

static double loss(void *context) {
    const struct Run *run = context;
    struct NetworkFixture *f = run->f;
    struct Student student = network_student(f);
    int64_t mark = arena_mark(&f->arena);
    generator_forward(&student, inputs_of(run), f->out, KEEP_NOTHING, &f->arena, f->generator_tape);
    assert_int_equal(arena_mark(&f->arena), mark);
    return network_product(f, f->out, f->dout, f->latent_elems);
}

/* Gradients from zero; the caller frees the copy. */
static float *forward_backward(const struct Run *run, enum Keep keep, bool last) {
    struct NetworkFixture *f = run->f;
    struct Student student = network_student(f);
    int64_t mark = arena_mark(&f->arena);
    network_zero_gradients(f);
    generator_forward(&student, inputs_of(run), f->out, keep, &f->arena, f->generator_tape);
    generator_backward(&student, f->dout, f->generator_tape, last, &f->arena);
    arena_release(&f->arena, mark);
    return network_gradients(f);
}

static void on_grad_ready(void *context, int unit) {
    struct Run *run = context;
    const struct UnitDesc *desc = &run->f->table.units[unit];
    run->n_announced[unit]++;
    run->f->be->download(run->f->be, run->announced + desc->offset,
                         run->f->weights.grad + desc->offset,
                         desc->n_elems * (int64_t)sizeof(float));
}

static void check_announcements(struct Run *run) {
    struct NetworkFixture *f = run->f;
    size_t n_bytes = (size_t)f->table.n_elems * sizeof(float);
    run->announced = xcalloc(n_bytes);
    f->weights.hooks = (struct UnitHooks){.context = run, .grad_ready = on_grad_ready};
    free(forward_backward(run, KEEP_ALL, false));
    for (int unit = 0; unit < f->table.n_units; unit++) assert_int_equal(run->n_announced[unit], 0);
    float *final = forward_backward(run, KEEP_ALL, true);
    /* what is never announced is sent at the end of the step; what is must be complete by then */
    int n_units = 0;
    for (int unit = 0; unit < f->table.n_units; unit++) {
        const struct UnitDesc *desc = &f->table.units[unit];
        assert_in_range(run->n_announced[unit], 0, 1);
        n_units += run->n_announced[unit];
        if (run->n_announced[unit])
            assert_memory_equal(run->announced + desc->offset, final + desc->offset,
                                (size_t)desc->n_elems * sizeof(float));
    }
    assert_true(n_units >= NETWORK_LAYERS);
    f->weights.hooks = (struct UnitHooks){0};
    free(final);
    free(run->announced);
}

static void check_generator(void **state) {
    const struct Case *c = *state;
    struct Run run = {.f = network_create(&c->student), .rollout = c->rollout};
    struct NetworkFixture *f = run.f;
    float *gradients = forward_backward(&run, KEEP_ALL, true);
    struct Subject subject = {f->be, &run, loss};
    assert_true(assert_gradients(&subject, &f->weights) >= NETWORK_LAYERS * 27 + 15);

    static const enum Keep keeps[] = {KEEP_INPUTS, KEEP_ATTENTION};
    for (int i = 0; i < 2; i++) {
        float *again = forward_backward(&run, keeps[i], true);
        assert_memory_equal(gradients, again, (size_t)f->table.n_elems * sizeof *again);
        free(again);
    }
    check_announcements(&run);
    free(gradients);
    network_destroy(f);
}

#define STUDENT(head, inner, how)                                                                  \
    {                                                                                              \
        .head_blocks = head, .inner_steps = inner, .outer_steps = 2, .outer_shift = 10,            \
        .inner_shift = 3, .t_max = 0.999, .fusion = how, .fusion_gate_init = -0.5                  \
    }

int main(void) {
    static struct Case gated_one = {STUDENT(1, 1, FUSION_GATED), true},
                       gated_three = {STUDENT(2, 3, FUSION_GATED), true},
                       concat_two = {STUDENT(2, 2, FUSION_CONCAT), true},
                       single_step = {STUDENT(1, 2, FUSION_GATED), false},
                       baseline = {STUDENT(0, 1, FUSION_GATED), true};
    const struct CMUnitTest tests[] = {
        {"gated, one inner step", check_generator, NULL, NULL, &gated_one},
        {"gated, three inner steps", check_generator, NULL, NULL, &gated_three},
        {"concat, two inner steps", check_generator, NULL, NULL, &concat_two},
        {"a single inner step of two", check_generator, NULL, NULL, &single_step},
        {"the baseline without a head", check_generator, NULL, NULL, &baseline},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
