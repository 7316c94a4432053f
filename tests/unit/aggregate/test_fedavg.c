/* Federated averaging against sums made in the plainest way, to the bit. */
#include "server/aggregate/aggregate.h"

#include "common/base/failpoint.h"
#include "tests/unit/aggregate/files.h"

#include <math.h>

#define SITES_MAX 20
#define WIDE      90000 /* elements: two chunks of F32, three of F64 */
#define NARROW    17

/* A small generator, so that a failure repeats. */
static uint64_t random_state;
static double random_value(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return ldexp((double)(int64_t)random_state, -63) * ldexp(1, (int)(random_state >> 5 & 15) - 8);
}

static float singles[SITES_MAX + 1][WIDE]; /* [0] is the model */
static double doubles[SITES_MAX + 1][WIDE];
static int64_t steps[SITES_MAX + 1][1];
static uint16_t halves[SITES_MAX + 1][NARROW]; /* multiples of 1/4 in BF16: sums with equal weights are exact */
static char *paths[SITES_MAX + 1];
static cs_contribution contributions[SITES_MAX];

static uint16_t bf16_of(float value)
{
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof(bits));
    return (uint16_t)(bits >> 16);
}

static void make_files(size_t sites)
{
    random_state = 42;
    for (size_t k = 0; k <= sites; k++) {
        for (size_t i = 0; i < WIDE; i++) {
            singles[k][i] = (float)random_value();
            doubles[k][i] = random_value();
        }
        for (size_t i = 0; i < NARROW; i++)
            halves[k][i] = bf16_of((float)((int)(i + k) % 16) / 4);
        steps[k][0] = (int64_t)(10 * k);
        const test_tensor tensors[] = {
            tensor_2d("empty", CS_F32, 0, 3, NULL),
            tensor_2d("layer1.weight", CS_F32, 3, WIDE / 3, singles[k]),
            tensor_2d("steps", CS_I64, 1, 1, steps[k]),
            tensor_2d("layer2.weight", CS_F64, 1, WIDE, doubles[k]),
            tensor_2d("half", CS_BF16, 1, NARROW, halves[k]),
        };
        /* Updates carry the same tensors in another order. */
        test_tensor reversed[CS_COUNT(tensors)];
        for (size_t i = 0; i < CS_COUNT(tensors); i++)
            reversed[i] = tensors[CS_COUNT(tensors) - 1 - i];
        CS_AUTO(cs_string) name = cs_format("file-%zu", k);
        cs_free(paths[k]);
        paths[k] = write_tensors(name, k == 0 ? tensors : reversed, CS_COUNT(tensors));
        if (k > 0)
            contributions[k - 1] = (cs_contribution){"site", paths[k], (double)(k * k % 7 + 1)};
    }
}

static int clear_paths(void **state)
{
    for (size_t k = 0; k <= SITES_MAX; k++) {
        cs_free(paths[k]);
        paths[k] = NULL;
    }
    return remove_folder(state);
}

#define WITH_FILES(test) cmocka_unit_test_setup_teardown(test, make_folder, clear_paths)

static cs_status average(size_t sites, size_t threads, const char *output)
{
    return cs_fedavg(paths[0], contributions, sites, threads, NULL, 0, output);
}

static void the_average_is_the_textbook_sum_to_the_last_bit(void **state)
{
    (void)state;
    static float expected_singles[WIDE];
    static double expected_doubles[WIDE];
    static const size_t counts[] = {1, 2, 3, 7, SITES_MAX};
    make_files(SITES_MAX);
    CS_AUTO(cs_string) output = cs_path_join(folder, "new");
    for (size_t c = 0; c < CS_COUNT(counts); c++) {
        const size_t sites = counts[c];
        double total = 0;
        double step_sum = 0;
        for (size_t k = 0; k < sites; k++)
            total += contributions[k].weight;
        for (size_t i = 0; i < WIDE; i++) {
            double single = 0;
            double wide = 0;
            for (size_t k = 0; k < sites; k++) {
                const double share = contributions[k].weight / total;
                single += share * (double)singles[k + 1][i];
                wide += share * doubles[k + 1][i];
            }
            expected_singles[i] = (float)((double)singles[0][i] + single);
            expected_doubles[i] = doubles[0][i] + wide;
        }
        for (size_t k = 0; k < sites; k++)
            step_sum += contributions[k].weight / total * (double)steps[k + 1][0];

        assert_int_equal(average(sites, 2, output), CS_OK);

        float *got_singles = read_tensor(output, "layer1.weight");
        double *got_doubles = read_tensor(output, "layer2.weight");
        int64_t *got_steps = read_tensor(output, "steps");
        assert_memory_equal(got_singles, expected_singles, sizeof(expected_singles));
        assert_memory_equal(got_doubles, expected_doubles, sizeof(expected_doubles));
        assert_true(got_steps[0] == (int64_t)rint((double)steps[0][0] + step_sum));
        cs_free(got_singles);
        cs_free(got_doubles);
        cs_free(got_steps);
    }
}

