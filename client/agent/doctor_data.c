/* What `doctor` finds about the worker, the data and the plans that wait here. Main thread. */
#include "client/agent/doctor.h"

#include "client/agent/control.h"
#include "client/agent/policy.h"
#include "client/agent/records.h"
#include "client/agent/supervisor.h"
#include "common/base/file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MAX_BYTES ((size_t)16 * 1024 * 1024)
/* Rows that may be lost to missing values before a site should look why: a tenth. */
#define DROPPED_WARN_FRACTION 10

/* ---- data ---- */

/* One remark of the survey as a finding. True when the table cannot be used because of it. */
static bool add_remark(const char *name, bool has_plan, const Consilium__V1__DatasetDescription *data,
                       const Consilium__V1__DataRemark *remark, cs_findings *findings)
{
    CS_AUTO(cs_string) found = cs_format("%s: %s", name, remark->detail);

    switch (remark->kind) {
    case CONSILIUM__V1__DATA_REMARK__KIND__FIELDS:
        cs_finding_bad(
            findings, CS_FOUND_DATA_FIELDS, CS_FINDING_FAIL, found, "the same number of fields in every line",
            "correct the export: a delimiter inside an unquoted field is the usual reason; or `delimiter:` in "
            "site.yaml");
        return true;
    case CONSILIUM__V1__DATA_REMARK__KIND__COLUMN:
        cs_finding_bad(
            findings, CS_FOUND_DATA_COLUMN, CS_FINDING_FAIL, found, "a column of that name in the table",
            "map it under datasets.NAME.columns in site.yaml (name in the plan: name in the table), or add it to "
            "the export");
        return true;
    case CONSILIUM__V1__DATA_REMARK__KIND__CELLS: {
        CS_AUTO(cs_string) cells = cs_format("%s: not a number: %s", name, remark->detail);
        cs_finding_bad(findings, CS_FOUND_DATA_CELLS, has_plan ? CS_FINDING_FAIL : CS_FINDING_WARN, cells,
                       "decimal numbers, or a text that `missing:` names",
                       "correct the cells in the lines that are named; or add the text that stands there to "
                       "datasets.NAME.missing in site.yaml");
        return has_plan;
    }
    case CONSILIUM__V1__DATA_REMARK__KIND__MISSING: {
        CS_AUTO(cs_string)
        missing = cs_format("%s: %" PRIu64 " of %" PRIu64 " rows have a missing value: %s", name, remark->count,
                            data->rows + data->dropped, remark->detail);
        if (!has_plan || data->dropped * DROPPED_WARN_FRACTION <= data->rows + data->dropped)
            cs_finding_good(findings, "data.ok", "%s", missing);
        else
            cs_finding_bad(findings, CS_FOUND_DATA_MISSING, CS_FINDING_WARN, missing,
                           "at most a tenth of the rows, which the plan drops",
                           "look at the columns that are named: an export that lacks one of them empties the table");
        return false;
    }
    case CONSILIUM__V1__DATA_REMARK__KIND__UNUSED:
        cs_finding_good(findings, "data.ok", "%s: columns that %s: %s", name,
                        has_plan ? "this plan does not use" : "site.yaml does not name", remark->detail);
        return false;
    case CONSILIUM__V1__DATA_REMARK__KIND__LABEL:
        cs_finding_good(findings, "data.ok", "%s: label %s", name, remark->detail);
        return false;
    case CONSILIUM__V1__DATA_REMARK__KIND__ONE_CLASS:
        cs_finding_bad(
            findings, CS_FOUND_DATA_ONE_CLASS, CS_FINDING_WARN, found, "rows of both classes in every part",
            "check the label's column and the split in site.yaml; if the data is so, an AUC here is undefined, "
            "and training alone learns nothing");
        return false;
    default:
        return false;
    }
}

