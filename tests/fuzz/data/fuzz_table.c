/* Tables as a hospital's export may have them, or a broken one: whatever the bytes are, there is a table or an error,
 * and a table's counts agree with each other. */
#include "client/data/survey.h"

#include <stdlib.h>

#define TEXT(literal) ((char *)(uintptr_t)(literal))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    double levels[] = {1, 2}, positive[] = {1, 3};
    cs_feature features[] = {{.name = TEXT("age")}, {.name = TEXT("cp"), .levels = levels, .levels_count = 2}};
    const cs_plan plan = {.dataset = {.features = features,
                                      .features_count = 2,
                                      .columns_count = 3,
                                      .label = {.column = TEXT("num"), .positive = positive, .positive_count = 2}}};
    char *missing[] = {TEXT("?")};
    cs_column_map columns[] = {{TEXT("age"), TEXT("#0")}, {TEXT("cp"), TEXT("#1")}, {TEXT("num"), TEXT("#2")}};
    cs_site_dataset dataset = {.name = TEXT("fuzz"), .has_header = true, .delimiter = ',', .missing = {missing, 1}};
    dataset.test = (cs_split_part){TEXT("num"), TEXT("1")};
    if (size > 0 && (data[0] & 1) != 0) {
        dataset.has_header = false;
        dataset.columns = columns;
        dataset.columns_count = 3;
        dataset.patient = TEXT("#0");
        dataset.test = (cs_split_part){NULL, NULL};
        dataset.has_fractions = true;
        dataset.train_fraction = 0.5;
    }

    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) same = CS_BUFFER_EMPTY;
    if (size > 1) {
        cs_buffer_append(&bytes, data + 1, size - 1);
        cs_buffer_append(&same, data + 1, size - 1);
    }
    CS_AUTO_PTR(cs_survey) survey = NULL;
    const cs_status surveyed =
        cs_survey_read(size > 0 && (data[0] & 2) != 0 ? NULL : &plan, &dataset, &same, "fuzz.csv", &survey);
    CS_AUTO_PTR(cs_table) table = NULL;
    if (cs_table_read(&plan, &dataset, &bytes, "fuzz.csv", &table) != CS_OK)
        return 0;
    if (surveyed != CS_OK)
        abort(); /* a table that can be used can be looked at */
    cs_survey_add_table(survey, table);
    if (table->parts[0] + table->parts[1] + table->parts[2] != table->rows ||
        table->class_rows[0] + table->class_rows[1] != table->rows)
        abort();
    return 0;
}
