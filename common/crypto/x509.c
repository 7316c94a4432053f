/* X.509 with OpenSSL's EVP API: makes the authority, requests and leaves, and reads identities. Called by pki,
 * enrolment and the rpc layer. Any thread. */
#include "common/crypto/x509.h"

#include "common/base/clock.h"
#include "common/crypto/openssl.h"
#include "common/crypto/sign.h"

#include <arpa/inet.h>
#include <limits.h>
#include <openssl/pem.h>
#include <string.h>
#include <time.h>

#define SPIFFE_PREFIX      "spiffe://consilium/"
#define SPIFFE_SITE        "/site/"
#define SPIFFE_COORDINATOR "/coordinator"
#define DISPLAY_NAME_MAX   64 /* RFC 5280: ub-common-name */
#define DNS_NAME_MAX       253
#define KEY_PEM_BYTES      512

/* SubjectPublicKeyInfo of an uncompressed point on P-256, up to the point. Anything else, such as explicit curve
 * parameters, is not what other TLS stacks expect and not what we hash. */
static const uint8_t p256_prefix[] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48,
                                      0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
                                      0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04};
#define P256_SPKI_BYTES 91

/* ---- errors and small readers ---- */

cs_status cs_openssl_fail(cs_status status, const char *format, ...)
{
    char text[CS_ERROR_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);

    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    cs_fail(status, "%s%s%s", text, reason != NULL ? ": " : "", reason != NULL ? reason : "");
    ERR_clear_error();
    return status;
}

cs_status cs_x509_parse(cs_bytes pem, const char *what, X509 **ret)
{
    if (pem.size == 0 || pem.size > CS_PEM_MAX_BYTES)
        return cs_fail(CS_INVALID, "%s: %zu bytes of PEM, expected 1 to %d", what, pem.size, CS_PEM_MAX_BYTES);
    CS_AUTO_PTR(BIO) bio = BIO_new_mem_buf(pem.data, (int)pem.size);
    X509 *certificate = PEM_read_bio_X509(bio, NULL, NULL, (void *)"");
    if (certificate == NULL)
        return cs_openssl_fail(CS_INVALID, "%s: not a PEM certificate", what);
    *ret = certificate;
    return CS_OK;
}

static void append_bio(BIO *bio, cs_buffer *out)
{
    char *data = NULL;
    long size = BIO_get_mem_data(bio, &data);
    if (size > 0)
        cs_buffer_append(out, data, (size_t)size);
}

void cs_x509_append_pem(X509 *certificate, cs_buffer *out)
{
    CS_AUTO_PTR(BIO) bio = BIO_new(BIO_s_mem());
    if (bio != NULL && PEM_write_bio_X509(bio, certificate) == 1)
        append_bio(bio, out);
}

void cs_x509_name_text(const X509_NAME *name, char out[CS_X509_NAME_BYTES])
{
    out[0] = 0;
    CS_AUTO_PTR(BIO) bio = BIO_new(BIO_s_mem());
    if (bio == NULL || X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB) < 0)
        return;
    int size = BIO_read(bio, out, CS_X509_NAME_BYTES - 1);
    out[size > 0 ? size : 0] = 0;
}

int64_t cs_x509_time_ms(const ASN1_TIME *time)
{
    struct tm parts = {0};
    if (time == NULL || ASN1_TIME_to_tm(time, &parts) != 1)
        return 0; /* a certificate without a date is one that ended long ago */
    return (int64_t)timegm(&parts) * 1000;
}

cs_status cs_x509_store_of(cs_bytes authority_pem, X509_STORE **ret)
{
    CS_AUTO_PTR(X509) authority = NULL;
    CS_TRY(cs_x509_parse(authority_pem, "the authority's certificate", &authority));
    CS_AUTO_PTR(X509_STORE) store = X509_STORE_new();
    if (store == NULL || X509_STORE_add_cert(store, authority) != 1)
        return cs_openssl_fail(CS_INTERNAL, "cannot trust the authority's certificate");
    *ret = CS_TAKE(store);
    return CS_OK;
}

