/* Implements world.h. The test's thread, but for `send`, which the engine calls on its own. */
#include "tests/unit/engine/world.h"

#include "common/tensors/safetensors.h"

#include <inttypes.h>

#define AWAIT_SECONDS 60

/* ---- the coordinator ---- */

static bool send_to_site(void *self, const char *name, const Consilium__V1__CoordinatorMessage *message)
{
    world *world = self;
    CS_AUTO(cs_buffer) packed = CS_BUFFER_EMPTY;
    cs_wire_pack(&message->base, &packed);
    received *item = cs_alloc(sizeof(*item));
    item->arena = cs_arena_new(0);
    ProtobufCMessage *copy = NULL;
    if (cs_wire_unpack(&consilium__v1__coordinator_message__descriptor, cs_buffer_view(&packed), item->arena, &copy) !=
        CS_OK)
        abort();
    item->message = (Consilium__V1__CoordinatorMessage *)copy;

    pthread_mutex_lock(&world->inbox_mutex);
    struct site *site = world_site(world, name);
    *site->inbox_end = item;
    site->inbox_end = &item->next;
    pthread_cond_broadcast(&world->inbox_condition);
    pthread_mutex_unlock(&world->inbox_mutex);
    return true;
}

void received_free(received *received)
{
    if (!received)
        return;
    cs_arena_free(received->arena);
    cs_free(received);
}

static void empty_inbox(struct site *site)
{
    while (site->inbox) {
        received *next = site->inbox->next;
        received_free(site->inbox);
        site->inbox = next;
    }
    site->inbox_end = &site->inbox;
}

void world_start(world *world)
{
    CS_AUTO(cs_string) blobs = cs_path_join(world->place->folder, "blobs");
    CS_AUTO(cs_string) audit = cs_path_join(world->place->folder, "audit");
    assert_ok(cs_blobs_open(blobs, &world->blobs));
    assert_ok(cs_transcript_open(audit, &world->transcript));
    const cs_engine_config config = {.state_folder = world->place->folder,
                                     .blobs = world->blobs,
                                     .transcript = world->transcript,
                                     .server = &world->server,
                                     .send = send_to_site,
                                     .send_self = world};
    assert_ok(cs_engine_start(&config, &world->engine));
}

void world_stop(world *world)
{
    cs_engine_stop(world->engine);
    world->engine = NULL;
    cs_transcript_free(world->transcript);
    cs_blobs_free(world->blobs);
    for (size_t i = 0; i < world->sites_count; i++) {
        world->sites[i].session = 0;
        empty_inbox(&world->sites[i]);
    }
}

void world_restart(world *world)
{
    world_stop(world);
    world_start(world);
}

static cs_status enrol(void *argument, cs_store *store)
{
    const struct site *site = argument;
    cs_site_record record = {.state = CS_SITE_ENROLLED};
    snprintf(record.name, sizeof(record.name), "%s", site->name);
    memcpy(record.signing_key, cs_sign_key_public(site->key), sizeof(record.signing_key));
    return cs_registry_put(store, &record);
}

world *world_new(place *place, size_t sites)
{
    assert_ok(cs_crypto_start());
    cs_clock_fake(1000000, 1700000000000);
    world *world = cs_alloc(sizeof(*world));
    world->place = place;
    world->server.threads = 2;
    world->answer = world_answer;
    world->sites_count = sites;
    pthread_mutex_init(&world->inbox_mutex, NULL);
    pthread_cond_init(&world->inbox_condition, NULL);
    for (size_t i = 0; i < sites; i++) {
        struct site *site = &world->sites[i];
        site->world = world;
        site->inbox_end = &site->inbox;
        site->key = cs_sign_key_new();
        snprintf(site->name, sizeof(site->name), "%c", (char)('a' + i));
    }
    world_start(world);
    for (size_t i = 0; i < sites; i++)
        assert_ok(cs_engine_run(world->engine, enrol, &world->sites[i]));
    return world;
}

void world_free(world *world)
{
    if (world->engine)
        world_stop(world);
    for (size_t i = 0; i < world->sites_count; i++)
        cs_sign_key_free(world->sites[i].key);
    pthread_mutex_destroy(&world->inbox_mutex);
    pthread_cond_destroy(&world->inbox_condition);
    cs_clock_real();
    cs_free(world);
}

