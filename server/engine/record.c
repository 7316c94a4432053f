/* Records for the transcript. They are committed with the transition that they are about and appended afterwards, as
 * often as it takes; their keys make a repetition harmless. Engine's thread. */
#include "server/engine/internal.h"

#include "common/base/failpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A record has at most CS_RECORD_MAX_BYTES; longer lists are recorded as their number and a hash over them. */
#define LIST_MAX_BYTES (10 * 1024)

#define KEY_BYTES 256

static cs_status put(cs_engine *engine, const char *kind, const char *key, const cs_buffer *fields)
{
    CS_TRY(engine_begin(engine));
    engine->outbox_written = true;
    return cs_outbox_put(engine->store, kind, key, cs_buffer_view(fields));
}

static void add_hash(cs_json *json, const char *key, const cs_hash *hash)
{
    char text[CS_HASH_TEXT_BYTES];
    cs_hash_text(hash, text);
    cs_json_text(json, key, text);
}

/* `lines`: one for each item, ended by line feeds; the list itself where it is short enough. */
static void add_list(cs_json *json, const char *key, const cs_buffer *lines, size_t count)
{
    if (lines->size > LIST_MAX_BYTES) {
        const cs_hash hash = cs_sha256(cs_buffer_view(lines));
        CS_AUTO(cs_string) count_key = cs_format("%s_count", key);
        CS_AUTO(cs_string) hash_key = cs_format("%s_lines_sha256", key);
        cs_json_uint(json, count_key, count);
        add_hash(json, hash_key, &hash);
        return;
    }
    cs_json_list(json, key);
    const char *text = cs_buffer_text(lines);
    while (*text) {
        const size_t length = strcspn(text, "\n");
        CS_AUTO(cs_string) line = cs_strndup(text, length);
        cs_json_text(json, NULL, line);
        text += length + 1;
    }
    cs_json_end(json, ']');
}

cs_status record_submitted(cs_engine *engine, const struct job *job)
{
    CS_AUTO(cs_buffer) fields = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) invited = CS_BUFFER_EMPTY;
    for (size_t i = 0; i < job->members_count; i++)
        cs_buffer_printf(&invited, "%s\n", job->members[i].row.site);
    cs_json json = cs_json_to(&fields);
    cs_json_object(&json, NULL);
    cs_json_text(&json, "job", job->row.name);
    add_hash(&json, "plan", &job->row.plan_hash);
    add_list(&json, "invited", &invited, job->members_count);
    cs_json_end(&json, '}');
    char key[KEY_BYTES];
    snprintf(key, sizeof(key), "%s/submitted", job->row.name);
    return put(engine, "plan_submitted", key, &fields);
}

static cs_status decision(cs_engine *engine, const struct job *job, const char *site, const char *word,
                          const char *reason, cs_bytes signature, const char *key)
{
    CS_AUTO(cs_buffer) fields = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&fields);
    cs_json_object(&json, NULL);
    cs_json_text(&json, "job", job->row.name);
    add_hash(&json, "plan", &job->row.plan_hash);
    cs_json_text(&json, "site", site);
    cs_json_text(&json, "decision", word);
    cs_json_text(&json, "reason", reason);
    if (signature.size > 0)
        cs_json_hex(&json, "signature", signature.data, signature.size);
    cs_json_end(&json, '}');
    return put(engine, "plan_decision", key, &fields);
}

cs_status record_decision(cs_engine *engine, const struct job *job, const cs_member_row *member, cs_bytes signature)
{
    char key[KEY_BYTES];
    snprintf(key, sizeof(key), "%s/decision/%s/%" PRIu32, job->row.name, member->site, member->decisions);
    const bool is_approval = member->decision == CONSILIUM__V1__DECISION__DECISION_APPROVED;
    return decision(engine, job, member->site, is_approval ? "approved" : "refused", member->reason, signature, key);
}

cs_status record_refused_decision(cs_engine *engine, const struct job *job, const char *site, const char *reason)
{
    /* Once for each site and job: a site that repeats it must not fill the transcript. */
    char key[KEY_BYTES];
    snprintf(key, sizeof(key), "%s/decision/%s/not-valid", job->row.name, site);
    return decision(engine, job, site, "not valid", reason, cs_bytes_of(NULL, 0), key);
}

cs_status record_round_opened(cs_engine *engine, const struct job *job)
{
    CS_AUTO(cs_buffer) fields = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) participants = CS_BUFFER_EMPTY;
    size_t count = 0;
    for (size_t i = 0; i < job->members_count; i++) {
        if (!job->members[i].is_participant)
            continue;
        cs_buffer_printf(&participants, "%s\n", job->members[i].row.site);
        count++;
    }
    cs_json json = cs_json_to(&fields);
    cs_json_object(&json, NULL);
    cs_json_text(&json, "job", job->row.name);
    cs_json_uint(&json, "round", job->row.round);
    add_list(&json, "participants", &participants, count);
    cs_json_end(&json, '}');
    char key[KEY_BYTES];
    snprintf(key, sizeof(key), "%s/%" PRIu32 "/opened", job->row.name, job->row.round);
    return put(engine, "round_opened", key, &fields);
}

