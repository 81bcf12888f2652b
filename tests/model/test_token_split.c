/* Networks whose tokens are spread over parts, against the same networks whole: outputs, taps and
 * input gradients on every part, parameter gradients summed over the parts.  Parts are threads,
 * each with a network of its own; 25 tokens divide evenly among none of them. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "error.h"
#include "network_fixture.h"

enum { MAX_PARTS = 6 };
static const int part_counts[] = {2, 3, 6};
static const struct NetworkSizes sizes = {36, 6, {.frames = 5, .height = 2, .width = 10}};
/* Of the norm; sums in another order differ by about 1e-6. */
static const double tolerance = 1e-5;

/* ---- threads that exchange parcels */

struct Meeting {
    pthread_barrier_t barrier;
    const char *send[MAX_PARTS];
    const struct TokenParcel *parcels[MAX_PARTS];
    int n_exchanges[MAX_PARTS];
    bool disagreed; /* about the length of a parcel */
};

struct Seat {
    struct Meeting *meeting;
    int part, n_parts;
};

static void exchange(void *context, void *recv, const struct TokenParcel *recv_parcels,
                     const void *send, const struct TokenParcel *send_parcels) {
    const struct Seat *seat = context;
    struct Meeting *m = seat->meeting;
    m->send[seat->part] = send;
    m->parcels[seat->part] = send_parcels;
    m->n_exchanges[seat->part]++;
    pthread_barrier_wait(&m->barrier);
    for (int r = 0; r < seat->n_parts; r++) {
        struct TokenParcel from = m->parcels[r][seat->part], to = recv_parcels[r];
        if (from.n_bytes != to.n_bytes) m->disagreed = true;
        memcpy((char *)recv + to.at, m->send[r] + from.at, (size_t)from.n_bytes);
    }
    pthread_barrier_wait(&m->barrier);
}

/* ---- one evaluation, whole or a part */

struct Pass {
    const struct StudentConfig *student; /* NULL: a DiT */
    bool velocity, taps, frozen;         /* of a DiT */
    bool rollout;                        /* of a student */
    enum Keep keep;
};

/* What an evaluation gives. */
struct Results {
    struct NetworkFixture *f;
    float *gradients; /* of all parameters, on the host */
};

static void run_wan(struct NetworkFixture *f, const struct Pass *pass) {
    struct Wan wan = network_wan(f, pass->frozen ? &f->frozen : &f->weights);
    struct Taps taps = network_taps(f, f->taps), dtaps = network_taps(f, f->dtaps);
    wan_forward(&wan, f->in, pass->velocity ? f->out : NULL, pass->taps ? &taps : NULL, pass->keep,
                &f->arena, f->wan_tape);
    wan_backward(&wan, f->dx, pass->velocity ? f->dout : NULL, pass->taps ? &dtaps : NULL,
                 f->wan_tape, true, &f->arena);
}

static void run_student(struct NetworkFixture *f, const struct Pass *pass) {
    static const double s[NETWORK_BATCH] = {0.9, 0.4}, r[NETWORK_BATCH] = {0.5, 0.0};
    struct Student student = network_student(f);
    struct GeneratorInputs in = {.wan = f->in, .x1 = f->x1, .y1 = f->y1};
    if (!pass->rollout) {
        in.y_s = f->dx; /* any latent will do */
        in.host_s = s;
        in.host_r = r;
    }
    generator_forward(&student, in, f->out, pass->keep, &f->arena, f->generator_tape);
    generator_backward(&student, f->dout, f->generator_tape, true, &f->arena);
}

static void run(struct Results *results, const struct Pass *pass) {
    struct NetworkFixture *f = results->f;
    network_zero_gradients(f);
    (pass->student ? run_student : run_wan)(f, pass);
    results->gradients = network_gradients(f);
}

struct Part {
    const struct Pass *pass;
    struct Seat seat;
    struct Results results;
};

static void *run_part(void *context) {
    struct Part *p = context;
    struct NetworkFixture *f = network_create_sized(p->pass->student, &sizes);
    struct WanGeometry whole = f->geometry;
    struct TokenSplit split = {.part = p->seat.part,
                               .n_parts = p->seat.n_parts,
                               .tokens = whole.tokens,
                               .context = &p->seat,
                               .exchange = exchange};
    p->results.f = f;
    f->geometry = wan_geometry_part(&whole, &f->model, &split);
    run(&p->results, p->pass);
    f->geometry = whole;
    return NULL;
}

/* ---- comparisons */

static void assert_close(const char *what, const char *name, const float *a, const float *b,
                         int64_t n_elems) {
    double errors = 0.0, squares = 0.0;
    for (int64_t i = 0; i < n_elems; i++) {
        double error = (double)a[i] - (double)b[i];
        errors += error * error;
        squares += (double)a[i] * (double)a[i];
    }
    if (!(squares > 0.0)) fail_msg("%s %s: nothing to compare", what, name);
    if (!(sqrt(errors / squares) <= tolerance))
        fail_msg("%s %s: differs by %.2e of its norm", what, name, sqrt(errors / squares));
}

