/* One attendance at the coordinator. See session.h for who calls it and for its two threads. */
#include "client/agent/session.h"

#include "common/base/clock.h"
#include "common/base/mailbox.h"
#include "common/crypto/dial.h"
#include "common/crypto/keyfile.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define ATTEND_PATH         "/consilium.v1.Federation/Attend"
#define OUTBOX_MESSAGES     1024
#define MESSAGE_ARENA_BYTES (8 * 1024 * 1024)
#define EXPLAIN_TIMEOUT_MS  5000

struct cs_session {
    cs_session_events events;
    cs_link *link;
    cs_rpc_stream *stream;
    cs_mailbox *outbox; /* of packed SiteMessages, as cs_buffer * */
    pthread_t reader, writer;
    uint64_t features; /* agreed; set before `up` */
    bool was_up;
    char *target, *proxy; /* proxy is NULL where there is none */
    cs_secret proxy_login;
    atomic_bool is_stopped;
};

cs_status cs_link_open(const cs_rpc_channel_config *config, cs_link **ret)
{
    CS_AUTO_PTR(cs_link) link = cs_alloc(sizeof(*link));
    atomic_init(&link->holders, 1);
    CS_TRY(cs_rpc_channel_open(config, &link->control));
    cs_rpc_channel_config bulk = *config;
    bulk.is_bulk = true;
    CS_TRY(cs_rpc_channel_open(&bulk, &link->bulk));
    *ret = CS_TAKE(link);
    return CS_OK;
}

cs_link *cs_link_hold(cs_link *link)
{
    atomic_fetch_add(&link->holders, 1);
    return link;
}

void cs_link_free(cs_link *link)
{
    if (link == NULL || atomic_fetch_sub(&link->holders, 1) != 1)
        return;
    cs_rpc_channel_free(link->control);
    cs_rpc_channel_free(link->bulk);
    cs_free(link);
}

static cs_status write_packed(cs_session *session, const cs_buffer *packed)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(MESSAGE_ARENA_BYTES);
    ProtobufCMessage *message = NULL;
    CS_TRY(cs_wire_unpack(&consilium__v1__site_message__descriptor, cs_buffer_view(packed), arena, &message));
    return cs_rpc_stream_write(session->stream, message);
}

static void *write_all(void *argument)
{
    cs_session *session = argument;
    void *taken = NULL;
    while (cs_mailbox_take(session->outbox, -1, &taken) == CS_OK) {
        cs_buffer *packed = taken;
        const cs_status status = write_packed(session, packed);
        cs_buffer_clear(packed);
        cs_free(packed);
        if (status != CS_OK) {
            cs_rpc_stream_cancel(session->stream); /* the reader tells why it ended */
            break;
        }
    }
    return NULL;
}

static cs_status read_message(cs_session *session, int64_t until_ms, cs_arena *arena,
                              Consilium__V1__CoordinatorMessage **ret)
{
    ProtobufCMessage *message = NULL;
    const cs_status status = cs_rpc_stream_read(session->stream, until_ms, arena, &message);
    if (status == CS_DONE)
        return cs_fail(CS_UNAVAILABLE, "the coordinator ended the session");
    CS_TRY(status);
    *ret = (Consilium__V1__CoordinatorMessage *)message;
    return CS_OK;
}

static cs_status greet(cs_session *session)
{
    Consilium__V1__SiteMessage greeting = CONSILIUM__V1__SITE_MESSAGE__INIT;
    greeting.body_case = CONSILIUM__V1__SITE_MESSAGE__BODY_HELLO;
    greeting.hello = cs_wire_hello();
    const cs_status written = cs_rpc_stream_write(session->stream, &greeting.base);
    if (written != CS_OK && written != CS_DONE)
        return written;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(MESSAGE_ARENA_BYTES);
    Consilium__V1__CoordinatorMessage *answer = NULL;
    CS_TRY(read_message(session, cs_clock_monotonic_ms() + CS_HELLO_TIMEOUT_MS, arena, &answer));
    if (answer->body_case == CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_GOODBYE)
        return cs_fail(CS_DENIED, "the coordinator sent us away: %.400s", answer->goodbye->reason);
    if (answer->body_case != CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_HELLO)
        return cs_fail(CS_INVALID, "the coordinator's first message is no Hello");
    uint32_t minor = 0;
    return cs_wire_agree(answer->hello, &minor, &session->features);
}