static bool is_name_character(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

/* A DNS label in lower case; the sentence is the caller's. */
static bool is_name(const char *name, size_t size)
{
    if (size == 0 || size > CS_NAME_MAX || name[0] == '-' || name[size - 1] == '-')
        return false;
    for (size_t i = 0; i < size; i++) {
        if (!is_name_character(name[i]))
            return false;
    }
    return true;
}

cs_status cs_name_check(const char *name, const char *what)
{
    if (!is_name(name, strlen(name)))
        return cs_fail(CS_INVALID, "%s '%.80s': a name has 1 to %d characters a-z, 0-9 and '-', and no '-' at its ends",
                       what, name, CS_NAME_MAX);
    return CS_OK;
}

/* ---- keys ---- */

static cs_status spki_hash(X509_PUBKEY *public_key, const char *what, cs_hash *ret)
{
    uint8_t *der = NULL;
    int size = public_key != NULL ? i2d_X509_PUBKEY(public_key, &der) : -1;
    bool is_p256 = size == P256_SPKI_BYTES && memcmp(der, p256_prefix, sizeof p256_prefix) == 0;
    if (is_p256)
        *ret = cs_sha256(cs_bytes_of(der, (size_t)size));
    OPENSSL_free(der);
    ERR_clear_error();
    if (!is_p256)
        return cs_fail(CS_INVALID, "%s: the key is not an ECDSA key on P-256", what);
    return CS_OK;
}

static cs_status key_hash(EVP_PKEY *pkey, const char *what, cs_hash *ret)
{
    X509_PUBKEY *public_key = NULL;
    if (X509_PUBKEY_set(&public_key, pkey) != 1)
        return cs_openssl_fail(CS_INVALID, "%s: cannot use the key", what);
    cs_status status = spki_hash(public_key, what, ret);
    X509_PUBKEY_free(public_key);
    return status;
}

cs_status cs_tls_key_new(cs_tls_key **ret)
{
    EVP_PKEY *pkey = EVP_EC_gen("P-256");
    if (pkey == NULL)
        return cs_openssl_fail(CS_INTERNAL, "cannot make a P-256 key");
    cs_tls_key *key = cs_alloc(sizeof *key);
    key->pkey = pkey;
    *ret = key;
    return CS_OK;
}

cs_status cs_tls_key_write(const cs_tls_key *key, cs_secret *ret_pem)
{
    /* Memory for the text once, before anything secret is in it: growing would leave a copy behind. */
    cs_buffer_reserve(ret_pem, ret_pem->size + KEY_PEM_BYTES);
    CS_AUTO_PTR(BIO) bio = BIO_new(BIO_s_secmem());
    if (bio == NULL || PEM_write_bio_PrivateKey(bio, key->pkey, NULL, NULL, 0, NULL, NULL) != 1)
        return cs_openssl_fail(CS_INTERNAL, "cannot write a private key as PEM");
    append_bio(bio, ret_pem);
    return CS_OK;
}

cs_status cs_tls_key_read(cs_bytes pem, const char *what, cs_tls_key **ret)
{
    if (pem.size == 0 || pem.size > CS_KEY_FILE_MAX_BYTES)
        return cs_fail(CS_INVALID, "%s: %zu bytes of PEM, expected 1 to %d", what, pem.size, CS_KEY_FILE_MAX_BYTES);
    CS_AUTO_PTR(BIO) bio = BIO_new_mem_buf(pem.data, (int)pem.size);
    /* A pass phrase of "" instead of a callback: a daemon never asks on the terminal. */
    CS_AUTO_PTR(EVP_PKEY) pkey = PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)"");
    if (pkey == NULL)
        return cs_openssl_fail(CS_INVALID, "%s: no PEM private key in it", what);
    cs_hash hash;
    CS_TRY(key_hash(pkey, what, &hash));
    cs_tls_key *key = cs_alloc(sizeof *key);
    key->pkey = CS_TAKE(pkey);
    *ret = key;
    return CS_OK;
}

