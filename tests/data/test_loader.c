/* The loader: the same samples for any number of ranks and after any resume, errors in their place,
 * and an end whenever it is asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "check.h"
#include "data/h5_array.h"
#include "data/h5_file.h"
#include "data/loader.h"
#include "data/sample_order.h"
#include "dataset_fixture.h"
#include "scratch.h"

enum { N_SAMPLES = 10, GLOBAL_BATCH = 4, ITERATIONS = 12 };
static char *path;

static struct LoaderPlan plan_for(int64_t first_iteration, int n_ranks, int rank) {
    return (struct LoaderPlan){
        .seed = 42,
        .first_iteration = first_iteration,
        .global_batch = GLOBAL_BATCH,
        .first_in_batch = rank * GLOBAL_BATCH / n_ranks,
        .n_local = GLOBAL_BATCH / n_ranks,
        .text_len = FIXTURE_MAX_ROWS,
        .n_prefetch = 3,
    };
}

static struct Dataset *open_dataset(void) {
    struct Error err;
    struct Dataset *dataset = dataset_open(&path, 1, &err);
    if (!dataset) fail_msg("%s", err.text);
    return dataset;
}

static void check_batch(const struct Batch *batch, int64_t n_local) {
    float video[FIXTURE_VIDEO], text[FIXTURE_TEXT];
    for (int64_t i = 0; i < n_local; i++) {
        fixture_video(video, batch->samples[i]);
        fixture_text(text, batch->samples[i]);
        assert_memory_equal(batch->video + i * FIXTURE_VIDEO, video, sizeof video);
        assert_memory_equal(batch->text + i * FIXTURE_TEXT, text, sizeof text);
    }
}

/* Any split among ranks, from any iteration on, delivers the samples at the positions of the order.
 */
static void test_ranks_and_resume(void **state) {
    (void)state;
    struct Error err;
    struct Dataset *dataset = open_dataset();
    int n_batches = 0;
    for (int n_ranks = 1; n_ranks <= 4; n_ranks *= 2)
        for (int rank = 0; rank < n_ranks; rank++)
            for (int64_t first = 0; first < ITERATIONS; first += 5) {
                struct LoaderPlan plan = plan_for(first, n_ranks, rank);
                struct Loader *loader = loader_open(dataset, &plan, &err);
                assert_non_null(loader);
                for (int64_t k = first; k < ITERATIONS; k++, n_batches++) {
                    struct Batch batch;
                    check(loader_next(loader, &batch, &err));
                    assert_int_equal(batch.iteration, k);
                    for (int64_t i = 0; i < plan.n_local; i++) {
                        int64_t position = k * GLOBAL_BATCH + plan.first_in_batch + i;
                        assert_int_equal(batch.samples[i],
                                         sample_order_at(plan.seed, N_SAMPLES, position));
                    }
                    check_batch(&batch, plan.n_local);
                }
                loader_close(loader);
            }
    assert_int_equal(n_batches, 7 * (12 + 7 + 2));
    dataset_close(dataset);
}

/* All samples for one rank, one batch ahead: the slots are used again as soon as can be. */
static struct LoaderPlan hasty_plan(void) {
    struct LoaderPlan plan = plan_for(0, 1, 0);
    plan.n_prefetch = 1;
    return plan;
}

/* A batch stays what it is until the next call, however far the thread reads ahead. */
static void test_batch_stays_valid(void **state) {
    (void)state;
    struct Error err;
    struct Dataset *dataset = open_dataset();
    struct LoaderPlan plan = hasty_plan();
    struct Loader *loader = loader_open(dataset, &plan, &err);
    assert_non_null(loader);
    for (int k = 0; k < 20; k++) {
        struct Batch batch;
        check(loader_next(loader, &batch, &err));
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        check_batch(&batch, plan.n_local);
    }
    loader_close(loader);
    dataset_close(dataset);
}

/* Soon after the thread has begun to read ahead there is a batch to be seen, which is the next one; the
 * one at hand stays what it is. */
