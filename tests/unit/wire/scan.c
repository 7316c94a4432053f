/* The walk before every unpack: what a hostile peer would put on the wire. */
#include "common/wire/wire.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define BLOB    (&consilium__v1__blob__descriptor)
#define STATE   (&consilium__v1__site_state__descriptor)
#define MESSAGE (&consilium__v1__site_message__descriptor)
#define METRIC  (&consilium__v1__metric__descriptor)
#define HELLO   (&consilium__v1__hello__descriptor)

static cs_status scan_text(const ProtobufCMessageDescriptor *type, const char *bytes, size_t size)
{
    return cs_wire_scan(type, cs_bytes_of(bytes, size));
}

#define assert_taken(type, literal) assert_int_equal(scan_text(type, literal, sizeof(literal) - 1), CS_OK)
#define assert_refused(type, literal, reason)                                                                          \
    do {                                                                                                               \
        assert_int_equal(scan_text(type, literal, sizeof(literal) - 1), CS_INVALID);                                   \
        if (!strstr(cs_error_text(), reason))                                                                          \
            fail_msg("'%s' does not say '%s'", cs_error_text(), reason);                                               \
    } while (0)

static void put_varint(cs_buffer *out, uint64_t value)
{
    do {
        uint8_t byte = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        cs_buffer_append(out, &byte, 1);
        value >>= 7;
    } while (value > 0);
}

static void an_empty_message_and_a_packed_one_are_taken(void **state)
{
    (void)state;
    assert_taken(BLOB, "");

    CS_AUTO(cs_buffer) packed = CS_BUFFER_EMPTY;
    cs_wire_pack(&cs_wire_hello()->base, &packed);

    assert_int_equal(cs_wire_scan(HELLO, cs_buffer_view(&packed)), CS_OK);
}

static void a_length_past_the_end_is_refused(void **state)
{
    (void)state;
    assert_taken(BLOB, "\x12\x02zz");
    assert_refused(BLOB, "\x12\x03zz", "runs past the end");
    assert_refused(BLOB, "\x12\xff\xff\xff\xff\x0f", "runs past the end");
    assert_refused(BLOB, "\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "runs past the end");
    assert_refused(BLOB, "\x12", "runs past the end");
}

static void a_varint_that_never_ends_is_refused(void **state)
{
    (void)state;
    assert_taken(BLOB, "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    assert_refused(BLOB, "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "runs past the end");
    assert_refused(BLOB, "\x18\x80", "runs past the end");
    assert_refused(BLOB, "\x80\x80\x80\x80\x80\x01", "field number");
}

static void field_zero_and_groups_are_refused(void **state)
{
    (void)state;
    assert_refused(BLOB, "\x00\x01", "field number");
    assert_refused(BLOB, "\x0b\x0c", "wire type 3");
    assert_refused(BLOB, "\x0c", "wire type 4");
    assert_refused(BLOB, "\x7f", "wire type 7");
    assert_refused(BLOB, "\xa3\x06\xa4\x06", "wire type 3"); /* also for a field nobody knows */
}

static void a_known_field_of_another_wire_type_is_refused(void **state)
{
    (void)state;
    assert_refused(BLOB, "\x1a\x01z", "size: wire type 2, expected 0");
    assert_refused(BLOB, "\x10\x01", "sha256: wire type 0, expected 2");
    assert_refused(METRIC, "\x15\0\0\0\0", "value: wire type 5, expected 1");
    assert_taken(METRIC, "\x11\0\0\0\0\0\0\0\0");
}

static void texts_must_be_utf8_without_a_zero_byte(void **state)
{
    (void)state;
    assert_taken(BLOB, "\x0a\x0c"
                       "Z\xc3\xbcrich\xf0\x9f\x8f\xa5 ");
    assert_refused(BLOB,
                   "\x0a\x03"
                   "a\0b",
                   "zero byte");
    assert_refused(BLOB, "\x0a\x01\xff", "UTF-8");
    assert_refused(BLOB, "\x0a\x02\xc0\xaf", "UTF-8");         /* '/' in more bytes than it needs */
    assert_refused(BLOB, "\x0a\x03\xe0\x80\xaf", "UTF-8");     /* the same in three */
    assert_refused(BLOB, "\x0a\x03\xed\xa0\x80", "UTF-8");     /* half of a surrogate pair */
    assert_refused(BLOB, "\x0a\x04\xf4\x90\x80\x80", "UTF-8"); /* above U+10FFFF */
    assert_refused(BLOB, "\x0a\x02\xe2\x82", "UTF-8");         /* cut off */
    assert_taken(BLOB, "\x12\x03\xff\x00\xfe");                /* bytes may be anything */
}

static void unknown_fields_are_skipped_up_to_32_or_4_KiB(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) message = CS_BUFFER_EMPTY;
    for (int i = 0; i < CS_WIRE_UNKNOWN_FIELDS_MAX; i++)
        cs_buffer_append(&message, "\x78\x01", 2); /* field 15 */
    assert_int_equal(cs_wire_scan(BLOB, cs_buffer_view(&message)), CS_OK);
    cs_buffer_append(&message, "\x78\x01", 2);
    assert_int_equal(cs_wire_scan(BLOB, cs_buffer_view(&message)), CS_INVALID);
    assert_non_null(strstr(cs_error_text(), "unknown"));

    cs_buffer_reset(&message);
    cs_buffer_append(&message, "\x7a", 1);
    put_varint(&message, CS_WIRE_UNKNOWN_BYTES_MAX - 3);
    uint8_t zeros[CS_WIRE_UNKNOWN_BYTES_MAX] = {0};
    cs_buffer_append(&message, zeros, CS_WIRE_UNKNOWN_BYTES_MAX - 3);
    assert_int_equal(message.size, CS_WIRE_UNKNOWN_BYTES_MAX);
    assert_int_equal(cs_wire_scan(BLOB, cs_buffer_view(&message)), CS_OK);
    cs_buffer_append(&message, "\x78\x01", 2);
    assert_int_equal(cs_wire_scan(BLOB, cs_buffer_view(&message)), CS_INVALID);
}

