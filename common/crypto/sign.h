/* Ed25519 signing keys (libsodium): the long-lived identity of a site and of the coordinator. Any thread; a key may be
 * used by many threads at once. Secret halves live in sodium_malloc memory. */
#ifndef CS_CRYPTO_SIGN_H
#define CS_CRYPTO_SIGN_H

#include "common/base/bytes.h"

#define CS_SIGN_PUBLIC_BYTES 32
#define CS_SIGNATURE_BYTES   64
#define CS_TOKEN_BYTES       32

/* Once, in main, before anything else of this folder. */
CS_MUST_CHECK cs_status cs_crypto_start(void);
/* For keys, tokens and nonces. */
void cs_crypto_random(void *out, size_t size);
bool cs_crypto_equal(const void *a, const void *b, size_t size); /* constant time */
void cs_crypto_wipe(void *memory, size_t size);

typedef struct cs_sign_key cs_sign_key;
cs_sign_key *cs_sign_key_new(void);
/* PEM "PRIVATE KEY" (PKCS #8, RFC 8410), mode 0600, written atomically; the load refuses a file that others may read.
 */
CS_MUST_CHECK cs_status cs_sign_key_save(const cs_sign_key *key, const char *path);
CS_MUST_CHECK cs_status cs_sign_key_load(const char *path, cs_sign_key **ret);
void cs_sign_key_free(cs_sign_key *key);
CS_DEFINE_AUTO_PTR(cs_sign_key)
const uint8_t *cs_sign_key_public(const cs_sign_key *key);
void cs_sign(const cs_sign_key *key, cs_bytes message, uint8_t signature[CS_SIGNATURE_BYTES]);
/* CS_UNAUTHENTICATED naming `what` when the signature is not by that key. */
CS_MUST_CHECK cs_status cs_sign_verify(const uint8_t public_key[CS_SIGN_PUBLIC_BYTES], cs_bytes message,
                                       cs_bytes signature, const char *what);

#endif