static void sixteen_bits_are_averaged_too(void **state)
{
    (void)state;
    make_files(2);
    contributions[0].weight = contributions[1].weight = 5;
    CS_AUTO(cs_string) output = cs_path_join(folder, "new");

    assert_int_equal(average(2, 1, output), CS_OK);

    uint16_t *got = read_tensor(output, "half");
    for (size_t i = 0; i < NARROW; i++) {
        const float mean = ((float)((int)(i + 1) % 16) / 4 + (float)((int)(i + 2) % 16) / 4) / 2;
        assert_int_equal(got[i], bf16_of((float)((int)i % 16) / 4 + mean));
    }
    cs_free(got);
}

static void not_a_bit_of_the_file_changes_with_the_threads(void **state)
{
    (void)state;
    static const size_t threads[] = {1, 2, 7};
    make_files(5);
    cs_buffer files[CS_COUNT(threads)] = {0};
    for (size_t t = 0; t < CS_COUNT(threads); t++) {
        CS_AUTO(cs_string) name = cs_format("new-%zu", threads[t]);
        CS_AUTO(cs_string) output = cs_path_join(folder, name);
        assert_int_equal(average(5, threads[t], output), CS_OK);
        assert_int_equal(cs_file_read_all(output, 1 << 24, &files[t]), CS_OK);
        assert_true(cs_bytes_equal(cs_buffer_view(&files[t]), cs_buffer_view(&files[0])));
    }
    for (size_t t = 0; t < CS_COUNT(threads); t++)
        cs_buffer_clear(&files[t]);
}

static void equal_shares_do_not_depend_on_their_scale(void **state)
{
    (void)state;
    make_files(3);
    CS_AUTO(cs_string) once = cs_path_join(folder, "once");
    CS_AUTO(cs_string) scaled = cs_path_join(folder, "scaled");
    CS_AUTO(cs_buffer) a = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) b = CS_BUFFER_EMPTY;

    assert_int_equal(average(3, 2, once), CS_OK);
    for (size_t k = 0; k < 3; k++)
        contributions[k].weight *= 1024;
    assert_int_equal(average(3, 2, scaled), CS_OK);

    assert_int_equal(cs_file_read_all(once, 1 << 24, &a), CS_OK);
    assert_int_equal(cs_file_read_all(scaled, 1 << 24, &b), CS_OK);
    assert_true(cs_bytes_equal(cs_buffer_view(&a), cs_buffer_view(&b)));
}

static void metadata_goes_into_the_new_file(void **state)
{
    (void)state;
    static const cs_metadata_item metadata[] = {{"plan", "sha256:00"}, {"round", "3"}};
    make_files(1);
    CS_AUTO(cs_string) output = cs_path_join(folder, "new");

    assert_int_equal(cs_fedavg(paths[0], contributions, 1, 1, metadata, 2, output), CS_OK);

    CS_AUTO_PTR(cs_tensor_file) file = NULL;
    assert_int_equal(cs_tensor_file_open(output, &file), CS_OK);
    assert_string_equal(cs_tensor_file_metadata(file, "plan"), "sha256:00");
    assert_string_equal(cs_tensor_file_metadata(file, "round"), "3");
    assert_int_equal(cs_tensor_file_count(file), 5);
}

static void a_site_without_weight_changes_nothing(void **state)
{
    (void)state;
    make_files(2);
    CS_AUTO(cs_string) alone = cs_path_join(folder, "alone");
    CS_AUTO(cs_string) both = cs_path_join(folder, "both");
    assert_int_equal(average(1, 1, alone), CS_OK);
    contributions[1].weight = 0;

    assert_int_equal(average(2, 1, both), CS_OK);

    float *expected = read_tensor(alone, "layer1.weight");
    float *got = read_tensor(both, "layer1.weight");
    assert_memory_equal(got, expected, WIDE * sizeof(float));
    cs_free(expected);
    cs_free(got);
}

