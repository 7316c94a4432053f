/* Texts of an enrolment: tokens, proofs, offline files. Called from both sides. Any thread. */
#include "common/crypto/enrolfile.h"

#include "common/crypto/digest.h"

#include <sodium.h>
#include <string.h>

#define LINE_CHARS  76
#define PROOF_LABEL "consilium-enrol-v1\n"
#define FIRST_WORDS "consilium enrolment "

_Static_assert(CS_TOKEN_TEXT_BYTES ==
                   sodium_base64_ENCODED_LEN(CS_TOKEN_BYTES, sodium_base64_VARIANT_URLSAFE_NO_PADDING),
               "text of a token");

/* Mail programs make a line feed two characters. */
static bool is_line_end(uint8_t c)
{
    return c == '\n' || c == '\r';
}

void cs_enrol_file_write(const char *kind, cs_bytes message, cs_buffer *ret)
{
    cs_buffer_printf(ret, FIRST_WORDS "%s\n", kind);
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    cs_base64_encode(&text, message);
    for (size_t at = 0; at < text.size; at += LINE_CHARS) {
        cs_buffer_append(ret, text.data + at, CS_MIN(text.size - at, (size_t)LINE_CHARS));
        cs_buffer_append_text(ret, "\n");
    }
}

cs_status cs_enrol_file_parse(const char *kind, cs_bytes text, cs_buffer *ret)
{
    if (text.size > CS_ENROL_FILE_MAX_BYTES)
        return cs_fail(CS_INVALID, "enrolment %s: %zu bytes, expected at most %d", kind, text.size,
                       CS_ENROL_FILE_MAX_BYTES);
    CS_AUTO(cs_string) first_line = cs_format(FIRST_WORDS "%s", kind);
    size_t at = strlen(first_line);
    bool is_kind = text.size > at && memcmp(text.data, first_line, at) == 0 && is_line_end(text.data[at]);
    if (!is_kind)
        return cs_fail(CS_INVALID, "not an enrolment %s: expected the first line '%s'", kind, first_line);

    CS_AUTO(cs_buffer) digits = CS_BUFFER_EMPTY;
    for (; at < text.size; at++) {
        if (!is_line_end(text.data[at]))
            cs_buffer_append(&digits, &text.data[at], 1);
    }
    CS_AUTO(cs_string) what = cs_format("enrolment %s", kind);
    cs_buffer_reset(ret);
    CS_TRY(cs_base64_decode(cs_buffer_text(&digits), digits.size, what, ret));
    if (ret->size == 0 || ret->size > CS_ENROL_MESSAGE_MAX_BYTES)
        return cs_fail(CS_INVALID, "%s: a message of %zu bytes, expected 1 to %d", what, ret->size,
                       CS_ENROL_MESSAGE_MAX_BYTES);
    return CS_OK;
}

void cs_token_text(const uint8_t token[CS_TOKEN_BYTES], char out[CS_TOKEN_TEXT_BYTES])
{
    sodium_bin2base64(out, CS_TOKEN_TEXT_BYTES, token, CS_TOKEN_BYTES, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

cs_status cs_token_parse(const char *text, const char *what, uint8_t ret[CS_TOKEN_BYTES])
{
    size_t size = 0;
    const char *end = NULL;
    bool is_token = strlen(text) == CS_TOKEN_TEXT_BYTES - 1 &&
                    sodium_base642bin(ret, CS_TOKEN_BYTES, text, CS_TOKEN_TEXT_BYTES - 1, NULL, &size, &end,
                                      sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0 &&
                    size == CS_TOKEN_BYTES && *end == 0;
    if (!is_token) /* the text itself stays out of the sentence: it may be most of a token */
        return cs_fail(CS_INVALID, "%s: expected a token of %d base64url characters, found %zu characters", what,
                       CS_TOKEN_TEXT_BYTES - 1, strlen(text));
    return CS_OK;
}

void cs_enrol_proof_text(const char *site, cs_bytes token, cs_bytes csr, cs_buffer *ret)
{
    cs_hash token_hash = cs_sha256(token), csr_hash = cs_sha256(csr);
    cs_buffer_append_text(ret, PROOF_LABEL);
    cs_buffer_append_text(ret, site);
    cs_buffer_append_text(ret, "\n");
    cs_buffer_append(ret, token_hash.bytes, CS_HASH_BYTES);
    cs_buffer_append(ret, csr_hash.bytes, CS_HASH_BYTES);
}
