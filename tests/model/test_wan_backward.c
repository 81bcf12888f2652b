/* Backward of the whole DiT: every gradient against finite differences, from the velocity and from
 * taps alone; what is kept, and what is frozen, changes no bit; a gradient announced as complete
 * is. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "error.h"
#include "gradient_check.h"
#include "network_fixture.h"

static int setup(void **state) {
    *state = network_create(NULL);
    return 0;
}

static int teardown(void **state) {
    network_destroy(*state);
    return 0;
}

/* What one forward and backward pass is asked for. */
struct Pass {
    enum Keep keep;
    bool velocity, taps, frozen, last;
};

static void forward(struct NetworkFixture *f, struct Pass pass) {
    struct Wan wan = network_wan(f, pass.frozen ? &f->frozen : &f->weights);
    struct Taps taps = network_taps(f, f->taps);
    wan_forward(&wan, f->in, pass.velocity ? f->out : NULL, pass.taps ? &taps : NULL, pass.keep,
                &f->arena, f->wan_tape);
}

/* Gradients from zero, and dx. */
static void forward_backward(struct NetworkFixture *f, struct Pass pass) {
    struct Wan wan = network_wan(f, pass.frozen ? &f->frozen : &f->weights);
    struct Taps dtaps = network_taps(f, f->dtaps);
    int64_t mark = arena_mark(&f->arena);
    network_zero_gradients(f);
    forward(f, pass);
    int64_t used = arena_mark(&f->arena);
    wan_backward(&wan, f->dx, pass.velocity ? f->dout : NULL, pass.taps ? &dtaps : NULL,
                 f->wan_tape, pass.last, &f->arena);
    assert_int_equal(arena_mark(&f->arena), used);
    arena_release(&f->arena, mark);
}

static double loss_of(struct NetworkFixture *f, struct Pass pass) {
    double loss = 0.0;
    pass.keep = KEEP_NOTHING;
    int64_t mark = arena_mark(&f->arena);
    forward(f, pass);
    assert_int_equal(arena_mark(&f->arena), mark);
    if (pass.velocity) loss += network_product(f, f->out, f->dout, f->latent_elems);
    for (int k = 0; pass.taps && k < NETWORK_TAPS; k++)
        loss += network_product(f, f->taps[k], f->dtaps[k], f->tap_elems);
    return loss;
}

static double velocity_loss(void *context) {
    return loss_of(context, (struct Pass){.velocity = true});
}
static double taps_loss(void *context) {
    return loss_of(context, (struct Pass){.taps = true});
}
static double both_loss(void *context) {
    return loss_of(context, (struct Pass){.velocity = true, .taps = true});
}

static void velocity_gradients(void **state) {
    struct NetworkFixture *f = *state;
    struct Subject subject = {f->be, f, velocity_loss};
    forward_backward(f, (struct Pass){.keep = KEEP_ALL, .velocity = true, .last = true});
    assert_gradient(&subject, "x", f->x, f->dx, f->latent_elems);
    assert_int_equal(assert_gradients(&subject, &f->weights), NETWORK_LAYERS * 27 + 15);
}

static void both_gradients(void **state) {
    struct NetworkFixture *f = *state;
    struct Subject subject = {f->be, f, both_loss};
    forward_backward(f, (struct Pass){.keep = KEEP_ALL, .velocity = true, .taps = true});
    assert_gradient(&subject, "x", f->x, f->dx, f->latent_elems);
    assert_gradients(&subject, &f->weights);
}

/* Blocks above the last tap have no part in it: their gradients stay exactly zero. */
static void tap_gradients(void **state) {
    struct NetworkFixture *f = *state;
    struct Subject subject = {f->be, f, taps_loss};
    forward_backward(f, (struct Pass){.keep = KEEP_ALL, .taps = true});
    assert_gradient(&subject, "x", f->x, f->dx, f->latent_elems);
    int n_below = 0, n_above = 0;
    float *gradients = network_gradients(f);
    for (int p = 0; p < f->table.n_params; p++) {
        const struct ParamDesc *param = &f->table.params[p];
        if (param->unit <= unit_of_block(f->tap_blocks.items[NETWORK_TAPS - 1])) {
            assert_gradient(&subject, param->name, f->weights.master + param->offset,
                            f->weights.grad + param->offset, param->n_elems);
            n_below++;
            continue;
        }
        for (int64_t i = 0; i < param->n_elems; i++)
            assert_true(gradients[param->offset + i] == 0.0f);
        n_above++;
    }
    free(gradients);
    assert_int_equal(n_below, 12 + 2 * 27);
    assert_int_equal(n_above, 27 + 3);
}

/* ---- the same bits ---- */

static void assert_same_bits(const float *a, const float *b, int64_t n_elems) {
    assert_memory_equal(a, b, (size_t)n_elems * sizeof *a);
}

static float *copy_of_dx(const struct NetworkFixture *f) {
    size_t n_bytes = (size_t)f->latent_elems * sizeof(float);
    float *host = xmalloc(n_bytes);
    f->be->download(f->be, host, f->dx, (int64_t)n_bytes);
    return host;
}

static const enum Keep recomputed[] = {KEEP_INPUTS, KEEP_ATTENTION};