static void weights_that_make_no_average_are_refused(void **state)
{
    (void)state;
    static const double bad[] = {0, -1, (double)NAN, (double)INFINITY};
    make_files(2);
    CS_AUTO(cs_string) output = cs_path_join(folder, "new");
    for (size_t i = 0; i < CS_COUNT(bad); i++) {
        contributions[0].weight = 0;
        contributions[1].weight = bad[i];
        assert_int_equal(average(2, 1, output), CS_INVALID);
    }
    contributions[0].weight = contributions[1].weight = 1.5e308; /* finite, but not together */
    assert_int_equal(average(2, 1, output), CS_INVALID);
    assert_int_equal(average(0, 1, output), CS_INVALID);
    assert_false(cs_file_exists(output));
}

static void an_update_that_does_not_match_is_named_with_its_site(void **state)
{
    (void)state;
    make_files(2);
    const test_tensor other = tensor_2d("layer1.weight", CS_F32, 1, NARROW, singles[1]);
    CS_AUTO(cs_string) path = write_tensors("other", &other, 1);
    contributions[1] = (cs_contribution){"mercy", path, 1};
    CS_AUTO(cs_string) output = cs_path_join(folder, "new");

    assert_int_equal(average(2, 1, output), CS_INVALID);

    assert_string_equal(cs_error_text(),
                        "site 'mercy': tensor 'layer1.weight': shape [1, 17], the model has [3, 30000]");
    contributions[1].path = "/nonexistent/update";
    assert_int_equal(average(2, 1, output), CS_NOT_FOUND);
    assert_non_null(strstr(cs_error_text(), "site 'mercy'"));
}

static void a_sum_that_leaves_the_numbers_is_refused_alike_with_any_threads(void **state)
{
    (void)state;
    static float high[3][WIDE];
    for (size_t i = 0; i < WIDE; i++)
        high[0][i] = high[1][i] = high[2][i] = 3e38f;
    for (size_t k = 0; k < 3; k++) {
        const test_tensor tensors[] = {tensor_2d("a", CS_F32, 1, WIDE, high[k]),
                                       tensor_2d("b", CS_F32, 1, WIDE, high[k])};
        CS_AUTO(cs_string) name = cs_format("high-%zu", k);
        paths[k] = write_tensors(name, tensors, 2);
        if (k > 0)
            contributions[k - 1] = (cs_contribution){"site", paths[k], 1};
    }
    CS_AUTO(cs_string) output = cs_path_join(folder, "new");
    for (size_t threads = 1; threads <= 7; threads++) {
        assert_int_equal(average(2, threads, output), CS_INVALID);
        assert_string_equal(cs_error_text(), "tensor 'a': a sum over 2 sites is not finite or does not fit F32");
        assert_false(cs_file_exists(output));
    }
}

static cs_status count_file(void *self, const char *name)
{
    (void)name;
    (*(size_t *)self)++;
    return CS_OK;
}

static int fail_at(void *self, const char *operation, const char *path)
{
    int *left = self;
    (void)operation;
    (void)path;
    return (*left)-- == 0 ? 28 /* ENOSPC */ : 0;
}

static void whatever_call_fails_the_new_file_is_absent_or_whole(void **state)
{
    (void)state;
    make_files(2);
    CS_AUTO(cs_string) output = cs_path_join(folder, "new");
    CS_AUTO(cs_string) undisturbed = cs_path_join(folder, "undisturbed");
    CS_AUTO(cs_buffer) expected = CS_BUFFER_EMPTY;
    assert_int_equal(average(2, 1, undisturbed), CS_OK);
    assert_int_equal(cs_file_read_all(undisturbed, 1 << 24, &expected), CS_OK);
    for (int call = 0;; call++) {
        int left = call;
        cs_file_set_fault(fail_at, &left);
        const cs_status status = average(2, 1, output);
        cs_file_set_fault(NULL, NULL);
        if (left >= 0) {
            assert_int_equal(status, CS_OK);
            assert_true(call > 20);
            break;
        }
        if (cs_file_exists(output)) { /* the last sync failed: whole, but perhaps not durable */
            CS_AUTO(cs_buffer) got = CS_BUFFER_EMPTY;
            assert_int_equal(cs_file_read_all(output, 1 << 24, &got), CS_OK);
            assert_true(cs_bytes_equal(cs_buffer_view(&got), cs_buffer_view(&expected)));
            assert_int_equal(cs_file_remove(output), CS_OK);
        }
        size_t files = 0;
        assert_int_equal(cs_folder_list(folder, count_file, &files), CS_OK);
        assert_int_equal(files, 4); /* model, two updates, the undisturbed one: nothing half done lies about */
    }
}

