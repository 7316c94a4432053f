/* A coordinator's engine with hand-made sites: for the tests of this folder. The engine runs on its own thread; sites
 * are played by the test's thread. The clock is the fake one and moves only when a test says so. */
#ifndef CS_TESTS_ENGINE_WORLD_H
#define CS_TESTS_ENGINE_WORLD_H

#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "server/engine/engine.h"
#include "server/store/registry.h"
#include "tests/unit/place.h"

#define WORLD_SITES_MAX 8

typedef struct received {
    struct received *next;
    cs_arena *arena;
    Consilium__V1__CoordinatorMessage *message;
} received;

typedef struct world world;

struct site {
    world *world;
    char name[CS_NAME_MAX + 1];
    uint64_t session; /* 0: not connected */
    cs_sign_key *key;
    received *inbox, **inbox_end; /* world's inbox_mutex */
};

struct world {
    place *place;
    cs_engine *engine;
    cs_blobs *blobs;
    cs_transcript *transcript;
    cs_server_config server;
    struct site sites[WORLD_SITES_MAX];
    size_t sites_count;
    uint64_t sessions;
    pthread_mutex_t inbox_mutex;
    pthread_cond_t inbox_condition;
    /* Plays a site's answer to a task; world_answer is the honest one. Returns false when the site keeps silent. */
    void (*answer)(world *world, struct site *site, const Consilium__V1__TaskAssignment *task);
    bool serves_backwards;
    size_t handled; /* messages that world_serve handled */
};

/* Sites "a", "b", … are enrolled. */
world *world_new(place *place, size_t sites);
void world_free(world *world);
/* The daemon goes down and comes up again on the same folder; sites are not connected afterwards. */
void world_stop(world *world);
void world_start(world *world);
void world_restart(world *world);

void world_attend(world *world, struct site *site);
void world_attend_all(world *world);
void world_leave(world *world, struct site *site);
struct site *world_site(world *world, const char *name);
/* Lets the engine finish everything that was posted before, and what follows from it at once. */
void world_settle(world *world);
/* Moves the clock and lets the engine see it. */
void world_advance(world *world, int64_t milliseconds);

#define PLAN_SITES     "sites: {invite: all, minimum: 2, approval: 7d, deadline: 10m}\n"
#define PLAN_RETAINS   "retention: {updates: 2, models: [best, last]}\n"
#define PLAN_FEDERATED "federated"
/* A plan of `rounds` rounds over three columns. */
char *world_plan(const char *sites, const char *standardize, int rounds, const char *retention);
cs_status world_submit(world *world, const char *plan);
/* Must work; returns the job's name in static memory. */
const char *world_submit_ok(world *world, const char *plan);
cs_status world_cancel(world *world, const char *job);
cs_status world_resume(world *world, const char *job);
void world_revoke(world *world, struct site *site);
/* With history; dies with the arena. */
Consilium__V1__JobStatus *world_describe(world *world, const char *job, cs_arena *arena);
const Consilium__V1__SiteProgress *world_progress(const Consilium__V1__JobStatus *status, const char *site);
Consilium__V1__JobState world_state(world *world, const char *job);
cs_status world_model(world *world, const char *job, const char *round, cs_hash *ret);
/* How many records of this kind stand in the transcript. */
size_t world_records(world *world, const char *kind);

/* The next message of this kind; others before it are dropped. Fails the test when none comes in time. */
received *world_await(struct site *site, Consilium__V1__CoordinatorMessage__BodyCase kind);
void received_free(received *received);
bool world_has(struct site *site, Consilium__V1__CoordinatorMessage__BodyCase kind);
/* The assignment of this phase; others are dropped. */
received *world_await_task(struct site *site, uint32_t round, const char *phase);
Consilium__V1__Verdict world_await_verdict(struct site *site, char *ret_reason, size_t size);

void world_decide(struct site *site, const char *job, Consilium__V1__Decision decision, const cs_sign_key *key);
/* The site approves what it is offered. */
void world_approve(struct site *site);
void world_say(struct site *site, Consilium__V1__SiteMessage *message);

/* What a result says; world_result fills in what an honest site would say, tests change it, world_send sends it. */
typedef struct answer {
    char job[CS_NAME_MAX + 1];
    uint32_t round;
    char phase[32];
    Consilium__V1__Outcome outcome;
    const char *reason;
    cs_hash base;
    bool has_base;
    bool has_output;
    char output_name[32];
    cs_hash output;
    uint64_t output_size;
    uint64_t samples;
    double loss;
    double log_loss;
    size_t evaluations;
    const char *split;
} answer;
void world_result(world *world, struct site *site, const Consilium__V1__TaskAssignment *task, answer *ret);
void world_send(struct site *site, const answer *answer);
/* world_result, then world_send. */
void world_answer(world *world, struct site *site, const Consilium__V1__TaskAssignment *task);
/* Plays all connected sites until every one has heard that the job ended, or `limit` messages were handled. */
bool world_serve(world *world, size_t limit);
/* True when there is a message for some site within a moment of real time: where nothing comes, the clock must move. */
bool world_has_mail(world *world);

/* Stores a safetensors file: `weight` F32 [1, 3] and `bias` F32 [1], all of this value. */
cs_hash world_put_tensors(world *world, const char *weight_name, size_t columns, float value, uint64_t *ret_size);
/* The first value of `linear.weight` of a stored model. */
float world_read_weight(world *world, const cs_hash *model);

#define WORLD_TEST(function) cmocka_unit_test_setup_teardown(function, world_setup, world_teardown)
int world_setup(void **state);
int world_teardown(void **state);

#endif
