/* client/data/table: numbers, levels, labels, missing values, splits, and what the errors say. */
#include "tests/unit/data/study.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define HEADER "age,chol,cp,num,fold\n"

static void expect_error(study *study, const char *text, cs_status status, const char *sentence)
{
    CS_AUTO_PTR(cs_table) table = NULL;
    assert_int_equal(study_read(study, text, &table), status);
    assert_string_equal(cs_error_text(), sentence);
    assert_null(table);
}

static void numbers_levels_and_labels_come_in_the_order_of_the_plan(void **state)
{
    (void)state;
    study study;
    study_make(&study);
    CS_AUTO_PTR(cs_table) table = NULL;

    assert_int_equal(study_read(&study,
                                "num,fold,cp,chol,age,other\n"
                                "0,train,2.0,200.5,63,x\n"
                                "2,test,3,1e2,-4,x\n"
                                "1,,4,.5,+7.,x\n",
                                &table),
                     CS_OK);

    const double expected[] = {63, 200.5, 1, 0, -4, 100, 0, 1, 7, .5, 0, 0};
    assert_int_equal(table->rows, 3);
    assert_int_equal(table->columns, 4);
    assert_memory_equal(table->features, expected, sizeof expected);
    assert_true(table->labels[0] == 0 && table->labels[1] == 1 && table->labels[2] == 1);
    assert_int_equal(table->class_rows[1], 2);
    assert_int_equal(table->parts[CS_PART_TRAIN], 2);
    assert_int_equal(table->parts[CS_PART_TEST], 1);
    assert_int_equal(table->part[1], CS_PART_TEST);
}

static void a_label_may_list_its_positive_values(void **state)
{
    (void)state;
    study study;
    study_make(&study);
    double positive[] = {2, 4};
    study.plan.dataset.label =
        (cs_label){.column = study.plan.dataset.label.column, .positive = positive, .positive_count = 2};
    CS_AUTO_PTR(cs_table) table = NULL;

    assert_int_equal(study_read(&study, HEADER "1,1,1,2,\n1,1,1,3,\n1,1,1,4,\n", &table), CS_OK);

    assert_true(table->labels[0] == 1 && table->labels[1] == 0 && table->labels[2] == 1);
}

static void rows_with_a_missing_used_value_are_dropped_and_counted(void **state)
{
    (void)state;
    study study;
    study_make(&study);
    CS_AUTO_PTR(cs_table) table = NULL;

    assert_int_equal(study_read(&study,
                                "age,chol,cp,num,fold,unused\n"
                                "1,1,1,1,test,?\n"
                                "?,1,1,1,test,1\n"
                                "1, ,1,1,test,1\n"
                                "1,1,1,\"?\",test,1\n"
                                "1,1,1,1,,\n",
                                &table),
                     CS_OK);
    assert_int_equal(table->rows, 2);
    assert_int_equal(table->dropped, 3);
}

static void minus_nine_is_missing_only_where_the_site_says_so(void **state)
{
    (void)state;
    study study;
    study_make(&study);
    {
        CS_AUTO_PTR(cs_table) table = NULL;
        assert_int_equal(study_read(&study, HEADER "-9,1,1,1,\n1,1,1,1,\n", &table), CS_OK);
        assert_int_equal(table->rows, 2);
    }
    study.dataset.missing.count = 2;
    CS_AUTO_PTR(cs_table) table = NULL;
    assert_int_equal(study_read(&study, HEADER "-9,1,1,1,\n1,1,1,1,\n", &table), CS_OK);
    assert_int_equal(table->rows, 1);
}

static void a_plan_may_refuse_missing_values(void **state)
{
    (void)state;
    study study;
    study_make(&study);
    study.plan.dataset.missing = CS_MISSING_FAIL;
    expect_error(&study, HEADER "1,1,1,1,\n1,?,1,1,\n", CS_INVALID,
                 "heart.csv line 3, column 'chol': missing, and the plan does not allow it");
}