int world_setup(void **state)
{
    place *here = NULL;
    if (place_make((void **)&here) != 0)
        return -1;
    *state = world_new(here, 3);
    return 0;
}

int world_teardown(void **state)
{
    world *world = *state;
    void *here = world->place;
    assert_ok(cs_failpoint_configure(NULL));
    world_free(world);
    return place_remove(&here);
}

/* ---- sites come and go ---- */

struct site *world_site(world *world, const char *name)
{
    for (size_t i = 0; i < world->sites_count; i++) {
        if (strcmp(world->sites[i].name, name) == 0)
            return &world->sites[i];
    }
    fail_msg("there is no site '%s'", name);
    return NULL;
}

void world_attend(world *world, struct site *site)
{
    site->session = ++world->sessions;
    cs_engine_site_attended(world->engine, site->name, site->session, 0, "test 1.0");
}

void world_attend_all(world *world)
{
    for (size_t i = 0; i < world->sites_count; i++)
        world_attend(world, &world->sites[i]);
}

void world_leave(world *world, struct site *site)
{
    cs_engine_site_left(world->engine, site->name, site->session);
    site->session = 0;
}

static cs_status nothing(void *argument, cs_store *store)
{
    (void)argument;
    (void)store;
    return CS_OK;
}

void world_settle(world *world)
{
    assert_ok(cs_engine_run(world->engine, nothing, NULL));
}

void world_advance(world *world, int64_t milliseconds)
{
    cs_clock_fake_advance(milliseconds);
    world_settle(world);
}

/* ---- jobs ---- */

char *world_plan(const char *sites, const char *standardize, int rounds, const char *retention)
{
    return cs_format("plan: demo\n"
                     "federation: horizontal\n"
                     "%s"
                     "dataset: {name: d, kind: table, features: [x, y, z], label: {column: num, above: 0}, "
                     "standardize: %s}\n"
                     "model: {kind: logistic_regression}\n"
                     "training: {rounds: %d, local_steps: 10, batch_size: 4, optimizer: {kind: sgd, "
                     "learning_rate: 0.1}, loss: bce}\n"
                     "aggregation: {method: fedavg, weights: samples}\n"
                     "%s",
                     sites, standardize, rounds, retention);
}

struct question {
    world *world;
    const char *text;
    const char *other;
    char job[CS_NAME_MAX + 1];
    cs_arena *arena;
    Consilium__V1__JobStatus *status;
    cs_hash hash;
};

static cs_status submit(void *argument, cs_store *store)
{
    (void)store;
    struct question *question = argument;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    Consilium__V1__JobStatus *status = NULL;
    CS_TRY(cs_engine_submit(question->world->engine, cs_bytes_of_text(question->text), "demo.yaml", arena, &status));
    snprintf(question->job, sizeof(question->job), "%s", status->job);
    return CS_OK;
}

cs_status world_submit(world *world, const char *plan)
{
    struct question question = {.world = world, .text = plan};
    return cs_engine_run(world->engine, submit, &question);
}

const char *world_submit_ok(world *world, const char *plan)
{
    static char job[CS_NAME_MAX + 1];
    struct question question = {.world = world, .text = plan};
    assert_ok(cs_engine_run(world->engine, submit, &question));
    memcpy(job, question.job, sizeof(job));
    return job;
}

static cs_status cancel(void *argument, cs_store *store)
{
    (void)store;
    struct question *question = argument;
    return cs_engine_cancel(question->world->engine, question->text, "enough");
}

cs_status world_cancel(world *world, const char *job)
{
    struct question question = {.world = world, .text = job};
    return cs_engine_run(world->engine, cancel, &question);
}

static cs_status resume(void *argument, cs_store *store)
{
    (void)store;
    struct question *question = argument;
    return cs_engine_resume(question->world->engine, question->text);
}

cs_status world_resume(world *world, const char *job)
{
    struct question question = {.world = world, .text = job};
    return cs_engine_run(world->engine, resume, &question);
}

