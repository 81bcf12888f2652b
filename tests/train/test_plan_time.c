/* The planned machine's time: operations, links, what makes up an iteration and a run, and which
 * keys would change it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "plan_fixture.h"

/* ---- time */

/* Ten bytes zeroed: ten seconds on the simple machine. */
static void ten_seconds(const struct Backend *be) {
    be->zero(be, NULL, 10);
}

/* A byte takes a second to the other GPU of a node, four to other nodes, and a message one more. */
static const struct PlanLink slow_link = {
    .inside = 1.0, .adapter = 0.25, .message_seconds = 1.0, .node_gpus = 2};

static void test_link_works_beside_the_gpu(void **state) {
    (void)state;
    struct Backend *be = backend_plan_create(DTYPE_F32);
    backend_plan_set_clock(be, plan_clock(&simple_machine));
    struct Comm *comm = comm_plan_create(be, 2, slow_link);
    float buffer[4]; /* 16 bytes: of two ranks each sends 16, in 1 + 16 seconds */
    comm->sum_start(comm, buffer, 4);
    ten_seconds(be);
    comm->sum_start(comm, buffer, 4); /* waits for the first: until 34 */
    ten_seconds(be);
    comm->finish(comm); /* at 20 */
    struct PlanTraffic t = comm_plan_traffic(comm);
    assert_int_equal(t.messages, 2);
    assert_true(t.buffer_bytes == 32.0 && t.sent_bytes == 32.0);
    assert_true(t.link_seconds == 34.0 && t.exposed_seconds == 14.0);

    comm_plan_reset(comm);
    comm->sum_start(comm, buffer, 4); /* from 34, which is now */
    ten_seconds(be);
    ten_seconds(be);
    comm->finish(comm); /* at 54, the sum was done at 51 */
    t = comm_plan_traffic(comm);
    assert_true(t.messages == 1 && t.link_seconds == 17.0 && t.exposed_seconds == 0.0);
    comm->destroy(comm);
    be->destroy(be);
}

static void check_traffic(const struct Comm *comm, struct PlanTraffic expected) {
    struct PlanTraffic t = comm_plan_traffic(comm);
    assert_int_equal(t.messages, expected.messages);
    assert_true(t.buffer_bytes == expected.buffer_bytes && t.sent_bytes == expected.sent_bytes);
    assert_true(t.link_seconds == expected.link_seconds);
    assert_true(t.exposed_seconds == expected.exposed_seconds);
}

/* Two nodes: a ring has two adapters at each, an exchange one for each GPU. */
static void test_tickets_end_one_by_one(void **state) {
    (void)state;
    struct Backend *be = backend_plan_create(DTYPE_F32);
    backend_plan_set_clock(be, plan_clock(&simple_machine));
    struct Comm *comm = comm_plan_create(be, 4, slow_link);
    float all[4];
    static const struct CommPart from[4] = {{0, 0}, {0, 6}, {6, 2}, {8, 8}};
    static const struct CommPart to[4] = {{0, 8}, {8, 2}, {10, 4}, {14, 0}}; /* 2 near, 4 far */
    comm->wait(comm, 0);
    CommTicket gather = comm->gather_start(comm, all, all, 4);              /* 12 sent: until 25 */
    CommTicket sum = comm->scatter_sum_start(comm, all, all, 1);            /* until 50 */
    CommTicket exchange = comm->exchange_start(comm, all, from, all, to);   /* 16 for the far: 67 */
    assert_true(gather == 1 && sum == 2 && exchange == 3);
    ten_seconds(be);
    comm->wait(comm, gather); /* 15 */
    comm->wait(comm, gather);
    ten_seconds(be);
    comm->wait(comm, sum); /* 15 */
    check_traffic(comm, (struct PlanTraffic){3, 46.0, 30.0, 67.0, 30.0});
    comm->finish(comm); /* 17 */
    check_traffic(comm, (struct PlanTraffic){3, 46.0, 30.0, 67.0, 47.0});
    assert_int_equal(comm->sent_bytes, 30);
    comm->destroy(comm);
    be->destroy(be);
}

