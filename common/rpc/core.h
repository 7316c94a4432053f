/* What the server and the client half of this folder share: the core's log, deadlines, messages, channel arguments.
 * Included by this folder only. */
#ifndef CS_RPC_CORE_H
#define CS_RPC_CORE_H

#include "common/rpc/rpc.h"

#include <grpc/grpc.h>

/* A message with everything that goes with it: its bytes, and twice the largest for the fields of many small ones. */
#define CS_RPC_MESSAGE_BUDGET_BYTES (3 * CS_WIRE_MESSAGE_MAX_BYTES)

/* A point of the core's own clock; `in_ms` < 0: never. */
gpr_timespec cs_rpc_deadline(int64_t in_ms);

/* The caller destroys the buffer. */
grpc_byte_buffer *cs_rpc_pack(const ProtobufCMessage *message);
/* CS_INVALID, CS_EXHAUSTED; CS_UNIMPLEMENTED when it came compressed (a small message could grow without limit). */
CS_MUST_CHECK cs_status cs_rpc_unpack(grpc_byte_buffer *buffer, const ProtobufCMessageDescriptor *type, cs_arena *arena,
                                      ProtobufCMessage **ret);

/* The core takes no error from us that it should not: a batch it refuses is a mistake in this folder. */
void cs_rpc_start_batch(grpc_call *call, const grpc_op *operations, size_t count, void *tag);

/* Channel arguments, built up; texts must outlive the use. */
#define CS_RPC_ARGUMENTS_MAX 32
typedef struct cs_rpc_arguments {
    grpc_arg items[CS_RPC_ARGUMENTS_MAX];
    size_t count;
} cs_rpc_arguments;
void cs_rpc_argument_int(cs_rpc_arguments *arguments, const char *key, int value);
void cs_rpc_argument_text(cs_rpc_arguments *arguments, const char *key, const char *value);
/* Sizes and memory, the same on both sides. */
void cs_rpc_arguments_common(cs_rpc_arguments *arguments);
grpc_channel_args cs_rpc_arguments_view(cs_rpc_arguments *arguments);

/* grpc.health.v1.Health on the server it is asked at. */
extern const cs_rpc_method cs_rpc_health_methods[];
bool cs_rpc_call_is_serving(const cs_rpc_call *call);
/* "" or a service that this call's port has. */
bool cs_rpc_call_knows_service(const cs_rpc_call *call, const char *service);

#endif