cs_status cs_tls_key_save(const cs_tls_key *key, const char *path)
{
    CS_AUTO(cs_secret) pem = CS_BUFFER_EMPTY;
    CS_TRY(cs_tls_key_write(key, &pem));
    return cs_key_file_write(path, cs_buffer_view(&pem));
}

cs_status cs_tls_key_load(const char *path, cs_tls_key **ret)
{
    CS_AUTO(cs_secret) pem = CS_BUFFER_EMPTY;
    CS_TRY(cs_key_file_read(path, &pem));
    return cs_tls_key_read(cs_buffer_view(&pem), path, ret);
}

void cs_tls_key_free(cs_tls_key *key)
{
    if (key == NULL)
        return;
    EVP_PKEY_free(key->pkey);
    cs_free(key);
}

cs_status cs_tls_pair_save(const char *path, const cs_tls_key *key, cs_bytes certificate_pem)
{
    CS_TRY(cs_certificate_matches_key(certificate_pem, key));
    CS_AUTO(cs_secret) text = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&text, KEY_PEM_BYTES + certificate_pem.size);
    CS_TRY(cs_tls_key_write(key, &text));
    cs_buffer_append(&text, certificate_pem.data, certificate_pem.size);
    return cs_key_file_write(path, cs_buffer_view(&text));
}

cs_status cs_tls_pair_load(const char *path, cs_tls_key **ret_key, cs_buffer *ret_certificate_pem)
{
    CS_AUTO(cs_secret) text = CS_BUFFER_EMPTY;
    CS_TRY(cs_key_file_read(path, &text));
    CS_AUTO_PTR(cs_tls_key) key = NULL;
    CS_TRY(cs_tls_key_read(cs_buffer_view(&text), path, &key));
    CS_AUTO_PTR(X509) certificate = NULL;
    CS_TRY(cs_x509_parse(cs_buffer_view(&text), path, &certificate));

    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    cs_x509_append_pem(certificate, &pem);
    if (cs_certificate_matches_key(cs_buffer_view(&pem), key) != CS_OK)
        return cs_wrap(CS_DATA_LOSS, "%s", path);
    cs_buffer_reset(ret_certificate_pem);
    cs_buffer_append(ret_certificate_pem, pem.data, pem.size);
    *ret_key = CS_TAKE(key);
    return CS_OK;
}

/* ---- requests ---- */

cs_status cs_csr_make(const cs_tls_key *key, cs_buffer *ret_der)
{
    CS_AUTO_PTR(X509_REQ) request = X509_REQ_new();
    if (request == NULL || X509_REQ_set_version(request, X509_REQ_VERSION_1) != 1 ||
        X509_REQ_set_pubkey(request, key->pkey) != 1 || X509_REQ_sign(request, key->pkey, EVP_sha256()) <= 0)
        return cs_openssl_fail(CS_INTERNAL, "cannot make a certificate request");
    uint8_t *der = NULL;
    int size = i2d_X509_REQ(request, &der);
    if (size <= 0)
        return cs_openssl_fail(CS_INTERNAL, "cannot encode a certificate request");
    cs_buffer_append(ret_der, der, (size_t)size);
    OPENSSL_free(der);
    return CS_OK;
}

