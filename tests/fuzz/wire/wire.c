/* Any bytes as any message: the scan and the unpack after it neither crash nor take more than their budget, and what
 * was taken can be packed and is taken again. The first byte chooses the type. */
#include "common/wire/wire.h"

#include <stdlib.h>

#define BUDGET_BYTES (1024 * 1024)

static const ProtobufCMessageDescriptor *const types[] = {
    &consilium__v1__site_message__descriptor,       &consilium__v1__coordinator_message__descriptor,
    &consilium__v1__store_blob_request__descriptor, &consilium__v1__fetch_blob_request__descriptor,
    &consilium__v1__enrol_request__descriptor,      &consilium__v1__enrol_answer__descriptor,
    &consilium__v1__job_status__descriptor,         &consilium__v1__control_request__descriptor,
    &consilium__v1__control_answer__descriptor,     &consilium__v1__to_worker__descriptor,
    &consilium__v1__from_worker__descriptor,        &grpc__health__v1__health_check_request__descriptor,
    &consilium__v1__probe_request__descriptor,      &consilium__v1__probe_answer__descriptor,
    &consilium__v1__handshake__descriptor,          &consilium__v1__session_terms__descriptor,
    &consilium__v1__session_file__descriptor,       &consilium__v1__roster__descriptor,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const ProtobufCMessageDescriptor *type = types[data[0] % CS_COUNT(types)];
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(BUDGET_BYTES);
    ProtobufCMessage *message = NULL;
    cs_status status = cs_wire_unpack(type, cs_bytes_of(data + 1, size - 1), arena, &message);
    if (status != CS_OK) {
        /* What the scan takes, only the budget may still refuse: the two must agree on what is well-formed. */
        if (status != CS_EXHAUSTED && cs_wire_scan(type, cs_bytes_of(data + 1, size - 1)) == CS_OK)
            abort();
        return 0;
    }
    CS_AUTO(cs_buffer) packed = CS_BUFFER_EMPTY;
    cs_wire_pack(message, &packed);
    cs_arena_reset(arena);
    if (cs_wire_unpack(type, cs_buffer_view(&packed), arena, &message) == CS_INVALID)
        abort();
    return 0;
}