static void errors_name_line_and_column_and_no_value(void **state)
{
    (void)state;
    study study;
    study_make(&study);
    expect_error(&study, HEADER "1,high,1,1,\n", CS_INVALID, "heart.csv line 2, column 'chol': not a number");
    expect_error(&study, HEADER "1,1,1,\"ill\",\n", CS_INVALID, "heart.csv line 2, column 'num': not a number");
    expect_error(&study, HEADER "1,1,typical,1,\n", CS_INVALID, "heart.csv line 2, column 'cp': not a number");
    expect_error(&study, HEADER "1,1,1,1\n", CS_INVALID, "heart.csv line 2: 4 fields, expected 5");
    expect_error(
        &study, "age,cp,num,fold\n", CS_NOT_FOUND,
        "heart.csv: there is no column 'chol'; if it has another name here, datasets.heart.columns can say so");
    expect_error(&study, "age,chol,chol,cp,num,fold\n", CS_INVALID, "heart.csv: two columns are called 'chol'");
    expect_error(&study, "", CS_INVALID, "heart.csv: the table is empty");
    expect_error(&study, HEADER "?,1,1,1,\n", CS_INVALID,
                 "heart.csv: no row is left: 1 rows, all with a missing value in a column that the plan uses");
}

static void texts_that_c_would_take_for_numbers_are_none(void **state)
{
    (void)state;
    study study;
    study_make(&study);
    static const char *const texts[] = {"nan", "inf", "0x10", "1e999", "1,5", "1 2", "--1", "e5", ".", "1e"};
    for (size_t i = 0; i < CS_COUNT(texts); i++) {
        CS_AUTO_PTR(cs_table) table = NULL;
        CS_AUTO(cs_string) text = cs_format(HEADER "1,\"%s\",1,1,\n", texts[i]);
        assert_int_equal(study_read(&study, text, &table), CS_INVALID);
    }
}

static void a_site_maps_its_own_names_and_numbers(void **state)
{
    (void)state;
    study study;
    study_make(&study);
    cs_column_map named[] = {{(char[]){"chol"}, (char[]){"Cholesterin"}}};
    study.dataset.columns = named;
    study.dataset.columns_count = 1;
    CS_AUTO_PTR(cs_table) table = NULL;
    assert_int_equal(study_read(&study, "age,Cholesterin,cp,num,fold\n1,5,1,1,\n", &table), CS_OK);
    assert_true(table->features[1] == 5);
    expect_error(&study, HEADER, CS_NOT_FOUND,
                 "heart.csv: there is no column 'Cholesterin', which the site's configuration gives for 'chol'");

    cs_column_map numbered[] = {{(char[]){"age"}, (char[]){"#0"}},
                                {(char[]){"chol"}, (char[]){"#2"}},
                                {(char[]){"cp"}, (char[]){"#1"}},
                                {(char[]){"num"}, (char[]){"#3"}}};
    study.dataset.columns = numbered;
    study.dataset.columns_count = 4;
    study.dataset.has_header = false;
    study.dataset.test = (cs_split_part){(char[]){"#4"}, (char[]){"test"}};
    CS_AUTO_PTR(cs_table) bare = NULL;
    assert_int_equal(study_read(&study, "1,2,3,4,test\n5,6,7,0,\n", &bare), CS_OK);
    assert_int_equal(bare->rows, 2);
    assert_true(bare->features[1] == 3 && bare->features[2] == 1);
    assert_int_equal(bare->parts[CS_PART_TEST], 1);
    expect_error(&study, "1,2,3,4\n", CS_NOT_FOUND,
                 "heart.csv: there is no column #4, the table has 4 columns, counted from #0");
}

static void fractions_keep_a_patient_together_and_every_part_its_share(void **state)
{
    (void)state;
    study study;
    study_make(&study);
    study.dataset.test = (cs_split_part){NULL, NULL};
    study.dataset.patient = (char[]){"id"};
    study.dataset.has_fractions = true;
    study.dataset.train_fraction = 0.6;
    study.dataset.valid_fraction = 0.2;
    study.dataset.test_fraction = 0.2;
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&text, "age,chol,cp,num,id\n");
    for (int row = 0; row < 2000; row++)
        cs_buffer_printf(&text, "1,1,1,%d,patient %d\n", row % 2, row / 2);
    CS_AUTO_PTR(cs_table) table = NULL;

    assert_int_equal(study_read(&study, cs_buffer_text(&text), &table), CS_OK);

    for (size_t row = 0; row < table->rows; row += 2)
        assert_int_equal(table->part[row], table->part[row + 1]);
    assert_in_range(table->parts[CS_PART_TRAIN], 1100, 1300);
    assert_in_range(table->parts[CS_PART_VALID], 320, 480);
    assert_in_range(table->parts[CS_PART_TEST], 320, 480);
    assert_int_equal(table->parts[0] + table->parts[1] + table->parts[2], 2000);
}

