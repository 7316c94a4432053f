/* The walk over a message's bytes that comes before protobuf-c sees them: what it refuses can neither nest deep, nor
 * grow tenfold, nor be read in two ways. Called by cs_wire_unpack for every message from outside. Any thread, no
 * allocation. */
#include "common/wire/wire.h"

#include <inttypes.h>
#include <string.h>

enum wire_type { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

/* Numbers and lengths fit in five bytes of seven bits, any value in ten. protobuf-c reads no longer ones either. */
#define TAG_MAX_BYTES    5
#define VARINT_MAX_BYTES 10
/* Only as many fields of a message can be watched for standing there twice; the schema's messages have far fewer. */
#define WATCHED_FIELDS 64

struct scan {
    size_t fields;
    size_t unknown_fields;
    size_t unknown_bytes;
};

struct cursor {
    const uint8_t *at;
    const uint8_t *end;
};

static size_t left(const struct cursor *cursor)
{
    return (size_t)(cursor->end - cursor->at);
}

static bool take_varint(struct cursor *cursor, size_t max_bytes, uint64_t *ret)
{
    uint64_t value = 0;
    for (size_t i = 0; i < max_bytes && cursor->at < cursor->end; i++) {
        uint8_t byte = *cursor->at++;
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (!(byte & 0x80)) {
            *ret = value;
            return true;
        }
    }
    return false;
}

static bool skip(struct cursor *cursor, size_t size)
{
    if (size > left(cursor))
        return false;
    cursor->at += size;
    return true;
}

static bool take_bytes(struct cursor *cursor, cs_bytes *ret)
{
    uint64_t size = 0;
    if (!take_varint(cursor, TAG_MAX_BYTES, &size) || size > left(cursor))
        return false;
    *ret = cs_bytes_of(cursor->at, (size_t)size);
    cursor->at += size;
    return true;
}

/* Length of the UTF-8 sequence at `text`, 0 where there is none; Unicode 15, table 3-7. */
static size_t utf8_sequence(const uint8_t *text, size_t size)
{
    uint8_t first = text[0];
    if (first < 0x80)
        return 1;
    size_t length = first >= 0xc2 && first <= 0xdf ? 2 : first >= 0xe0 && first <= 0xef ? 3 : 4;
    if (first < 0xc2 || first > 0xf4 || length > size)
        return 0;
    uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (text[1] < low || text[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    }
    return length;
}

static bool is_text(cs_bytes bytes)
{
    for (size_t i = 0; i < bytes.size;) {
        size_t length = bytes.data[i] == 0 ? 0 : utf8_sequence(bytes.data + i, bytes.size - i);
        if (length == 0)
            return false;
        i += length;
    }
    return true;
}

static enum wire_type wire_type_of(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return WIRE_64;
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return WIRE_32;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return WIRE_BYTES;
    default:
        return WIRE_VARINT;
    }
}

static cs_status count_fields(const ProtobufCMessageDescriptor *type, struct scan *scan, size_t more)
{
    if (more > CS_WIRE_FIELDS_MAX - scan->fields)
        return cs_fail(CS_INVALID, "%s: more than %d fields", type->name, CS_WIRE_FIELDS_MAX);
    scan->fields += more;
    return CS_OK;
}

static cs_status scan_unknown(const ProtobufCMessageDescriptor *type, struct scan *scan, size_t size)
{
    scan->unknown_fields++;
    scan->unknown_bytes += size;
    if (scan->unknown_fields > CS_WIRE_UNKNOWN_FIELDS_MAX || scan->unknown_bytes > CS_WIRE_UNKNOWN_BYTES_MAX)
        return cs_fail(CS_INVALID, "%s: more than %d unknown fields or %d bytes of them", type->name,
                       CS_WIRE_UNKNOWN_FIELDS_MAX, CS_WIRE_UNKNOWN_BYTES_MAX);
    return CS_OK;
}

static cs_status scan_packed(const ProtobufCMessageDescriptor *type, const ProtobufCFieldDescriptor *field,
                             cs_bytes bytes, struct scan *scan)
{
    enum wire_type item = wire_type_of(field);
    size_t count = 0;
    if (item == WIRE_VARINT) {
        struct cursor cursor = {bytes.data, bytes.data + bytes.size};
        for (uint64_t value = 0; cursor.at < cursor.end; count++) {
            if (!take_varint(&cursor, VARINT_MAX_BYTES, &value))
                return cs_fail(CS_INVALID, "%s.%s: a packed number is cut off", type->name, field->name);
        }
    } else {
        size_t size = item == WIRE_64 ? 8 : 4;
        if (bytes.size % size != 0)
            return cs_fail(CS_INVALID, "%s.%s: %zu packed bytes, expected a multiple of %zu", type->name, field->name,
                           bytes.size, size);
        count = bytes.size / size;
    }
    return count_fields(type, scan, count);
}

static cs_status scan_message(const ProtobufCMessageDescriptor *type, cs_bytes bytes, int depth, struct scan *scan);

/* `value` is what stands behind the length of a length-prefixed field, empty for the others. */
static cs_status scan_known(const ProtobufCMessageDescriptor *type, const ProtobufCFieldDescriptor *field,
                            enum wire_type found, cs_bytes value, int depth, struct scan *scan)
{
    enum wire_type expected = wire_type_of(field);
    bool is_packed = field->label == PROTOBUF_C_LABEL_REPEATED && expected != WIRE_BYTES && found == WIRE_BYTES;
    if (is_packed)
        return scan_packed(type, field, value, scan);
    if (found != expected)
        return cs_fail(CS_INVALID, "%s.%s: wire type %d, expected %d", type->name, field->name, (int)found,
                       (int)expected);
    if (field->type == PROTOBUF_C_TYPE_STRING && !is_text(value))
        return cs_fail(CS_INVALID, "%s.%s: not UTF-8, or a zero byte in it", type->name, field->name);
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return scan_message(field->descriptor, value, depth + 1, scan);
    return CS_OK;
}

static cs_status scan_field(const ProtobufCMessageDescriptor *type, struct cursor *cursor, int depth, uint64_t *seen,
                            struct scan *scan)
{
    const uint8_t *start = cursor->at;
    uint64_t tag = 0;
    if (!take_varint(cursor, TAG_MAX_BYTES, &tag) || tag > UINT32_MAX || tag >> 3 == 0)
        return cs_fail(CS_INVALID, "%s: no valid field number at byte %zu from its end", type->name,
                       (size_t)(cursor->end - start));
    uint32_t number = (uint32_t)(tag >> 3);
    CS_TRY(count_fields(type, scan, 1));

