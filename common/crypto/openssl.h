/* OpenSSL inside this folder: owners for its objects, its errors as our sentences, and what a cs_tls_key is. No file
 * outside common/crypto includes this. Any thread. */
#ifndef CS_CRYPTO_OPENSSL_H
#define CS_CRYPTO_OPENSSL_H

#include "common/crypto/x509.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

CS_DEFINE_AUTO_PTR(BIO)
CS_DEFINE_AUTO_PTR(EVP_PKEY)
CS_DEFINE_AUTO_PTR(GENERAL_NAME)
CS_DEFINE_AUTO_PTR(GENERAL_NAMES)
CS_DEFINE_AUTO_PTR(SSL_CTX)
CS_DEFINE_AUTO_PTR(X509)
CS_DEFINE_AUTO_PTR(X509_EXTENSION)
CS_DEFINE_AUTO_PTR(X509_REQ)
CS_DEFINE_AUTO_PTR(X509_STORE)
CS_DEFINE_AUTO_PTR(X509_STORE_CTX)

struct cs_tls_key {
    EVP_PKEY *pkey;
};

/* The sentence, then OpenSSL's own reason, when it has one; its error queue is empty afterwards. */
cs_status cs_openssl_fail(cs_status status, const char *format, ...) CS_PRINTF(2, 3);
/* The first certificate of a PEM text; `what` names it. CS_INVALID. */
CS_MUST_CHECK cs_status cs_x509_parse(cs_bytes pem, const char *what, X509 **ret);
void cs_x509_append_pem(X509 *certificate, cs_buffer *out);
/* "CN=Cardiac consortium,O=cardiac" */
#define CS_X509_NAME_BYTES 256
void cs_x509_name_text(const X509_NAME *name, char out[CS_X509_NAME_BYTES]);
/* A store that trusts this one certificate. */
CS_MUST_CHECK cs_status cs_x509_store_of(cs_bytes authority_pem, X509_STORE **ret);
int64_t cs_x509_time_ms(const ASN1_TIME *time);

#endif
