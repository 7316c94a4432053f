/* The aggregation thread: checks files at the door, folds phases, collects blobs. One piece of work at a time, in the
 * order asked; results are posted to the engine. It knows no job state: everything it needs comes with the work. */
#include "server/engine/internal.h"

#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define WORK_QUEUE_MAX 8192
/* Longer than any phase takes: what is older than this belongs to nobody. */
#define PARTIAL_UPLOAD_AGE_MS (14LL * 24 * 3600 * 1000)

enum work_kind { WORK_CHECK, WORK_FOLD, WORK_COLLECT };

struct work {
    enum work_kind kind;
    int64_t job;
    uint32_t round;
    uint32_t phase_index;
    const cs_mode *mode;
    const cs_phase *phase;
    struct shared_plan *plan;
    cs_hash plan_hash;
    bool has_model;
    cs_hash model;
    /* WORK_CHECK */
    char site[CS_NAME_MAX + 1];
    cs_hash result_hash;
    cs_hash output;
    /* WORK_FOLD */
    struct fold_source *sources;
    size_t sources_count;
    /* WORK_COLLECT */
    cs_hash *kept;
    size_t kept_count;
};

struct folds {
    cs_engine *engine;
    cs_mailbox *mailbox;
    pthread_t thread;
    atomic_bool is_stopping;
    char *folder; /* scratch */
};

static void work_free(struct work *work)
{
    plan_release(work->plan);
    cs_free(work->sources);
    cs_free(work->kept);
    cs_free(work);
}

/* ---- on the aggregation thread ---- */

static cs_mode_task mode_task(const struct work *work, const char *model_path)
{
    return (cs_mode_task){.plan = work->plan->plan,
                          .plan_hash = &work->plan_hash,
                          .phase = work->phase,
                          .round = work->round,
                          .model_path = model_path};
}

static cs_status check(struct folds *folds, const struct work *work)
{
    CS_FAILPOINT("engine.check");
    cs_blobs *blobs = folds->engine->config.blobs;
    CS_AUTO(cs_string) model = work->has_model ? cs_blobs_path(blobs, &work->model) : NULL;
    CS_AUTO(cs_string) output = cs_blobs_path(blobs, &work->output);
    const cs_mode_task task = mode_task(work, model);
    return work->mode->check(&task, output);
}

/* Sentences about files name them as they are known outside of this machine. */
static void rename_in(char *text, const char *path, const char *name)
{
    char *at = path ? strstr(text, path) : NULL;
    if (!at || strlen(name) > strlen(path))
        return;
    memcpy(at, name, strlen(name));
    memmove(at + strlen(name), at + strlen(path), strlen(at + strlen(path)) + 1);
}

static void clean_error(struct folds *folds, const struct work *work, char *out, size_t size)
{
    cs_blobs *blobs = folds->engine->config.blobs;
    CS_AUTO(cs_string) text = cs_strdup(cs_error_text());
    CS_AUTO(cs_string) model = work->has_model ? cs_blobs_path(blobs, &work->model) : NULL;
    CS_AUTO(cs_string) output = cs_blobs_path(blobs, &work->output);
    rename_in(text, output, work->phase->output);
    rename_in(text, model, CS_BLOB_MODEL);
    door_clean_text(out, size, text);
}

static void run_check(struct folds *folds, const struct work *work)
{
    struct checked *checked = cs_alloc(sizeof(*checked));
    *checked = (struct checked){.job = work->job, .round = work->round, .result_hash = work->result_hash};
    snprintf(checked->phase, sizeof(checked->phase), "%s", work->phase->name);
    memcpy(checked->site, work->site, sizeof(checked->site));
    checked->status = check(folds, work);
    if (checked->status != CS_OK)
        clean_error(folds, work, checked->error, sizeof(checked->error));
    engine_post_result(folds->engine, POSTED_CHECKED, checked);
}

static cs_status fold_files(struct folds *folds, const struct work *work, const cs_contribution *contributions,
                            cs_hash *ret, uint64_t *ret_size)
{
    cs_blobs *blobs = folds->engine->config.blobs;
    CS_AUTO(cs_string) model = work->has_model ? cs_blobs_path(blobs, &work->model) : NULL;
    CS_AUTO(cs_string) output = cs_format("%s/fold-%" PRId64, folds->folder, work->job);
    const cs_mode_task task = mode_task(work, model);
    size_t taken = CS_FOLD_WRITTEN;
    CS_TRY(cs_file_remove(output));
    CS_TRY(work->mode->fold(&task, contributions, work->sources_count, folds->engine->config.server->threads, output,
                            &taken));
    CS_FAILPOINT("engine.fold_written");
    if (taken == CS_FOLD_WRITTEN)
        return cs_blobs_adopt(blobs, output, ret, ret_size);
    *ret = work->sources[taken].hash;
    if (!cs_blobs_has(blobs, ret, ret_size))
        return cs_fail(CS_DATA_LOSS, "the blob that site '%s' returned is gone", work->sources[taken].site);
    return CS_OK;
}

static cs_status fold(struct folds *folds, const struct work *work, cs_hash *ret, uint64_t *ret_size)
{
    CS_FAILPOINT("engine.fold");
    if (!work->phase->makes)
        return CS_OK;
    cs_blobs *blobs = folds->engine->config.blobs;
    cs_contribution *contributions = cs_alloc_array(work->sources_count, sizeof(*contributions));
    for (size_t i = 0; i < work->sources_count; i++)
        contributions[i] = (cs_contribution){.site = work->sources[i].site,
                                             .path = cs_blobs_path(blobs, &work->sources[i].hash),
                                             .weight = work->sources[i].weight};
    cs_status status = fold_files(folds, work, contributions, ret, ret_size);
    for (size_t i = 0; i < work->sources_count; i++)
        cs_free((void *)(uintptr_t)contributions[i].path);
    cs_free(contributions);
    return status;
}

