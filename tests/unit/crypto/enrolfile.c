/* Tokens as text, offline files, and what the proof signs. */
#include "common/crypto/enrolfile.h"

#include "common/crypto/digest.h"
#include "tests/unit/crypto/folder.h"

static void a_message_survives_its_file(void **state)
{
    (void)state;
    uint8_t message[3000];
    cs_crypto_random(message, sizeof message);
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) back = CS_BUFFER_EMPTY;

    cs_enrol_file_write("request", cs_bytes_of(message, sizeof message), &text);
    must_be_ok(cs_enrol_file_parse("request", cs_buffer_view(&text), &back));

    assert_int_equal(back.size, sizeof message);
    assert_memory_equal(back.data, message, sizeof message);
    must_fail(cs_enrol_file_parse("answer", cs_buffer_view(&text), &back), CS_INVALID, "consilium enrolment answer");
}

static void a_file_with_line_ends_of_a_mail_program_is_read(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) back = CS_BUFFER_EMPTY;

    must_be_ok(
        cs_enrol_file_parse("answer", cs_bytes_of_text("consilium enrolment answer\r\naGVs\r\nbG8=\r\n"), &back));

    assert_string_equal(cs_buffer_text(&back), "hello");
}

static void files_that_are_none_are_refused_by_name(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "hello",
        "consilium enrolment answer",
        "consilium enrolment answer\n",
        "consilium enrolment answer\n!!!!\n",
        "consilium enrolment answer\naGVsbG8\n=x",
        "consilium enrolment answers\naGVsbG8=\n",
    };
    CS_AUTO(cs_buffer) back = CS_BUFFER_EMPTY;
    for (size_t i = 0; i < CS_COUNT(bad); i++)
        must_fail(cs_enrol_file_parse("answer", cs_bytes_of_text(bad[i]), &back), CS_INVALID, "enrolment answer");
}

static void a_message_over_the_limit_is_refused(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) message = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) back = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&message, CS_ENROL_MESSAGE_MAX_BYTES + 1);
    memset(message.data, 'x', CS_ENROL_MESSAGE_MAX_BYTES + 1);

    cs_enrol_file_write("answer", cs_bytes_of(message.data, CS_ENROL_MESSAGE_MAX_BYTES), &text);
    must_be_ok(cs_enrol_file_parse("answer", cs_buffer_view(&text), &back));
    cs_buffer_reset(&text);
    cs_enrol_file_write("answer", cs_bytes_of(message.data, CS_ENROL_MESSAGE_MAX_BYTES + 1), &text);
    must_fail(cs_enrol_file_parse("answer", cs_buffer_view(&text), &back), CS_INVALID, "65537");
    while (text.size <= CS_ENROL_FILE_MAX_BYTES)
        cs_buffer_append_text(&text, "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n");
    must_fail(cs_enrol_file_parse("answer", cs_buffer_view(&text), &back), CS_INVALID, "at most");
}

static void tokens_read_back_and_nothing_else_is_one(void **state)
{
    (void)state;
    uint8_t token[CS_TOKEN_BYTES], back[CS_TOKEN_BYTES];
    char text[CS_TOKEN_TEXT_BYTES];
    memset(token, 0xfb, sizeof token); /* gives '-' and '_' */

    cs_token_text(token, text);

    must_be_ok(cs_token_parse(text, "token", back));
    assert_memory_equal(token, back, sizeof token);
    must_fail(cs_token_parse("", "token", back), CS_INVALID, "token");
    must_fail(cs_token_parse(text + 1, "token", back), CS_INVALID, "token", "42");
    text[5] = '+';
    must_fail(cs_token_parse(text, "token", back), CS_INVALID, "token");
    assert_null(strstr(cs_error_text(), text));
}

static void the_proof_text_is_what_the_protocol_says(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    cs_hash a = cs_sha256(cs_bytes_of_text("token")), b = cs_sha256(cs_bytes_of_text("csr"));

    cs_enrol_proof_text("mercy", cs_bytes_of_text("token"), cs_bytes_of_text("csr"), &text);

    assert_int_equal(text.size, 19 + 6 + 64);
    assert_memory_equal(text.data, "consilium-enrol-v1\nmercy\n", 25);
    assert_memory_equal(text.data + 25, a.bytes, 32);
    assert_memory_equal(text.data + 57, b.bytes, 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_survives_its_file),
        cmocka_unit_test(a_file_with_line_ends_of_a_mail_program_is_read),
        cmocka_unit_test(files_that_are_none_are_refused_by_name),
        cmocka_unit_test(a_message_over_the_limit_is_refused),
        cmocka_unit_test(tokens_read_back_and_nothing_else_is_one),
        cmocka_unit_test(the_proof_text_is_what_the_protocol_says),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
