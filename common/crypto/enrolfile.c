/* Texts of an enrolment: tokens, proofs, offline files. Called from both sides. Any thread. */
#include "common/crypto/enrolfile.h"

#include "common/crypto/digest.h"

#include <sodium.h>
#include <string.h>

#define LINE_CHARS  76
#define PROOF_LABEL "consilium-enrol-v1\n"

_Static_assert(CS_TOKEN_TEXT_BYTES ==
                   sodium_base64_ENCODED_LEN(CS_TOKEN_BYTES, sodium_base64_VARIANT_URLSAFE_NO_PADDING),
               "text of a token");

static const char *const first_lines[] = {
    [CS_ENROL_FILE_REQUEST] = "consilium enrolment request\n",
    [CS_ENROL_FILE_ANSWER] = "consilium enrolment answer\n",
};

void cs_enrol_file_write(cs_enrol_file kind, cs_bytes message, cs_buffer *ret)
{
    cs_buffer_append_text(ret, first_lines[kind]);
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    cs_base64_encode(&text, message);
    for (size_t at = 0; at < text.size; at += LINE_CHARS) {
        cs_buffer_append(ret, text.data + at, CS_MIN(text.size - at, (size_t)LINE_CHARS));
        cs_buffer_append_text(ret, "\n");
    }
}

cs_status cs_enrol_file_parse(cs_enrol_file kind, cs_bytes text, const char *source, cs_buffer *ret)
{
    const char *first_line = first_lines[kind];
    size_t first_size = strlen(first_line) - 1; /* without the line feed: mail programs make it CR LF */
    if (text.size > CS_ENROL_FILE_MAX_BYTES)
        return cs_fail(CS_INVALID, "%s: %zu bytes, expected at most %d", source, text.size, CS_ENROL_FILE_MAX_BYTES);
    if (text.size <= first_size || memcmp(text.data, first_line, first_size) != 0)
        return cs_fail(CS_INVALID, "%s: expected the first line '%.*s'", source, (int)first_size, first_line);

    CS_AUTO(cs_buffer) digits = CS_BUFFER_EMPTY;
    for (size_t at = first_size; at < text.size; at++) {
        if (text.data[at] != '\n' && text.data[at] != '\r')
            cs_buffer_append(&digits, &text.data[at], 1);
    }
    cs_buffer_reset(ret);
    CS_TRY(cs_base64_decode(cs_buffer_text(&digits), digits.size, source, ret));
    if (ret->size == 0 || ret->size > CS_ENROL_MESSAGE_MAX_BYTES)
        return cs_fail(CS_INVALID, "%s: a message of %zu bytes, expected 1 to %d", source, ret->size,
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
