/* Probe: what a site's `doctor` measures the line with. rpc threads; nothing is asked of the engine, nothing is stored.
 */
#include "server/services/internal.h"

#include "common/base/clock.h"
#include "common/crypto/sign.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A person who tries things runs `doctor` again and again, with a few probes each time; 60 MiB each way at the most. */
#define PROBES_MOST      60
#define PROBES_WITHIN_MS (10 * 60 * 1000LL)

struct probe {
    uint64_t received, wanted;
    bool has_answered;
    Consilium__V1__ProbeAnswer answer;
    uint8_t noise[CS_PROBE_CHUNK_BYTES]; /* what no box on the way can make smaller */
};

/* probes_mutex is held. */
static probe_pace *pace_of(cs_services *services, const char *site)
{
    for (size_t i = 0; i < services->probes_count; i++) {
        if (strcmp(services->probes[i].site, site) == 0)
            return &services->probes[i];
    }
    services->probes = cs_realloc(services->probes, (services->probes_count + 1) * sizeof *services->probes);
    probe_pace *pace = &services->probes[services->probes_count++];
    *pace = (probe_pace){.since_ms = cs_clock_monotonic_ms()};
    snprintf(pace->site, sizeof pace->site, "%s", site);
    return pace;
}

static cs_status check_pace(cs_services *services, const char *site)
{
    const int64_t now_ms = cs_clock_monotonic_ms();
    pthread_mutex_lock(&services->probes_mutex);
    probe_pace *pace = pace_of(services, site);
    if (now_ms - pace->since_ms >= PROBES_WITHIN_MS)
        *pace = (probe_pace){.since_ms = now_ms};
    const bool is_over = ++pace->count > PROBES_MOST;
    const int64_t left_ms = pace->since_ms + PROBES_WITHIN_MS - now_ms;
    pthread_mutex_unlock(&services->probes_mutex);
    if (is_over)
        return cs_fail(CS_EXHAUSTED,
                       "this site probed the line %d times within ten minutes; it may again in %" PRId64 " s",
                       PROBES_MOST, left_ms / 1000 + 1);
    return CS_OK;
}

static cs_status begin(cs_rpc_call *call, const Consilium__V1__ProbeRequest *request)
{
    uint32_t minor = 0;
    uint64_t features = 0;
    CS_TRY(cs_wire_agree(request->hello, &minor, &features));
    if (!(features & CONSILIUM__V1__FEATURE__FEATURE_PROBE))
        return cs_fail(CS_UNIMPLEMENTED, "the Hello does not offer the feature PROBE");
    if (request->wanted > CS_PROBE_MAX_BYTES)
        return cs_fail(CS_INVALID, "a probe wants %" PRIu32 " bytes, the most is %d", request->wanted,
                       CS_PROBE_MAX_BYTES);
    CS_TRY(check_pace(services_of(call), cs_rpc_call_peer(call)->identity.name));
    struct probe *probe = cs_alloc(sizeof *probe);
    probe->wanted = request->wanted;
    cs_crypto_random(probe->noise, sizeof probe->noise);
    cs_rpc_call_set_data(call, probe);
    return CS_OK;
}

cs_status probe_request(cs_rpc_call *call, const ProtobufCMessage *message)
{
    const Consilium__V1__ProbeRequest *request = (const Consilium__V1__ProbeRequest *)message;
    if (cs_rpc_call_data(call) == NULL)
        CS_TRY(begin(call, request));
    struct probe *probe = cs_rpc_call_data(call);
    if (request->data.len > CS_PROBE_CHUNK_BYTES)
        return cs_fail(CS_INVALID, "a probe's message has %zu bytes of data, the most is %d", request->data.len,
                       CS_PROBE_CHUNK_BYTES);
    probe->received += request->data.len;
    if (probe->received > CS_PROBE_MAX_BYTES)
        return cs_fail(CS_INVALID, "a probe has more than %d bytes of data", CS_PROBE_MAX_BYTES);
    return CS_OK;
}

cs_status probe_requests_end(cs_rpc_call *call)
{
    return cs_rpc_call_data(call) != NULL ? CS_OK : cs_fail(CS_STATE, "the stream ended before its Hello");
}

cs_status probe_response(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    struct probe *probe = cs_rpc_call_data(call);
    if (probe->has_answered && probe->wanted == 0)
        return CS_DONE;
    consilium__v1__probe_answer__init(&probe->answer);
    if (!probe->has_answered) {
        probe->has_answered = true;
        probe->answer.hello = cs_wire_hello();
        probe->answer.clock_ms = (uint64_t)cs_clock_wall_ms();
        probe->answer.generation = cs_registry_is_newest(&cs_rpc_call_peer(call)->identity)
                                       ? CONSILIUM__V1__GENERATION__GENERATION_NEWEST
                                       : CONSILIUM__V1__GENERATION__GENERATION_PREVIOUS;
        probe->answer.received = probe->received;
    } else {
        const size_t size = CS_MIN(probe->wanted, sizeof probe->noise);
        probe->answer.data = cs_wire_data(probe->noise, size);
        probe->wanted -= size;
    }
    *ret = &probe->answer.base;
    return CS_OK;
}

void probe_done(cs_rpc_call *call, bool is_cancelled)
{
    (void)is_cancelled;
    cs_free(cs_rpc_call_data(call));
    cs_rpc_call_set_data(call, NULL);
}