static void unknown_fields_are_counted_over_all_inner_messages(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) message = CS_BUFFER_EMPTY;
    for (int i = 0; i < CS_WIRE_UNKNOWN_FIELDS_MAX; i++)
        cs_buffer_append(&message, "\x0a\x02\x78\x01", 4); /* SiteState.held, with an unknown field each */
    assert_int_equal(cs_wire_scan(STATE, cs_buffer_view(&message)), CS_OK);
    cs_buffer_append(&message, "\x0a\x02\x78\x01", 4);
    assert_int_equal(cs_wire_scan(STATE, cs_buffer_view(&message)), CS_INVALID);
}

static void more_than_65536_fields_are_refused(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) message = CS_BUFFER_EMPTY;
    for (int i = 0; i < CS_WIRE_FIELDS_MAX; i++)
        cs_buffer_append(&message, "\x0a\x00", 2);
    assert_int_equal(cs_wire_scan(STATE, cs_buffer_view(&message)), CS_OK);
    cs_buffer_append(&message, "\x0a\x00", 2);
    assert_int_equal(cs_wire_scan(STATE, cs_buffer_view(&message)), CS_INVALID);
    assert_non_null(strstr(cs_error_text(), "fields"));
}

static void a_message_over_2_MiB_is_refused(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) message = CS_BUFFER_EMPTY;
    cs_buffer_append(&message, "\x12", 1);
    put_varint(&message, CS_WIRE_MESSAGE_MAX_BYTES - 4);
    while (message.size < CS_WIRE_MESSAGE_MAX_BYTES)
        cs_buffer_append(&message, "zzzzzzzz", CS_MIN(8, CS_WIRE_MESSAGE_MAX_BYTES - message.size));
    assert_int_equal(cs_wire_scan(BLOB, cs_buffer_view(&message)), CS_OK);
    cs_buffer_append(&message, "\x18", 1);
    assert_int_equal(cs_wire_scan(BLOB, cs_buffer_view(&message)), CS_INVALID);
    assert_non_null(strstr(cs_error_text(), "at most 2097152"));
}

static void a_message_field_that_stands_there_twice_is_refused(void **state)
{
    (void)state;
    assert_taken(MESSAGE, "\x0a\x02\x08\x01\x12\x00"); /* two fields of a oneof: the last one counts */
    assert_refused(MESSAGE, "\x0a\x02\x08\x01\x0a\x02\x08\x02", "hello: stands there twice");
}