cs_status record_result(cs_engine *engine, const char *kind, const char *job, const Consilium__V1__TaskResult *result,
                        const char *site, const cs_hash *hash, const char *reason)
{
    char phase[CS_WORD_BYTES];
    door_clean_text(phase, sizeof(phase), result->key->phase);
    CS_AUTO(cs_buffer) fields = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&fields);
    cs_json_object(&json, NULL);
    cs_json_text(&json, "job", job);
    cs_json_uint(&json, "round", result->key->round);
    cs_json_text(&json, "phase", phase);
    cs_json_text(&json, "site", site);
    add_hash(&json, "result", hash);
    cs_json_list(&json, "outputs");
    for (size_t i = 0; i < CS_MIN(result->n_outputs, (size_t)CS_OUTPUTS_MAX); i++) {
        char name[CS_WORD_BYTES];
        door_clean_text(name, sizeof(name), result->outputs[i]->name);
        cs_json_object(&json, NULL);
        cs_json_text(&json, "name", name);
        cs_json_hex(&json, "sha256", result->outputs[i]->sha256.data,
                    CS_MIN(result->outputs[i]->sha256.len, (size_t)CS_HASH_BYTES));
        cs_json_end(&json, '}');
    }
    cs_json_end(&json, ']');
    cs_json_uint(&json, "samples", result->samples);
    if (reason && reason[0])
        cs_json_text(&json, "reason", reason);
    cs_json_end(&json, '}');
    /* One record of each kind for a task: repetitions and floods of conflicts change nothing. */
    char key[KEY_BYTES];
    snprintf(key, sizeof(key), "%s/%" PRIu32 "/%s/%s/%s", job, result->key->round, phase, site, kind);
    return put(engine, kind, key, &fields);
}

cs_status record_folded(cs_engine *engine, const struct job *job, const cs_phase *phase, const cs_hash *hash)
{
    CS_AUTO(cs_buffer) fields = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) folded = CS_BUFFER_EMPTY;
    size_t count = 0;
    for (size_t i = 0; i < job->tasks_count; i++) {
        const struct task *task = &job->tasks[i];
        if (task->row.state != CS_TASK_FOLDED)
            continue;
        char text[CS_HASH_TEXT_BYTES];
        cs_hash_text(&task->row.result_hash, text);
        cs_buffer_printf(&folded, "%s %s\n", task->row.site, text);
        count++;
    }
    cs_json json = cs_json_to(&fields);
    cs_json_object(&json, NULL);
    cs_json_text(&json, "job", job->row.name);
    cs_json_uint(&json, "round", job->row.round);
    cs_json_text(&json, "phase", phase->name);
    cs_json_text(&json, "made", phase->makes ? phase->makes : "evaluation");
    if (phase->makes)
        add_hash(&json, "sha256", hash);
    add_list(&json, "folded", &folded, count);
    cs_json_end(&json, '}');
    char key[KEY_BYTES];
    snprintf(key, sizeof(key), "%s/%" PRIu32 "/%s/folded", job->row.name, job->row.round, phase->name);
    return put(engine, "model_folded", key, &fields);
}

static const char *outcome_word(int outcome)
{
    switch (outcome) {
    case CONSILIUM__V1__JOB_STATE__JOB_COMPLETE:
        return "complete";
    case CONSILIUM__V1__JOB_STATE__JOB_PARTIAL:
        return "partial";
    case CONSILIUM__V1__JOB_STATE__JOB_CANCELLED:
        return "cancelled";
    default:
        return "failed";
    }
}

cs_status record_roster_approval(cs_engine *engine, const cs_roster_approval *approval)
{
    CS_AUTO(cs_buffer) fields = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&fields);
    cs_json_object(&json, NULL);
    cs_json_text(&json, "site", approval->site);
    add_hash(&json, "roster", &approval->roster);
    cs_json_hex(&json, "signature", approval->signature, sizeof(approval->signature));
    cs_json_end(&json, '}');
    char hex[CS_HASH_HEX_BYTES];
    cs_hash_hex(&approval->roster, hex);
    char key[KEY_BYTES];
    snprintf(key, sizeof(key), "roster/%s/%s", approval->site, hex);
    return put(engine, "roster_approved", key, &fields);
}

cs_status record_ended(cs_engine *engine, const struct job *job)
{
    CS_AUTO(cs_buffer) fields = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&fields);
    cs_json_object(&json, NULL);
    cs_json_text(&json, "job", job->row.name);
    cs_json_text(&json, "outcome", outcome_word(job->row.outcome));
    cs_json_text(&json, "reason", job->row.reason);
    cs_json_uint(&json, "round", job->row.round);
    cs_json_end(&json, '}');
    char key[KEY_BYTES];
    snprintf(key, sizeof(key), "%s/ended", job->row.name);
    return put(engine, "job_ended", key, &fields);
}

cs_status record_flush(cs_engine *engine)
{
    cs_outbox_row *rows = NULL;
    size_t count = 0;
    CS_TRY(cs_outbox_after(engine->store, engine->outbox_appended, &rows, &count));
    cs_record *records = cs_alloc_array(count + 1, sizeof *records);
    for (size_t i = 0; i < count; i++)
        records[i] = (cs_record){.kind = cs_buffer_text(&rows[i].kind),
                                 .key = cs_buffer_text(&rows[i].key),
                                 .fields = cs_buffer_view(&rows[i].fields)};
    cs_status status = cs_failpoint("engine.record");
    if (status == CS_OK)
        status = cs_transcript_append_all(engine->config.transcript, records, count);
    if (status == CS_OK && count > 0)
        engine->outbox_appended = rows[count - 1].id;
    cs_free(records);
    cs_outbox_rows_free(rows, count);
    return status;
}