static void same_when_recomputed(struct NetworkFixture *f) {
    struct Pass pass = {.keep = KEEP_ALL, .velocity = true, .taps = true};
    forward_backward(f, pass);
    float *gradients = network_gradients(f), *dx = copy_of_dx(f);
    assert_true(network_product(f, f->weights.grad, f->weights.grad, f->table.n_elems) > 0.0);
    for (int i = 0; i < 2; i++) {
        f->be->zero(f->be, f->dx, f->latent_elems * (int64_t)sizeof(float));
        pass.keep = recomputed[i];
        forward_backward(f, pass);
        float *again = network_gradients(f), *dx_again = copy_of_dx(f);
        assert_same_bits(gradients, again, f->table.n_elems);
        assert_same_bits(dx, dx_again, f->latent_elems);
        free(again);
        free(dx_again);
    }
    free(gradients);
    free(dx);
}

static void recomputation_changes_no_bit(void **state) {
    same_when_recomputed(*state);
}

/* Blocks are made again in groups, of which any may be left out. */
static void nor_with_a_skipped_block(void **state) {
    struct NetworkFixture *f = *state;
    for (int64_t block = 0; block < NETWORK_LAYERS; block++) {
        struct IntList skip = {.items = {block}, .n = 1};
        f->in.skip_layers = &skip;
        same_when_recomputed(f);
    }
    f->in.skip_layers = NULL;
}

static void frozen_weights_give_the_same_dx(void **state) {
    struct NetworkFixture *f = *state;
    for (int taps_only = 0; taps_only < 2; taps_only++) {
        struct Pass pass = {.keep = KEEP_ALL, .velocity = !taps_only, .taps = true};
        forward_backward(f, pass);
        float *dx = copy_of_dx(f);
        pass.frozen = true;
        for (int i = 0; i < 3; i++) {
            pass.keep = i < 2 ? recomputed[i] : KEEP_ALL;
            f->be->zero(f->be, f->dx, f->latent_elems * (int64_t)sizeof(float));
            forward_backward(f, pass);
            float *frozen_dx = copy_of_dx(f);
            assert_same_bits(dx, frozen_dx, f->latent_elems);
            assert_true(network_product(f, f->dx, f->dx, f->latent_elems) > 0.0);
            assert_true(network_product(f, f->weights.grad, f->weights.grad, f->table.n_elems) == 0.0);
            free(frozen_dx);
        }
        free(dx);
    }
}

/* ---- accumulation and announcements ---- */

static void gradients_accumulate(void **state) {
    struct NetworkFixture *f = *state;
    struct Wan wan = network_wan(f, &f->weights);
    forward_backward(f, (struct Pass){.keep = KEEP_ALL, .velocity = true});
    float *once = network_gradients(f);
    int64_t mark = arena_mark(&f->arena);
    forward(f, (struct Pass){.keep = KEEP_ALL, .velocity = true});
    wan_backward(&wan, f->dx, f->dout, NULL, f->wan_tape, true, &f->arena);
    arena_release(&f->arena, mark);
    float *twice = network_gradients(f);
    double squares = 0.0, errors = 0.0;
    for (int64_t i = 0; i < f->table.n_elems; i++) {
        double error = (double)twice[i] - 2.0 * (double)once[i];
        errors += error * error;
        squares += (double)twice[i] * (double)twice[i];
    }
    assert_true(squares > 0.0 && sqrt(errors / squares) < 1e-6);
    free(once);
    free(twice);
}

/* Gradients as they were when their unit was announced. */
struct Announced {
    const struct NetworkFixture *f;
    float *gradients;
    int n_times[NETWORK_LAYERS + 2];
};

static void on_grad_ready(void *context, int unit) {
    struct Announced *a = context;
    const struct UnitDesc *desc = &a->f->table.units[unit];
    a->n_times[unit]++;
    a->f->be->download(a->f->be, a->gradients + desc->offset, a->f->weights.grad + desc->offset,
                       desc->n_elems * (int64_t)sizeof(float));
}

static void announced_gradients_are_complete(void **state) {
    struct NetworkFixture *f = *state;
    struct Announced a = {.f = f,
                          .gradients = xcalloc((size_t)f->table.n_elems * sizeof *a.gradients)};
    assert_int_equal(f->table.n_units, NETWORK_LAYERS + 2);
    f->weights.hooks = (struct UnitHooks){.context = &a, .grad_ready = on_grad_ready};
    struct Pass pass = {.keep = KEEP_ALL, .velocity = true};
    forward_backward(f, pass);
    for (int unit = 0; unit < f->table.n_units; unit++) assert_int_equal(a.n_times[unit], 0);
    pass.last = true;
    forward_backward(f, pass);
    float *final = network_gradients(f);
    for (int unit = 0; unit < f->table.n_units; unit++) assert_int_equal(a.n_times[unit], 1);
    assert_same_bits(a.gradients, final, f->table.n_elems);
    free(a.gradients);
    free(final);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(velocity_gradients, setup, teardown),
        cmocka_unit_test_setup_teardown(both_gradients, setup, teardown),
        cmocka_unit_test_setup_teardown(tap_gradients, setup, teardown),
        cmocka_unit_test_setup_teardown(recomputation_changes_no_bit, setup, teardown),
        cmocka_unit_test_setup_teardown(nor_with_a_skipped_block, setup, teardown),
        cmocka_unit_test_setup_teardown(frozen_weights_give_the_same_dx, setup, teardown),
        cmocka_unit_test_setup_teardown(gradients_accumulate, setup, teardown),
        cmocka_unit_test_setup_teardown(announced_gradients_are_complete, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