    cs_bytes value = {0};
    uint64_t ignored = 0;
    bool is_whole = false;
    switch (tag & 7) {
    case WIRE_VARINT:
        is_whole = take_varint(cursor, VARINT_MAX_BYTES, &ignored);
        break;
    case WIRE_64:
        is_whole = skip(cursor, 8);
        break;
    case WIRE_32:
        is_whole = skip(cursor, 4);
        break;
    case WIRE_BYTES:
        is_whole = take_bytes(cursor, &value);
        break;
    default:
        return cs_fail(CS_INVALID, "%s: field %" PRIu32 " has wire type %d, which nobody uses", type->name, number,
                       (int)(tag & 7));
    }
    if (!is_whole)
        return cs_fail(CS_INVALID, "%s: field %" PRIu32 " runs past the end", type->name, number);

    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(type, number);
    if (!field)
        return scan_unknown(type, scan, (size_t)(cursor->at - start));
    size_t index = (size_t)(field - type->fields);
    if (field->type == PROTOBUF_C_TYPE_MESSAGE && field->label != PROTOBUF_C_LABEL_REPEATED && index < WATCHED_FIELDS) {
        if (*seen & (uint64_t)1 << index)
            return cs_fail(CS_INVALID, "%s.%s: stands there twice", type->name, field->name);
        *seen |= (uint64_t)1 << index;
    }
    return scan_known(type, field, (enum wire_type)(tag & 7), value, depth, scan);
}

/* Recursive, but never deeper than CS_WIRE_DEPTH_MAX. */
static cs_status scan_message(const ProtobufCMessageDescriptor *type, cs_bytes bytes, int depth, struct scan *scan)
{
    if (depth > CS_WIRE_DEPTH_MAX)
        return cs_fail(CS_INVALID, "%s: nested deeper than %d messages", type->name, CS_WIRE_DEPTH_MAX);
    struct cursor cursor = {bytes.data, bytes.data + bytes.size};
    uint64_t seen = 0;
    while (cursor.at < cursor.end)
        CS_TRY(scan_field(type, &cursor, depth, &seen, scan));
    return CS_OK;
}

cs_status cs_wire_scan(const ProtobufCMessageDescriptor *type, cs_bytes bytes)
{
    if (bytes.size > CS_WIRE_MESSAGE_MAX_BYTES)
        return cs_fail(CS_INVALID, "%s: %zu bytes, at most %d are read", type->name, bytes.size,
                       CS_WIRE_MESSAGE_MAX_BYTES);
    struct scan scan = {0};
    return scan_message(type, bytes, 1, &scan);
}

/* Where one field stands in a message. */
struct place {
    const ProtobufCFieldDescriptor *field;
    cs_bytes head, value; /* before its tag; behind its length */
};

/* The only field `bytes` of a message that is large. What was scanned cannot run past its end. */
static bool find_large(const ProtobufCMessageDescriptor *type, cs_bytes bytes, struct place *ret)
{
    struct cursor cursor = {bytes.data, bytes.data + bytes.size};
    ret->field = NULL;
    while (cursor.at < cursor.end) {
        const uint8_t *start = cursor.at;
        uint64_t tag = 0, ignored = 0;
        cs_bytes value = {0};
        bool is_whole = take_varint(&cursor, TAG_MAX_BYTES, &tag);
        if ((tag & 7) == WIRE_BYTES)
            is_whole = is_whole && take_bytes(&cursor, &value);
        else if ((tag & 7) == WIRE_VARINT)
            is_whole = is_whole && take_varint(&cursor, VARINT_MAX_BYTES, &ignored);
        else
            is_whole = is_whole && skip(&cursor, (tag & 7) == WIRE_64 ? 8 : 4);
        if (!is_whole)
            return false;
        const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(type, (unsigned)(tag >> 3));
        if (ret->field && field == ret->field)
            return false; /* the last one would count: not worth a thought */
        if (value.size < CS_WIRE_IN_PLACE_BYTES || !field || field->type != PROTOBUF_C_TYPE_BYTES ||
            field->label != PROTOBUF_C_LABEL_NONE || (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) || ret->field)
            continue;
        *ret = (struct place){field, cs_bytes_of(bytes.data, (size_t)(start - bytes.data)), value};
    }
    return ret->field != NULL;
}

cs_status cs_wire_unpack_in_place(const ProtobufCMessageDescriptor *type, cs_bytes bytes, cs_arena *arena,
                                  ProtobufCMessage **ret)
{
    struct place large;
    CS_TRY(cs_wire_scan(type, bytes));
    if (bytes.size < CS_WIRE_IN_PLACE_BYTES || !find_large(type, bytes, &large))
        return cs_wire_unpack(type, bytes, arena, ret);
    /* The message without it is small, and the field is then set to where it lies. */
    const uint8_t *tail = large.value.data + large.value.size;
    const size_t tail_size = (size_t)(bytes.data + bytes.size - tail);
    uint8_t *rest = cs_arena_alloc_unset(arena, large.head.size + tail_size);
    if (!rest)
        return cs_fail(CS_EXHAUSTED, "%s: %zu bytes do not fit in the memory set aside for a message", type->name,
                       bytes.size);
    memcpy(rest, large.head.data, large.head.size);
    memcpy(rest + large.head.size, tail, tail_size);
    CS_TRY(cs_wire_unpack(type, cs_bytes_of(rest, large.head.size + tail_size), arena, ret));
    *(ProtobufCBinaryData *)((uint8_t *)*ret + large.field->offset) = cs_wire_data(large.value.data, large.value.size);
    return CS_OK;
}