static void test_peek(void **state) {
    (void)state;
    struct Error err;
    struct Dataset *dataset = open_dataset();
    struct LoaderPlan plan = hasty_plan();
    struct Loader *loader = loader_open(dataset, &plan, &err);
    assert_non_null(loader);
    struct Batch batch, peeked[2];
    check(loader_next(loader, &batch, &err));
    for (int k = 0; k < 20; k++) {
        for (int i = 0; i < 2; i++)
            while (!loader_peek(loader, &peeked[i]))
                nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        assert_memory_equal(&peeked[0], &peeked[1], sizeof peeked[0]);
        assert_int_equal(peeked[0].iteration, batch.iteration + 1);
        check_batch(&batch, plan.n_local);
        check_batch(&peeked[0], plan.n_local);
        check(loader_next(loader, &batch, &err));
        assert_memory_equal(&batch, &peeked[0], sizeof batch);
    }
    loader_close(loader);
    dataset_close(dataset);
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* At once, after some batches, and when the thread has long been waiting for room. */
static void test_close_never_waits(void **state) {
    (void)state;
    struct Error err;
    struct Dataset *dataset = open_dataset();
    struct LoaderPlan plan = plan_for(0, 1, 0);
    double before = seconds();
    for (int n_taken = 0; n_taken < 4; n_taken++)
        for (int wait = 0; wait < 2; wait++) {
            struct Loader *loader = loader_open(dataset, &plan, &err);
            assert_non_null(loader);
            for (int k = 0; k < n_taken; k++) {
                struct Batch batch;
                check(loader_next(loader, &batch, &err));
            }
            if (wait) nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
            loader_close(loader);
        }
    assert_true(seconds() - before < 5.0);
    loader_close(NULL);
    dataset_close(dataset);
}

/* Sample 3 is damaged: batches before it arrive, its own is the error, and the error stays. */
static void test_error_comes_in_its_place(void **state) {
    (void)state;
    struct Error err;
    char *damaged = scratch_path(scratch_folder(), "damaged.h5");
    struct DatasetSpec spec = fixture_spec();
    float video[FIXTURE_VIDEO] = {0};
    struct H5Array array;
    check(fixture_write(damaged, &spec, 0, N_SAMPLES, &err));
    hid_t file = H5Fopen(damaged, H5F_ACC_RDWR, H5P_DEFAULT);
    check(h5_array_open(file, "pixels", &array, &err));
    check(h5_array_write(&array, 3, 1, video, &err));
    h5_array_close(&array);
    H5Fclose(file);

    struct Dataset *dataset = dataset_open(&damaged, 1, &err);
    assert_non_null(dataset);
    struct LoaderPlan plan = plan_for(0, 4, 1);
    struct Loader *loader = loader_open(dataset, &plan, &err);
    assert_non_null(loader);
    bool found = false;
    for (int64_t k = 0; !found && k < 100; k++) {
        struct Batch batch;
        int64_t position = k * GLOBAL_BATCH + plan.first_in_batch;
        found = sample_order_at(plan.seed, N_SAMPLES, position) == 3;
        assert_int_equal(loader_next(loader, &batch, &err), !found);
        if (!found) check_batch(&batch, 1);
    }
    assert_true(found);
    for (int again = 0; again < 2; again++) {
        struct Batch batch;
        assert_false(loader_peek(loader, &batch));
        assert_non_null(strstr(err.text, "sample 3: the checksum"));
        memset(&err, 0, sizeof err);
        assert_false(loader_next(loader, &batch, &err));
    }
    loader_close(loader);
    dataset_close(dataset);
    free(damaged);
}

static void test_prompts_too_long_are_refused_at_once(void **state) {
    (void)state;
    struct Error err;
    struct Dataset *dataset = open_dataset();
    struct LoaderPlan plan = plan_for(0, 1, 0);
    plan.text_len = FIXTURE_MAX_ROWS - 1;
    assert_null(loader_open(dataset, &plan, &err));
    assert_non_null(strstr(err.text, "text_len 3"));
    dataset_close(dataset);
}

/* The main thread writes files (as checkpoints are) and reads prompts while the thread reads ahead.
 */
static void test_others_use_hdf5_meanwhile(void **state) {
    (void)state;
    enum { ROWS = 400 };
    struct Error err;
    struct Dataset *dataset = open_dataset();
    struct LoaderPlan plan = plan_for(0, 1, 0);
    struct Loader *loader = loader_open(dataset, &plan, &err);
    assert_non_null(loader);
    char *beside = scratch_path(scratch_folder(), "beside.h5"), *prompt;
    float values[ROWS];
    int64_t dims[1] = {0}, sample;
    struct H5Layout layout = {
        .element = DTYPE_F32, .rank = 1, .dims = dims, .chunk_rows = 64, .zstd_level = 1};
    for (int i = 0; i < ROWS; i++) values[i] = (float)i;
    for (int k = 0; k < 30; k++) {
        struct Batch batch;
        struct H5Array array;
        hid_t file;
        float back[ROWS];
        check(h5_create(beside, &file, &err));
        check(h5_array_create(file, "a", &layout, &array, &err));
        for (int at = 0; at < ROWS; at += 40) check(h5_array_append(&array, 40, values + at, &err));
        check(h5_array_read(&array, 0, ROWS, back, &err));
        assert_memory_equal(back, values, sizeof values);
        h5_array_close(&array);
        H5Fclose(file);
        check(dataset_read_prompt(dataset, k % N_SAMPLES, &prompt, &err));
        free(prompt);
        check(dataset_find_prompt(dataset, "sample 9", &sample, &err));
        check(loader_next(loader, &batch, &err));
        check_batch(&batch, plan.n_local);
    }
    loader_close(loader);
    dataset_close(dataset);
    free(beside);
}

static int set_up(void **state) {
    struct Error err;
    struct DatasetSpec spec = fixture_spec();
    scratch_group_set_up(state);
    path = scratch_file("data.h5");
    check(fixture_write(path, &spec, 0, N_SAMPLES, &err));
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_and_resume),
        cmocka_unit_test(test_batch_stays_valid),
        cmocka_unit_test(test_peek),
        cmocka_unit_test(test_close_never_waits),
        cmocka_unit_test(test_error_comes_in_its_place),
        cmocka_unit_test(test_prompts_too_long_are_refused_at_once),
        cmocka_unit_test(test_others_use_hdf5_meanwhile),
    };
    return cmocka_run_group_tests(tests, set_up, scratch_group_tear_down);
}
