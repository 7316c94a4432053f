/* What coordinator and site must agree on, letter for letter, when a site enrols: the text of a token, what the proof
 * signs, and the files of an offline enrolment. Called by server/pki, the admin service and client/agent. Any thread.
 */
#ifndef CS_CRYPTO_ENROLFILE_H
#define CS_CRYPTO_ENROLFILE_H

#include "common/base/bytes.h"
#include "common/crypto/sign.h"

#define CS_ENROL_MESSAGE_MAX_BYTES (64 * 1024) /* one EnrolRequest or EnrolAnswer, packed */
#define CS_ENROL_FILE_MAX_BYTES    (96 * 1024) /* the same as a file: base64 and a line of text */

/* An offline enrolment travels as two text files: a first line "consilium enrolment KIND", where KIND is "request" or
 * "answer", then base64 of the packed message. Appends the file's text to `ret`. */
void cs_enrol_file_write(const char *kind, cs_bytes message, cs_buffer *ret);
/* CS_INVALID when the text is no such file, or one of the other kind. */
CS_MUST_CHECK cs_status cs_enrol_file_parse(const char *kind, cs_bytes text, cs_buffer *ret);

/* base64url without padding, what stands in a join file; and a zero. */
#define CS_TOKEN_TEXT_BYTES 44
void cs_token_text(const uint8_t token[CS_TOKEN_BYTES], char out[CS_TOKEN_TEXT_BYTES]);
CS_MUST_CHECK cs_status cs_token_parse(const char *text, const char *what, uint8_t ret[CS_TOKEN_BYTES]);

/* What the site's signing key signs to show that it belongs to this request:
 *   "consilium-enrol-v1" 0x0A site 0x0A sha256(token) sha256(csr) */
void cs_enrol_proof_text(const char *site, cs_bytes token, cs_bytes csr, cs_buffer *ret);

#endif