static cs_status csr_parse(cs_bytes der, cs_hash *ret_public_key, X509_REQ **ret)
{
    static const char what[] = "certificate request";
    if (der.size == 0 || der.size > CS_CSR_MAX_BYTES)
        return cs_fail(CS_INVALID, "%s: %zu bytes, expected 1 to %d", what, der.size, CS_CSR_MAX_BYTES);
    const uint8_t *at = der.data;
    CS_AUTO_PTR(X509_REQ) request = d2i_X509_REQ(NULL, &at, (long)der.size);
    if (request == NULL || at != der.data + der.size)
        return cs_openssl_fail(CS_INVALID, "%s: not one PKCS #10 request in DER", what);
    CS_TRY(spki_hash(X509_REQ_get_X509_PUBKEY(request), what, ret_public_key));
    if (X509_REQ_verify(request, X509_REQ_get0_pubkey(request)) != 1) {
        ERR_clear_error();
        return cs_fail(CS_UNAUTHENTICATED, "%s: it is not signed by the key it names", what);
    }
    *ret = CS_TAKE(request);
    return CS_OK;
}

cs_status cs_csr_check(cs_bytes der, cs_hash *ret_public_key)
{
    CS_AUTO_PTR(X509_REQ) request = NULL;
    return csr_parse(der, ret_public_key, &request);
}

/* ---- issuing ---- */

static bool add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    CS_AUTO_PTR(X509_EXTENSION) extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    return extension != NULL && X509_add_ext(certificate, extension, -1) == 1;
}

/* Built value by value, not from a configuration text: an address can never become a second entry. */
static bool push_name(GENERAL_NAMES *names, int type, const void *data, size_t size)
{
    CS_AUTO_PTR(GENERAL_NAME) name = GENERAL_NAME_new();
    ASN1_STRING *value = ASN1_STRING_type_new(type == GEN_IPADD ? V_ASN1_OCTET_STRING : V_ASN1_IA5STRING);
    if (name == NULL || value == NULL || ASN1_STRING_set(value, data, (int)size) != 1) {
        ASN1_STRING_free(value);
        return false;
    }
    GENERAL_NAME_set0_value(name, type, value);
    if (sk_GENERAL_NAME_push(names, name) <= 0)
        return false;
    name = NULL; /* owned by the list now */
    return true;
}

static bool is_dns_name(const char *text)
{
    size_t size = strlen(text);
    if (size == 0 || size > DNS_NAME_MAX || text[0] == '.' || text[0] == '-')
        return false;
    for (size_t i = 0; i < size; i++) {
        bool is_upper = text[i] >= 'A' && text[i] <= 'Z';
        bool is_dot = text[i] == '.' && text[i - 1] != '.';
        if (!is_upper && !is_dot && !is_name_character(text[i]))
            return false;
    }
    return true;
}

static cs_status push_address(GENERAL_NAMES *names, const char *address)
{
    struct in6_addr v6;
    struct in_addr v4;
    bool is_pushed;
    if (inet_pton(AF_INET, address, &v4) == 1)
        is_pushed = push_name(names, GEN_IPADD, &v4, sizeof v4);
    else if (inet_pton(AF_INET6, address, &v6) == 1)
        is_pushed = push_name(names, GEN_IPADD, &v6, sizeof v6);
    else if (is_dns_name(address))
        is_pushed = push_name(names, GEN_DNS, address, strlen(address));
    else
        return cs_fail(CS_INVALID, "address '%.80s' is neither a DNS name nor an IP address", address);
    return is_pushed ? CS_OK : cs_openssl_fail(CS_INTERNAL, "cannot name '%s' in a certificate", address);
}

static cs_status add_names(X509 *certificate, const cs_leaf_request *request)
{
    CS_AUTO_PTR(GENERAL_NAMES) names = GENERAL_NAMES_new();
    CS_AUTO(cs_string) uri = request->role == CS_ROLE_SITE
                                 ? cs_format(SPIFFE_PREFIX "%s" SPIFFE_SITE "%s", request->consortium, request->name)
                                 : cs_format(SPIFFE_PREFIX "%s" SPIFFE_COORDINATOR, request->consortium);
    if (names == NULL || !push_name(names, GEN_URI, uri, strlen(uri)))
        return cs_openssl_fail(CS_INTERNAL, "cannot name '%s' in a certificate", uri);
    for (size_t i = 0; request->addresses != NULL && request->addresses[i] != NULL; i++)
        CS_TRY(push_address(names, request->addresses[i]));
    if (X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, 0, 0) != 1)
        return cs_openssl_fail(CS_INTERNAL, "cannot put names into a certificate");
    return CS_OK;
}

