/* Buffers, UTF-8, hex and base64. */
#include "common/base/bytes.h"

#include "tests/unit/base/cmocka_all.h"

#include <string.h>

static void a_buffer_grows_and_stays_text(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) buffer = CS_BUFFER_EMPTY;
    assert_string_equal(cs_buffer_text(&buffer), "");

    for (int i = 0; i < 1000; i++) {
        cs_buffer_append(&buffer, "ab", 2);
        cs_buffer_printf(&buffer, "%d", i % 10);
    }

    assert_int_equal(buffer.size, 3000);
    assert_int_equal(strlen(cs_buffer_text(&buffer)), 3000);
    cs_buffer_reset(&buffer);
    assert_string_equal(cs_buffer_text(&buffer), "");
}

static void a_text_is_taken_out_even_when_empty(void **state)
{
    (void)state;
    cs_buffer buffer = CS_BUFFER_EMPTY;
    CS_AUTO(cs_string) empty = cs_buffer_take_text(&buffer);
    cs_buffer_append_text(&buffer, "mercy");

    CS_AUTO(cs_string) text = cs_buffer_take_text(&buffer);

    assert_string_equal(empty, "");
    assert_string_equal(text, "mercy");
    assert_null(buffer.data);
}

static void a_reservation_of_a_peer_that_is_too_large_is_refused(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) buffer = CS_BUFFER_EMPTY;

    assert_int_equal(cs_buffer_reserve_peer(&buffer, SIZE_MAX, "frame"), CS_EXHAUSTED);
    assert_int_equal(cs_buffer_reserve_peer(&buffer, 1000, "frame"), CS_OK);

    assert_true(buffer.capacity >= 1000);
    assert_int_equal(buffer.size, 0);
}

static void numbers_are_stored_in_the_stated_order(void **state)
{
    (void)state;
    uint8_t four[4];
    uint8_t eight[8];

    cs_store_be32(four, 0x01020304);
    cs_store_le64(eight, 0x0102030405060708);

    assert_memory_equal(four, "\1\2\3\4", 4);
    assert_memory_equal(eight, "\10\7\6\5\4\3\2\1", 8);
    assert_int_equal(cs_load_be32(four), 0x01020304);
    assert_true(cs_load_le64(eight) == 0x0102030405060708);
}

static void utf8_is_measured_strictly(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t length;
    } cases[] = {
        {"a", 1},
        {"ä", 2},
        {"€", 3},
        {"😀", 4},
        {"", 0},
        {"\x80", 0},
        {"\xc0\x80", 0},
        {"\xc3", 0},
        {"\xe0\x80\x80", 0},
        {"\xed\xa0\x80", 0},
        {"\xf5\x80", 0},
        {"\xff", 0},
        {"\xe2\x82", 0},
        {"\xc3(", 0},
        {"\xf4\x90\x80\x80", 0},
    };
    for (size_t i = 0; i < CS_COUNT(cases); i++)
        assert_int_equal(cs_utf8_length(cs_bytes_of_text(cases[i].text)), cases[i].length);
}

static void hex_goes_both_ways_and_refuses_the_rest(void **state)
{
    (void)state;
    const uint8_t bytes[4] = {0x00, 0x9f, 0xa0, 0xff};
    char text[9];
    uint8_t again[4] = {0};

    cs_hex_encode(text, bytes, 4);
    assert_string_equal(text, "009fa0ff");
    assert_int_equal(cs_hex_decode("009FA0ff", 8, "hash", again, 4), CS_OK);
    assert_memory_equal(again, bytes, 4);

    assert_int_equal(cs_hex_decode("009fa0f", 7, "hash", again, 4), CS_INVALID);
    assert_int_equal(cs_hex_decode("009fa0fff", 9, "hash", again, 4), CS_INVALID);
    assert_int_equal(cs_hex_decode("009fa0fg", 8, "hash", again, 4), CS_INVALID);
    assert_non_null(strstr(cs_error_text(), "hash"));
}

static void base64_follows_rfc_4648(void **state)
{
    (void)state;
    static const struct {
        const char *plain, *encoded;
    } cases[] = {{"", ""},
                 {"f", "Zg=="},
                 {"fo", "Zm8="},
                 {"foo", "Zm9v"},
                 {"foob", "Zm9vYg=="},
                 {"fooba", "Zm9vYmE="},
                 {"foobar", "Zm9vYmFy"},
                 {"\xff\xfe\xfd", "//79"}};
    for (size_t i = 0; i < CS_COUNT(cases); i++) {
        CS_AUTO(cs_buffer) encoded = CS_BUFFER_EMPTY;
        CS_AUTO(cs_buffer) decoded = CS_BUFFER_EMPTY;
        cs_base64_encode(&encoded, cs_bytes_of_text(cases[i].plain));
        assert_string_equal(cs_buffer_text(&encoded), cases[i].encoded);
        assert_int_equal(cs_base64_decode(cases[i].encoded, strlen(cases[i].encoded), "key", &decoded), CS_OK);
        assert_string_equal(cs_buffer_text(&decoded), cases[i].plain);
    }
}

static void base64_with_anything_odd_is_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "Z", "Zg=", "Zg", "Z===", "====", "Zg==Zg==", "Zm9v Zg==", "Zh==", "Zm9=", "Zm-v"};
    for (size_t i = 0; i < CS_COUNT(cases); i++) {
        CS_AUTO(cs_buffer) decoded = CS_BUFFER_EMPTY;
        assert_int_equal(cs_base64_decode(cases[i], strlen(cases[i]), "key", &decoded), CS_INVALID);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_buffer_grows_and_stays_text),
        cmocka_unit_test(a_text_is_taken_out_even_when_empty),
        cmocka_unit_test(a_reservation_of_a_peer_that_is_too_large_is_refused),
        cmocka_unit_test(numbers_are_stored_in_the_stated_order),
        cmocka_unit_test(utf8_is_measured_strictly),
        cmocka_unit_test(hex_goes_both_ways_and_refuses_the_rest),
        cmocka_unit_test(base64_follows_rfc_4648),
        cmocka_unit_test(base64_with_anything_odd_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