static void assert_same_gradients(const struct Results *whole, const struct Part *parts,
                                  int n_parts) {
    const struct ParamTable *table = &whole->f->table;
    float *sum = xcalloc((size_t)table->n_elems * sizeof *sum);
    for (int p = 0; p < n_parts; p++)
        for (int64_t i = 0; i < table->n_elems; i++) sum[i] += parts[p].results.gradients[i];
    for (int p = 0; p < table->n_params; p++) {
        const struct ParamDesc *param = &table->params[p];
        assert_close("gradient of", param->name, whole->gradients + param->offset,
                     sum + param->offset, param->n_elems);
    }
    free(sum);
}

static void assert_same_part(const struct Pass *pass, const struct Results *whole,
                             const struct Results *part) {
    const struct NetworkFixture *a = whole->f, *b = part->f;
    if (pass->student || pass->velocity)
        assert_close("output", "", a->out, b->out, a->latent_elems);
    if (!pass->student) assert_close("input gradient", "", a->dx, b->dx, a->latent_elems);
    for (int k = 0; pass->taps && k < NETWORK_TAPS; k++)
        assert_close("tap", "", a->taps[k], b->taps[k], a->tap_elems);
}

static void results_free(struct Results *results) {
    free(results->gradients);
    network_destroy(results->f);
}

static void check_parts(const struct Pass *pass, const struct Results *whole, int n_parts) {
    struct Part parts[MAX_PARTS];
    struct Meeting meeting = {0};
    pthread_t threads[MAX_PARTS];
    assert_true(sizes.video.frames * sizes.video.width / 2 % n_parts != 0);
    assert_int_equal(pthread_barrier_init(&meeting.barrier, NULL, (unsigned)n_parts), 0);
    for (int p = 0; p < n_parts; p++) {
        parts[p] = (struct Part){.pass = pass, .seat = {&meeting, p, n_parts}};
        assert_int_equal(pthread_create(&threads[p], NULL, run_part, &parts[p]), 0);
    }
    for (int p = 0; p < n_parts; p++) pthread_join(threads[p], NULL);
    pthread_barrier_destroy(&meeting.barrier);
    assert_false(meeting.disagreed);
    for (int p = 0; p < n_parts; p++) {
        assert_true(meeting.n_exchanges[p] > 0);
        assert_same_part(pass, whole, &parts[p].results);
    }
    if (!pass->frozen && (pass->student || pass->velocity))
        assert_same_gradients(whole, parts, n_parts);
    for (int p = 0; p < n_parts; p++) results_free(&parts[p].results);
}

static void check_pass(void **state) {
    struct Pass pass = *(const struct Pass *)*state;
    static const enum Keep keeps[] = {KEEP_ALL, KEEP_INPUTS, KEEP_ATTENTION};
    struct Results whole = {.f = network_create_sized(pass.student, &sizes)};
    run(&whole, &pass);
    for (int i = 0; i < 3; i++)
        for (size_t k = 0; k < sizeof part_counts / sizeof *part_counts; k++) {
            pass.keep = keeps[i];
            check_parts(&pass, &whole, part_counts[k]);
        }
    results_free(&whole);
}

#define STUDENT(head, inner, how)                                                                  \
    {                                                                                              \
        .head_blocks = head, .inner_steps = inner, .outer_steps = 2, .outer_shift = 10,            \
        .inner_shift = 3, .t_max = 0.999, .fusion = how, .fusion_gate_init = -0.5                  \
    }

int main(void) {
    static const struct StudentConfig gated = STUDENT(2, 2, FUSION_GATED),
                                      concat = STUDENT(1, 2, FUSION_CONCAT),
                                      baseline = STUDENT(0, 1, FUSION_GATED);
    static struct Pass velocity = {.velocity = true, .keep = KEEP_ALL},
                       both = {.velocity = true, .taps = true, .keep = KEEP_ALL},
                       frozen = {.taps = true, .frozen = true, .keep = KEEP_ALL},
                       rolled = {.student = &gated, .rollout = true, .keep = KEEP_ALL},
                       joined = {.student = &concat, .rollout = true, .keep = KEEP_ALL},
                       single = {.student = &gated, .keep = KEEP_ALL},
                       plain = {.student = &baseline, .rollout = true, .keep = KEEP_ALL};
    const struct CMUnitTest tests[] = {
        {"a DiT", check_pass, NULL, NULL, &velocity},
        {"a DiT and its taps", check_pass, NULL, NULL, &both},
        {"a frozen DiT's taps alone", check_pass, NULL, NULL, &frozen},
        {"a student rolled out, gated", check_pass, NULL, NULL, &rolled},
        {"a student rolled out, concat", check_pass, NULL, NULL, &joined},
        {"a student's single inner step", check_pass, NULL, NULL, &single},
        {"a student without a head", check_pass, NULL, NULL, &plain},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
