/* client/data/survey: everything that does not fit, counted, with the line where it begins. */
#include "client/data/survey.h"

#include "tests/unit/data/study.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define HEADER "age,chol,cp,num,fold\n"

static cs_survey *survey_of(const cs_plan *plan, study *study, const char *text)
{
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    cs_survey *survey = NULL;

    cs_buffer_append_text(&bytes, text);
    if (cs_survey_read(plan, &study->dataset, &bytes, "heart.csv", &survey) != CS_OK)
        fail_msg("%s", cs_error_text());
    return survey;
}

static void assert_remark(const cs_survey *survey, cs_remark_kind kind, size_t count, const char *detail)
{
    for (size_t i = 0; i < survey->count; i++) {
        if (survey->remarks[i].kind != kind)
            continue;
        assert_string_equal(survey->remarks[i].detail, detail);
        assert_int_equal(survey->remarks[i].count, count);
        return;
    }
    fail_msg("no remark of kind %d", kind);
}

static bool has_remark(const cs_survey *survey, cs_remark_kind kind)
{
    for (size_t i = 0; i < survey->count; i++) {
        if (survey->remarks[i].kind == kind)
            return true;
    }
    return false;
}

static void a_table_that_fits_is_told_with_its_label(void **state)
{
    (void)state;
    study study;
    study_make(&study);

    CS_AUTO_PTR(cs_survey) survey =
        survey_of(&study.plan, &study, HEADER "63,233,1,0,train\n67,286,4,2,test\n41,204,2,0,\n");

    assert_remark(survey, CS_REMARK_LABEL, 2, "num: 0 in 2, 2 in 1");
    assert_int_equal(survey->count, 1);
}

static void every_bad_cell_is_counted_and_the_first_line_named_but_no_cell_is_shown(void **state)
{
    (void)state;
    study study;
    study_make(&study);

    CS_AUTO_PTR(cs_survey)
    survey =
        survey_of(&study.plan, &study, HEADER "63,233,1,0,\n67,high,4,2,\n41,204,2,0,\nold,high,2,0,\n41,nan,0x1,0,\n");

    assert_remark(survey, CS_REMARK_CELLS, 5, "age 1, first in line 5; chol 3, first in line 3; cp 1, first in line 6");
}

static void of_a_label_only_numbers_are_shown(void **state)
{
    (void)state;
    study study;
    study_make(&study);

    CS_AUTO_PTR(cs_survey)
    survey = survey_of(&study.plan, &study, HEADER "63,233,1,Smith,\n67,286,4,2,\n41,204,2,0,\n");

    assert_remark(survey, CS_REMARK_LABEL, 2, "num: 2 in 1, 0 in 1");
    assert_remark(survey, CS_REMARK_CELLS, 1, "num 1, first in line 2");
}

static void rows_with_a_missing_value_are_counted_once_and_by_column(void **state)
{
    (void)state;
    study study;
    study_make(&study);

    CS_AUTO_PTR(cs_survey)
    survey = survey_of(&study.plan, &study, HEADER "63,,1,0,\n,,4,2,\n41,204,2,0,\n41,204,2,,\n");

    assert_remark(survey, CS_REMARK_MISSING, 3,
                  "age 1, first in line 3; chol 2, first in line 2; num 1, first in line 5");
}

static void columns_that_are_not_there_and_columns_that_nobody_names_are_listed(void **state)
{
    (void)state;
    study study;
    study_make(&study);

    CS_AUTO_PTR(cs_survey) survey = survey_of(&study.plan, &study, "age,ward,cp,num,fold,note\n63,7,1,0,train,x\n");

    assert_remark(survey, CS_REMARK_COLUMN, 1, "no column 'chol', which the plan names");
    assert_remark(survey, CS_REMARK_UNUSED, 2, "ward, note");
}

static void a_mapped_column_is_named_by_both_names(void **state)
{
    (void)state;
    study study;
    study_make(&study);
    cs_column_map map[] = {{(char[]){"chol"}, (char[]){"cholesterol"}}};
    study.dataset.columns = map;
    study.dataset.columns_count = 1;

    CS_AUTO_PTR(cs_survey) there = survey_of(&study.plan, &study, "age,cholesterol,cp,num,fold\n63,,1,0,train\n");
    CS_AUTO_PTR(cs_survey) absent = survey_of(NULL, &study, HEADER "63,233,1,0,train\n");

    assert_remark(there, CS_REMARK_MISSING, 1, "chol (here 'cholesterol') 1, first in line 2");
    CS_AUTO(cs_string)
    detail = cs_format("no column 'cholesterol', which datasets.%s.columns gives for 'chol'", study.dataset.name);
    assert_remark(absent, CS_REMARK_COLUMN, 1, detail);
}

static void rows_with_another_number_of_fields_are_counted_and_not_looked_at(void **state)
{
    (void)state;
    study study;
    study_make(&study);

    CS_AUTO_PTR(cs_survey)
    survey = survey_of(&study.plan, &study, HEADER "63,233,1,0,\n1,2,3\nx,y,z,1,2,3\n41,204,2,0,\n");

    assert_remark(survey, CS_REMARK_FIELDS, 2,
                  "2 rows have another number of fields than the 5 of the first line, first in line 3");
    assert_false(has_remark(survey, CS_REMARK_CELLS));
}

static void without_a_plan_a_column_of_words_is_none_to_complain_about(void **state)
{
    (void)state;
    study study;
    study_make(&study);

    CS_AUTO_PTR(cs_survey)
    survey =
        survey_of(NULL, &study,
                  "age,name,code\n63,Ada,1\n67,Grace,2\n4l,Edsger,A3\n40,Tony,B4\n41,Barbara,5\n42,John,6\n43,Alan,7\n"
                  "44,Kurt,8\n45,Emmy,9\n46,David,10\n47,Ada,11\n48,Leslie,12\n");

    assert_remark(survey, CS_REMARK_CELLS, 1, "age 1, first in line 4");
}

static void a_part_with_one_class_is_told(void **state)
{
    (void)state;
    float labels[] = {0, 1, 1, 1};
    uint8_t part[] = {CS_PART_TRAIN, CS_PART_TRAIN, CS_PART_TEST, CS_PART_TEST};
    const cs_table table = {.rows = 4, .labels = labels, .part = part, .parts = {2, 0, 2}, .classes = 2};
    cs_survey survey = {0};

    cs_survey_add_table(&survey, &table);

    assert_int_equal(survey.count, 1);
    assert_remark(&survey, CS_REMARK_ONE_CLASS, 2, "all 2 test rows are positive");
    cs_free(survey.remarks[0].detail);
    cs_free(survey.remarks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_that_fits_is_told_with_its_label),
        cmocka_unit_test(every_bad_cell_is_counted_and_the_first_line_named_but_no_cell_is_shown),
        cmocka_unit_test(of_a_label_only_numbers_are_shown),
        cmocka_unit_test(rows_with_a_missing_value_are_counted_once_and_by_column),
        cmocka_unit_test(columns_that_are_not_there_and_columns_that_nobody_names_are_listed),
        cmocka_unit_test(a_mapped_column_is_named_by_both_names),
        cmocka_unit_test(rows_with_another_number_of_fields_are_counted_and_not_looked_at),
        cmocka_unit_test(without_a_plan_a_column_of_words_is_none_to_complain_about),
        cmocka_unit_test(a_part_with_one_class_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
