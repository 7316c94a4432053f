/* Questions of rpc threads to the engine's thread, and blobs on their way out: what the services share.
 * ask_start, ask_respond and ask_done run on the call's rpc thread; the work and its end on the engine's. */
#include "server/services/internal.h"

#include "common/base/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* What goes out may be smaller than the most that comes in: a fetching site costs the coordinator this, three times. */
#define OUTFLOW_CHUNK_BYTES (CS_WIRE_CHUNK_BYTES / 4)

/* A request is at most one message; the answer of the largest job history fits beside it. */
#define ASK_ARENA_BYTES (64 * 1024 * 1024)

void ask_release(ask *question)
{
    if (!question || atomic_fetch_sub(&question->references, 1) > 1)
        return;
    cs_arena_free(question->arena);
    cs_free(question);
}

static cs_status work_on_engine(void *argument, cs_store *store)
{
    ask *question = argument;
    return question->work(question, store);
}

static void finish_on_engine(void *argument, cs_status status, const char *error)
{
    ask *question = argument;
    question->status = status;
    snprintf(question->error, sizeof question->error, "%s", status == CS_OK ? "" : error);
    atomic_store(&question->is_done, true);
    cs_rpc_resume(question->call);
    cs_rpc_release(question->call);
    ask_release(question);
}

static cs_status copy_message(const ProtobufCMessage *message, cs_arena *arena, const ProtobufCMessage **ret)
{
    CS_AUTO(cs_buffer) packed = CS_BUFFER_EMPTY;
    cs_wire_pack(message, &packed);
    ProtobufCMessage *copy = NULL;
    CS_TRY(cs_wire_unpack(message->descriptor, cs_buffer_view(&packed), arena, &copy));
    *ret = copy;
    return CS_OK;
}

cs_status ask_start(cs_rpc_call *call, const ProtobufCMessage *request, ask_work work)
{
    if (cs_rpc_call_data(call))
        return cs_fail(CS_INVALID, "found a second request, expected one");
    ask *question = cs_alloc(sizeof *question);
    question->services = services_of(call);
    question->call = call;
    question->arena = cs_arena_new(ASK_ARENA_BYTES);
    question->work = work;
    atomic_init(&question->references, 2);
    atomic_init(&question->is_done, false);

    cs_status status = copy_message(request, question->arena, &question->request);
    if (status == CS_OK) {
        cs_rpc_hold(call);
        status = cs_engine_post(question->services->engine, work_on_engine, finish_on_engine, question);
        if (status != CS_OK)
            cs_rpc_release(call);
    }
    if (status != CS_OK) {
        ask_release(question);
        ask_release(question);
        return status;
    }
    cs_rpc_call_set_data(call, question);
    return CS_OK;
}

cs_status ask_result(ask *question)
{
    if (!question)
        return cs_fail(CS_INVALID, "found no request, expected one");
    if (!atomic_load(&question->is_done))
        return CS_LATER;
    return question->status == CS_OK ? CS_OK : cs_fail(question->status, "%s", question->error);
}

cs_status ask_respond(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    ask *question = cs_rpc_call_data(call);
    CS_TRY(ask_result(question));
    if (question->is_sent)
        return CS_DONE;
    question->is_sent = true;
    *ret = question->answer;
    return CS_OK;
}

void ask_done(cs_rpc_call *call, bool is_cancelled)
{
    (void)is_cancelled;
    ask_release(cs_rpc_call_data(call));
    cs_rpc_call_set_data(call, NULL);
}

cs_status outflow_open(cs_blobs *blobs, const cs_hash *hash, uint64_t offset, outflow **ret)
{
    CS_AUTO(cs_fd) fd = -1;
    uint64_t size = 0;
    CS_TRY(cs_blobs_open_read(blobs, hash, &fd, &size));
    if (offset > size)
        return cs_fail(CS_RANGE, "offset %llu: the blob has %llu bytes", (unsigned long long)offset,
                       (unsigned long long)size);
    outflow *flow = cs_alloc(sizeof *flow);
    flow->chunk = cs_alloc(OUTFLOW_CHUNK_BYTES);
    flow->fd = fd;
    flow->size = size;
    flow->offset = offset;
    fd = -1;
    *ret = flow;
    return CS_OK;
}

cs_status outflow_next(outflow *flow, const ProtobufCMessage **ret)
{
    if (flow->has_started && flow->offset == flow->size)
        return CS_DONE;
    size_t count = (size_t)CS_MIN(flow->size - flow->offset, (uint64_t)OUTFLOW_CHUNK_BYTES);
    CS_TRY(cs_file_pread_exact(flow->fd, flow->chunk, count, flow->offset));

    consilium__v1__blob_chunk__init(&flow->message);
    if (!flow->has_started) {
        flow->message.hello = cs_wire_hello();
        flow->message.size = flow->size;
    }
    flow->message.offset = flow->offset;
    flow->message.data = cs_wire_data(flow->chunk, count);
    flow->has_started = true;
    flow->offset += count;
    *ret = &flow->message.base;
    return CS_OK;
}

void outflow_free(outflow *flow)
{
    if (!flow)
        return;
    cs_fd_clear(&flow->fd);
    cs_free(flow->chunk);
    cs_free(flow);
}
