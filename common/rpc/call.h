/* One server-side call, and what it sees of its server. Shared by call.c (what happens to a call) and server.c (ports,
 * queues, start and stop); included by nobody else. */
#ifndef CS_RPC_CALL_H
#define CS_RPC_CALL_H

#include "common/rpc/core.h"

#include <pthread.h>
#include <stdatomic.h>

/* What a completion queue hands back: who it belongs to and what to do with it. One for each kind of operation, so that
 * no two of a kind are ever under way. */
struct operation {
    void (*done)(cs_rpc_call *call, bool is_ok);
    cs_rpc_call *call;
};

/* A port. Each is a gRPC server of its own, so that no doubt is possible through which door a call came. */
struct endpoint {
    cs_rpc_server *server;
    grpc_server *grpc;
    const cs_rpc_method *methods;
    bool is_local;
};

/* A completion queue and the one thread that serves it. */
/* Reading a certificate costs more than the rest of a small call, and sites make many. */
#define KNOWN_PEERS_MAX 32

struct known_peer {
    cs_buffer pem;
    cs_identity identity;
};

struct queue {
    struct known_peer known[KNOWN_PEERS_MAX]; /* the queue's thread; the oldest gives way */
    size_t next_known;
    cs_rpc_server *server;
    grpc_completion_queue *events;
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t calls_guard; /* taken before a call's guard, never after */
    cs_rpc_call *calls;
};

struct cs_rpc_server {
    struct endpoint endpoints[2];
    size_t endpoint_count;
    struct queue *queues;
    size_t queue_count;
    grpc_completion_queue *shutdown_events;
    void *context;
    cs_status (*admit)(void *context, const cs_rpc_peer *peer, const char *path);
    uint16_t port;
    char *unix_socket;
    _Atomic bool is_serving;

    pthread_mutex_t count_guard;
    pthread_cond_t count_changed;
    size_t calls; /* waiting to be accepted, and living */
    bool is_stopping;

    pthread_mutex_t identity_guard;
    cs_buffer certificate, key, authority;
    uint64_t identity_version, shown_version;
};

struct cs_rpc_call {
    /* Set when accepted, then only read. */
    cs_rpc_server *server;
    struct endpoint *endpoint;
    struct queue *queue;
    const cs_rpc_method *method;
    void *context;
    cs_rpc_peer peer;

    /* The queue's thread only. */
    struct operation accepted, closed, read, written, finished, woken;
    grpc_call_details details;
    grpc_metadata_array metadata;
    grpc_byte_buffer *received, *sending;
    int close_says_cancelled;
    cs_arena *arena, *request_arena;
    void *data;
    const ProtobufCMessage *request; /* not yet taken by the handler */
    size_t requests;
    bool is_opened;
    bool is_cancelled;
    bool is_request_paused, is_response_paused;
    bool have_requests_ended, is_end_told;
    bool is_writing;
    bool has_sent_headers;

    pthread_mutex_t guard;
    grpc_call *grpc; /* NULL once the call is over; only the queue's thread changes it */
    size_t batches;  /* in flight */
    bool is_wake_under_way;
    _Atomic bool is_ended; /* the status is decided: no handler but on_done from here on */
    _Atomic bool is_health;
    _Atomic size_t references;
    cs_rpc_call *next, **link; /* queue->calls, under its guard */
};

/* Asks the core for one more call on this queue and port; nothing once the server stops. */
void cs_rpc_call_arm(struct queue *queue, struct endpoint *endpoint);
/* Before a port is opened: room for connections, and what accept4 needs. */
void cs_rpc_accept_prepare(void);
/* Ends the queue's calls whose certificate has run out or that would not be admitted any more. */
void cs_rpc_calls_review(struct queue *queue);

#endif
