/* Ed25519 keys and libsodium's small services: randomness, comparison in constant time, wiping. Any thread. RFC 8032;
 * the file format is RFC 8410. */
#include "common/crypto/sign.h"

#include "common/crypto/keyfile.h"

#include <sodium.h>
#include <string.h>

_Static_assert(CS_SIGN_PUBLIC_BYTES == crypto_sign_PUBLICKEYBYTES, "Ed25519 public key");
_Static_assert(CS_SIGNATURE_BYTES == crypto_sign_BYTES, "Ed25519 signature");

/* PKCS #8 of an Ed25519 key is these bytes and the seed: 48 bytes, one line of base64. */
static const uint8_t pkcs8_prefix[] = {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06,
                                       0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20};
#define PKCS8_BYTES      (sizeof pkcs8_prefix + crypto_sign_SEEDBYTES)
#define PKCS8_TEXT_CHARS 64
#define PEM_BEGIN        "-----BEGIN PRIVATE KEY-----\n"
#define PEM_END          "\n-----END PRIVATE KEY-----\n"
#define PEM_CHARS        (sizeof PEM_BEGIN - 1 + PKCS8_TEXT_CHARS + sizeof PEM_END - 1)

struct cs_sign_key {
    uint8_t *secret; /* seed and public half, crypto_sign_SECRETKEYBYTES, in guarded memory, read-only once made */
    uint8_t public_key[CS_SIGN_PUBLIC_BYTES];
};

cs_status cs_crypto_start(void)
{
    if (sodium_init() < 0)
        return cs_fail(CS_INTERNAL, "libsodium cannot start: no source of randomness");
    return CS_OK;
}

void cs_crypto_random(void *out, size_t size)
{
    randombytes_buf(out, size);
}

bool cs_crypto_equal(const void *a, const void *b, size_t size)
{
    return sodium_memcmp(a, b, size) == 0;
}

void cs_crypto_wipe(void *memory, size_t size)
{
    sodium_memzero(memory, size);
}

static cs_sign_key *key_from_seed(const uint8_t *seed)
{
    cs_sign_key *key = cs_alloc(sizeof *key);
    key->secret = sodium_malloc(crypto_sign_SECRETKEYBYTES);
    if (key->secret == NULL)
        sodium_misuse(); /* out of memory for 64 bytes: ends the process like cs_alloc does */
    crypto_sign_seed_keypair(key->public_key, key->secret, seed);
    sodium_mprotect_readonly(key->secret);
    return key;
}

cs_sign_key *cs_sign_key_new(void)
{
    uint8_t seed[crypto_sign_SEEDBYTES];
    randombytes_buf(seed, sizeof seed);
    cs_sign_key *key = key_from_seed(seed);
    sodium_memzero(seed, sizeof seed);
    return key;
}

cs_status cs_sign_key_save(const cs_sign_key *key, const char *path)
{
    uint8_t pkcs8[PKCS8_BYTES];
    char text[PKCS8_TEXT_CHARS + 1];
    memcpy(pkcs8, pkcs8_prefix, sizeof pkcs8_prefix);
    crypto_sign_ed25519_sk_to_seed(pkcs8 + sizeof pkcs8_prefix, key->secret);
    sodium_bin2base64(text, sizeof text, pkcs8, sizeof pkcs8, sodium_base64_VARIANT_ORIGINAL);

    CS_AUTO(cs_secret) pem = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&pem, PEM_CHARS + 1);
    cs_buffer_append_text(&pem, PEM_BEGIN);
    cs_buffer_append_text(&pem, text);
    cs_buffer_append_text(&pem, PEM_END);
    sodium_memzero(pkcs8, sizeof pkcs8);
    sodium_memzero(text, sizeof text);
    return cs_key_file_write(path, cs_buffer_view(&pem));
}

/* Base64 of the 48 bytes in `text` → the key. */
static cs_status key_from_text(const char *text, const char *path, cs_sign_key **ret)
{
    uint8_t pkcs8[PKCS8_BYTES];
    size_t size = 0;
    int result = sodium_base642bin(pkcs8, sizeof pkcs8, text, PKCS8_TEXT_CHARS, NULL, &size, NULL,
                                   sodium_base64_VARIANT_ORIGINAL);
    bool is_ed25519 = result == 0 && size == sizeof pkcs8 && memcmp(pkcs8, pkcs8_prefix, sizeof pkcs8_prefix) == 0;
    if (is_ed25519)
        *ret = key_from_seed(pkcs8 + sizeof pkcs8_prefix);
    sodium_memzero(pkcs8, sizeof pkcs8);
    if (!is_ed25519)
        return cs_fail(CS_INVALID, "%s: the private key is not an Ed25519 key (PKCS #8, RFC 8410)", path);
    return CS_OK;
}

cs_status cs_sign_key_load(const char *path, cs_sign_key **ret)
{
    CS_AUTO(cs_secret) pem = CS_BUFFER_EMPTY;
    CS_TRY(cs_key_file_read(path, &pem));

    const char *text = cs_buffer_text(&pem);
    bool is_framed = pem.size == PEM_CHARS && memcmp(text, PEM_BEGIN, sizeof PEM_BEGIN - 1) == 0 &&
                     memcmp(text + PEM_CHARS - (sizeof PEM_END - 1), PEM_END, sizeof PEM_END - 1) == 0;
    if (!is_framed)
        return cs_fail(CS_INVALID, "%s: expected one PEM block PRIVATE KEY with an Ed25519 key, found %zu other bytes",
                       path, pem.size);
    return key_from_text(text + sizeof PEM_BEGIN - 1, path, ret);
}

void cs_sign_key_free(cs_sign_key *key)
{
    if (key == NULL)
        return;
    sodium_free(key->secret); /* wipes */
    cs_free(key);
}

const uint8_t *cs_sign_key_public(const cs_sign_key *key)
{
    return key->public_key;
}

void cs_sign(const cs_sign_key *key, cs_bytes message, uint8_t signature[CS_SIGNATURE_BYTES])
{
    crypto_sign_detached(signature, NULL, message.data, message.size, key->secret);
}

cs_status cs_sign_verify(const uint8_t public_key[CS_SIGN_PUBLIC_BYTES], cs_bytes message, cs_bytes signature,
                         const char *what)
{
    if (signature.size != CS_SIGNATURE_BYTES)
        return cs_fail(CS_UNAUTHENTICATED, "%s: a signature has %d bytes, found %zu", what, CS_SIGNATURE_BYTES,
                       signature.size);
    if (crypto_sign_verify_detached(signature.data, message.data, message.size, public_key) != 0)
        return cs_fail(CS_UNAUTHENTICATED, "%s: the signature is not by the expected key", what);
    return CS_OK;
}