/* Rows of two GPUs that are neighbours in a node, columns of two in different nodes. */
static void test_groups_share_the_link(void **state) {
    (void)state;
    struct Backend *be = backend_plan_create(DTYPE_F32);
    backend_plan_set_clock(be, plan_clock(&simple_machine));
    struct Comm *world = comm_plan_create(be, 4, slow_link);
    struct Comm *row = world->split(world, 2, 1), *column = world->split(world, 2, 2);
    float buffer[4];
    assert_true(row->n_ranks == 2 && column->n_ranks == 2);
    row->sum_start(row, buffer, 4);       /* until 17 */
    column->sum_start(column, buffer, 4); /* 64 for 16 bytes: until 82 */
    row->finish(row);
    column->finish(column);
    check_traffic(row, (struct PlanTraffic){1, 16.0, 16.0, 17.0, 17.0});
    check_traffic(column, (struct PlanTraffic){1, 16.0, 16.0, 65.0, 65.0});
    check_traffic(world, (struct PlanTraffic){2, 32.0, 32.0, 82.0, 82.0});
    row->destroy(row);
    column->destroy(column);
    world->destroy(world);
    be->destroy(be);
}

static void test_groups_of_groups(void **state) {
    (void)state;
    struct Backend *be = backend_plan_create(DTYPE_F32);
    backend_plan_set_clock(be, plan_clock(&simple_machine));
    struct Comm *world = comm_plan_create(be, 8, slow_link);
    struct Comm *even = world->split(world, 4, 2), *pair = even->split(even, 2, 1);
    struct Comm *alone = world->split(world, 1, 1);
    float all[4], own[4];
    pair->gather_start(pair, all, own, 8); /* 8 bytes to another node */
    pair->finish(pair);
    check_traffic(world, (struct PlanTraffic){1, 16.0, 8.0, 33.0, 33.0});
    assert_int_equal(backend_plan_tallies(be)[OP_copy].calls, 0);
    alone->gather_start(alone, all, own, 16); /* a copy */
    alone->finish(alone);
    check_traffic(world, (struct PlanTraffic){1, 16.0, 8.0, 33.0, 33.0});
    assert_int_equal(backend_plan_tallies(be)[OP_copy].calls, 1);
    alone->destroy(alone);
    pair->destroy(pair);
    even->destroy(even);
    world->destroy(world);
    be->destroy(be);
}

