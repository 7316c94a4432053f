/* protobuf-c behind limits, and length-prefixed frames. The generated headers are included through this one only.
 * protobuf-c has no depth limit and grows tenfold on unknown fields, so every message is scanned before it is unpacked.
 * Any thread. */
#ifndef CS_WIRE_WIRE_H
#define CS_WIRE_WIRE_H

#include "common/base/bytes.h"

#include "admin.pb-c.h"
#include "control.pb-c.h"
#include "federation.pb-c.h"
#include "health.pb-c.h"
#include "worker.pb-c.h"

#define CS_WIRE_MESSAGE_MAX_BYTES  (2 * 1024 * 1024)
#define CS_WIRE_DEPTH_MAX          8
#define CS_WIRE_FIELDS_MAX         65536
#define CS_WIRE_UNKNOWN_FIELDS_MAX 32
#define CS_WIRE_UNKNOWN_BYTES_MAX  4096
#define CS_WIRE_CHUNK_BYTES        (1024 * 1024)
#define CS_WIRE_IN_PLACE_BYTES     (32 * 1024)

#define CS_PROTOCOL_MAJOR    1
#define CS_PROTOCOL_MINOR    1
#define CS_PROTOCOL_FEATURES (CONSILIUM__V1__FEATURE__FEATURE_ROSTER | CONSILIUM__V1__FEATURE__FEATURE_PROBE)
/* Of a probe: each way, and in one message. */
#define CS_PROBE_MAX_BYTES   (1024 * 1024)
#define CS_PROBE_CHUNK_BYTES (64 * 1024)

/* Walks the bytes against the descriptor without allocating: well-formed, depth, number of fields, unknown fields,
 * strings are UTF-8 without a zero byte, no message field that is not repeated stands there twice (protobuf would merge
 * the two; nobody writes that on purpose). CS_INVALID names the message, the field and what is wrong. */
CS_MUST_CHECK cs_status cs_wire_scan(const ProtobufCMessageDescriptor *type, cs_bytes bytes);
/* Scan, then unpack into the arena within its budget: the message dies with the arena, never call free_unpacked.
 * CS_INVALID or CS_EXHAUSTED. */
CS_MUST_CHECK cs_status cs_wire_unpack(const ProtobufCMessageDescriptor *type, cs_bytes bytes, cs_arena *arena,
                                       ProtobufCMessage **ret);
/* The same for bytes that live as long as the arena: a chunk of CS_WIRE_IN_PLACE_BYTES or more is not copied, the
 * message points at it. */
CS_MUST_CHECK cs_status cs_wire_unpack_in_place(const ProtobufCMessageDescriptor *type, cs_bytes bytes, cs_arena *arena,
                                                ProtobufCMessage **ret);
/* Appends. Messages of this program's own making: cannot fail. */
void cs_wire_pack(const ProtobufCMessage *message, cs_buffer *out);
/* The same into memory of cs_wire_size(message) bytes. */
size_t cs_wire_size(const ProtobufCMessage *message);
void cs_wire_pack_to(const ProtobufCMessage *message, uint8_t *out);

/* The Hello this build says. Points at static memory. */
Consilium__V1__Hello *cs_wire_hello(void);
/* CS_STATE when the major differs or there is none; else the features both have. */
CS_MUST_CHECK cs_status cs_wire_agree(const Consilium__V1__Hello *theirs, uint32_t *ret_minor, uint64_t *ret_features);

/* Views between protobuf-c's byte strings and ours; nothing is copied. */
static inline cs_bytes cs_wire_bytes(ProtobufCBinaryData data)
{
    return (cs_bytes){data.data, data.len};
}
static inline ProtobufCBinaryData cs_wire_data(const void *data, size_t size)
{
    return (ProtobufCBinaryData){size, (uint8_t *)(uintptr_t)data};
}

/* One message behind its length (4 bytes, big-endian) on a descriptor. Read: CS_DONE at a clean end before the first
 * byte, CS_INVALID over max_bytes, CS_DEADLINE when until_ms (monotonic; < 0 for ever) passes. */
CS_MUST_CHECK cs_status cs_frame_read(int fd, size_t max_bytes, int64_t until_ms, cs_buffer *ret);
CS_MUST_CHECK cs_status cs_frame_write(int fd, cs_bytes bytes);
/* Both steps for one message. */
CS_MUST_CHECK cs_status cs_frame_read_message(int fd, const ProtobufCMessageDescriptor *type, int64_t until_ms,
                                              cs_arena *arena, ProtobufCMessage **ret);
CS_MUST_CHECK cs_status cs_frame_write_message(int fd, const ProtobufCMessage *message);

#endif
