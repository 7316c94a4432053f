/* gRPC on the C core, as little of it as Consilium needs. Server side: event driven, one thread a queue; all callbacks
 * of a call come on one thread. Client side: blocking. Only this folder includes grpc headers. */
#ifndef CS_RPC_RPC_H
#define CS_RPC_RPC_H

#include "common/crypto/x509.h"
#include "common/wire/wire.h"

/* Once per process, in main, before any thread; and at the end, when every server and channel is gone. */
void cs_rpc_start(void);
void cs_rpc_stop(void);

/* ---- server ---- */
typedef struct cs_rpc_call cs_rpc_call;
typedef struct cs_rpc_server cs_rpc_server;

/* One method: a sink of requests and a source of responses. Responses are asked for once the requests have ended; in a
 * duplex method from the start. CS_LATER from either side pauses that side until cs_rpc_resume, and then the same is
 * asked again: the same request, the end of the requests, the next response. Any other error ends the call with it and
 * with cs_error_text(). Handlers must not wait. A request that is malformed or over CS_WIRE_MESSAGE_MAX_BYTES ends the
 * call and no handler sees it. */
typedef struct cs_rpc_method {
    const char *path; /* "/consilium.v1.Federation/Attend"; NULL ends the list */
    const ProtobufCMessageDescriptor *request, *response;
    bool is_duplex;
    bool is_request_stream; /* many requests may come. Else, unless duplex, the layer sees to it that there is one */
    cs_status (*on_open)(cs_rpc_call *call); /* identity is known; may be NULL */
    cs_status (*on_request)(cs_rpc_call *call,
                            const ProtobufCMessage *request); /* valid during the call of on_request */
    cs_status (*on_requests_end)(cs_rpc_call *call);          /* may be NULL */
    cs_status (*next_response)(cs_rpc_call *call,
                               const ProtobufCMessage **ret); /* CS_DONE: no more. Packed before it returns */
    /* Always last, always once for each call whose on_open was reached. `is_cancelled`: the client or the network ended
     * it before its status was sent. May be NULL. */
    void (*on_done)(cs_rpc_call *call, bool is_cancelled);
} cs_rpc_method;

typedef struct cs_rpc_peer {
    bool is_local;        /* came over the Unix socket: the operator */
    cs_identity identity; /* from the verified certificate; valid when !is_local */
} cs_rpc_peer;

const cs_rpc_peer *cs_rpc_call_peer(const cs_rpc_call *call);
void *cs_rpc_call_context(const cs_rpc_call *call); /* the server's `context` */
void cs_rpc_call_set_data(cs_rpc_call *call, void *data);
void *cs_rpc_call_data(const cs_rpc_call *call);
cs_arena *cs_rpc_call_arena(cs_rpc_call *call); /* dies with the call; 4 MiB */
/* Keep the call object for another thread, which then lets it go. The call itself may end meanwhile; resume is harmless
 * then. */
void cs_rpc_hold(cs_rpc_call *call);
void cs_rpc_release(cs_rpc_call *call);
void cs_rpc_resume(cs_rpc_call *call); /* any thread; several wakes become one */
/* Ends the call from any thread with this status, at once: responses still under way may be lost. No handler but
 * on_done is called afterwards (one may be running). */
void cs_rpc_end(cs_rpc_call *call, cs_status status, const char *text);

/* Certificates as the server shows them; read again for each new connection once the version moves. */
typedef struct cs_rpc_identity {
    cs_bytes certificate_pem, key_pem, authority_pem;
} cs_rpc_identity;

typedef struct cs_rpc_server_config {
    const char *listen;      /* "0.0.0.0:8443", mutual TLS, client certificate required in the handshake; NULL: none */
    const char *unix_socket; /* path, 0600, plain; NULL: none */
    const cs_rpc_method *methods;       /* on the TLS port */
    const cs_rpc_method *local_methods; /* on the Unix socket */
    cs_rpc_identity identity;           /* copied */
    size_t threads;                     /* queues; 0: two */
    void *context;
    /* Called on a queue's thread for each new call before on_open, and again every second while it lives: whoever loses
     * the right ends there, however that came about. CS_UNAUTHENTICATED or CS_DENIED ends it. NULL: all may. Must not
     * call back into this layer. */
    cs_status (*admit)(void *context, const cs_rpc_peer *peer, const char *path);
} cs_rpc_server_config;

/* CS_EXISTS when the port is taken, or when another process answers on the Unix socket; a socket file that nobody
 * answers on is replaced. grpc.health.v1.Health is served on every port by this layer, SERVING from the start. */
