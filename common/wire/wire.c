/* Budgeted unpack into an arena, pack, and the Hello of this build. Called by common/rpc and by everything that speaks
 * in frames. Any thread. */
#include "common/wire/wire.h"

#include <inttypes.h>

/* protobuf-c tells a refused allocation and a malformed message apart as little as we do: both are NULL. */
struct budget {
    cs_arena *arena;
    bool is_spent;
};

static void *budget_alloc(void *self, size_t size)
{
    struct budget *budget = self;
    /* protobuf-c sets every byte that it asks for. */
    void *memory = cs_arena_alloc_unset(budget->arena, size);
    budget->is_spent = budget->is_spent || !memory;
    return memory;
}

/* The arena frees everything at once. */
static void budget_free(void *self, void *memory)
{
    (void)self;
    (void)memory;
}

cs_status cs_wire_unpack(const ProtobufCMessageDescriptor *type, cs_bytes bytes, cs_arena *arena,
                         ProtobufCMessage **ret)
{
    CS_TRY(cs_wire_scan(type, bytes));
    struct budget budget = {.arena = arena};
    ProtobufCAllocator allocator = {.alloc = budget_alloc, .free = budget_free, .allocator_data = &budget};
    /* An empty message may come without an address; protobuf-c wants one. */
    const uint8_t *data = bytes.data ? bytes.data : (const uint8_t *)"";
    *ret = protobuf_c_message_unpack(type, &allocator, bytes.size, data);
    if (*ret)
        return CS_OK;
    if (budget.is_spent)
        return cs_fail(CS_EXHAUSTED, "%s: %zu bytes do not fit in the memory set aside for a message", type->name,
                       bytes.size);
    return cs_fail(CS_INVALID, "%s: not a valid message", type->name);
}

size_t cs_wire_size(const ProtobufCMessage *message)
{
    return protobuf_c_message_get_packed_size(message);
}

void cs_wire_pack_to(const ProtobufCMessage *message, uint8_t *out)
{
    protobuf_c_message_pack(message, out);
}

void cs_wire_pack(const ProtobufCMessage *message, cs_buffer *out)
{
    size_t size = cs_wire_size(message);
    cs_buffer_reserve(out, out->size + size);
    cs_wire_pack_to(message, out->data + out->size);
    out->size += size;
    out->data[out->size] = 0;
}

Consilium__V1__Hello *cs_wire_hello(void)
{
    /* Spelled out, because the generated initializer is no constant expression. Nobody writes to it. */
    static Consilium__V1__Hello hello = {
        .base = {.descriptor = &consilium__v1__hello__descriptor},
        .major = CS_PROTOCOL_MAJOR,
        .minor = CS_PROTOCOL_MINOR,
        .features = CS_PROTOCOL_FEATURES,
        .software = "consilium " CS_VERSION,
    };
    return &hello;
}

cs_status cs_wire_agree(const Consilium__V1__Hello *theirs, uint32_t *ret_minor, uint64_t *ret_features)
{
    if (!theirs)
        return cs_fail(CS_STATE, "no Hello in the first message; expected protocol %d.%d", CS_PROTOCOL_MAJOR,
                       CS_PROTOCOL_MINOR);
    if (theirs->major != CS_PROTOCOL_MAJOR)
        return cs_fail(CS_STATE, "'%s' speaks protocol %" PRIu32 ".%" PRIu32 ", this is %s with protocol %d.%d",
                       theirs->software, theirs->major, theirs->minor, "consilium " CS_VERSION, CS_PROTOCOL_MAJOR,
                       CS_PROTOCOL_MINOR);
    uint32_t ours = CS_PROTOCOL_MINOR;
    *ret_minor = CS_MIN(theirs->minor, ours);
    *ret_features = theirs->features & (uint64_t)CS_PROTOCOL_FEATURES;
    return CS_OK;
}