static void test_clock_is_a_roofline(void **state) {
    (void)state;
    struct Machine m = simple_machine;
    m.flops = 100.0, m.memory_bandwidth = 10.0, m.host_bandwidth = 2.0, m.launch_seconds = 0.5;
    m.reached.products = 0.5, m.reached.attention_forward = 0.25;
    m.reached.attention_backward = 0.2, m.reached.convolutions = 0.1, m.reached.memory = 0.8;
    struct PlanClock clock = plan_clock(&m);
    static const struct {
        enum Op op;
        struct OpCost cost;
        double seconds;
    } rows[] = {
        {OP_linear_forward, {100.0, 8.0}, 2.5},
        {OP_linear_forward, {100.0, 80.0}, 10.5},
        {OP_attention_forward, {100.0, 8.0}, 4.5},
        {OP_attention_backward, {100.0, 8.0}, 5.5},
        {OP_conv3d_forward, {100.0, 8.0}, 10.5},
        {OP_conv3d_backward_input, {100.0, 0.0}, 10.5},
        {OP_conv3d_backward_params, {100.0, 0.0}, 10.5},
        {OP_adamw, {0.0, 8.0}, 1.5},
        {OP_upload, {0.0, 8.0}, 4.5},
        {OP_upload_start, {0.0, 8.0}, 4.5},
        {OP_download, {0.0, 8.0}, 4.5},
        {OP_download_start, {0.0, 8.0}, 4.5},
        {OP_copy, {0.0, 0.0}, 0.5},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_true(fabs(clock.seconds(clock.machine, rows[i].op, rows[i].cost) - rows[i].seconds) <
                    1e-12);
}

static void test_links_of_nodes(void **state) {
    (void)state;
    struct Machine m = {.node_gpus = 8, .link_bandwidth = 450.0};
    struct Network n = {"n", {900.0, 0.5}, {50.0, 0.25}, 2.0};
    struct PlanLink link;
    struct Error err = {0};
    assert_true(plan_link(&link, &m, &n, 64, &err));
    static const struct {
        int n_ranks, stride;
        double rate;
    } rows[] = {
        {8, 1, 225.0},  /* a node */
        {2, 4, 225.0},  /* in one */
        {9, 1, 100.0},  /* through eight adapters */
        {32, 2, 50.0},  /* through four, the others are another ring's */
        {8, 8, 12.5},   /* one GPU of each node */
        {4, 16, 12.5},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_true(plan_ring_rate(&link, rows[i].n_ranks, rows[i].stride) == rows[i].rate);
    assert_true(plan_ring_bytes(2, 900.0, 4) == 1350.0);
    assert_true(plan_ring_seconds(&link, 1350.0, 4, 1) == 2.0 + 1350.0 / 225.0);
    assert_true(plan_exchange_seconds(&link, 450.0, 12.5) == 2.0 + 2.0);
    assert_true(plan_exchange_seconds(&link, 450.0, 50.0) == 2.0 + 4.0);
    n.across.bandwidth = 5000.0;
    assert_true(plan_link(&link, &m, &n, 64, &err) && plan_ring_rate(&link, 64, 1) == 225.0);
    n.across.bandwidth = 0.0;
    assert_true(plan_link(&link, &m, &n, 8, &err));
    assert_false(plan_link(&link, &m, &n, 9, &err));
    assert_string_equal(err.text,
                        "--network 'n' joins the 8 GPUs of one node, got --gpus 9; choose "
                        "a network that leaves the node");
}

/* Phases and waiting make up the iteration; the operations make up the phases. */
static void check_sums_up(const struct PlanStep *step) {
    double phases = 0.0, operations = 0.0;
    for (int phase = 0; phase < PLAN_PHASES; phase++) {
        assert_true(step->phases[phase].seconds >= -1e-9 * step->seconds);
        phases += step->phases[phase].seconds;
    }
    for (int op = 0; op < OP_COUNT; op++) operations += step->ops[op].seconds;
    operations += step->phases[PLAN_EXPOSED].seconds + step->phases[PLAN_SLOWEST].seconds;
    assert_true(step->seconds > 0.0);
    assert_true(fabs(phases - step->seconds) < 1e-9 * step->seconds);
    assert_true(fabs(operations - step->seconds) < 1e-9 * step->seconds);
    /* all sums but the last units' are over before backward is */
    assert_true(step->traffic.exposed_seconds < 0.5 * step->traffic.link_seconds);
    assert_true(step->model_flops > 0.0 && step->model_flops < op_tally_total(step->ops).flops);
}

static void test_run_is_made_of_its_iterations(void **state) {
    (void)state;
    for (int i = 0; i < SMALL_CONFIGS; i++) {
        struct Config config;
        struct Error err;
        struct Plan plan;
        small_config(&config, i);
        config.train.iterations = 11;
        struct PlanTarget target = simple_target(SMALL_RANKS, small_video, DTYPE_BF16);
        if (!plan_make(&plan, &config, &target, &err)) fail_msg("%s", err.text);
        double seconds = plan.preparation_seconds;
        assert_int_equal(plan.n_kinds, n_kinds(&config));
        for (int k = 0; k < plan.n_kinds; k++) {
            check_sums_up(&plan.steps[k]);
            seconds += (double)plan.n_iterations[k] * plan.steps[k].seconds;
        }
        assert_true(plan_run_seconds(&plan) == seconds);
        assert_int_equal(plan.n_iterations[0], plan.n_kinds == 2 ? 3 : 11); /* 0, 5 and 10 */
        assert_int_equal(plan.n_iterations[0] + plan.n_iterations[1], 11);
        assert_true((plan.preparation_seconds > 0.0) == (config.train.stage == STAGE_KD));
        bool waits = plan.steps[0].phases[PLAN_SLOWEST].seconds > 1e-9 * seconds;
        assert_true(waits == draws_cost(&config));
        config_free(&config);
    }
}

/* Nine samples on two GPUs: the one with five stands for both. */
static void test_most_samples_count(void **state) {
    (void)state;
    struct Config config;
    struct PlanTarget two = simple_target(2, small_video, DTYPE_BF16);
    struct PlanTarget one = simple_target(1, small_video, DTYPE_BF16);
    small_config(&config, 0);
    struct PlanStep of_nine = plan_step_make(&config, &two, STEP_TEACHER);
    config.train.global_batch = 5;
    struct PlanStep of_five = plan_step_make(&config, &one, STEP_TEACHER);
    assert_true(of_nine.model_flops == of_five.model_flops);
    config_free(&config);
}

/* The teacher makes a GPU's share of the pairs, however many at a time. */
static void test_pairs_are_shared(void **state) {
    (void)state;
    struct Config config;
    struct Error err;
    struct Plan plan;
    double seconds[3];
    static const struct {
        int64_t micro_batch;
        int n_gpus;
    } rows[] = {{1, 3}, {2, 3}, {1, 1}};
    small_config(&config, 2);
    for (int i = 0; i < 3; i++) {
        struct PlanTarget target = simple_target(rows[i].n_gpus, small_video, DTYPE_BF16);
        config.train.micro_batch = rows[i].micro_batch;
        if (!plan_make(&plan, &config, &target, &err)) fail_msg("%s", err.text);
        seconds[i] = plan.preparation_seconds;
    }
    assert_true(fabs(seconds[1] / seconds[0] - 1.0) < 0.1); /* weights are read once for two */
    assert_true(fabs(seconds[2] / seconds[0] - 3.0) < 1e-9);
    config_free(&config);
}

/* ---- what would help */

static void test_changes_are_tried(void **state) {
    (void)state;
    struct Config config;
    struct Error err;
    struct Plan plan;
    struct PlanChange changes[PLAN_MAX_CHANGES];
    small_config(&config, 4);
    struct Machine machine = simple_machine;
    struct PlanTarget target = simple_target(SMALL_RANKS, small_video, DTYPE_BF16);
    target.machine = &machine;
    assert_true(plan_make(&plan, &config, &target, &err));
    assert_true(plan_fits(&plan));

    /* a byte too little: less must be kept, or fewer samples at a time */
    machine.memory_bytes = (double)plan_memory_total(&plan.memory) - 1.0;
    assert_false(plan_fits(&plan));
    int n = plan_changes(&plan, changes);
    assert_true(n >= 2);
    assert_string_equal(changes[0].key, "train.micro_batch=1");
    for (int i = 0; i < n; i++) {
        assert_true(changes[i].bytes_saved > 0 && changes[i].seconds_saved < 0.0);
        assert_true(i == 0 || changes[i].seconds_saved <= changes[i - 1].seconds_saved);
    }

    /* too little for anything */
    machine.memory_bytes = 1.0;
    assert_int_equal(plan_changes(&plan, changes), 0);

    /* room for what recomputation saves */
    machine.memory_bytes = 1e12;
    config.train.recompute = RECOMPUTE_FULL;
    assert_true(plan_make(&plan, &config, &target, &err));
    n = plan_changes(&plan, changes);
    assert_true(n >= 2);
    for (int i = 0; i < n; i++) {
        assert_non_null(strstr(changes[i].key, "train.recompute="));
        assert_true(changes[i].seconds_saved > 0.0);
        if (!strcmp(changes[i].key, "train.recompute=none"))
            assert_true(changes[i].bytes_saved < 0);
    }

    target.n_gpus = SMALL_BATCH + 1;
    assert_false(plan_make(&plan, &config, &target, &err));
    assert_string_equal(err.text,
                        "train.global_batch is 9, but there are 10 ranks, each of which needs a sample");
    config_free(&config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_link_works_beside_the_gpu),
        cmocka_unit_test(test_tickets_end_one_by_one),
        cmocka_unit_test(test_groups_share_the_link),
        cmocka_unit_test(test_groups_of_groups),
        cmocka_unit_test(test_clock_is_a_roofline),
        cmocka_unit_test(test_links_of_nodes),
        cmocka_unit_test(test_run_is_made_of_its_iterations),
        cmocka_unit_test(test_most_samples_count),
        cmocka_unit_test(test_pairs_are_shared),
        cmocka_unit_test(test_changes_are_tried),
    };
    return cmocka_run_group_tests_name("plan_time", tests, NULL, NULL);
}
