/* One attendance: two connections to the coordinator and the Attend stream on the first of them. The agent thread
 * starts sessions and decides which one counts; each session has a thread that reads and one that writes. */
#ifndef CS_AGENT_SESSION_H
#define CS_AGENT_SESSION_H

#include "common/rpc/rpc.h"

/* From the first packet to the coordinator's Hello: name, TCP, proxy and TLS of a bad line. */
#define CS_HELLO_TIMEOUT_MS 30000
/* One answer of the coordinator, once connected: its disk may be busy. */
#define CS_ANSWER_TIMEOUT_MS 60000

/* The two connections. Transfers keep a link as long as they run, also when a newer session has taken over. */
typedef struct cs_link {
    cs_rpc_channel *control; /* Attend, Renew: never behind megabytes */
    cs_rpc_channel *bulk;
    _Atomic int holders;
} cs_link;
CS_MUST_CHECK cs_status cs_link_open(const cs_rpc_channel_config *config, cs_link **ret);
cs_link *cs_link_hold(cs_link *link);
void cs_link_free(cs_link *link); /* lets one hold go */
CS_DEFINE_AUTO_PTR(cs_link)

typedef struct cs_session cs_session;

/* Called on the session's reading thread. `down` is the last call, made once; afterwards cs_session_free may join. */
typedef struct cs_session_events {
    void *self;
    void (*up)(void *self, cs_session *session);
    /* The callee owns the arena, in which the message lies. */
    void (*message)(void *self, cs_session *session, cs_arena *arena, const Consilium__V1__CoordinatorMessage *message);
    void (*down)(void *self, cs_session *session, cs_status status, const char *reason);
} cs_session_events;

/* Opens the connections (does not wait for them) and starts the threads; whatever happens is told by the events. */
CS_MUST_CHECK cs_status cs_session_start(const cs_rpc_channel_config *config, const cs_session_events *events,
                                         cs_session **ret);
cs_link *cs_session_link(const cs_session *session);
/* The features that both sides have; once it is up. */
uint64_t cs_session_features(const cs_session *session);
/* Packs and queues; never waits. CS_EXHAUSTED when the line takes no more, CS_CANCELLED when the session has ended. */
CS_MUST_CHECK cs_status cs_session_send(cs_session *session, const Consilium__V1__SiteMessage *message);
/* Ends it; `down` follows. Any thread. */
void cs_session_stop(cs_session *session);
/* After `down` only: waits for the threads. */
void cs_session_free(cs_session *session);

#endif
