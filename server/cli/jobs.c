/* job submit|list|show|watch|cancel|resume and model list|export. */
#include "server/cli/cli.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/config/plan.h"
#include "common/crypto/digest.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int watch(cli_session *session, const char *name)
{
    Consilium__V1__JobRef request = CONSILIUM__V1__JOB_REF__INIT;
    request.job = (char *)(uintptr_t)name;
    CS_AUTO_PTR(cs_rpc_stream) stream = NULL;
    cs_status status = cs_rpc_stream_open(session->channel, "/consilium.v1.Admin/WatchJob",
                                          &consilium__v1__job_status__descriptor, 0, &stream);
    if (status == CS_OK)
        status = cs_rpc_stream_write(stream, &request.base);
    if (status == CS_OK)
        status = cs_rpc_stream_writes_done(stream);
    if (status != CS_OK && status != CS_DONE)
        return cli_fail(session, status);

    bool is_json = cli_is_json(session->arguments);
    cli_view *view = cli_view_new(isatty(STDOUT_FILENO));
    Consilium__V1__JobState state = CONSILIUM__V1__JOB_STATE__JOB_STATE_UNSPECIFIED;
    for (;;) {
        ProtobufCMessage *message = NULL;
        cs_arena_reset(session->arena);
        status = cs_rpc_stream_read(stream, -1, session->arena, &message);
        if (status != CS_OK)
            break;
        const Consilium__V1__JobStatus *job = (const Consilium__V1__JobStatus *)message;
        state = job->state;
        if (is_json)
            cli_print_job_json(job);
        else
            cli_view_show(view, job);
        fflush(stdout);
    }
    cli_view_free(view);
    if (status != CS_DONE)
        return cli_fail(session, status);
    return cli_job_exit(state);
}

int cli_job_submit(const cs_arguments *arguments)
{
    const char *path = cs_argument(arguments, "PLAN");
    CS_AUTO(cs_buffer) plan = CS_BUFFER_EMPTY;
    cs_status status = cs_file_read_all(path, CS_PLAN_MAX_BYTES, &plan);
    if (status != CS_OK)
        return cs_command_fail(arguments, status);
    cli_session session;
    int code = cli_open(arguments, &session);
    Consilium__V1__SubmitJobRequest request = CONSILIUM__V1__SUBMIT_JOB_REQUEST__INIT;
    request.plan = cs_wire_data(plan.data, plan.size);
    request.source = (char *)(uintptr_t)path;
    ProtobufCMessage *answer = NULL;
    if (code == CS_EXIT_OK)
        code = cli_ask(&session, "SubmitJob", &request.base, &consilium__v1__job_status__descriptor, &answer);
    if (code == CS_EXIT_OK) {
        const Consilium__V1__JobStatus *job = (const Consilium__V1__JobStatus *)answer;
        CS_AUTO(cs_string) name = cs_strdup(job->job);
        bool is_watching = cs_argument_flag(arguments, "--watch");
        cs_hash hash = {0};
        char hash_text[CS_HASH_TEXT_BYTES] = "";
        if (cs_hash_from(cs_wire_bytes(job->plan_sha256), "plan hash", &hash) == CS_OK)
            cs_hash_text(&hash, hash_text);
        if (cli_is_json(arguments) && !is_watching)
            cli_print_job_json(job);
        else if (!cli_is_json(arguments))
            printf("job %s, plan %s, offered to %u site%s\n", job->job, hash_text, job->invited,
                   job->invited == 1 ? "" : "s");
        if (is_watching)
            code = watch(&session, name);
    }
    cli_close(&session);
    return code;
}

int cli_job_watch(const cs_arguments *arguments)
{
    cli_session session;
    int code = cli_open(arguments, &session);
    if (code == CS_EXIT_OK)
        code = watch(&session, cs_argument(arguments, "JOB"));
    cli_close(&session);
    return code;
}

/* A long history comes in pages; here it is one again. */
static int fetch_job(cli_session *session, const char *name, Consilium__V1__JobStatus **ret)
{
    Consilium__V1__JobRef request = CONSILIUM__V1__JOB_REF__INIT;
    request.job = (char *)(uintptr_t)name;
    ProtobufCMessage *answer = NULL;
    int code = cli_ask(session, "ShowJob", &request.base, &consilium__v1__job_status__descriptor, &answer);
    if (code != CS_EXIT_OK)
        return code;
    Consilium__V1__JobStatus *whole = (Consilium__V1__JobStatus *)answer;
    const Consilium__V1__JobStatus *page = whole;
    while (page->has_more && page->n_history > 0) {
        request.first_round = page->history[page->n_history - 1]->round + 1;
        code = cli_ask(session, "ShowJob", &request.base, &consilium__v1__job_status__descriptor, &answer);
        if (code != CS_EXIT_OK)
            return code;
        page = (const Consilium__V1__JobStatus *)answer;
        size_t size = sizeof *whole->history;
        Consilium__V1__RoundSummary **history =
            cs_arena_alloc(session->arena, (whole->n_history + page->n_history) * size);
        if (!history)
            return cli_fail(session,
                            cs_fail(CS_EXHAUSTED, "job '%s': its history is too long to be shown whole", name));
        memcpy(history, whole->history, whole->n_history * size);
        memcpy(history + whole->n_history, page->history, page->n_history * size);
        whole->history = history;
        whole->n_history += page->n_history;
    }
    *ret = whole;
    return CS_EXIT_OK;
}