static void the_part_of_a_patient_does_not_depend_on_the_other_rows(void **state)
{
    (void)state;
    study study;
    study_make(&study);
    study.dataset.test = (cs_split_part){NULL, NULL};
    study.dataset.patient = (char[]){"id"};
    study.dataset.has_fractions = true;
    study.dataset.train_fraction = 0.5;
    study.dataset.test_fraction = 0.5;
    CS_AUTO_PTR(cs_table) one = NULL;
    CS_AUTO_PTR(cs_table) two = NULL;

    assert_int_equal(study_read(&study, "id,age,chol,cp,num\na,1,1,1,1\nb,1,1,1,1\nc,1,1,1,1\n", &one), CS_OK);
    assert_int_equal(study_read(&study, "id,age,chol,cp,num\nc,1,1,1,1\nz,1,1,1,1\na,1,1,1,1\n", &two), CS_OK);

    assert_int_equal(one->part[0], two->part[2]);
    assert_int_equal(one->part[2], two->part[0]);
}

static void a_patient_in_two_parts_is_refused(void **state)
{
    (void)state;
    study study;
    study_make(&study);
    study.dataset.patient = (char[]){"age"};
    expect_error(&study, HEADER "1,1,1,1,train\n2,1,1,1,test\n1,1,1,1,test\n", CS_INVALID,
                 "heart.csv: a patient of column 'age' has rows in both train and test, expected all in one");
}

static void a_row_that_fits_no_part_is_an_error_when_every_part_has_a_rule(void **state)
{
    (void)state;
    study study;
    study_make(&study);
    study.dataset.train = (cs_split_part){(char[]){"fold"}, (char[]){"train"}};
    study.dataset.valid = (cs_split_part){(char[]){"fold"}, (char[]){"valid"}};
    expect_error(&study, HEADER "1,1,1,1,tset\n", CS_INVALID,
                 "heart.csv line 2, column 'fold': fits no part of the split, and each part has a rule");
}

static void an_empty_part_says_how_the_split_came_out(void **state)
{
    (void)state;
    study study;
    study_make(&study);
    CS_AUTO_PTR(cs_table) table = NULL;
    assert_int_equal(study_read(&study, HEADER "1,1,1,1,\n", &table), CS_OK);
    assert_int_equal(cs_table_need(table, CS_PART_TRAIN), CS_OK);
    assert_int_equal(cs_table_need(table, CS_PART_TEST), CS_INVALID);
    assert_string_equal(cs_error_text(), "the split leaves no rows for 'test': train 1, valid 0, test 0 of 1 rows");
}

static void a_table_that_is_not_there_is_named(void **state)
{
    (void)state;
    study study;
    study_make(&study);
    CS_AUTO_PTR(cs_table) table = NULL;
    assert_int_equal(cs_table_load(&study.plan, &study.dataset, "/nowhere", &table), CS_NOT_FOUND);
    assert_non_null(strstr(cs_error_text(), "/nowhere/heart.csv"));
    assert_int_equal(cs_table_describe(&study.dataset, "/nowhere", &table), CS_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_levels_and_labels_come_in_the_order_of_the_plan),
        cmocka_unit_test(a_label_may_list_its_positive_values),
        cmocka_unit_test(rows_with_a_missing_used_value_are_dropped_and_counted),
        cmocka_unit_test(minus_nine_is_missing_only_where_the_site_says_so),
        cmocka_unit_test(a_plan_may_refuse_missing_values),
        cmocka_unit_test(errors_name_line_and_column_and_no_value),
        cmocka_unit_test(texts_that_c_would_take_for_numbers_are_none),
        cmocka_unit_test(a_site_maps_its_own_names_and_numbers),
        cmocka_unit_test(fractions_keep_a_patient_together_and_every_part_its_share),
        cmocka_unit_test(the_part_of_a_patient_does_not_depend_on_the_other_rows),
        cmocka_unit_test(a_patient_in_two_parts_is_refused),
        cmocka_unit_test(a_row_that_fits_no_part_is_an_error_when_every_part_has_a_rule),
        cmocka_unit_test(an_empty_part_says_how_the_split_came_out),
        cmocka_unit_test(a_table_that_is_not_there_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
