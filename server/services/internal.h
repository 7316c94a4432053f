/* What the handlers of this folder share. Private to server/services. */
#ifndef CS_SERVICES_INTERNAL_H
#define CS_SERVICES_INTERNAL_H

#include "server/services/services.h"

#include <pthread.h>
#include <stdatomic.h>

struct session;
typedef struct ask ask;
typedef struct probe_pace probe_pace;

/* Bytes of blobs from and to one site since the start; made at its first transfer, lives as long as the services. */
struct traffic {
    struct traffic *next;
    char site[CS_NAME_MAX + 1];
    atomic_uint_least64_t received, sent; /* rpc threads add, metrics read */
    atomic_uint uploads, downloads;       /* under way */
};

struct cs_services {
    cs_blobs *blobs;
    cs_pki *pki;
    cs_engine *engine;
    _Atomic(cs_rpc_server *) server;
    char *coordinator, *enrolment;
    pthread_mutex_t sessions_mutex; /* guards the list and every session's queue */
    struct session *sessions;
    uint64_t last_session;
    pthread_mutex_t probes_mutex; /* guards probes: one for each site that probed */
    probe_pace *probes;
    size_t probes_count;
    pthread_mutex_t leaving_mutex; /* guards leaving */
    ask *leaving;                  /* watchers that have gone, for whose end the engine's mailbox had no room */
    pthread_mutex_t traffic_mutex; /* guards the list, not the counts */
    struct traffic *traffic;
};

static inline cs_services *services_of(const cs_rpc_call *call)
{
    return cs_rpc_call_context(call);
}

/* A question for the engine's thread whose answer ends a call. Lives until both the call and the engine have let it go.
 */
typedef cs_status (*ask_work)(ask *question, cs_store *store);
struct ask {
    cs_services *services;
    cs_rpc_call *call;
    cs_arena *arena;                 /* request and answer */
    const ProtobufCMessage *request; /* a copy */
    const ProtobufCMessage *answer;  /* set by the work */
    void *result;                    /* or this, for methods that stream */
    ask_work work;
    atomic_int references;
    atomic_bool is_done;
    bool is_sent;
    cs_status status;
    ask *next_leaving; /* leaving_mutex */
    char error[CS_ERROR_TEXT_BYTES];
};

/* on_request of every method that asks the engine: copies the request and posts the work. */
cs_status ask_start(cs_rpc_call *call, const ProtobufCMessage *request, ask_work work);
/* CS_LATER until the engine has answered; then its status, with its sentence. */
cs_status ask_result(ask *question);
/* next_response and on_done of a unary method that asks. */
cs_status ask_respond(cs_rpc_call *call, const ProtobufCMessage **ret);
void ask_done(cs_rpc_call *call, bool is_cancelled);
void ask_release(ask *question);

/* Tries again what the mailbox had no room for. */
void watchers_tick(cs_services *services);
/* The same once the engine has stopped: lets the rest go. */
void watchers_free(cs_services *services);

/* How often a site probed since a moment. */
struct probe_pace {
    char site[CS_NAME_MAX + 1];
    int64_t since_ms; /* monotonic */
    unsigned count;
};
/* Probe */
cs_status probe_request(cs_rpc_call *call, const ProtobufCMessage *request);
cs_status probe_requests_end(cs_rpc_call *call);
cs_status probe_response(cs_rpc_call *call, const ProtobufCMessage **ret);
void probe_done(cs_rpc_call *call, bool is_cancelled);

/* A blob on its way out, in chunks. */
typedef struct outflow {
    cs_fd fd;
    uint64_t size, offset;
    bool has_started;
    struct traffic *traffic; /* NULL for the operator's own */
    uint8_t *chunk;          /* CS_WIRE_CHUNK_BYTES */
    Consilium__V1__BlobChunk message;
} outflow;

cs_status outflow_open(cs_blobs *blobs, const cs_hash *hash, uint64_t offset, outflow **ret);
/* CS_DONE after the last chunk; an empty rest is one message without data. */
cs_status outflow_next(outflow *flow, const ProtobufCMessage **ret);
void outflow_free(outflow *flow);

#endif
