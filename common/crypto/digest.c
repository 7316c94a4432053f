/* SHA-256 and SHA-512 through OpenSSL's EVP, which uses the processor's own instructions. Called by everything that
 * names bytes by their hash. Any thread. */
#include "common/crypto/digest.h"

#include "common/base/file.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HASH_PREFIX      "sha256:"
#define FILE_CHUNK_BYTES ((size_t)256 * 1024)

struct cs_digest {
    EVP_MD_CTX *context;
};

static EVP_MD *sha256, *sha512;

static void fetch(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    sha512 = EVP_MD_fetch(NULL, "SHA512", NULL);
}

/* Fetched once: a fetch for each digest costs more than hashing a small message. */
static void fetch_once(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fetch);
}

static const EVP_MD *algorithm(void)
{
    fetch_once();
    return sha256;
}

/* Without these digests nothing here can be trusted, and no caller could go on. */
static void must(int openssl_result)
{
    if (openssl_result == 1)
        return;
    fputs("consilium: OpenSSL cannot compute SHA-256 or SHA-512 (broken installation or out of memory)\n", stderr);
    abort();
}

cs_hash cs_sha256(cs_bytes bytes)
{
    cs_hash hash;
    must(
        EVP_Digest(bytes.size > 0 ? bytes.data : (const uint8_t *)"", bytes.size, hash.bytes, NULL, algorithm(), NULL));
    return hash;
}

bool cs_hash_equal(const cs_hash *a, const cs_hash *b)
{
    return memcmp(a->bytes, b->bytes, CS_HASH_BYTES) == 0;
}

bool cs_hash_is_zero(const cs_hash *hash)
{
    static const cs_hash zero;
    return cs_hash_equal(hash, &zero);
}

void cs_hash_text(const cs_hash *hash, char out[CS_HASH_TEXT_BYTES])
{
    memcpy(out, HASH_PREFIX, strlen(HASH_PREFIX));
    cs_hex_encode(out + strlen(HASH_PREFIX), hash->bytes, CS_HASH_BYTES);
}

void cs_hash_hex(const cs_hash *hash, char out[CS_HASH_HEX_BYTES])
{
    cs_hex_encode(out, hash->bytes, CS_HASH_BYTES);
}

cs_status cs_hash_parse(const char *text, const char *what, cs_hash *ret)
{
    const char *digits = strncmp(text, HASH_PREFIX, strlen(HASH_PREFIX)) == 0 ? text + strlen(HASH_PREFIX) : text;
    if (strlen(digits) != 2 * (size_t)CS_HASH_BYTES)
        return cs_fail(CS_INVALID, "%s: expected a SHA-256 of %d hexadecimal digits, found %zu characters", what,
                       2 * CS_HASH_BYTES, strlen(digits));
    return cs_hex_decode(digits, 2 * (size_t)CS_HASH_BYTES, what, ret->bytes, CS_HASH_BYTES);
}

cs_status cs_hash_from(cs_bytes bytes, const char *what, cs_hash *ret)
{
    if (bytes.size != CS_HASH_BYTES)
        return cs_fail(CS_INVALID, "%s: expected a SHA-256 of %d bytes, found %zu", what, CS_HASH_BYTES, bytes.size);
    memcpy(ret->bytes, bytes.data, CS_HASH_BYTES);
    return CS_OK;
}

cs_digest *cs_digest_new(void)
{
    cs_digest *digest = cs_alloc(sizeof *digest);
    digest->context = EVP_MD_CTX_new();
    must(digest->context != NULL);
    must(EVP_DigestInit_ex2(digest->context, algorithm(), NULL));
    return digest;
}

void cs_digest_add(cs_digest *digest, const void *data, size_t size)
{
    if (size > 0)
        must(EVP_DigestUpdate(digest->context, data, size));
}

cs_hash cs_digest_end(cs_digest *digest)
{
    cs_hash hash;
    must(EVP_DigestFinal_ex(digest->context, hash.bytes, NULL));
    return hash;
}

void cs_digest_free(cs_digest *digest)
{
    if (digest == NULL)
        return;
    EVP_MD_CTX_free(digest->context);
    cs_free(digest);
}

void cs_sha512(const cs_bytes *parts, size_t count, uint8_t out[CS_SHA512_BYTES])
{
    fetch_once();
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    must(context != NULL);
    must(EVP_DigestInit_ex2(context, sha512, NULL));
    for (size_t i = 0; i < count; i++)
        if (parts[i].size > 0)
            must(EVP_DigestUpdate(context, parts[i].data, parts[i].size));
    must(EVP_DigestFinal_ex(context, out, NULL));
    EVP_MD_CTX_free(context);
}

cs_status cs_sha256_file(const char *path, cs_hash *ret, uint64_t *ret_size)
{
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(cs_file_open(path, O_RDONLY, 0, &fd));

    CS_AUTO_PTR(cs_digest) digest = cs_digest_new();
    CS_AUTO(cs_buffer) chunk = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&chunk, FILE_CHUNK_BYTES);
    uint64_t size = 0;
    for (;;) {
        size_t got = 0;
        CS_TRY(cs_file_read(fd, chunk.data, FILE_CHUNK_BYTES, &got));
        if (got == 0)
            break;
        cs_digest_add(digest, chunk.data, got);
        size += got;
    }
    *ret = cs_digest_end(digest);
    if (ret_size != NULL)
        *ret_size = size;
    return CS_OK;
}