static bool set_serial(X509 *certificate, const uint8_t *serial, size_t size)
{
    BIGNUM *number = BN_bin2bn(serial, (int)size, NULL);
    bool is_set = number != NULL && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != NULL;
    BN_free(number);
    return is_set;
}

static bool set_dates(X509 *certificate, int64_t not_before_ms, int64_t not_after_ms)
{
    return ASN1_TIME_set(X509_getm_notBefore(certificate), (time_t)(not_before_ms / 1000)) != NULL &&
           ASN1_TIME_set(X509_getm_notAfter(certificate), (time_t)(not_after_ms / 1000)) != NULL;
}

static bool add_name_entry(X509_NAME *name, const char *field, const char *value)
{
    return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, (const uint8_t *)value, -1, -1, 0) == 1;
}

cs_status cs_authority_make(const cs_tls_key *key, const char *consortium, const char *display_name, int64_t now_ms,
                            cs_buffer *ret_pem)
{
    CS_TRY(cs_name_check(consortium, "consortium"));
    size_t name_size = strlen(display_name);
    if (name_size == 0 || name_size > DISPLAY_NAME_MAX)
        return cs_fail(CS_INVALID, "display name: %zu bytes, expected 1 to %d", name_size, DISPLAY_NAME_MAX);

    uint8_t serial[CS_SERIAL_BYTES];
    cs_crypto_random(serial, sizeof serial);
    CS_AUTO_PTR(X509) authority = X509_new();
    bool is_made = authority != NULL && X509_set_version(authority, X509_VERSION_3) == 1 &&
                   set_serial(authority, serial, sizeof serial) &&
                   set_dates(authority, now_ms - CS_BACKDATE_MS, now_ms + CS_AUTHORITY_LIFE_MS) &&
                   add_name_entry(X509_get_subject_name(authority), "O", consortium) &&
                   add_name_entry(X509_get_subject_name(authority), "CN", display_name) &&
                   X509_set_issuer_name(authority, X509_get_subject_name(authority)) == 1 &&
                   X509_set_pubkey(authority, key->pkey) == 1 &&
                   add_extension(authority, authority, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
                   add_extension(authority, authority, NID_key_usage, "critical,keyCertSign") &&
                   add_extension(authority, authority, NID_subject_key_identifier, "hash") &&
                   add_extension(authority, authority, NID_authority_key_identifier, "keyid:always") &&
                   X509_sign(authority, key->pkey, EVP_sha256()) > 0;
    if (!is_made)
        return cs_openssl_fail(CS_INTERNAL, "cannot make the authority's certificate for '%s'", display_name);
    cs_x509_append_pem(authority, ret_pem);
    return CS_OK;
}

static cs_status check_leaf_request(const cs_leaf_request *request)
{
    static const uint8_t zero[CS_SERIAL_BYTES];
    CS_TRY(cs_name_check(request->consortium, "consortium"));
    if (request->role == CS_ROLE_SITE)
        CS_TRY(cs_name_check(request->name, "site"));
    if (memcmp(request->serial, zero, sizeof zero) == 0)
        return cs_fail(CS_INVALID, "a certificate needs a serial number other than zero");
    if (request->life_ms <= 0)
        return cs_fail(CS_INVALID, "a certificate needs a life above zero, found %lld ms", (long long)request->life_ms);
    return CS_OK;
}

cs_status cs_leaf_issue(const cs_tls_key *authority_key, cs_bytes authority_pem, const cs_leaf_request *request,
                        cs_buffer *ret_pem)
{
    CS_TRY(check_leaf_request(request));
    CS_TRY(cs_certificate_matches_key(authority_pem, authority_key));
    CS_AUTO_PTR(X509) authority = NULL;
    CS_TRY(cs_x509_parse(authority_pem, "the authority's certificate", &authority));
    cs_hash public_key;
    CS_AUTO_PTR(X509_REQ) csr = NULL;
    CS_TRY(csr_parse(request->csr_der, &public_key, &csr));

    bool is_site = request->role == CS_ROLE_SITE;
    int64_t authority_ends_ms = cs_x509_time_ms(X509_get0_notAfter(authority));
    int64_t not_after_ms = CS_MIN(request->now_ms + request->life_ms, authority_ends_ms);
    CS_AUTO_PTR(X509) leaf = X509_new();
    bool is_made = leaf != NULL && X509_set_version(leaf, X509_VERSION_3) == 1 &&
                   set_serial(leaf, request->serial, CS_SERIAL_BYTES) &&
                   set_dates(leaf, request->now_ms - CS_BACKDATE_MS, not_after_ms) &&
                   add_name_entry(X509_get_subject_name(leaf), "O", request->consortium) &&
                   add_name_entry(X509_get_subject_name(leaf), "CN", is_site ? request->name : "coordinator") &&
                   X509_set_issuer_name(leaf, X509_get_subject_name(authority)) == 1 &&
                   X509_set_pubkey(leaf, X509_REQ_get0_pubkey(csr)) == 1 &&
                   add_extension(leaf, authority, NID_basic_constraints, "critical,CA:FALSE") &&
                   add_extension(leaf, authority, NID_key_usage, "critical,digitalSignature") &&
                   add_extension(leaf, authority, NID_ext_key_usage, is_site ? "clientAuth" : "serverAuth") &&
                   add_extension(leaf, authority, NID_subject_key_identifier, "hash") &&
                   add_extension(leaf, authority, NID_authority_key_identifier, "keyid:always");
    if (!is_made)
        return cs_openssl_fail(CS_INTERNAL, "cannot make a certificate");
    CS_TRY(add_names(leaf, request));
    if (X509_sign(leaf, authority_key->pkey, EVP_sha256()) <= 0)
        return cs_openssl_fail(CS_INTERNAL, "cannot sign a certificate");
    cs_x509_append_pem(leaf, ret_pem);
    return CS_OK;
}

/* ---- reading and checking ---- */

/* "spiffe://consilium/<consortium>/site/<name>" or "spiffe://consilium/<consortium>/coordinator", nothing else. */
static bool parse_uri(const char *uri, cs_identity *ret)
{
    if (strncmp(uri, SPIFFE_PREFIX, strlen(SPIFFE_PREFIX)) != 0)
        return false;
    const char *consortium = uri + strlen(SPIFFE_PREFIX);
    const char *rest = strchr(consortium, '/');
    if (rest == NULL || !is_name(consortium, (size_t)(rest - consortium)))
        return false;
    memcpy(ret->consortium, consortium, (size_t)(rest - consortium));
    ret->consortium[rest - consortium] = 0;
    ret->name[0] = 0;
    if (strcmp(rest, SPIFFE_COORDINATOR) == 0) {
        ret->role = CS_ROLE_COORDINATOR;
        return true;
    }
    if (strncmp(rest, SPIFFE_SITE, strlen(SPIFFE_SITE)) != 0)
        return false;
    const char *name = rest + strlen(SPIFFE_SITE);
    if (!is_name(name, strlen(name)))
        return false;
    memcpy(ret->name, name, strlen(name) + 1);
    ret->role = CS_ROLE_SITE;
    return true;
}

/* Exactly one URI in all: a certificate that is two things at once is none. */
static cs_status read_uri(X509 *certificate, cs_identity *ret)
{
    CS_AUTO_PTR(GENERAL_NAMES) names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    int uris = 0;
    bool is_ours = false;
    for (int i = 0; names != NULL && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_URI)
            continue;
        uris++;
        const char *uri = (const char *)ASN1_STRING_get0_data(name->d.uniformResourceIdentifier);
        size_t size = (size_t)ASN1_STRING_length(name->d.uniformResourceIdentifier);
        is_ours = strlen(uri) == size && parse_uri(uri, ret);
    }
    ERR_clear_error();
    if (uris != 1)
        return cs_fail(CS_INVALID, "the certificate names %d URIs, expected one: " SPIFFE_PREFIX "…", uris);
    if (!is_ours)
        return cs_fail(CS_INVALID, "the certificate's URI is not " SPIFFE_PREFIX "<consortium>/site/<name> or "
                                   "/coordinator");
    return CS_OK;
}

