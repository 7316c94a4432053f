/* The loader: a position in, a batch out. Called by client/worker on its main thread. */
#include "client/data/batches.h"

#include "client/nn/training.h"

#include <string.h>

struct cs_batches {
    const cs_plan *plan;
    cs_hash plan_hash;
    char *site;
    const cs_samples *samples;
    const cs_epoch_seeds *seeds; /* NULL: derived */
    uint64_t batches_an_epoch;
    bool has_order;
    uint64_t epoch; /* whose order this is */
    cs_tensor *order;
};

cs_status cs_batches_new(const cs_plan *plan, const cs_hash *plan_hash, const char *site, const cs_samples *samples,
                         cs_batches **ret)
{
    if (samples->count == 0)
        return cs_fail(CS_INVALID, "there are no training rows");
    cs_batches *batches = cs_alloc(sizeof *batches);
    batches->plan = plan;
    batches->plan_hash = *plan_hash;
    batches->site = cs_strdup(site);
    batches->samples = samples;
    batches->batches_an_epoch = (samples->count + plan->training.batch_size - 1) / plan->training.batch_size;
    for (size_t i = 0; i < plan->training.epoch_seeds_count; i++) {
        if (strcmp(plan->training.epoch_seeds[i].site, site) == 0)
            batches->seeds = &plan->training.epoch_seeds[i];
    }
    *ret = batches;
    return CS_OK;
}

void cs_batches_free(cs_batches *batches)
{
    if (batches == NULL)
        return;
    cs_free(batches->site);
    cs_tensor_free(batches->order);
    cs_free(batches);
}

uint64_t cs_batches_round_steps(const cs_batches *batches)
{
    const cs_plan *plan = batches->plan;
    return plan->training.local_steps > 0 ? plan->training.local_steps
                                          : plan->training.local_epochs * batches->batches_an_epoch;
}

static cs_status epoch_seed(const cs_batches *batches, uint64_t epoch, uint64_t *ret)
{
    if (batches->seeds != NULL) {
        if (epoch >= batches->seeds->count)
            return cs_fail(CS_RANGE, "training.epoch_seeds of site '%s' has %zu seeds, epoch %llu needs one more",
                           batches->site, batches->seeds->count, (unsigned long long)epoch);
        *ret = batches->seeds->seeds[epoch];
        return CS_OK;
    }
    CS_AUTO(cs_string) purpose = cs_format("epoch %llu", (unsigned long long)epoch);
    *ret = cs_stream_seed(&batches->plan_hash, batches->site, 0, purpose);
    return CS_OK;
}

/* The order of the epoch's rows; made once an epoch. */
static cs_status enter_epoch(cs_batches *batches, uint64_t epoch)
{
    if (batches->has_order && batches->epoch == epoch)
        return CS_OK;
    uint64_t seed = 0;
    CS_TRY(epoch_seed(batches, epoch, &seed));

    CS_SCOPE(scope);
    CS_AUTO_PTR(cs_generator) generator = cs_generator_new(seed);
    cs_tensor *order = cs_tensor_randperm(generator, batches->samples->count);
    CS_TRY(cs_scope_status(scope));
    cs_tensor_free(batches->order);
    batches->order = cs_tensor_keep(order);
    batches->epoch = epoch;
    batches->has_order = true;
    return CS_OK;
}

cs_status cs_batches_at(cs_batches *batches, uint64_t position, cs_tensor **ret_columns, cs_tensor **ret_labels)
{
    CS_TRY(enter_epoch(batches, position / batches->batches_an_epoch));
    const uint64_t size = batches->plan->training.batch_size;
    const uint64_t start = position % batches->batches_an_epoch * size;
    cs_tensor *rows = cs_narrow(batches->order, 0, start, CS_MIN(size, batches->samples->count - start));
    *ret_columns = cs_rows(batches->samples->columns, rows);
    *ret_labels = cs_rows(batches->samples->labels, rows);
    return CS_OK;
}