static void run_fold(struct folds *folds, const struct work *work)
{
    struct folded *folded = cs_alloc(sizeof(*folded));
    *folded = (struct folded){.job = work->job, .round = work->round, .phase = work->phase_index};
    folded->status = fold(folds, work, &folded->hash, &folded->size);
    if (folded->status != CS_OK)
        snprintf(folded->error, sizeof(folded->error), "%.*s", CS_REASON_BYTES - 1, cs_error_text());
    else if (work->phase->makes)
        access_hold(folds->engine->access, &folded->hash);
    engine_post_result(folds->engine, POSTED_FOLDED, folded);
}

struct collection {
    const struct work *work;
    struct access *access;
};

static bool is_needed(void *self, const cs_hash *hash)
{
    const struct collection *collection = self;
    const struct work *work = collection->work;
    size_t low = 0, high = work->kept_count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = memcmp(work->kept[middle].bytes, hash->bytes, CS_HASH_BYTES);
        if (order == 0)
            return true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return access_is_held(collection->access, hash);
}

static void run_collect(struct folds *folds, const struct work *work)
{
    struct collection collection = {.work = work, .access = folds->engine->access};
    uint64_t removed = 0;
    cs_status status = cs_failpoint("engine.collect");
    if (status == CS_OK)
        status = cs_blobs_collect(folds->engine->config.blobs, is_needed, &collection, PARTIAL_UPLOAD_AGE_MS, &removed);
    if (status != CS_OK)
        cs_log(CS_LOG_WARN, "engine", "blobs were not collected", CS_S("error", cs_error_text()));
    else if (removed > 0)
        cs_log(CS_LOG_DEBUG, "engine", "blobs collected", CS_I("removed", removed));
    engine_post_result(folds->engine, POSTED_COLLECTED, NULL);
}

static void *folds_main(void *argument)
{
    struct folds *folds = argument;
    void *message = NULL;
    while (cs_mailbox_take(folds->mailbox, -1, &message) == CS_OK) {
        struct work *work = message;
        if (!atomic_load(&folds->is_stopping)) {
            switch (work->kind) {
            case WORK_CHECK:
                run_check(folds, work);
                break;
            case WORK_FOLD:
                run_fold(folds, work);
                break;
            case WORK_COLLECT:
                run_collect(folds, work);
                break;
            }
        }
        work_free(work);
    }
    return NULL;
}

/* ---- on the engine's thread ---- */

static void folds_free(struct folds *folds)
{
    cs_mailbox_free(folds->mailbox);
    cs_free(folds->folder);
    cs_free(folds);
}

cs_status folds_start(cs_engine *engine, struct folds **ret)
{
    CS_AUTO(cs_string) folder = cs_path_join(engine->config.state_folder, "tasks");
    /* What a fold left half done is of no use: folds start over. */
    CS_TRY(cs_folder_remove(folder));
    CS_TRY(cs_folder_make(folder, 0700));

    struct folds *folds = cs_alloc(sizeof(*folds));
    folds->engine = engine;
    folds->mailbox = cs_mailbox_new(WORK_QUEUE_MAX);
    folds->folder = CS_TAKE(folder);
    if (pthread_create(&folds->thread, NULL, folds_main, folds) != 0) {
        folds_free(folds);
        return cs_fail(CS_INTERNAL, "the aggregation thread did not start");
    }
    *ret = folds;
    return CS_OK;
}

void folds_stop(struct folds *folds)
{
    if (!folds)
        return;
    atomic_store(&folds->is_stopping, true);
    cs_mailbox_close(folds->mailbox);
    pthread_join(folds->thread, NULL);
    folds_free(folds);
}

static cs_status submit(struct folds *folds, struct work *work)
{
    cs_status status = cs_mailbox_try_post(folds->mailbox, work);
    if (status != CS_OK)
        work_free(work);
    return status;
}

static struct work *work_of(enum work_kind kind, const struct job *job, const cs_hash *model)
{
    struct work *work = cs_alloc(sizeof(*work));
    *work = (struct work){.kind = kind,
                          .job = job->row.id,
                          .round = job->row.round,
                          .phase_index = job->row.phase,
                          .mode = job->mode,
                          .phase = job_phase(job),
                          .plan = plan_share(job->plan),
                          .plan_hash = job->row.plan_hash,
                          .has_model = model != NULL};
    if (model)
        work->model = *model;
    return work;
}

cs_status folds_check(struct folds *folds, const struct job *job, const struct task *task, const cs_hash *model,
                      const cs_hash *output)
{
    struct work *work = work_of(WORK_CHECK, job, model);
    memcpy(work->site, task->row.site, sizeof(work->site));
    work->result_hash = task->checking_hash;
    work->output = *output;
    return submit(folds, work);
}

cs_status folds_fold(struct folds *folds, const struct job *job, const cs_hash *model, struct fold_source *sources,
                     size_t count)
{
    struct work *work = work_of(WORK_FOLD, job, model);
    work->sources = sources;
    work->sources_count = count;
    return submit(folds, work);
}

cs_status folds_collect(struct folds *folds, cs_hash *kept, size_t count)
{
    struct work *work = cs_alloc(sizeof(*work));
    work->kind = WORK_COLLECT;
    work->kept = kept;
    work->kept_count = count;
    return submit(folds, work);
}
