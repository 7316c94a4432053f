/* A small made-up study for the worker's tests: a plan, a site, a table. */
#ifndef TESTS_WORKER_HEART_H
#define TESTS_WORKER_HEART_H

#include "common/base/bytes.h"

#define HEART_PLAN_HEAD                                                                                                \
    "plan: little\n"                                                                                                   \
    "federation: horizontal\n"                                                                                         \
    "sites: {invite: all, minimum: 2}\n"                                                                               \
    "dataset:\n"                                                                                                       \
    "  name: heart\n"                                                                                                  \
    "  kind: table\n"                                                                                                  \
    "  features: [age, chol, {name: cp, levels: [2, 3]}]\n"                                                            \
    "  label: {column: num, above: 0}\n"                                                                               \
    "  missing: drop\n"
#define HEART_PLAN_TAIL                                                                                                \
    "training: {rounds: 3, local_steps: 7, batch_size: 4, optimizer: {kind: sgd, learning_rate: 0.1}, loss: bce}\n"    \
    "aggregation: {method: fedavg, weights: samples}\n"

#define HEART_PLAN                                                                                                     \
    HEART_PLAN_HEAD "  standardize: site\n"                                                                            \
                    "model: {kind: logistic_regression}\n" HEART_PLAN_TAIL                                             \
                    "evaluation: {metrics: [auc, accuracy, brier, log_loss], standardize: [site, federated]}\n"

/* To be continued below with `threads`, `policy` … */
#define HEART_SITE                                                                                                     \
    "site: mercy\n"                                                                                                    \
    "coordinator: localhost:8443\n"                                                                                    \
    "datasets:\n"                                                                                                      \
    "  heart:\n"                                                                                                       \
    "    table: heart.csv\n"                                                                                           \
    "    missing: [\"?\"]\n"                                                                                           \
    "    split: {by: row, test: {column: fold, value: test}}\n"

/* `rows` rows whose outcome follows age; every fifth is for testing, every eleventh lacks a value. Caller clears. */
static inline void heart_table(cs_buffer *out, size_t rows)
{
    cs_buffer_append_text(out, "age,chol,cp,num,fold\r\n");
    for (size_t i = 0; i < rows; i++) {
        const size_t age = 40 + i * 7 % 31;
        cs_buffer_printf(out, "%zu,", age);
        if (i % 11 == 10)
            cs_buffer_append_text(out, "?");
        else
            cs_buffer_printf(out, "%zu", 180 + i * 13 % 90);
        cs_buffer_printf(out, ",%zu,%zu,%s\r\n", 1 + i % 4, (size_t)(age + i % 3 > 56 ? 1 + i % 2 : 0),
                         i % 5 == 4 ? "test" : "train");
    }
}

#endif