static cs_status revoke(void *argument, cs_store *store)
{
    struct question *question = argument;
    cs_site_record record;
    CS_TRY(cs_registry_find(store, question->text, &record));
    record.state = CS_SITE_REVOKED;
    CS_TRY(cs_registry_put(store, &record));
    cs_engine_site_revoked(question->world->engine, question->text, "left the consortium");
    return CS_OK;
}

void world_revoke(world *world, struct site *site)
{
    struct question question = {.world = world, .text = site->name};
    assert_ok(cs_engine_run(world->engine, revoke, &question));
}

static cs_status describe(void *argument, cs_store *store)
{
    (void)store;
    struct question *question = argument;
    return cs_engine_describe(question->world->engine, question->text, true, question->arena, &question->status);
}

Consilium__V1__JobStatus *world_describe(world *world, const char *job, cs_arena *arena)
{
    struct question question = {.world = world, .text = job, .arena = arena};
    assert_ok(cs_engine_run(world->engine, describe, &question));
    return question.status;
}

const Consilium__V1__SiteProgress *world_progress(const Consilium__V1__JobStatus *status, const char *site)
{
    for (size_t i = 0; i < status->n_sites; i++) {
        if (strcmp(status->sites[i]->site, site) == 0)
            return status->sites[i];
    }
    fail_msg("site '%s' is not in the status", site);
    return NULL;
}

Consilium__V1__JobState world_state(world *world, const char *job)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    return world_describe(world, job, arena)->state;
}

static cs_status model(void *argument, cs_store *store)
{
    (void)store;
    struct question *question = argument;
    uint64_t size = 0;
    CS_TRY(cs_engine_model(question->world->engine, question->text, question->other, &question->hash, &size));
    uint64_t stored = 0;
    assert_true(cs_blobs_has(question->world->blobs, &question->hash, &stored));
    assert_int_equal(size, stored);
    return CS_OK;
}

cs_status world_model(world *world, const char *job, const char *round, cs_hash *ret)
{
    struct question question = {.world = world, .text = job, .other = round};
    CS_TRY(cs_engine_run(world->engine, model, &question));
    *ret = question.hash;
    return CS_OK;
}

size_t world_records(world *world, const char *kind)
{
    char *path = cs_transcript_path(world->transcript);
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    assert_ok(cs_file_read_all(path, 16 * 1024 * 1024, &text));
    cs_free(path);
    CS_AUTO(cs_string) wanted = cs_format("\"kind\":\"%s\"", kind);
    size_t count = 0;
    for (const char *at = cs_buffer_text(&text); (at = strstr(at, wanted)); at++)
        count++;
    return count;
}

/* ---- messages ---- */

static void wait_for_mail(world *world)
{
    struct timespec until = {0};
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += AWAIT_SECONDS;
    if (pthread_cond_timedwait(&world->inbox_condition, &world->inbox_mutex, &until) != 0) {
        pthread_mutex_unlock(&world->inbox_mutex);
        fail_msg("no message came in %d s", AWAIT_SECONDS);
    }
}

/* inbox_mutex is held. */
static received *take_first(struct site *site)
{
    received *item = site->inbox;
    if (!item)
        return NULL;
    site->inbox = item->next;
    if (!site->inbox)
        site->inbox_end = &site->inbox;
    return item;
}

received *world_await(struct site *site, Consilium__V1__CoordinatorMessage__BodyCase kind)
{
    pthread_mutex_lock(&site->world->inbox_mutex);
    for (;;) {
        received *item = take_first(site);
        if (item && item->message->body_case == kind) {
            pthread_mutex_unlock(&site->world->inbox_mutex);
            return item;
        }
        if (item)
            received_free(item);
        else
            wait_for_mail(site->world);
    }
}

bool world_has(struct site *site, Consilium__V1__CoordinatorMessage__BodyCase kind)
{
    bool has = false;
    pthread_mutex_lock(&site->world->inbox_mutex);
    for (const received *item = site->inbox; item && !has; item = item->next)
        has = item->message->body_case == kind;
    pthread_mutex_unlock(&site->world->inbox_mutex);
    return has;
}

