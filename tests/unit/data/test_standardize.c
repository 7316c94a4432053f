/* client/data/standardize: the sums of all sites say what the rows in one place would. */
#include "client/data/standardize.h"

#include "common/base/file.h"
#include "tests/unit/data/study.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#define HEADER "age,chol,cp,num,fold\n"

static cs_table *table_of(study *study, const char *rows)
{
    CS_AUTO(cs_string) text = cs_format(HEADER "%s", rows);
    cs_table *table = NULL;
    study_make(study);
    assert_int_equal(study_read(study, text, &table), CS_OK);
    return table;
}

static bool is_near(double a, double b)
{
    return fabs(a - b) <= 1e-12 * fmax(1, fabs(b));
}

static void a_site_scales_by_its_training_rows_with_the_unbiased_deviation(void **state)
{
    (void)state;
    study study;
    CS_AUTO_PTR(cs_table) table = table_of(&study, "1,5,2,0,\n3,5,1,1,\n5,5,3,1,\n100,900,2,1,test\n");
    CS_AUTO_PTR(cs_scaling) scaling = NULL;

    assert_int_equal(cs_scaling_of(CS_STANDARDIZE_SITE, &study.plan, table, NULL, &scaling), CS_OK);

    assert_true(is_near(scaling->mean[0], 3) && is_near(scaling->deviation[0], 2));
    assert_true(is_near(scaling->mean[1], 5) && scaling->deviation[1] == 0);
    assert_true(is_near(scaling->mean[2], 1.0 / 3) && is_near(scaling->deviation[2], sqrt(1.0 / 3)));
}

static void sums_of_two_sites_scale_like_their_rows_in_one_place(void **state)
{
    (void)state;
    study study;
    CS_AUTO_PTR(cs_table) one = table_of(&study, "61,210,2,0,\n63,190,1,1,\n70,250,3,1,test\n");
    CS_AUTO_PTR(cs_table) two = table_of(&study, "45,233,2,0,\n52,268,1,1,\n58,199,3,1,\n");
    CS_AUTO_PTR(cs_table) both = table_of(&study, "61,210,2,0,\n63,190,1,1,\n45,233,2,0,\n52,268,1,1,\n58,199,3,1,\n");
    CS_AUTO_PTR(cs_moments) sums = cs_moments_new(&study.plan);
    CS_AUTO_PTR(cs_moments) second = cs_moments_new(&study.plan);
    CS_AUTO_PTR(cs_scaling) federated = NULL;
    CS_AUTO_PTR(cs_scaling) central = NULL;

    cs_moments_add_table(sums, one);
    cs_moments_add_table(second, two);
    cs_moments_add(sums, second);
    assert_int_equal(cs_scaling_of(CS_STANDARDIZE_FEDERATED, &study.plan, one, sums, &federated), CS_OK);
    assert_int_equal(cs_scaling_of(CS_STANDARDIZE_SITE, &study.plan, both, NULL, &central), CS_OK);

    assert_true(sums->count == 5);
    for (size_t k = 0; k < 4; k++) {
        assert_true(is_near(federated->mean[k], central->mean[k]));
        assert_true(fabs(federated->deviation[k] - central->deviation[k]) < 1e-9);
    }
}

static void the_plan_scales_numbers_and_leaves_levels_alone(void **state)
{
    (void)state;
    study study;
    CS_AUTO_PTR(cs_table) table = table_of(&study, "1,5,2,0,\n3,5,1,1,\n");
    study.features[0].mean = 50;
    study.features[0].std = 10;
    study.features[1].mean = 200;
    study.features[1].std = 40;
    CS_AUTO_PTR(cs_scaling) scaling = NULL;

    assert_int_equal(cs_scaling_of(CS_STANDARDIZE_PLAN, &study.plan, table, NULL, &scaling), CS_OK);

    assert_true(scaling->mean[0] == 50 && scaling->deviation[1] == 40);
    assert_true(scaling->mean[3] == 0 && is_near(scaling->deviation[3] + 1e-9, 1));
}