static int show_job(cli_session *session)
{
    Consilium__V1__JobStatus *job = NULL;
    int code = fetch_job(session, cs_argument(session->arguments, "JOB"), &job);
    if (code == CS_EXIT_OK && cli_is_json(session->arguments))
        cli_print_job_json(job);
    else if (code == CS_EXIT_OK)
        cli_print_job(job);
    return code;
}

int cli_job_show(const cs_arguments *arguments)
{
    cli_session session;
    int code = cli_open(arguments, &session);
    if (code == CS_EXIT_OK)
        code = show_job(&session);
    cli_close(&session);
    return code;
}

/* Asks for a change, then shows what the job is now. */
static int change_job(const cs_arguments *arguments, const char *method, const ProtobufCMessage *request)
{
    cli_session session;
    int code = cli_open(arguments, &session);
    ProtobufCMessage *answer = NULL;
    if (code == CS_EXIT_OK)
        code = cli_ask(&session, method, request, &consilium__v1__job_status__descriptor, &answer);
    if (code == CS_EXIT_OK)
        code = show_job(&session);
    cli_close(&session);
    return code;
}

int cli_job_resume(const cs_arguments *arguments)
{
    Consilium__V1__JobRef request = CONSILIUM__V1__JOB_REF__INIT;
    request.job = (char *)(uintptr_t)cs_argument(arguments, "JOB");
    return change_job(arguments, "ResumeJob", &request.base);
}

int cli_job_cancel(const cs_arguments *arguments)
{
    Consilium__V1__CancelJobRequest request = CONSILIUM__V1__CANCEL_JOB_REQUEST__INIT;
    request.job = (char *)(uintptr_t)cs_argument(arguments, "JOB");
    const char *reason = cs_argument(arguments, "--reason");
    if (reason)
        request.reason = (char *)(uintptr_t)reason;
    return change_job(arguments, "CancelJob", &request.base);
}

int cli_job_list(const cs_arguments *arguments)
{
    cli_session session;
    int code = cli_open(arguments, &session);
    Consilium__V1__ListJobsRequest request = CONSILIUM__V1__LIST_JOBS_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    if (code == CS_EXIT_OK)
        code = cli_ask(&session, "ListJobs", &request.base, &consilium__v1__job_list__descriptor, &answer);
    const Consilium__V1__JobList *list = (const Consilium__V1__JobList *)answer;
    if (code == CS_EXIT_OK && cli_is_json(arguments)) {
        CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
        cs_json json = cs_json_to(&out);
        cs_json_list(&json, NULL);
        for (size_t i = 0; i < list->n_jobs; i++)
            cli_append_job_json(&json, NULL, list->jobs[i]);
        cs_json_end(&json, ']');
        printf("%s\n", cs_buffer_text(&out));
    } else if (code == CS_EXIT_OK) {
        printf("%-28s %-10s %11s %9s  %s\n", "JOB", "STATE", "ROUND", "SITES", "REASON");
        for (size_t i = 0; i < list->n_jobs; i++) {
            const Consilium__V1__JobStatus *job = list->jobs[i];
            char sites[32];
            snprintf(sites, sizeof sites, "%u of %u", job->folded_everywhere, job->invited);
            printf("%-28s %-10s %5u/%-5u %9s  %s\n", job->job, cli_job_state(job->state), job->round, job->rounds,
                   sites, job->reason);
        }
    }
    cli_close(&session);
    return code;
}

static void append_model_json(cs_json *json, const Consilium__V1__Model *model)
{
    cs_json_object(json, NULL);
    cs_json_uint(json, "round", model->round);
    cs_json_hex(json, "sha256", model->blob->sha256.data, model->blob->sha256.len);
    cs_json_uint(json, "size", model->blob->size);
    cs_json_bool(json, "best", model->is_best);
    cs_json_bool(json, "last", model->is_last);
    cs_json_end(json, '}');
}

static void print_model_row(const Consilium__V1__Model *model)
{
    cs_hash hash = {0};
    char text[CS_HASH_TEXT_BYTES] = "";
    if (model->blob && cs_hash_from(cs_wire_bytes(model->blob->sha256), "model hash", &hash) == CS_OK)
        cs_hash_text(&hash, text);
    printf("%5u %12" PRIu64 "  %s%s%s\n", model->round, model->blob ? model->blob->size : 0, text,
           model->is_best ? "  best" : "", model->is_last ? "  last" : "");
}