CS_MUST_CHECK cs_status cs_rpc_server_start(const cs_rpc_server_config *config, cs_rpc_server **ret);
uint16_t cs_rpc_server_port(const cs_rpc_server *server); /* of the TLS port; 0: none */
/* What the health service says; those who watch it are told. Any thread. */
void cs_rpc_server_set_serving(cs_rpc_server *server, bool is_serving);
/* New connections see the new certificate; old ones keep what they had. CS_INVALID when a part is missing or the
 * certificate cannot be read: then nothing changes. Any thread. */
CS_MUST_CHECK cs_status cs_rpc_server_reload(cs_rpc_server *server, cs_rpc_identity identity);
/* Ends every call for which `matches` says yes, with this status; a call that `admit` is asked about afterwards is not
 * among them, so change what `admit` looks at first. `matches` must not call back into this layer. When a call's
 * certificate has run out the layer ends it itself (CS_UNAUTHENTICATED), within a second. Any thread. */
void cs_rpc_server_end_calls(cs_rpc_server *server, bool (*matches)(void *self, const cs_rpc_peer *peer), void *self,
                             cs_status status, const char *text);
/* Refuses new calls, waits grace_ms, cancels the rest, frees. Call objects that are held elsewhere may be let go later.
 */
void cs_rpc_server_stop(cs_rpc_server *server, int64_t grace_ms);

/* ---- client ---- */
typedef struct cs_rpc_channel cs_rpc_channel;
typedef struct cs_rpc_channel_config {
    const char *target;       /* "host:8443", or "unix:/path" (plain) */
    cs_rpc_identity identity; /* empty for unix */
    const char *server_name;  /* name the certificate must bear; NULL: the host of target */
    const char *proxy;        /* "host:port"; NULL: none. The environment's proxies are never used */
    const char *proxy_login;  /* "user:password"; NULL: none */
    bool is_bulk;             /* megabytes on slow links: the other side may be silent for ten minutes, not two */
} cs_rpc_channel_config;
/* Connects when first used. Each channel has a connection of its own. Any thread. CS_INVALID: the config is unusable.
 */
CS_MUST_CHECK cs_status cs_rpc_channel_open(const cs_rpc_channel_config *config, cs_rpc_channel **ret);
void cs_rpc_channel_free(cs_rpc_channel *channel);
CS_DEFINE_AUTO_PTR(cs_rpc_channel)

/* One request, one answer, in the arena. timeout_ms ≤ 0: none. The server's sentence becomes cs_error_text();
 * CS_UNAVAILABLE when it is not reached, with what to check. */
CS_MUST_CHECK cs_status cs_rpc_unary(cs_rpc_channel *channel, const char *path, const ProtobufCMessage *request,
                                     const ProtobufCMessageDescriptor *answer_type, int64_t timeout_ms, cs_arena *arena,
                                     ProtobufCMessage **ret);

/* A stream. One thread may read while another writes. */
typedef struct cs_rpc_stream cs_rpc_stream;
CS_MUST_CHECK cs_status cs_rpc_stream_open(cs_rpc_channel *channel, const char *path,
                                           const ProtobufCMessageDescriptor *answer_type, int64_t timeout_ms,
                                           cs_rpc_stream **ret);
/* Waits until the transport took it: a slow reader at the other end holds it back. CS_DONE when the server has ended
 * the call: read on for its status. */
CS_MUST_CHECK cs_status cs_rpc_stream_write(cs_rpc_stream *stream, const ProtobufCMessage *message);
CS_MUST_CHECK cs_status cs_rpc_stream_writes_done(cs_rpc_stream *stream);
/* CS_DONE at a good end; the server's status otherwise. CS_DEADLINE when until_ms (monotonic; < 0 for ever) passes
 * first: the read stays under way and the next call goes on with it. */
CS_MUST_CHECK cs_status cs_rpc_stream_read(cs_rpc_stream *stream, int64_t until_ms, cs_arena *arena,
                                           ProtobufCMessage **ret);
/* One request, one answer, as cs_rpc_unary, on a stream of its own that another thread may cancel. */
CS_MUST_CHECK cs_status cs_rpc_stream_ask(cs_rpc_stream *stream, const ProtobufCMessage *request, cs_arena *arena,
                                          ProtobufCMessage **ret);
/* Ends it from any thread: a read or write that waits comes back. */
void cs_rpc_stream_cancel(cs_rpc_stream *stream);
/* Cancels what is under way. No other thread may be in a read or write. */
void cs_rpc_stream_free(cs_rpc_stream *stream);
CS_DEFINE_AUTO_PTR(cs_rpc_stream)

#endif