static cs_status attend(cs_session *session)
{
    CS_TRY(greet(session));
    session->was_up = true;
    session->events.up(session->events.self, session);
    for (;;) {
        CS_AUTO_PTR(cs_arena) arena = cs_arena_new(MESSAGE_ARENA_BYTES);
        Consilium__V1__CoordinatorMessage *message = NULL;
        CS_TRY(read_message(session, -1, arena, &message));
        session->events.message(session->events.self, session, CS_TAKE(arena), message);
    }
}

/* The core says of a proxy at most that it failed. So the way through it is tried once more, and what it answers takes
 * the place of the core's sentence. */
static cs_status explain(const cs_session *session, cs_status status)
{
    const bool is_line = status == CS_UNAVAILABLE || status == CS_DEADLINE;
    if (session->proxy == NULL || session->was_up || !is_line || atomic_load(&session->is_stopped))
        return status;
    CS_AUTO(cs_string) sentence = cs_strdup(cs_error_text());
    char host[CS_HOST_BYTES];
    cs_tls_target target = {.host = host, .proxy = session->proxy};
    if (session->proxy_login.size > 0)
        target.proxy_login = cs_buffer_text(&session->proxy_login);
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(cs_address_parse(session->target, "coordinator", host, &target.port));
    CS_TRY(cs_dial(&target, cs_clock_monotonic_ms() + EXPLAIN_TIMEOUT_MS, &fd));
    return cs_fail(status, "%s", sentence);
}

static void *read_all(void *argument)
{
    cs_session *session = argument;
    const cs_status status = explain(session, attend(session));
    CS_AUTO(cs_string) reason = cs_strdup(cs_error_text());
    cs_mailbox_close(session->outbox);
    cs_rpc_stream_cancel(session->stream);
    session->events.down(session->events.self, session, status, reason);
    return NULL;
}

static void free_session(cs_session *session)
{
    cs_link_free(session->link);
    cs_free(session->target);
    cs_free(session->proxy);
    cs_secret_clear(&session->proxy_login);
    cs_free(session);
}

cs_status cs_session_start(const cs_rpc_channel_config *config, const cs_session_events *events, cs_session **ret)
{
    cs_session *session = cs_alloc(sizeof(*session));
    session->events = *events;
    session->target = cs_strdup(config->target);
    session->proxy = config->proxy != NULL ? cs_strdup(config->proxy) : NULL;
    if (config->proxy_login != NULL)
        cs_buffer_append_text(&session->proxy_login, config->proxy_login);
    cs_status status = cs_link_open(config, &session->link);
    if (status == CS_OK)
        status = cs_rpc_stream_open(session->link->control, ATTEND_PATH,
                                    &consilium__v1__coordinator_message__descriptor, 0, &session->stream);
    if (status != CS_OK) {
        free_session(session);
        return status;
    }
    session->outbox = cs_mailbox_new(OUTBOX_MESSAGES);
    /* The Hello is the reader's to send and must be first: the writer finds its messages only once the session is up.
     */
    if (pthread_create(&session->writer, NULL, write_all, session) != 0 ||
        pthread_create(&session->reader, NULL, read_all, session) != 0)
        abort(); /* no thread at all: nothing this process could still do */
    *ret = session;
    return CS_OK;
}

cs_link *cs_session_link(const cs_session *session)
{
    return session->link;
}

uint64_t cs_session_features(const cs_session *session)
{
    return session->features;
}

cs_status cs_session_send(cs_session *session, const Consilium__V1__SiteMessage *message)
{
    cs_buffer *packed = cs_alloc(sizeof(*packed));
    cs_wire_pack(&message->base, packed);
    const cs_status status = cs_mailbox_try_post(session->outbox, packed);
    if (status != CS_OK) {
        cs_buffer_clear(packed);
        cs_free(packed);
    }
    return status;
}

void cs_session_stop(cs_session *session)
{
    atomic_store(&session->is_stopped, true);
    cs_rpc_stream_cancel(session->stream);
}

void cs_session_free(cs_session *session)
{
    if (session == NULL)
        return;
    pthread_join(session->reader, NULL);
    pthread_join(session->writer, NULL);
    void *left = NULL;
    while (cs_mailbox_take(session->outbox, 0, &left) == CS_OK) {
        cs_buffer_clear(left);
        cs_free(left);
    }
    cs_mailbox_free(session->outbox);
    cs_rpc_stream_free(session->stream);
    free_session(session);
}