static void samples_are_the_formula_and_a_constant_column_is_zero(void **state)
{
    (void)state;
    study study;
    CS_AUTO_PTR(cs_table) table = table_of(&study, "1,5,2,0,\n3,5,1,1,\n5,5,3,1,\n7,9,2,1,test\n");
    CS_AUTO_PTR(cs_scaling) scaling = NULL;
    CS_AUTO(cs_samples) train = {0};
    CS_AUTO(cs_samples) test = {0};
    float x[12], y[3];

    assert_int_equal(cs_scaling_of(CS_STANDARDIZE_SITE, &study.plan, table, NULL, &scaling), CS_OK);
    assert_int_equal(cs_samples_make(&study.plan, table, CS_PART_TRAIN, scaling, &train), CS_OK);
    assert_int_equal(cs_samples_make(&study.plan, table, CS_PART_TEST, scaling, &test), CS_OK);

    assert_int_equal(train.count, 3);
    assert_int_equal(test.count, 1);
    CS_SCOPE(scope);
    assert_int_equal(cs_tensor_copy_out(train.columns, x, sizeof x), CS_OK);
    assert_int_equal(cs_tensor_copy_out(train.labels, y, sizeof y), CS_OK);
    assert_float_equal(x[0], -1, 1e-6);
    assert_true(x[4] == 0 && x[1] == 0 && x[5] == 0 && x[9] == 0);
    assert_float_equal(x[8], 1, 1e-6);
    assert_true(y[0] == 0 && y[1] == 1 && y[2] == 1);
    assert_int_equal(cs_samples_append(&train, &test), CS_OK);
    assert_int_equal(train.count, 4);
    assert_int_equal(cs_tensor_size(train.columns, 0), 4);
    assert_int_equal(cs_scope_status(scope), CS_OK);
}

static void one_training_row_has_no_deviation(void **state)
{
    (void)state;
    study study;
    CS_AUTO_PTR(cs_table) table = table_of(&study, "1,5,2,0,\n3,5,1,1,test\n");
    CS_AUTO_PTR(cs_scaling) scaling = NULL;
    assert_int_equal(cs_scaling_of(CS_STANDARDIZE_SITE, &study.plan, table, NULL, &scaling), CS_INVALID);
    assert_non_null(strstr(cs_error_text(), "at least two training rows, the split leaves 1"));
}

static void sums_survive_their_file_and_foreign_files_are_refused(void **state)
{
    (void)state;
    study study;
    char root[] = "/tmp/standardize-XXXXXX";
    assert_non_null(mkdtemp(root));
    CS_AUTO(cs_string) path = cs_path_join(root, "statistics.safetensors");
    CS_AUTO_PTR(cs_table) table = table_of(&study, "61.5,210,2,0,\n63,190,1,1,\n");
    CS_AUTO_PTR(cs_moments) sums = cs_moments_new(&study.plan);
    CS_AUTO_PTR(cs_moments) read = NULL;
    cs_moments_add_table(sums, table);

    assert_int_equal(cs_moments_save(sums, path), CS_OK);
    assert_int_equal(cs_moments_load(path, &study.plan, &read), CS_OK);
    assert_true(read->count == 2);
    assert_memory_equal(read->sum, sums->sum, 4 * sizeof(double));
    assert_memory_equal(read->sum_squares, sums->sum_squares, 4 * sizeof(double));

    cs_moments *none = NULL;
    study.plan.dataset.columns_count = 5;
    assert_int_equal(cs_moments_load(path, &study.plan, &none), CS_INVALID);
    study.plan.dataset.columns_count = 4;
    assert_non_null(strstr(cs_error_text(), "tensor 'sum' is not F64 of shape [5]"));
    sums->sum[1] = NAN;
    assert_int_equal(cs_moments_save(sums, path), CS_OK);
    assert_int_equal(cs_moments_load(path, &study.plan, &none), CS_INVALID);
    sums->sum[1] = 1;
    sums->count = 1;
    assert_int_equal(cs_moments_save(sums, path), CS_OK);
    assert_int_equal(cs_moments_load(path, &study.plan, &none), CS_INVALID);
    assert_null(none);
    assert_int_equal(cs_folder_remove(root), CS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_site_scales_by_its_training_rows_with_the_unbiased_deviation),
        cmocka_unit_test(sums_of_two_sites_scale_like_their_rows_in_one_place),
        cmocka_unit_test(the_plan_scales_numbers_and_leaves_levels_alone),
        cmocka_unit_test(samples_are_the_formula_and_a_constant_column_is_zero),
        cmocka_unit_test(one_training_row_has_no_deviation),
        cmocka_unit_test(sums_survive_their_file_and_foreign_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
