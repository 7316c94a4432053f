/* SHA-256 (OpenSSL) and the hash type that names blobs, plans and models; SHA-512. Any thread. */
#ifndef CS_CRYPTO_DIGEST_H
#define CS_CRYPTO_DIGEST_H

#include "common/base/bytes.h"

#define CS_HASH_BYTES      32
#define CS_HASH_TEXT_BYTES (7 + 2 * CS_HASH_BYTES + 1) /* "sha256:" + hex + zero */
#define CS_HASH_HEX_BYTES  (2 * CS_HASH_BYTES + 1)

typedef struct cs_hash {
    uint8_t bytes[CS_HASH_BYTES];
} cs_hash;

cs_hash cs_sha256(cs_bytes bytes);
bool cs_hash_equal(const cs_hash *a, const cs_hash *b);
bool cs_hash_is_zero(const cs_hash *hash);
/* "sha256:9f31…" */
void cs_hash_text(const cs_hash *hash, char out[CS_HASH_TEXT_BYTES]);
void cs_hash_hex(const cs_hash *hash, char out[CS_HASH_HEX_BYTES]);
/* With or without "sha256:"; CS_INVALID names `what`. */
CS_MUST_CHECK cs_status cs_hash_parse(const char *text, const char *what, cs_hash *ret);
/* From a message's bytes field: exactly 32 bytes, else CS_INVALID naming `what`. */
CS_MUST_CHECK cs_status cs_hash_from(cs_bytes bytes, const char *what, cs_hash *ret);

/* Running digest. Free with cs_digest_free. */
typedef struct cs_digest cs_digest;
cs_digest *cs_digest_new(void);
void cs_digest_add(cs_digest *digest, const void *data, size_t size);
/* Ends it; only cs_digest_free may follow. */
cs_hash cs_digest_end(cs_digest *digest);
void cs_digest_free(cs_digest *digest);
CS_DEFINE_AUTO_PTR(cs_digest)

/* SHA-512 of the parts one after the other, for what a standard builds on it (RFC 9380's hash to a curve). */
#define CS_SHA512_BYTES 64
void cs_sha512(const cs_bytes *parts, size_t count, uint8_t out[CS_SHA512_BYTES]);

/* Streams the file through the digest. */
CS_MUST_CHECK cs_status cs_sha256_file(const char *path, cs_hash *ret, uint64_t *ret_size);

#endif
