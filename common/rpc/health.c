/* grpc.health.v1.Health, so that any gRPC health probe can ask a daemon. Served by server.c on every port, on the
 * threads of its queues; written against the same method table as every other service. */
#include "common/rpc/core.h"

#include <string.h>

typedef Grpc__Health__V1__HealthCheckRequest health_request;
typedef Grpc__Health__V1__HealthCheckResponse health_response;
typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus serving_status;

struct health {
    char *service;
    bool has_answered;
    serving_status told;
    health_response response;
};

static serving_status status_now(const cs_rpc_call *call, const struct health *health)
{
    if (!cs_rpc_call_knows_service(call, health->service))
        return GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;
    return cs_rpc_call_is_serving(call) ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
                                        : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
}

static cs_status health_on_request(cs_rpc_call *call, const ProtobufCMessage *message)
{
    const health_request *request = (const health_request *)message;
    struct health *health = cs_arena_alloc(cs_rpc_call_arena(call), sizeof *health);
    char *service = cs_arena_strdup(cs_rpc_call_arena(call), request->service);
    if (!health || !service)
        return cs_fail(CS_EXHAUSTED, "service name of %zu bytes is too long", strlen(request->service));
    health->service = service;
    grpc__health__v1__health_check_response__init(&health->response);
    cs_rpc_call_set_data(call, health);
    return CS_OK;
}

static cs_status tell(struct health *health, serving_status now, const ProtobufCMessage **ret)
{
    health->has_answered = true;
    health->told = now;
    health->response.status = now;
    *ret = &health->response.base;
    return CS_OK;
}

static cs_status check_next_response(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    struct health *health = cs_rpc_call_data(call);
    if (health->has_answered)
        return CS_DONE;
    if (!cs_rpc_call_knows_service(call, health->service))
        return cs_fail(CS_NOT_FOUND, "no service '%s' here", health->service);
    return tell(health, status_now(call, health), ret);
}

static cs_status watch_next_response(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    struct health *health = cs_rpc_call_data(call);
    serving_status now = status_now(call, health);
    if (health->has_answered && health->told == now)
        return CS_LATER;
    return tell(health, now, ret);
}

const cs_rpc_method cs_rpc_health_methods[] = {
    {.path = "/grpc.health.v1.Health/Check",
     .request = &grpc__health__v1__health_check_request__descriptor,
     .response = &grpc__health__v1__health_check_response__descriptor,
     .on_request = health_on_request,
     .next_response = check_next_response},
    {.path = "/grpc.health.v1.Health/Watch",
     .request = &grpc__health__v1__health_check_request__descriptor,
     .response = &grpc__health__v1__health_check_response__descriptor,
     .on_request = health_on_request,
     .next_response = watch_next_response},
    {.path = NULL},
};
