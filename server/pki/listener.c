/* The enrolment port: one request and one answer on each connection. Threads of its own; the decision itself is made on
 * the engine's thread. */
#include "server/pki/internal.h"

#include "common/base/log.h"
#include "common/crypto/enrolfile.h"
#include "common/crypto/tls.h"

#include <string.h>

/* Strangers can hold each for the timeout; one address never has them all. */
#define ENROLMENT_CONNECTIONS 32
#define ENROLMENT_TIMEOUT_MS  20000
#define ENROLMENT_ARENA_BYTES (512 * 1024)
#define LENGTH_BYTES          4

struct cs_enrolment {
    cs_pki *pki;
    cs_run_on_engine run;
    void *run_self;
    cs_tls_listener *listener;
};

typedef struct question {
    cs_pki *pki;
    const Consilium__V1__EnrolRequest *request;
    cs_arena *arena;
    Consilium__V1__EnrolAnswer *answer;
} question;

static cs_status decide_on_engine(void *argument, cs_store *store)
{
    question *self = argument;
    cs_pki_enrol(self->pki, store, self->request, self->arena, &self->answer);
    return CS_OK;
}

static cs_status read_request(cs_tls *tls, cs_arena *arena, const Consilium__V1__EnrolRequest **ret)
{
    uint8_t length[LENGTH_BYTES];
    CS_TRY(cs_tls_read_exact(tls, length, sizeof length));
    uint32_t size = cs_load_be32(length);
    if (size > CS_ENROL_MESSAGE_MAX_BYTES)
        return cs_fail(CS_INVALID, "the enrolment request has %u bytes, expected at most %d", size,
                       CS_ENROL_MESSAGE_MAX_BYTES);
    CS_AUTO(cs_secret) bytes = CS_BUFFER_EMPTY; /* a token is in it */
    CS_TRY(cs_buffer_reserve_peer(&bytes, size, "enrolment request"));
    CS_TRY(cs_tls_read_exact(tls, bytes.data, size));
    ProtobufCMessage *message = NULL;
    CS_TRY(cs_wire_unpack(&consilium__v1__enrol_request__descriptor, cs_bytes_of(bytes.data, size), arena, &message));
    *ret = (const Consilium__V1__EnrolRequest *)message;
    return CS_OK;
}

static cs_status send_answer(cs_tls *tls, const Consilium__V1__EnrolAnswer *answer)
{
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    uint8_t length[LENGTH_BYTES] = {0};
    cs_buffer_append(&bytes, length, sizeof length);
    cs_wire_pack(&answer->base, &bytes);
    cs_store_be32(bytes.data, (uint32_t)(bytes.size - LENGTH_BYTES));
    return cs_tls_write(tls, bytes.data, bytes.size);
}

static void log_outcome(const Consilium__V1__EnrolRequest *request, const Consilium__V1__EnrolAnswer *answer)
{
    const char *site = request != NULL ? request->site : "";
    if (answer->code == CS_OK)
        cs_log(CS_LOG_INFO, "pki", "site enrolled", CS_S("site", site));
    else
        cs_log(CS_LOG_WARN, "pki", "enrolment refused", CS_S("site", site), CS_S("reason", answer->error));
}

static void serve(void *self, cs_tls *tls)
{
    cs_enrolment *enrolment = self;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(ENROLMENT_ARENA_BYTES);
    question asked = {.pki = enrolment->pki, .arena = arena};
    cs_status status = read_request(tls, arena, &asked.request);
    if (status == CS_UNAVAILABLE || status == CS_DEADLINE || status == CS_CANCELLED)
        return; /* nobody there to answer */
    if (status == CS_OK)
        status = enrolment->run(enrolment->run_self, decide_on_engine, &asked);

    Consilium__V1__EnrolAnswer refusal;
    consilium__v1__enrol_answer__init(&refusal);
    CS_AUTO(cs_string) sentence = cs_strdup(status == CS_OK ? "" : cs_error_text());
    if (status != CS_OK) {
        refusal.hello = cs_wire_hello();
        refusal.code = status;
        refusal.error = sentence;
        asked.answer = &refusal;
    }
    log_outcome(asked.request, asked.answer);
    if (asked.request != NULL) /* a refused token is as good as before */
        cs_crypto_wipe(asked.request->token.data, asked.request->token.len);
    CS_IGNORE(send_answer(tls, asked.answer), "a site that misses the answer asks again with the same keys");
}

/* The pair that new connections are shown. */
static cs_status own_pair(cs_pki *pki, cs_buffer *ret_certificate, cs_tls_key **ret_key)
{
    CS_AUTO(cs_secret) key_pem = CS_BUFFER_EMPTY;
    CS_TRY(cs_pki_own_identity(pki, ret_certificate, &key_pem));
    return cs_tls_key_read(cs_buffer_view(&key_pem), "the coordinator's key", ret_key);
}

cs_status cs_enrolment_start(cs_pki *pki, const char *address, uint16_t port, cs_run_on_engine run, void *run_self,
                             cs_enrolment **ret)
{
    CS_AUTO(cs_buffer) certificate = CS_BUFFER_EMPTY;
    CS_AUTO_PTR(cs_tls_key) key = NULL;
    CS_TRY(own_pair(pki, &certificate, &key));
    cs_enrolment *enrolment = cs_alloc(sizeof *enrolment);
    enrolment->pki = pki;
    enrolment->run = run;
    enrolment->run_self = run_self;
    cs_status status = cs_tls_listener_start(address, port, cs_buffer_view(&certificate), key, ENROLMENT_CONNECTIONS,
                                             ENROLMENT_TIMEOUT_MS, serve, enrolment, &enrolment->listener);
    if (status != CS_OK) {
        cs_free(enrolment);
        return cs_wrap(status, "enrolment");
    }
    *ret = enrolment;
    return CS_OK;
}

uint16_t cs_enrolment_port(const cs_enrolment *enrolment)
{
    return cs_tls_listener_port(enrolment->listener);
}

cs_status cs_enrolment_reload(cs_enrolment *enrolment)
{
    CS_AUTO(cs_buffer) certificate = CS_BUFFER_EMPTY;
    CS_AUTO_PTR(cs_tls_key) key = NULL;
    CS_TRY(own_pair(enrolment->pki, &certificate, &key));
    return cs_tls_listener_reload(enrolment->listener, cs_buffer_view(&certificate), key);
}

void cs_enrolment_stop(cs_enrolment *enrolment)
{
    if (enrolment == NULL)
        return;
    cs_tls_listener_stop(enrolment->listener);
    cs_free(enrolment);
}
