/* Unpack within a budget, pack, Hello. */
#include "common/wire/wire.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void what_was_packed_comes_back(void **state)
{
    (void)state;
    Consilium__V1__TaskKey key = CONSILIUM__V1__TASK_KEY__INIT;
    key.job = "heart-disease";
    key.round = 7;
    key.phase = "train";
    Consilium__V1__TaskResult result = CONSILIUM__V1__TASK_RESULT__INIT;
    result.key = &key;
    result.loss = 0.25;
    result.base_sha256 = cs_wire_data("12345678901234567890123456789012", 32);
    Consilium__V1__SiteMessage message = CONSILIUM__V1__SITE_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__SITE_MESSAGE__BODY_RESULT;
    message.result = &result;
    CS_AUTO(cs_buffer) packed = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&packed, "before");
    cs_wire_pack(&message.base, &packed);
    assert_int_equal(packed.size, strlen("before") + cs_wire_size(&message.base));
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(16 * 1024);

    ProtobufCMessage *back = NULL;
    cs_bytes bytes = cs_bytes_of(packed.data + strlen("before"), packed.size - strlen("before"));
    assert_int_equal(cs_wire_unpack(message.base.descriptor, bytes, arena, &back), CS_OK);

    const Consilium__V1__SiteMessage *read = (const Consilium__V1__SiteMessage *)back;
    assert_int_equal(read->body_case, CONSILIUM__V1__SITE_MESSAGE__BODY_RESULT);
    assert_string_equal(read->result->key->job, "heart-disease");
    assert_int_equal(read->result->key->round, 7);
    assert_true(read->result->loss == 0.25);
    assert_true(
        cs_bytes_equal(cs_wire_bytes(read->result->base_sha256), cs_bytes_of_text("12345678901234567890123456789012")));
}

/* Before and behind the large field stand others. */
static void a_large_chunk_is_read_where_it_lies(void **state)
{
    (void)state;
    static uint8_t data[CS_WIRE_IN_PLACE_BYTES];
    memset(data, 'x', sizeof data);
    Consilium__V1__BlobChunk chunk = CONSILIUM__V1__BLOB_CHUNK__INIT;
    chunk.hello = cs_wire_hello();
    chunk.offset = 7;
    chunk.size = 1ULL << 40;
    for (size_t size = sizeof data - 1; size <= sizeof data; size++) {
        chunk.data = cs_wire_data(data, size);
        CS_AUTO(cs_buffer) packed = CS_BUFFER_EMPTY;
        cs_wire_pack(&chunk.base, &packed);
        CS_AUTO_PTR(cs_arena) arena = cs_arena_new(size == sizeof data ? 4096 : 2 * sizeof data);

        ProtobufCMessage *back = NULL;
        assert_int_equal(cs_wire_unpack_in_place(chunk.base.descriptor, cs_buffer_view(&packed), arena, &back), CS_OK);

        const Consilium__V1__BlobChunk *read = (const Consilium__V1__BlobChunk *)back;
        assert_int_equal(read->offset, 7);
        assert_true(read->size == 1ULL << 40);
        assert_string_equal(read->hello->software, chunk.hello->software);
        assert_int_equal(read->data.len, size);
        assert_memory_equal(read->data.data, data, size);
        bool is_in_place = read->data.data >= packed.data && read->data.data < packed.data + packed.size;
        assert_int_equal(is_in_place, size == sizeof data);
    }
}