static void add_counts(const cs_site_config *config, const char *name, const Consilium__V1__DatasetDescription *data,
                       cs_findings *findings)
{
    CS_AUTO(cs_string)
    found = cs_format("%s: %" PRIu64 " rows, %" PRIu64 " dropped; train %" PRIu64 ", valid %" PRIu64 ", test %" PRIu64,
                      name, data->rows, data->dropped, data->train, data->valid, data->test);

    if (data->persons != NULL) { /* an alignment has no training rows */
        CS_AUTO(cs_string) persons = cs_format("%s: %" PRIu64 " rows, %" PRIu64 " patients with keys of their own",
                                               name, data->persons->rows, data->persons->persons);
        if (data->persons->persons == 0)
            cs_finding_bad(findings, CS_FOUND_DATA_FEW_ROWS, CS_FINDING_WARN, persons, "patients to align",
                           "consilium-client align PLAN --dry-run says what is missing");
        else
            cs_finding_good(findings, "data.ok", "%s", persons);
        return;
    }
    if (data->train < config->floor_rows) {
        CS_AUTO(cs_string) expected = cs_format("at least %u training rows (policy.minimum_rows)", config->floor_rows);
        cs_finding_bad(findings, CS_FOUND_DATA_FEW_ROWS, CS_FINDING_WARN, found, expected,
                       "plans that use it will not run here");
    } else if (data->test == 0) {
        cs_finding_bad(findings, CS_FOUND_DATA_NO_TEST, CS_FINDING_WARN, found, "some rows held out to test on",
                       "add a split with a test part to the data set in site.yaml");
    } else {
        cs_finding_good(findings, "data.ok", "%s", found);
    }
}

void cs_doctor_description(const cs_site_config *config, const char *plan,
                           const Consilium__V1__DatasetDescription *data, cs_findings *findings)
{
    CS_AUTO(cs_string)
    name = plan ? cs_format("%s for plan '%s'", data->dataset, plan) : cs_strdup(data->dataset);
    const bool has_error = data->error && *data->error;
    bool is_explained = false;

    if (!has_error)
        add_counts(config, name, data, findings);
    for (size_t i = 0; i < data->n_remarks; i++)
        is_explained = add_remark(name, plan != NULL, data, data->remarks[i], findings) || is_explained;
    if (!has_error || is_explained)
        return;
    CS_AUTO(cs_string) found = cs_format("%s: %s", name, data->error);
    cs_finding_bad(findings, CS_FOUND_DATA_UNREADABLE, CS_FINDING_FAIL, found,
                   "a table as datasets in site.yaml describes it",
                   "correct the table or its description in site.yaml");
}

/* ---- the worker ---- */

static cs_status describe(const cs_site_config *config, cs_bytes config_text, const char *state_folder, cs_bytes plan,
                          cs_arena *arena, Consilium__V1__WorkerReady **ret)
{
    /* The worker's folder is named to it from the root, wherever doctor was started. */
    char *absolute = realpath(state_folder, NULL);
    if (!absolute)
        return cs_fail_errno("state folder '%s'", state_folder);
    CS_AUTO(cs_string) tasks = cs_path_join(absolute, "tasks");
    free(absolute);

    const cs_supervisor_config supervisor = {
        .program = config->worker,
        .site = config->site,
        .site_config = config_text,
        .site_config_folder = config->folder,
        .tasks_folder = tasks,
    };
    return cs_supervisor_describe(&supervisor, plan, arena, ret);
}

static void add_worker_fault(cs_status status, cs_findings *findings)
{
    CS_AUTO(cs_string) found = cs_strdup(cs_error_text());

    if (status == CS_UNAVAILABLE || status == CS_NOT_FOUND)
        cs_finding_bad(
            findings, CS_FOUND_WORKER_MISSING, CS_FINDING_FAIL, found,
            "a consilium-worker that starts and confines itself",
            "install consilium-worker beside consilium-client, or name it as `worker:` in site.yaml; started by "
            "hand with --version it says what it lacks");
    else
        cs_finding_bad(findings, CS_FOUND_WORKER_REFUSES, CS_FINDING_FAIL, found,
                       "a worker that confines itself and reads site.yaml",
                       "correct what the sentence names, in site.yaml or on this machine");
}