static cs_status read_serial(X509 *certificate, uint8_t ret[CS_SERIAL_BYTES])
{
    BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), NULL);
    bool fits = number != NULL && !BN_is_negative(number) && BN_bn2binpad(number, ret, CS_SERIAL_BYTES) >= 0;
    BN_free(number);
    ERR_clear_error();
    if (!fits)
        return cs_fail(CS_INVALID, "the certificate's serial number does not fit into %d bytes", CS_SERIAL_BYTES);
    return CS_OK;
}

cs_status cs_identity_read(cs_bytes certificate_pem, cs_identity *ret)
{
    CS_AUTO_PTR(X509) certificate = NULL;
    CS_TRY(cs_x509_parse(certificate_pem, "certificate", &certificate));
    cs_identity identity = {0};
    CS_TRY(read_uri(certificate, &identity));
    CS_TRY(read_serial(certificate, identity.serial));
    CS_TRY(spki_hash(X509_get_X509_PUBKEY(certificate), "certificate", &identity.public_key));
    identity.not_before_ms = cs_x509_time_ms(X509_get0_notBefore(certificate));
    identity.not_after_ms = cs_x509_time_ms(X509_get0_notAfter(certificate));
    *ret = identity;
    return CS_OK;
}

/* Says what does not hold, about whom, and the dates beside today's: most failures in the field are clocks. */
static cs_status verify_failed(X509 *leaf, int error, int64_t now_ms)
{
    char subject[CS_X509_NAME_BYTES], issuer[CS_X509_NAME_BYTES];
    char from[CS_TIME_TEXT_BYTES], until[CS_TIME_TEXT_BYTES], now[CS_TIME_TEXT_BYTES];
    cs_x509_name_text(X509_get_subject_name(leaf), subject);
    cs_x509_name_text(X509_get_issuer_name(leaf), issuer);
    cs_clock_format(cs_x509_time_ms(X509_get0_notBefore(leaf)), from);
    cs_clock_format(cs_x509_time_ms(X509_get0_notAfter(leaf)), until);
    cs_clock_format(now_ms, now);
    ERR_clear_error();
    return cs_fail(CS_UNAUTHENTICATED, "certificate of '%s': %s (issuer '%s', valid from %s to %s, now %s)", subject,
                   X509_verify_cert_error_string(error), issuer, from, until, now);
}