received *world_await_task(struct site *site, uint32_t round, const char *phase)
{
    for (;;) {
        received *item = world_await(site, CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_TASK);
        const Consilium__V1__TaskKey *key = item->message->task->key;
        if (key->round == round && strcmp(key->phase, phase) == 0)
            return item;
        received_free(item);
    }
}

Consilium__V1__Verdict world_await_verdict(struct site *site, char *ret_reason, size_t size)
{
    received *item = world_await(site, CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_ACK);
    const Consilium__V1__Verdict verdict = item->message->ack->verdict;
    if (ret_reason)
        snprintf(ret_reason, size, "%s", item->message->ack->reason);
    received_free(item);
    return verdict;
}

void world_say(struct site *site, Consilium__V1__SiteMessage *message)
{
    assert_ok(cs_engine_site_message(site->world->engine, site->name, site->session, message));
}

static void decide(struct site *site, const Consilium__V1__JobOffer *offer, Consilium__V1__Decision decision,
                   const cs_sign_key *key)
{
    char hash[CS_HASH_HEX_BYTES];
    cs_hex_encode(hash, offer->plan_sha256.data, offer->plan_sha256.len);
    CS_AUTO(cs_string) text =
        cs_format("consilium-decision-v1\n%s\n%s\n%s", offer->job, hash,
                  decision == CONSILIUM__V1__DECISION__DECISION_APPROVED ? "approved" : "refused");
    uint8_t signature[CS_SIGNATURE_BYTES];
    cs_sign(key, cs_bytes_of_text(text), signature);
    Consilium__V1__PlanDecision body = CONSILIUM__V1__PLAN_DECISION__INIT;
    body.job = offer->job;
    body.plan_sha256 = offer->plan_sha256;
    body.decision = decision;
    body.reason = (char *)"because";
    body.signature = cs_wire_data(signature, sizeof(signature));
    Consilium__V1__SiteMessage message = CONSILIUM__V1__SITE_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__SITE_MESSAGE__BODY_DECISION;
    message.decision = &body;
    world_say(site, &message);
}

void world_decide(struct site *site, const char *job, Consilium__V1__Decision decision, const cs_sign_key *key)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    const Consilium__V1__JobStatus *status = world_describe(site->world, job, arena);
    Consilium__V1__JobOffer offer = CONSILIUM__V1__JOB_OFFER__INIT;
    offer.job = status->job;
    offer.plan_sha256 = status->plan_sha256;
    decide(site, &offer, decision, key);
}

void world_approve(struct site *site)
{
    received *item = world_await(site, CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_OFFER);
    decide(site, item->message->offer, CONSILIUM__V1__DECISION__DECISION_APPROVED, site->key);
    received_free(item);
}

/* ---- results ---- */

static void write_tensor(cs_tensor_writer *writer, size_t index, size_t count, float value)
{
    float values[16];
    assert_true(count <= CS_COUNT(values));
    for (size_t i = 0; i < count; i++)
        values[i] = value;
    assert_ok(cs_tensor_writer_put(writer, index, 0, values, count * sizeof(float)));
}

static cs_hash adopt(world *world, cs_tensor_writer *writer, const char *path, uint64_t *ret_size)
{
    cs_hash hash;
    assert_ok(cs_tensor_writer_commit(writer));
    assert_ok(cs_blobs_adopt(world->blobs, path, &hash, ret_size));
    return hash;
}

cs_hash world_put_tensors(world *world, const char *weight_name, size_t columns, float value, uint64_t *ret_size)
{
    const cs_tensor_info infos[] = {{.name = weight_name, .dtype = CS_F32, .rank = 2, .shape = {1, columns}},
                                    {.name = "linear.bias", .dtype = CS_F32, .rank = 1, .shape = {1}}};
    CS_AUTO_PTR(cs_tensor_writer) writer = NULL;
    assert_ok(cs_tensor_writer_open(world->place->path, infos, 2, NULL, 0, &writer));
    write_tensor(writer, 0, columns, value);
    write_tensor(writer, 1, 1, value);
    return adopt(world, writer, world->place->path, ret_size);
}