int cli_model_list(const cs_arguments *arguments)
{
    cli_session session;
    int code = cli_open(arguments, &session);
    Consilium__V1__JobRef request = CONSILIUM__V1__JOB_REF__INIT;
    request.job = (char *)(uintptr_t)cs_argument(arguments, "JOB");
    ProtobufCMessage *answer = NULL;
    if (code == CS_EXIT_OK)
        code = cli_ask(&session, "ListModels", &request.base, &consilium__v1__model_list__descriptor, &answer);
    const Consilium__V1__ModelList *list = (const Consilium__V1__ModelList *)answer;
    if (code == CS_EXIT_OK && cli_is_json(arguments)) {
        CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
        cs_json json = cs_json_to(&out);
        cs_json_list(&json, NULL);
        for (size_t i = 0; i < list->n_models; i++)
            append_model_json(&json, list->models[i]);
        cs_json_end(&json, ']');
        printf("%s\n", cs_buffer_text(&out));
    } else if (code == CS_EXIT_OK) {
        printf("%5s %12s  %s\n", "ROUND", "BYTES", "MODEL");
        for (size_t i = 0; i < list->n_models; i++)
            print_model_row(list->models[i]);
    }
    cli_close(&session);
    return code;
}

/* The file takes its name once it is whole. */
static cs_status receive_model(cli_session *session, const char *job, const char *round, const char *path,
                               uint64_t *ret_size, cs_hash *ret_hash)
{
    Consilium__V1__ExportModelRequest request = CONSILIUM__V1__EXPORT_MODEL_REQUEST__INIT;
    request.job = (char *)(uintptr_t)job;
    request.round = (char *)(uintptr_t)round;
    CS_AUTO_PTR(cs_rpc_stream) stream = NULL;
    CS_TRY(cs_rpc_stream_open(session->channel, "/consilium.v1.Admin/ExportModel",
                              &consilium__v1__blob_chunk__descriptor, 0, &stream));
    CS_TRY(cs_rpc_stream_write(stream, &request.base));
    CS_TRY(cs_rpc_stream_writes_done(stream));

    CS_AUTO(cs_string) partial = cs_format("%s.partial", path);
    CS_AUTO(cs_fd) fd = -1;
    CS_AUTO_PTR(cs_digest) digest = cs_digest_new();
    uint64_t expected = 0, received = 0;
    for (;;) {
        ProtobufCMessage *message = NULL;
        cs_arena_reset(session->arena);
        cs_status status = cs_rpc_stream_read(stream, -1, session->arena, &message);
        if (status == CS_DONE)
            break;
        CS_TRY(status);
        const Consilium__V1__BlobChunk *chunk = (const Consilium__V1__BlobChunk *)message;
        if (fd < 0) {
            CS_TRY(cs_file_open(partial, O_WRONLY | O_CREAT | O_TRUNC, 0644, &fd));
            expected = chunk->size;
        }
        CS_TRY(cs_file_write(fd, chunk->data.data, chunk->data.len));
        cs_digest_add(digest, chunk->data.data, chunk->data.len);
        received += chunk->data.len;
    }
    if (received != expected || fd < 0)
        return cs_fail(CS_DATA_LOSS, "received %" PRIu64 " bytes of the model, expected %" PRIu64, received, expected);
    CS_TRY(cs_file_sync(fd));
    CS_TRY(cs_file_close(&fd));
    CS_TRY(cs_file_rename(partial, path));
    *ret_size = received;
    *ret_hash = cs_digest_end(digest);
    return CS_OK;
}

int cli_model_export(const cs_arguments *arguments)
{
    const char *path = cs_argument(arguments, "--output");
    const char *round = cs_argument(arguments, "--round");
    cli_session session;
    int code = cli_open(arguments, &session);
    uint64_t size = 0;
    cs_hash hash = {0};
    if (code == CS_EXIT_OK) {
        cs_status status =
            receive_model(&session, cs_argument(arguments, "JOB"), round ? round : "best", path, &size, &hash);
        if (status != CS_OK)
            code = cli_fail(&session, status);
    }
    if (code == CS_EXIT_OK) {
        char text[CS_HASH_TEXT_BYTES];
        cs_hash_text(&hash, text);
        if (cli_is_json(arguments)) {
            CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
            cs_json json = cs_json_to(&out);
            cs_json_object(&json, NULL);
            cs_json_text(&json, "file", path);
            cs_json_uint(&json, "size", size);
            cs_json_hex(&json, "sha256", hash.bytes, sizeof hash.bytes);
            cs_json_end(&json, '}');
            printf("%s\n", cs_buffer_text(&out));
        } else
            printf("%s: %" PRIu64 " bytes, %s\n", path, size, text);
    }
    cli_close(&session);
    return code;
}
