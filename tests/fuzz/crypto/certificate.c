/* What a stranger can hand to common/crypto: certificates, requests, offline files. The first byte chooses the reader.
 */
#include "common/crypto/enrolfile.h"
#include "common/crypto/x509.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_certificate(cs_bytes pem)
{
    cs_identity identity;
    if (cs_identity_read(pem, &identity) == CS_OK && cs_name_check(identity.consortium, "consortium") != CS_OK)
        abort(); /* an identity is never made of other characters */
    CS_IGNORE(cs_certificate_verify(pem, pem, 0), "any answer will do");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    cs_bytes rest = cs_bytes_of(data + 1, size - 1);
    cs_hash hash;
    CS_AUTO(cs_buffer) message = CS_BUFFER_EMPTY;
    switch (data[0]) {
    case 'c':
        read_certificate(rest);
        break;
    case 'r':
        CS_IGNORE(cs_csr_check(rest, &hash), "any answer will do");
        break;
    default:
        CS_IGNORE(cs_enrol_file_parse("answer", rest, &message), "any answer will do");
    }
    return 0;
}
