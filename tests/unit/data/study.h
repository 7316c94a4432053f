/* A plan and a data set as structures, for the tests of client/data. */
#ifndef TESTS_DATA_STUDY_H
#define TESTS_DATA_STUDY_H

#include "client/data/table.h"

#include <string.h>

/* age and chol as numbers, cp with the levels 2 and 3; ill is num > 0. */
typedef struct study {
    double levels[2];
    cs_feature features[3];
    cs_plan plan;
    char *missing[2];
    cs_site_dataset dataset;
} study;

static inline void study_make(study *study)
{
    *study = (struct study){.levels = {2, 3}};
    study->features[0].name = (char *)(uintptr_t) "age";
    study->features[1].name = (char *)(uintptr_t) "chol";
    study->features[2] = (cs_feature){.name = (char *)(uintptr_t) "cp", .levels = study->levels, .levels_count = 2};
    study->plan.dataset.features = study->features;
    study->plan.dataset.features_count = 3;
    study->plan.dataset.columns_count = 4;
    study->plan.dataset.label = (cs_label){.column = (char *)(uintptr_t) "num", .has_above = true, .above = 0};
    study->plan.dataset.missing = CS_MISSING_DROP;
    study->plan.dataset.standardize = CS_STANDARDIZE_FEDERATED;
    study->missing[0] = (char *)(uintptr_t) "?";
    study->missing[1] = (char *)(uintptr_t) "-9";
    study->dataset = (cs_site_dataset){.name = (char *)(uintptr_t) "heart",
                                       .table = (char *)(uintptr_t) "heart.csv",
                                       .has_header = true,
                                       .delimiter = ',',
                                       .missing = {study->missing, 1}};
    study->dataset.test = (cs_split_part){(char *)(uintptr_t) "fold", (char *)(uintptr_t) "test"};
}

static inline cs_status study_read(study *study, const char *text, cs_table **ret)
{
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&bytes, text);
    return cs_table_read(&study->plan, &study->dataset, &bytes, "heart.csv", ret);
}

#endif