/* The schema has no recursive message, so depth is proved on one made for it. */
static void deep_nesting_is_refused(void **state)
{
    (void)state;
    static ProtobufCMessageDescriptor nested;
    static const ProtobufCFieldDescriptor field = {.name = "inner",
                                                   .id = 1,
                                                   .label = PROTOBUF_C_LABEL_NONE,
                                                   .type = PROTOBUF_C_TYPE_MESSAGE,
                                                   .descriptor = &nested};
    static const ProtobufCIntRange ranges[] = {{1, 0}, {0, 1}};
    nested = (ProtobufCMessageDescriptor){.magic = PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC,
                                          .name = "Nested",
                                          .n_fields = 1,
                                          .fields = &field,
                                          .n_field_ranges = 1,
                                          .field_ranges = ranges};
    uint8_t bytes[2 * CS_WIRE_DEPTH_MAX];
    for (int i = 0; i < CS_WIRE_DEPTH_MAX; i++) {
        bytes[2 * i] = 0x0a;
        bytes[2 * i + 1] = (uint8_t)(2 * (CS_WIRE_DEPTH_MAX - 1 - i));
    }

    /* The innermost of eight may be empty; one around them makes nine. */
    assert_int_equal(cs_wire_scan(&nested, cs_bytes_of(bytes + 2, sizeof bytes - 2)), CS_OK);
    assert_int_equal(cs_wire_scan(&nested, cs_bytes_of(bytes, sizeof bytes)), CS_INVALID);
    assert_non_null(strstr(cs_error_text(), "deeper than 8"));
}

/* Nor does it have packed numbers yet; every gRPC client would send them that way. */
static void packed_numbers_are_counted_and_must_be_whole(void **state)
{
    (void)state;
    static const ProtobufCFieldDescriptor fields[] = {
        {.name = "seeds", .id = 1, .label = PROTOBUF_C_LABEL_REPEATED, .type = PROTOBUF_C_TYPE_UINT64},
        {.name = "weights", .id = 2, .label = PROTOBUF_C_LABEL_REPEATED, .type = PROTOBUF_C_TYPE_DOUBLE}};
    static const ProtobufCIntRange ranges[] = {{1, 0}, {0, 2}};
    static const ProtobufCMessageDescriptor numbers = {.magic = PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC,
                                                       .name = "Numbers",
                                                       .n_fields = 2,
                                                       .fields = fields,
                                                       .n_field_ranges = 1,
                                                       .field_ranges = ranges};

    assert_taken(&numbers, "\x0a\x03\x01\x80\x01\x08\x05");
    assert_refused(&numbers, "\x0a\x02\x01\x80", "cut off");
    assert_taken(&numbers, "\x12\x08zzzzzzzz");
    assert_refused(&numbers, "\x12\x07zzzzzzz", "multiple of 8");

    CS_AUTO(cs_buffer) message = CS_BUFFER_EMPTY;
    cs_buffer_append(&message, "\x0a", 1);
    put_varint(&message, CS_WIRE_FIELDS_MAX);
    for (int i = 0; i < CS_WIRE_FIELDS_MAX; i++)
        cs_buffer_append(&message, "\x01", 1);
    assert_int_equal(cs_wire_scan(&numbers, cs_buffer_view(&message)), CS_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_message_and_a_packed_one_are_taken),
        cmocka_unit_test(a_length_past_the_end_is_refused),
        cmocka_unit_test(a_varint_that_never_ends_is_refused),
        cmocka_unit_test(field_zero_and_groups_are_refused),
        cmocka_unit_test(a_known_field_of_another_wire_type_is_refused),
        cmocka_unit_test(texts_must_be_utf8_without_a_zero_byte),
        cmocka_unit_test(unknown_fields_are_skipped_up_to_32_or_4_KiB),
        cmocka_unit_test(unknown_fields_are_counted_over_all_inner_messages),
        cmocka_unit_test(more_than_65536_fields_are_refused),
        cmocka_unit_test(a_message_over_2_MiB_is_refused),
        cmocka_unit_test(a_message_field_that_stands_there_twice_is_refused),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(packed_numbers_are_counted_and_must_be_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