void cs_doctor_data(const cs_site_config *config, cs_bytes config_text, const char *state_folder, cs_findings *findings,
                    char **ret_build)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(ANSWER_MAX_BYTES);
    Consilium__V1__WorkerReady *ready = NULL;
    cs_status status = describe(config, config_text, state_folder, (cs_bytes){0}, arena, &ready);

    *ret_build = NULL;
    if (status != CS_OK) {
        add_worker_fault(status, findings);
        return;
    }
    *ret_build = cs_strdup(ready->build);
    cs_finding_good(findings, "worker.ok", "%s, confined by %s", ready->build, ready->confinement);
    for (size_t i = 0; i < ready->n_datasets; i++)
        cs_doctor_description(config, NULL, ready->datasets[i], findings);
    if (ready->n_datasets == 0)
        cs_finding_bad(findings, CS_FOUND_DATA_NONE, CS_FINDING_WARN, "site.yaml names no data set",
                       "the data sets that plans use", "add them under datasets in site.yaml");
}

/* ---- plans ---- */

typedef struct open_plan {
    const char *job;
    cs_hash hash;
    Consilium__V1__Decision decision;
    const char *reason;
    cs_bytes text;
} open_plan;

typedef struct open_plans {
    open_plan *items;
    size_t count;
} open_plans;

static bool is_open(Consilium__V1__JobState state)
{
    return state < CONSILIUM__V1__JOB_STATE__JOB_COMPLETE;
}

static void add_plan(open_plans *plans, open_plan plan)
{
    plans->items = cs_realloc(plans->items, (plans->count + 1) * sizeof *plans->items);
    plans->items[plans->count++] = plan;
}

static cs_status plans_of_agent(const char *state_folder, cs_arena *arena, open_plans *ret)
{
    Consilium__V1__PlanListRequest list = CONSILIUM__V1__PLAN_LIST_REQUEST__INIT;
    Consilium__V1__ControlRequest request = CONSILIUM__V1__CONTROL_REQUEST__INIT;
    Consilium__V1__ControlAnswer *answer = NULL;

    request.body_case = CONSILIUM__V1__CONTROL_REQUEST__BODY_PLAN_LIST;
    request.plan_list = &list;
    CS_TRY(cs_control_ask(state_folder, &request, arena, &answer));
    for (size_t i = 0; i < answer->n_plans && ret->count < CS_DOCTOR_PLANS_MAX; i++) {
        const Consilium__V1__PlanEntry *entry = answer->plans[i];
        Consilium__V1__PlanRequest show = CONSILIUM__V1__PLAN_REQUEST__INIT;
        Consilium__V1__ControlAnswer *shown = NULL;
        open_plan plan = {.job = entry->job, .decision = entry->decision, .reason = entry->reason};
        if (!is_open(entry->state))
            continue;
        show.plan = entry->job;
        request.body_case = CONSILIUM__V1__CONTROL_REQUEST__BODY_PLAN_SHOW;
        request.plan_show = &show;
        CS_TRY(cs_control_ask(state_folder, &request, arena, &shown));
        if (shown->n_plans != 1)
            continue; /* it ended in between */
        plan.text = cs_wire_bytes(shown->plans[0]->text);
        plan.hash = cs_sha256(plan.text);
        add_plan(ret, plan);
    }
    return CS_OK;
}

/* As the agent left it when it ended. */
static cs_status plans_of_database(const char *state_folder, cs_arena *arena, open_plans *ret)
{
    CS_AUTO(cs_string) path = cs_path_join(state_folder, "db/agent.db");
    CS_AUTO_PTR(cs_records) records = NULL;
    cs_job_record *jobs = NULL;
    size_t count = 0;

    if (!cs_file_exists(path))
        return CS_OK;
    CS_TRY(cs_records_open(path, &records));
    CS_TRY(cs_records_list_jobs(records, arena, &jobs, &count));
    for (size_t i = 0; i < count && ret->count < CS_DOCTOR_PLANS_MAX; i++) {
        open_plan plan = {
            .job = jobs[i].job, .hash = jobs[i].plan, .decision = jobs[i].decision, .reason = jobs[i].reason};
        if (!is_open(jobs[i].state))
            continue;
        CS_TRY(cs_records_find_plan(records, &plan.hash, arena, &plan.text));
        add_plan(ret, plan);
    }
    return CS_OK;
}