cs_status cs_certificate_verify(cs_bytes certificate_pem, cs_bytes authority_pem, int64_t now_ms)
{
    CS_AUTO_PTR(X509) leaf = NULL;
    CS_TRY(cs_x509_parse(certificate_pem, "certificate", &leaf));
    cs_identity identity;
    CS_TRY(cs_identity_read(certificate_pem, &identity));
    CS_AUTO_PTR(X509_STORE) store = NULL;
    CS_TRY(cs_x509_store_of(authority_pem, &store));
    CS_AUTO_PTR(X509_STORE_CTX) context = X509_STORE_CTX_new();
    if (context == NULL || X509_STORE_CTX_init(context, store, leaf, NULL) != 1)
        return cs_openssl_fail(CS_INTERNAL, "cannot check a certificate");

    X509_VERIFY_PARAM *parameters = X509_STORE_CTX_get0_param(context);
    X509_VERIFY_PARAM_set_time(parameters, (time_t)(now_ms / 1000));
    X509_VERIFY_PARAM_set_flags(parameters, X509_V_FLAG_X509_STRICT);
    X509_VERIFY_PARAM_set_auth_level(parameters, 2);
    X509_VERIFY_PARAM_set_purpose(parameters,
                                  identity.role == CS_ROLE_SITE ? X509_PURPOSE_SSL_CLIENT : X509_PURPOSE_SSL_SERVER);
    if (X509_verify_cert(context) != 1)
        return verify_failed(leaf, X509_STORE_CTX_get_error(context), now_ms);
    return CS_OK;
}

