/* What a coordinator can hand on as a sealed message: the envelope, with a key and a label that the fuzzer knows too.
 * Only the one message in the corpus opens. */
#include "common/crypto/seal.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[CS_SEAL_KEY_BYTES] = {1};
    static const cs_hash session = {{2}}, roster = {{3}};
    static const cs_seal_label label = {
        .session = &session, .roster = &roster, .phase = "mask", .from = "clinic", .to = "mercy"};
    CS_AUTO(cs_buffer) plain = CS_BUFFER_EMPTY;
    uint64_t plain_size = 0;
    const bool has_size = cs_unsealed_size(size, &plain_size) == CS_OK;
    if (has_size && cs_sealed_size(plain_size) != size)
        abort();
    if (cs_unseal_message(key, &label, cs_bytes_of(data, size), &plain) != CS_OK)
        return 0;
    if (!has_size || plain.size != plain_size || strcmp(cs_buffer_text(&plain), "contribution") != 0)
        abort(); /* a forgery */
    return 0;
}