static cs_hash put_statistics(world *world, double count, uint64_t *ret_size)
{
    const cs_tensor_info infos[] = {{.name = "count", .dtype = CS_F64, .rank = 1, .shape = {1}},
                                    {.name = "sum", .dtype = CS_F64, .rank = 1, .shape = {3}},
                                    {.name = "sum_squares", .dtype = CS_F64, .rank = 1, .shape = {3}}};
    const double sums[3] = {count, 2 * count, 3 * count};
    CS_AUTO_PTR(cs_tensor_writer) writer = NULL;
    assert_ok(cs_tensor_writer_open(world->place->path, infos, 3, NULL, 0, &writer));
    assert_ok(cs_tensor_writer_put(writer, 0, 0, &count, sizeof(count)));
    assert_ok(cs_tensor_writer_put(writer, 1, 0, sums, sizeof(sums)));
    assert_ok(cs_tensor_writer_put(writer, 2, 0, sums, sizeof(sums)));
    return adopt(world, writer, world->place->path, ret_size);
}

float world_read_weight(world *world, const cs_hash *hash)
{
    CS_AUTO(cs_string) path = cs_blobs_path(world->blobs, hash);
    CS_AUTO_PTR(cs_tensor_file) file = NULL;
    assert_ok(cs_tensor_file_open(path, &file));
    float value = 0;
    assert_ok(cs_tensor_file_read(file, cs_tensor_file_find(file, "linear.weight"), 0, &value, sizeof(value)));
    return value;
}

void world_result(world *world, struct site *site, const Consilium__V1__TaskAssignment *task, answer *ret)
{
    static const double log_losses[] = {0.7, 0.5, 0.4, 0.6, 0.55, 0.52};
    const float place_of_site = (float)(site - world->sites + 1);
    *ret = (answer){.round = task->key->round, .outcome = CONSILIUM__V1__OUTCOME__OUTCOME_DONE, .split = "test"};
    snprintf(ret->job, sizeof(ret->job), "%s", task->key->job);
    snprintf(ret->phase, sizeof(ret->phase), "%s", task->key->phase);
    for (size_t i = 0; i < task->n_inputs; i++) {
        if (strcmp(task->inputs[i]->name, "model") == 0) {
            assert_ok(cs_hash_from(cs_wire_bytes(task->inputs[i]->sha256), "model", &ret->base));
            ret->has_base = true;
        }
    }
    ret->has_output = strcmp(ret->phase, "evaluate") != 0;
    if (strcmp(ret->phase, "initialize") == 0) {
        snprintf(ret->output_name, sizeof(ret->output_name), "model");
        ret->output = world_put_tensors(world, "linear.weight", 3, 1.0F, &ret->output_size);
    } else if (strcmp(ret->phase, "statistics") == 0) {
        snprintf(ret->output_name, sizeof(ret->output_name), "statistics");
        ret->output = put_statistics(world, 10 * place_of_site, &ret->output_size);
    } else {
        const bool is_training = ret->has_output;
        const uint32_t base_round = is_training ? ret->round - 1 : ret->round;
        ret->samples = (uint64_t)(100 * place_of_site);
        ret->loss = 0.1 * place_of_site;
        ret->log_loss = log_losses[CS_MIN(base_round, (uint32_t)5)];
        ret->evaluations = is_training ? 2 : 1;
    }
    if (strcmp(ret->phase, "train") == 0) {
        snprintf(ret->output_name, sizeof(ret->output_name), "update");
        ret->output =
            world_put_tensors(world, "linear.weight", 3, place_of_site * (float)ret->round / 7.0F, &ret->output_size);
    }
}

static void fill_metric(Consilium__V1__Metric *metric, const char *name, double value, double count, bool pools)
{
    consilium__v1__metric__init(metric);
    metric->name = (char *)(uintptr_t)name;
    metric->value = value;
    metric->sum = value * count;
    metric->count = count;
    metric->pools = pools;
    metric->is_defined = true;
}

#define METRICS 3

