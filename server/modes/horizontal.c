/* Horizontal federation: other patients, same columns. Round 0 makes what the first model needs (initialize,
 * statistics), each further round trains everywhere and averages (McMahan et al. 2017, Algorithm 1), the last one
 * evaluates what came out. Called by the engine; check and fold on the aggregation thread. */
#include "server/modes/mode.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A model comes from one site and its size follows from the plan's architecture, which only workers know. */
#define INITIAL_MODEL_MAX_BYTES (16ULL * 1024 * 1024 * 1024)
/* Room for another header than the model's own: names stay, metadata may differ. */
#define HEADER_SLACK_BYTES (1024ULL * 1024)

static const cs_phase initialize = {
    .name = "initialize", .is_for_one = true, .output = CS_BLOB_MODEL, .makes = CS_BLOB_MODEL};
static const cs_phase statistics = {
    .name = "statistics", .output = CS_BLOB_STATISTICS, .makes = CS_BLOB_STATISTICS, .counts_as_folded = true};
static const cs_phase train = {.name = "train",
                               .output = CS_BLOB_UPDATE,
                               .makes = CS_BLOB_MODEL,
                               .states_samples = true,
                               .judges_base = true,
                               .counts_as_folded = true};
static const cs_phase evaluate = {.name = "evaluate", .judges_base = true, .counts_as_folded = true};

static size_t horizontal_phases(const cs_plan *plan, uint32_t round, const cs_phase *ret[CS_PHASES_MAX])
{
    size_t count = 0;
    if (round == 0) {
        if (!plan->model.has_initial_blob)
            ret[count++] = &initialize;
        if (cs_plan_needs_statistics(plan))
            ret[count++] = &statistics;
        return count;
    }
    if (round <= plan->training.rounds)
        ret[count++] = &train;
    if (round <= plan->training.rounds && cs_plan_evaluates(plan, round))
        ret[count++] = &evaluate;
    return count;
}

static size_t horizontal_sites(const cs_plan *plan, const cs_phase *phase, const char *const *names, size_t count,
                               size_t *ret)
{
    (void)plan;
    (void)names;
    const size_t taken = phase->is_for_one ? CS_MIN(count, (size_t)1) : count;
    for (size_t i = 0; i < taken; i++)
        ret[i] = i;
    return taken;
}

static uint32_t horizontal_minimum(const cs_plan *plan, const cs_phase *phase)
{
    return phase->is_for_one ? 1 : plan->sites.minimum;
}

static size_t horizontal_inputs(const cs_plan *plan, uint32_t round, const cs_phase *phase, cs_input ret[CS_INPUTS_MAX])
{
    if (phase == &initialize || phase == &statistics)
        return 0;
    size_t count = 0;
    ret[count++] = (cs_input){CS_BLOB_MODEL, phase == &train ? round - 1 : round};
    if (cs_plan_needs_statistics(plan))
        ret[count++] = (cs_input){CS_BLOB_STATISTICS, 0};
    return count;
}

static uint64_t horizontal_output_max_bytes(const cs_plan *plan, const cs_phase *phase, uint64_t model_size)
{
    if (phase == &initialize)
        return INITIAL_MODEL_MAX_BYTES;
    if (phase == &statistics)
        return HEADER_SLACK_BYTES + (1 + (cs_plan_needs_moments(plan) ? 2 * (uint64_t)plan->dataset.columns_count : 0) +
                                     (cs_plan_needs_class_counts(plan) ? cs_plan_classes(plan) : 0)) *
                                        sizeof(double);
    return phase == &train ? model_size + HEADER_SLACK_BYTES : 0;
}

/* Sums over the training rows of one site: how many, and as the plan needs them Σx and Σx² of each column, and the rows
 * of each class. Nothing else is taken. */
static cs_status check_statistics(const cs_plan *plan, const char *path)
{
    const struct {
        const char *name;
        uint64_t size;
        bool is_needed;
    } expected[] = {{"count", 1, true},
                    {"sum", plan->dataset.columns_count, cs_plan_needs_moments(plan)},
                    {"sum_squares", plan->dataset.columns_count, cs_plan_needs_moments(plan)},
                    {"class_counts", cs_plan_classes(plan), cs_plan_needs_class_counts(plan)}};

    CS_AUTO_PTR(cs_tensor_file) file = NULL;
    CS_TRY(cs_tensor_file_open(path, &file));
    size_t needed = 0;
    for (size_t i = 0; i < CS_COUNT(expected); i++)
        needed += expected[i].is_needed;
    if (cs_tensor_file_count(file) != needed)
        return cs_fail(CS_INVALID, "statistics: found %zu tensors, expected %zu", cs_tensor_file_count(file), needed);
    for (size_t i = 0; i < CS_COUNT(expected); i++) {
        if (!expected[i].is_needed)
            continue;
        const cs_tensor_info *info = cs_tensor_file_find(file, expected[i].name);
        if (!info)
            return cs_fail(CS_INVALID, "statistics: there is no tensor '%s'", expected[i].name);
        if (info->dtype != CS_F64 || info->rank != 1 || info->shape[0] != expected[i].size)
            return cs_fail(CS_INVALID, "tensor '%s': expected F64 [%" PRIu64 "]", info->name, expected[i].size);
    }
    CS_TRY(cs_tensors_check_finite(path));
    double count = 0;
    CS_TRY(cs_tensor_file_read(file, cs_tensor_file_find(file, "count"), 0, &count, sizeof(count)));
    if (count < 1)
        return cs_fail(CS_INVALID, "tensor 'count': found less than one row");
    return CS_OK;
}

static cs_status horizontal_check(const cs_mode_task *task, const char *output_path)
{
    if (task->phase == &statistics)
        return check_statistics(task->plan, output_path);
    if (task->phase == &initialize)
        return cs_tensors_check_finite(output_path);
    return cs_update_check(task->model_path, output_path);
}

static cs_status horizontal_fold(const cs_mode_task *task, const cs_contribution *contributions, size_t count,
                                 size_t threads, const char *output_path, size_t *ret_taken)
{
    if (task->phase == &initialize) {
        *ret_taken = 0;
        return CS_OK;
    }
    *ret_taken = CS_FOLD_WRITTEN;
    if (task->phase == &statistics)
        return cs_sum(contributions, count, output_path);

    /* Nothing here but the plan and the round: a repeated job makes the same bytes. */
    char plan_hash[CS_HASH_HEX_BYTES];
    cs_hash_hex(task->plan_hash, plan_hash);
    char round[16];
    snprintf(round, sizeof(round), "%" PRIu32, task->round);
    const cs_metadata_item metadata[] = {{"format", "pt"}, {"consilium.plan", plan_hash}, {"consilium.round", round}};
    return cs_fedavg(task->model_path, contributions, count, threads, metadata, CS_COUNT(metadata), output_path);
}

const cs_mode cs_mode_horizontal = {.name = "horizontal",
                                    .phases = horizontal_phases,
                                    .sites = horizontal_sites,
                                    .minimum = horizontal_minimum,
                                    .inputs = horizontal_inputs,
                                    .output_max_bytes = horizontal_output_max_bytes,
                                    .check = horizontal_check,
                                    .fold = horizontal_fold};
