/* Files that hold a private key or a password, and buffers that are wiped when they go out of scope. Used by whoever
 * keeps keys: this folder, server/pki, client/agent. Any thread. */
#ifndef CS_CRYPTO_KEYFILE_H
#define CS_CRYPTO_KEYFILE_H

#include "common/base/bytes.h"

#define CS_KEY_FILE_MAX_BYTES (64 * 1024)

/* CS_AUTO(cs_secret) pem = CS_BUFFER_EMPTY; is a cs_buffer that is overwritten before it is freed. */
typedef cs_buffer cs_secret;
static inline void cs_secret_clear(cs_secret *secret)
{
    cs_buffer_wipe(secret);
}

/* Written atomically, mode 0600. */
CS_MUST_CHECK cs_status cs_key_file_write(const char *path, cs_bytes pem);
/* CS_DENIED with path and mode when group or others may read or write the file; CS_NOT_FOUND when there is none. */
CS_MUST_CHECK cs_status cs_key_file_read(const char *path, cs_secret *ret_pem);
/* Overwrites the bytes and removes the file. What the medium itself keeps of them is beyond us. CS_OK also when it was
 * not there. */
CS_MUST_CHECK cs_status cs_key_file_wipe(const char *path);
/* "user:password", the first line of a file with the same rights as a key's, for a proxy that wants a login. CS_INVALID
 * where there is none; no sentence shows what is in the file. */
#define CS_PROXY_LOGIN_MAX_BYTES 512
CS_MUST_CHECK cs_status cs_proxy_login_read(const char *path, cs_secret *ret_login);

#endif