static void a_large_chunk_that_stands_there_twice_is_read_like_any_other(void **state)
{
    (void)state;
    static uint8_t data[CS_WIRE_IN_PLACE_BYTES];
    Consilium__V1__BlobChunk chunk = CONSILIUM__V1__BLOB_CHUNK__INIT;
    CS_AUTO(cs_buffer) packed = CS_BUFFER_EMPTY;
    for (uint8_t i = 0; i < 2; i++) {
        memset(data, i, sizeof data);
        chunk.data = cs_wire_data(data, sizeof data);
        cs_wire_pack(&chunk.base, &packed);
    }
    CS_AUTO_PTR(cs_arena) one = cs_arena_new(8 * sizeof data);
    CS_AUTO_PTR(cs_arena) other = cs_arena_new(8 * sizeof data);
    ProtobufCMessage *plain = NULL, *in_place = NULL;

    assert_int_equal(cs_wire_unpack(chunk.base.descriptor, cs_buffer_view(&packed), one, &plain), CS_OK);
    assert_int_equal(cs_wire_unpack_in_place(chunk.base.descriptor, cs_buffer_view(&packed), other, &in_place), CS_OK);

    assert_true(cs_bytes_equal(cs_wire_bytes(((Consilium__V1__BlobChunk *)plain)->data),
                               cs_wire_bytes(((Consilium__V1__BlobChunk *)in_place)->data)));
}

static void an_empty_message_without_an_address_is_read(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(4096);
    ProtobufCMessage *back = NULL;

    assert_int_equal(cs_wire_unpack(&consilium__v1__list_jobs_request__descriptor, (cs_bytes){0}, arena, &back), CS_OK);

    assert_non_null(back);
}

static void the_arena_s_budget_ends_an_unpack(void **state)
{
    (void)state;
    uint8_t data[8192] = {1};
    Consilium__V1__BlobChunk chunk = CONSILIUM__V1__BLOB_CHUNK__INIT;
    chunk.data = cs_wire_data(data, sizeof data);
    CS_AUTO(cs_buffer) packed = CS_BUFFER_EMPTY;
    cs_wire_pack(&chunk.base, &packed);
    CS_AUTO_PTR(cs_arena) small = cs_arena_new(sizeof data);
    CS_AUTO_PTR(cs_arena) large = cs_arena_new(sizeof data + 1024);
    ProtobufCMessage *back = NULL;

    assert_int_equal(cs_wire_unpack(chunk.base.descriptor, cs_buffer_view(&packed), small, &back), CS_EXHAUSTED);
    assert_int_equal(cs_wire_unpack(chunk.base.descriptor, cs_buffer_view(&packed), large, &back), CS_OK);
}

/* Two bytes on the wire become a structure of some sixty: what the fields limit leaves over is the budget's to stop. */
static void many_tiny_inner_messages_stay_within_the_budget(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) message = CS_BUFFER_EMPTY;
    for (int i = 0; i < CS_WIRE_FIELDS_MAX; i++)
        cs_buffer_append(&message, "\x0a\x00", 2);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(1024 * 1024);
    ProtobufCMessage *back = NULL;

    assert_int_equal(cs_wire_unpack(&consilium__v1__site_state__descriptor, cs_buffer_view(&message), arena, &back),
                     CS_EXHAUSTED);

    assert_true(cs_arena_used(arena) <= 1024 * 1024);
}

static void another_major_version_and_no_hello_are_refused(void **state)
{
    (void)state;
    uint32_t minor = 99;
    uint64_t features = 99;
    Consilium__V1__Hello theirs = *cs_wire_hello();

    theirs.minor = 40;
    theirs.features = UINT64_MAX;
    assert_int_equal(cs_wire_agree(&theirs, &minor, &features), CS_OK);
    assert_int_equal(minor, CS_PROTOCOL_MINOR);
    assert_int_equal(features, CS_PROTOCOL_FEATURES);

    theirs.major = CS_PROTOCOL_MAJOR + 1;
    theirs.software = "consilium 9";
    assert_int_equal(cs_wire_agree(&theirs, &minor, &features), CS_STATE);
    assert_non_null(strstr(cs_error_text(), "consilium 9"));
    assert_int_equal(cs_wire_agree(NULL, &minor, &features), CS_STATE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_packed_comes_back),
        cmocka_unit_test(a_large_chunk_is_read_where_it_lies),
        cmocka_unit_test(a_large_chunk_that_stands_there_twice_is_read_like_any_other),
        cmocka_unit_test(an_empty_message_without_an_address_is_read),
        cmocka_unit_test(the_arena_s_budget_ends_an_unpack),
        cmocka_unit_test(many_tiny_inner_messages_stay_within_the_budget),
        cmocka_unit_test(another_major_version_and_no_hello_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