cs_status cs_certificate_matches_key(cs_bytes certificate_pem, const cs_tls_key *key)
{
    CS_AUTO_PTR(X509) certificate = NULL;
    CS_TRY(cs_x509_parse(certificate_pem, "certificate", &certificate));
    cs_hash of_certificate, of_key;
    CS_TRY(spki_hash(X509_get_X509_PUBKEY(certificate), "certificate", &of_certificate));
    CS_TRY(key_hash(key->pkey, "private key", &of_key));
    if (!cs_hash_equal(&of_certificate, &of_key))
        return cs_fail(CS_INVALID, "the certificate is not for this private key");
    return CS_OK;
}

int64_t cs_identity_renew_at_ms(const cs_identity *identity)
{
    int64_t issued_ms = identity->not_before_ms + CS_BACKDATE_MS;
    return issued_ms + (identity->not_after_ms - issued_ms) * 2 / 3;
}

bool cs_certificate_covers(cs_bytes certificate_pem, const char *host)
{
    CS_AUTO_PTR(X509) certificate = NULL;
    if (cs_x509_parse(certificate_pem, "certificate", &certificate) != CS_OK)
        return false;
    uint8_t address[sizeof(struct in6_addr)];
    bool is_address = inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
    return is_address ? X509_check_ip_asc(certificate, host, 0) == 1
                      : X509_check_host(certificate, host, 0, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL) == 1;
}

/* Proquints (arXiv 0901.4016): every 16 bits are a word one can say, "lusab"; six words are 96 bits of the hash. */
char *cs_fingerprint_words(const cs_hash *hash)
{
    static const char consonants[] = "bdfghjklmnprstvz", vowels[] = "aiou";
    enum { WORDS = 6, WORD_CHARS = 6 /* five letters and what follows them */ };
    char *text = cs_alloc(WORDS * WORD_CHARS);
    for (size_t i = 0; i < WORDS; i++) {
        unsigned bits = (unsigned)hash->bytes[2 * i] << 8 | hash->bytes[2 * i + 1];
        char *word = text + i * WORD_CHARS;
        word[0] = consonants[bits >> 12 & 15];
        word[1] = vowels[bits >> 10 & 3];
        word[2] = consonants[bits >> 6 & 15];
        word[3] = vowels[bits >> 4 & 3];
        word[4] = consonants[bits & 15];
        word[5] = i + 1 < WORDS ? '-' : 0;
    }
    return text;
}

cs_status cs_certificate_words(cs_bytes certificate_pem, char **ret)
{
    CS_AUTO_PTR(X509) certificate = NULL;
    CS_TRY(cs_x509_parse(certificate_pem, "certificate", &certificate));
    uint8_t *der = NULL;
    int size = i2d_X509(certificate, &der);
    if (size <= 0)
        return cs_openssl_fail(CS_INTERNAL, "cannot encode a certificate");
    cs_hash hash = cs_sha256(cs_bytes_of(der, (size_t)size));
    OPENSSL_free(der);
    *ret = cs_fingerprint_words(&hash);
    return CS_OK;
}