void world_send(struct site *site, const answer *answer)
{
    Consilium__V1__TaskKey key = CONSILIUM__V1__TASK_KEY__INIT;
    key.job = (char *)(uintptr_t)answer->job;
    key.round = answer->round;
    key.phase = (char *)(uintptr_t)answer->phase;
    Consilium__V1__Blob blob = CONSILIUM__V1__BLOB__INIT, *blobs = &blob;
    blob.name = (char *)(uintptr_t)answer->output_name;
    blob.sha256 = cs_wire_data(answer->output.bytes, CS_HASH_BYTES);
    blob.size = answer->output_size;

    static const char *const models[] = {"global", "local"};
    Consilium__V1__Metric metrics[METRICS], *metric_list[METRICS];
    fill_metric(&metrics[0], "accuracy", 0.8, 50, true);
    fill_metric(&metrics[1], "log_loss", answer->log_loss, 50, true);
    fill_metric(&metrics[2], "auc", 0.9, 50, false);
    for (size_t i = 0; i < METRICS; i++)
        metric_list[i] = &metrics[i];
    Consilium__V1__Evaluation evaluations[64], *list[64];
    for (size_t i = 0; i < answer->evaluations; i++) {
        consilium__v1__evaluation__init(&evaluations[i]);
        evaluations[i].model = (char *)(uintptr_t)models[i % 2];
        evaluations[i].split = (char *)(uintptr_t)answer->split;
        evaluations[i].standardize = (char *)"federated";
        evaluations[i].metrics = metric_list;
        evaluations[i].n_metrics = METRICS;
        list[i] = &evaluations[i];
    }
    Consilium__V1__TaskResult result = CONSILIUM__V1__TASK_RESULT__INIT;
    result.key = &key;
    result.outcome = answer->outcome;
    if (answer->reason)
        result.reason = (char *)(uintptr_t)answer->reason;
    if (answer->has_base)
        result.base_sha256 = cs_wire_data(answer->base.bytes, CS_HASH_BYTES);
    result.outputs = &blobs;
    result.n_outputs = answer->has_output ? 1 : 0;
    result.samples = answer->samples;
    result.loss = answer->loss;
    result.evaluations = list;
    result.n_evaluations = answer->evaluations;
    Consilium__V1__SiteMessage message = CONSILIUM__V1__SITE_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__SITE_MESSAGE__BODY_RESULT;
    message.result = &result;
    world_say(site, &message);
}

void world_answer(world *world, struct site *site, const Consilium__V1__TaskAssignment *task)
{
    answer answer;
    world_result(world, site, task, &answer);
    world_send(site, &answer);
}

/* ---- all sites at once ---- */

static received *take_any(world *world, struct site **ret)
{
    pthread_mutex_lock(&world->inbox_mutex);
    received *item = NULL;
    while (!item) {
        for (size_t i = 0; i < world->sites_count && !item; i++) {
            *ret = &world->sites[world->serves_backwards ? world->sites_count - 1 - i : i];
            item = take_first(*ret);
        }
        if (!item)
            wait_for_mail(world);
    }
    pthread_mutex_unlock(&world->inbox_mutex);
    return item;
}

#define MOMENT_NS (30L * 1000 * 1000)

bool world_has_mail(world *world)
{
    struct timespec until = {0};
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += MOMENT_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    bool has_mail = false, is_in_time = true;
    pthread_mutex_lock(&world->inbox_mutex);
    while (is_in_time && !has_mail) {
        for (size_t i = 0; i < world->sites_count; i++)
            has_mail = has_mail || world->sites[i].inbox;
        if (!has_mail)
            is_in_time = pthread_cond_timedwait(&world->inbox_condition, &world->inbox_mutex, &until) == 0;
    }
    pthread_mutex_unlock(&world->inbox_mutex);
    return has_mail;
}

bool world_serve(world *world, size_t limit)
{
    size_t connected = 0, ended = 0;
    for (size_t i = 0; i < world->sites_count; i++)
        connected += world->sites[i].session != 0;
    for (size_t i = 0; i < limit; i++) {
        struct site *site = NULL;
        received *item = take_any(world, &site);
        world->handled++;
        switch (item->message->body_case) {
        case CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_OFFER:
            decide(site, item->message->offer, CONSILIUM__V1__DECISION__DECISION_APPROVED, site->key);
            break;
        case CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_TASK:
            world->answer(world, site, item->message->task);
            break;
        case CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_JOB:
            ended++;
            break;
        default:
            break;
        }
        received_free(item);
        if (ended == connected)
            return true;
    }
    return false;
}