static void a_failpoint_in_a_chunk_ends_the_pass_cleanly(void **state)
{
    (void)state;
    make_files(2);
    CS_AUTO(cs_string) output = cs_path_join(folder, "new");
    if (cs_failpoint_configure("aggregate.chunk=error@3") != CS_OK)
        skip();

    assert_int_equal(average(2, 7, output), CS_INTERNAL);
    assert_string_equal(cs_error_text(), "failpoint aggregate.chunk");
    assert_false(cs_file_exists(output));
    assert_int_equal(cs_failpoint_configure(NULL), CS_OK);

    assert_int_equal(average(2, 7, output), CS_OK);
}

static void statistics_are_added(void **state)
{
    (void)state;
    static const double sums[3][2] = {{0.1, 1}, {0.2, 2}, {0.3, 3}};
    static const double counts[3][1] = {{10}, {20}, {30}};
    CS_AUTO(cs_string) output = cs_path_join(folder, "total");
    for (size_t k = 0; k < 3; k++) {
        const test_tensor tensors[] = {tensor_2d("sum", CS_F64, 1, 2, sums[k]),
                                       tensor_2d("count", CS_F64, 1, 1, counts[k])};
        CS_AUTO(cs_string) name = cs_format("statistics-%zu", k);
        paths[k] = write_tensors(name, tensors, 2);
        contributions[k] = (cs_contribution){"site", paths[k], 0};
    }

    assert_int_equal(cs_sum(contributions, 3, output), CS_OK);

    double *sum = read_tensor(output, "sum");
    double *count = read_tensor(output, "count");
    assert_true(sum[0] == 0.1 + 0.2 + 0.3 && sum[1] == 6);
    assert_true(count[0] == 60);
    cs_free(sum);
    cs_free(count);
}

static void statistics_of_another_kind_are_refused(void **state)
{
    (void)state;
    static const double values[2] = {1, 2};
    static const float narrow[2] = {1, 2};
    const test_tensor first = tensor_2d("sum", CS_F64, 1, 2, values);
    const test_tensor shorter = tensor_2d("sum", CS_F64, 1, 1, values);
    const test_tensor single = tensor_2d("sum", CS_F32, 1, 2, narrow);
    CS_AUTO(cs_string) a = write_tensors("a", &first, 1);
    CS_AUTO(cs_string) b = write_tensors("b", &shorter, 1);
    CS_AUTO(cs_string) c = write_tensors("c", &single, 1);
    CS_AUTO(cs_string) output = cs_path_join(folder, "total");
    const cs_contribution shapes_differ[] = {{"north", a, 1}, {"south", b, 1}};
    const cs_contribution singles_only[] = {{"west", c, 1}};

    assert_int_equal(cs_sum(shapes_differ, 2, output), CS_INVALID);
    assert_string_equal(cs_error_text(), "site 'south': tensor 'sum': shape [1, 1], north has [1, 2]");
    assert_int_equal(cs_sum(singles_only, 1, output), CS_INVALID);
    assert_string_equal(cs_error_text(), "site 'west': tensor 'sum': dtype F32, sums are F64");
    assert_int_equal(cs_sum(NULL, 0, output), CS_INVALID);
    assert_false(cs_file_exists(output));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FILES(the_average_is_the_textbook_sum_to_the_last_bit),
        WITH_FILES(sixteen_bits_are_averaged_too),
        WITH_FILES(not_a_bit_of_the_file_changes_with_the_threads),
        WITH_FILES(equal_shares_do_not_depend_on_their_scale),
        WITH_FILES(metadata_goes_into_the_new_file),
        WITH_FILES(a_site_without_weight_changes_nothing),
        WITH_FILES(weights_that_make_no_average_are_refused),
        WITH_FILES(an_update_that_does_not_match_is_named_with_its_site),
        WITH_FILES(a_sum_that_leaves_the_numbers_is_refused_alike_with_any_threads),
        WITH_FILES(whatever_call_fails_the_new_file_is_absent_or_whole),
        WITH_FILES(a_failpoint_in_a_chunk_ends_the_pass_cleanly),
        WITH_FILES(statistics_are_added),
        WITH_FILES(statistics_of_another_kind_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