static void add_refusal(const char *job, const char *reason, cs_findings *findings)
{
    CS_AUTO(cs_string) found = cs_format("job '%s': %s", job, reason);

    cs_finding_bad(
        findings, CS_FOUND_PLAN_REFUSED, CS_FINDING_WARN, found, "a plan that can run here",
        "if this site wants to take part, correct site.yaml as the sentence says and start the agent again; a "
        "refusal that was said stays for this job, so ask the operator to submit it again");
}

void cs_doctor_policy(const cs_site_config *config, const char *job, cs_bytes text, cs_findings *findings)
{
    CS_AUTO_PTR(cs_plan) plan = NULL;
    cs_policy_verdict verdict;

    if (cs_plan_read(text, "plan", &plan) != CS_OK) {
        CS_AUTO(cs_string) found = cs_format("job '%s': %s", job, cs_error_text());
        cs_finding_bad(findings, CS_FOUND_PLAN_UNREADABLE, CS_FINDING_WARN, found, "a plan that this version knows",
                       "install the coordinator's version of Consilium here, or ask the operator what the plan needs");
        return;
    }
    /* How many are invited is the coordinator's word; the policy never relies on more than the plan's own minimum. */
    cs_policy_decide(config, plan, plan->sites.invites_all ? plan->sites.minimum : plan->sites.invite.count, &verdict);
    CS_AUTO(cs_string) found = cs_format("job '%s': %s", job, verdict.reason);
    if (verdict.decision == CS_POLICY_APPROVED)
        cs_finding_good(findings, "plan.ok", "%s", found);
    else if (verdict.decision == CS_POLICY_REFUSED)
        add_refusal(job, verdict.reason, findings);
    else
        cs_finding_bad(
            findings, CS_FOUND_PLAN_WAITS, CS_FINDING_WARN, found, "a decision before the approval time ends",
            "look at it with consilium-client plan show, then plan approve or plan refuse; or write a rule under "
            "policy.approve in site.yaml and start the agent again");
}

/* The data as this plan would use it. */
static void check_data(const cs_site_config *config, cs_bytes config_text, const char *state_folder,
                       const open_plan *plan, cs_findings *findings)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(ANSWER_MAX_BYTES);
    CS_AUTO_PTR(cs_plan) parsed = NULL;
    Consilium__V1__WorkerReady *ready = NULL;

    if (cs_plan_read(plan->text, "plan", &parsed) != CS_OK || !cs_site_config_dataset(config, parsed->dataset.name))
        return; /* said already */
    cs_status status = describe(config, config_text, state_folder, plan->text, arena, &ready);
    if (status != CS_OK) {
        add_worker_fault(status, findings);
        return;
    }
    for (size_t i = 0; i < ready->n_datasets; i++)
        cs_doctor_description(config, parsed->name, ready->datasets[i], findings);
}

static bool is_repeated(const open_plans *plans, size_t at)
{
    for (size_t i = 0; i < at; i++) {
        if (cs_hash_equal(&plans->items[i].hash, &plans->items[at].hash))
            return true;
    }
    return false;
}

void cs_doctor_plans(const cs_site_config *config, cs_bytes config_text, const char *state_folder,
                     cs_findings *findings)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(4 * ANSWER_MAX_BYTES);
    open_plans plans = {0};
    cs_status status = plans_of_agent(state_folder, arena, &plans);

    if (status == CS_UNAVAILABLE)
        status = plans_of_database(state_folder, arena, &plans);
    if (status != CS_OK)
        cs_finding_bad(findings, CS_FOUND_PLAN_UNREADABLE, CS_FINDING_WARN, cs_error_text(),
                       "the plans that were offered to this site", "look at the agent's log");
    for (size_t i = 0; i < plans.count; i++) {
        const open_plan *plan = &plans.items[i];
        if (plan->decision == CONSILIUM__V1__DECISION__DECISION_REFUSED)
            add_refusal(plan->job, plan->reason, findings);
        else if (plan->decision == CONSILIUM__V1__DECISION__DECISION_APPROVED)
            cs_finding_good(findings, "plan.ok", "job '%s': approved: %s", plan->job, plan->reason);
        else
            cs_doctor_policy(config, plan->job, plan->text, findings);
        if (plan->decision != CONSILIUM__V1__DECISION__DECISION_REFUSED && !is_repeated(&plans, i))
            check_data(config, config_text, state_folder, plan, findings);
    }
    cs_free(plans.items);
}
