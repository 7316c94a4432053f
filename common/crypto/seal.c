/* Keys for a pair of sites and sealed streams: see seal.h. */
#include "common/crypto/seal.h"

#include <inttypes.h>
#include <sodium.h>
#include <string.h>

_Static_assert(CS_SEAL_OVERHEAD_BYTES == crypto_secretstream_xchacha20poly1305_ABYTES, "as libsodium has it");
_Static_assert(CS_SEAL_KEY_BYTES == crypto_secretstream_xchacha20poly1305_KEYBYTES, "as libsodium has it");
_Static_assert(CS_EXCHANGE_KEY_BYTES == crypto_scalarmult_BYTES, "as libsodium has it");

static const uint8_t magic[] = {'c', 's', 's', 'e', 'a', 'l', '1', '\n'};
_Static_assert(sizeof(magic) + crypto_secretstream_xchacha20poly1305_HEADERBYTES == CS_SEAL_HEADER_BYTES, "header");

/* ---- keys of a pair ---- */

void cs_exchange_public(const uint8_t secret[CS_EXCHANGE_KEY_BYTES], uint8_t ret_key[CS_EXCHANGE_KEY_BYTES])
{
    crypto_scalarmult_base(ret_key, secret);
}

void cs_exchange_make(uint8_t secret[CS_EXCHANGE_KEY_BYTES], uint8_t key[CS_EXCHANGE_KEY_BYTES])
{
    cs_crypto_random(secret, CS_EXCHANGE_KEY_BYTES);
    cs_exchange_public(secret, key);
}

void cs_seal_keys_clear(cs_seal_keys *keys)
{
    sodium_memzero(keys, sizeof(*keys));
}

cs_status cs_seal_keys_make(const uint8_t secret[CS_EXCHANGE_KEY_BYTES], const uint8_t peer[CS_EXCHANGE_KEY_BYTES],
                            const cs_hash *session, cs_seal_keys *ret)
{
    static const char domain[] = "consilium-keys-v1";
    uint8_t own[CS_EXCHANGE_KEY_BYTES], shared[CS_EXCHANGE_KEY_BYTES], both[2 * CS_SEAL_KEY_BYTES];
    cs_exchange_public(secret, own);
    const int order = memcmp(own, peer, sizeof(own));
    if (order == 0)
        return cs_fail(CS_INVALID, "the other site's session key is this site's own");
    if (crypto_scalarmult(shared, secret, peer) != 0)
        return cs_fail(CS_INVALID, "the other site's session key is a point of small order");
    crypto_generichash_state state;
    crypto_generichash_init(&state, shared, sizeof(shared), sizeof(both));
    crypto_generichash_update(&state, (const uint8_t *)domain, strlen(domain));
    crypto_generichash_update(&state, session->bytes, sizeof(session->bytes));
    crypto_generichash_update(&state, order < 0 ? own : peer, CS_EXCHANGE_KEY_BYTES);
    crypto_generichash_update(&state, order < 0 ? peer : own, CS_EXCHANGE_KEY_BYTES);
    crypto_generichash_final(&state, both, sizeof(both));
    memcpy(ret->send, both + (order < 0 ? 0 : CS_SEAL_KEY_BYTES), CS_SEAL_KEY_BYTES);
    memcpy(ret->receive, both + (order < 0 ? CS_SEAL_KEY_BYTES : 0), CS_SEAL_KEY_BYTES);
    sodium_memzero(shared, sizeof(shared));
    sodium_memzero(both, sizeof(both));
    sodium_memzero(&state, sizeof(state));
    return CS_OK;
}

cs_hash cs_session_hash(const char *job, uint32_t round, const cs_hash *plan, const cs_hash *roster)
{
    char plan_hex[CS_HASH_HEX_BYTES], roster_hex[CS_HASH_HEX_BYTES];
    cs_hash_hex(plan, plan_hex);
    cs_hash_hex(roster, roster_hex);
    CS_AUTO(cs_string) text =
        cs_format("consilium-session-v1\n%s\n%" PRIu32 "\n%s\n%s\n", job, round, plan_hex, roster_hex);
    return cs_sha256(cs_bytes_of_text(text));
}

void cs_session_seed(const cs_hash *session, const uint8_t (*contributions)[CS_CONTRIBUTION_BYTES], size_t count,
                     uint8_t ret[CS_CONTRIBUTION_BYTES])
{
    static const char domain[] = "consilium-seed-v1";
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, CS_CONTRIBUTION_BYTES);
    crypto_generichash_update(&state, (const uint8_t *)domain, strlen(domain));
    crypto_generichash_update(&state, session->bytes, sizeof(session->bytes));
    for (size_t i = 0; i < count; i++)
        crypto_generichash_update(&state, contributions[i], CS_CONTRIBUTION_BYTES);
    crypto_generichash_final(&state, ret, CS_CONTRIBUTION_BYTES);
    sodium_memzero(&state, sizeof(state));
}

void cs_handshake_text(const cs_hash *session, const char *from, const char *to,
                       const uint8_t key[CS_EXCHANGE_KEY_BYTES], const uint8_t *peer_key, cs_buffer *out)
{
    cs_buffer_printf(out, "%s\n%s\n%s\n", peer_key ? "consilium-confirm-v1" : "consilium-handshake-v1", from, to);
    cs_buffer_append(out, session->bytes, sizeof(session->bytes));
    cs_buffer_append(out, key, CS_EXCHANGE_KEY_BYTES);
    if (peer_key)
        cs_buffer_append(out, peer_key, CS_EXCHANGE_KEY_BYTES);
}

/* ---- sealed streams ---- */

struct cs_seal {
    crypto_secretstream_xchacha20poly1305_state state;
    cs_buffer label; /* the last eight bytes are the number of the next frame */
    uint64_t number;
    bool is_over;
};

uint64_t cs_sealed_size(uint64_t plain_size)
{
    const uint64_t frames = plain_size == 0 ? 1 : (plain_size - 1) / CS_SEAL_FRAME_BYTES + 1;
    return CS_SEAL_HEADER_BYTES + frames * CS_SEAL_OVERHEAD_BYTES + plain_size;
}

cs_status cs_unsealed_size(uint64_t sealed_size, uint64_t *ret)
{
    const uint64_t frame = CS_SEAL_FRAME_BYTES + CS_SEAL_OVERHEAD_BYTES;
    const uint64_t rest = sealed_size - CS_MIN(sealed_size, (uint64_t)CS_SEAL_HEADER_BYTES);
    const uint64_t last = rest % frame;
    /* Only an empty stream has an empty frame. */
    if ((last > 0 && last < CS_SEAL_OVERHEAD_BYTES) || rest == 0 || (last == CS_SEAL_OVERHEAD_BYTES && rest != last))
        return cs_fail(CS_INVALID, "%" PRIu64 " bytes are no sealed stream", sealed_size);
    *ret = rest / frame * CS_SEAL_FRAME_BYTES + (last > 0 ? last - CS_SEAL_OVERHEAD_BYTES : 0);
    return CS_OK;
}

static cs_seal *seal_new(const cs_seal_label *label)
{
    cs_seal *seal = cs_alloc(sizeof(*seal));
    cs_buffer_printf(&seal->label, "consilium-seal-v1\n%s\n%s\n%s\n", label->phase, label->from, label->to);
    cs_buffer_append(&seal->label, label->session->bytes, sizeof(label->session->bytes));
    cs_buffer_append(&seal->label, label->roster->bytes, sizeof(label->roster->bytes));
    const uint8_t number[8] = {0};
    cs_buffer_append(&seal->label, number, sizeof(number));
    return seal;
}

void cs_seal_free(cs_seal *seal)
{
    if (!seal)
        return;
    sodium_memzero(&seal->state, sizeof(seal->state));
    cs_buffer_clear(&seal->label);
    cs_free(seal);
}

cs_seal *cs_seal_begin(const uint8_t key[CS_SEAL_KEY_BYTES], const cs_seal_label *label,
                       uint8_t ret_header[CS_SEAL_HEADER_BYTES])
{
    cs_seal *seal = seal_new(label);
    memcpy(ret_header, magic, sizeof(magic));
    crypto_secretstream_xchacha20poly1305_init_push(&seal->state, ret_header + sizeof(magic), key);
    return seal;
}

cs_status cs_unseal_begin(const uint8_t key[CS_SEAL_KEY_BYTES], const cs_seal_label *label,
                          const uint8_t header[CS_SEAL_HEADER_BYTES], cs_seal **ret)
{
    if (memcmp(header, magic, sizeof(magic)) != 0)
        return cs_fail(CS_INVALID, "%s from '%s': not a sealed stream of this version", label->phase, label->from);
    CS_AUTO_PTR(cs_seal) seal = seal_new(label);
    if (crypto_secretstream_xchacha20poly1305_init_pull(&seal->state, header + sizeof(magic), key) != 0)
        return cs_fail(CS_INVALID, "%s from '%s': not a header of a sealed stream", label->phase, label->from);
    *ret = CS_TAKE(seal);
    return CS_OK;
}

static void number_label(cs_seal *seal)
{
    cs_store_le64(seal->label.data + seal->label.size - 8, seal->number++);
}

void cs_seal_frame(cs_seal *seal, cs_bytes plain, bool is_last, uint8_t *out)
{
    number_label(seal);
    crypto_secretstream_xchacha20poly1305_push(
        &seal->state, out, NULL, plain.data, plain.size, seal->label.data, seal->label.size,
        is_last ? crypto_secretstream_xchacha20poly1305_TAG_FINAL : crypto_secretstream_xchacha20poly1305_TAG_MESSAGE);
}

cs_status cs_unseal_frame(cs_seal *seal, cs_bytes frame, bool is_last, uint8_t *out)
{
    const uint8_t expected =
        is_last ? crypto_secretstream_xchacha20poly1305_TAG_FINAL : crypto_secretstream_xchacha20poly1305_TAG_MESSAGE;
    uint8_t tag = 0;
    const uint64_t number = seal->number;
    number_label(seal);
    if (seal->is_over || frame.size < CS_SEAL_OVERHEAD_BYTES ||
        frame.size > CS_SEAL_FRAME_BYTES + CS_SEAL_OVERHEAD_BYTES ||
        crypto_secretstream_xchacha20poly1305_pull(&seal->state, out, NULL, &tag, frame.data, frame.size,
                                                   seal->label.data, seal->label.size) != 0 ||
        tag != expected) {
        seal->is_over = true; /* what follows a frame that is not good is not good either */
        return cs_fail(CS_UNAUTHENTICATED,
                       "sealed frame %" PRIu64 ": altered, dropped, repeated, out of order, or of another session",
                       number);
    }
    seal->is_over = is_last;
    return CS_OK;
}

void cs_seal_message(const uint8_t key[CS_SEAL_KEY_BYTES], const cs_seal_label *label, cs_bytes plain, cs_buffer *out)
{
    uint8_t header[CS_SEAL_HEADER_BYTES];
    CS_AUTO_PTR(cs_seal) seal = cs_seal_begin(key, label, header);
    const size_t at = out->size + sizeof(header);
    cs_buffer_append(out, header, sizeof(header));
    cs_buffer_reserve(out, at + plain.size + CS_SEAL_OVERHEAD_BYTES + 1);
    cs_seal_frame(seal, plain, true, out->data + at);
    out->size = at + plain.size + CS_SEAL_OVERHEAD_BYTES;
    out->data[out->size] = 0;
}

cs_status cs_unseal_message(const uint8_t key[CS_SEAL_KEY_BYTES], const cs_seal_label *label, cs_bytes sealed,
                            cs_buffer *ret)
{
    if (sealed.size < CS_SEAL_HEADER_BYTES + CS_SEAL_OVERHEAD_BYTES ||
        sealed.size > CS_SEAL_HEADER_BYTES + CS_SEAL_OVERHEAD_BYTES + CS_SEAL_FRAME_BYTES)
        return cs_fail(CS_INVALID, "%s from '%s': %zu bytes are no sealed message", label->phase, label->from,
                       sealed.size);
    CS_AUTO_PTR(cs_seal) seal = NULL;
    CS_TRY(cs_unseal_begin(key, label, sealed.data, &seal));
    const cs_bytes frame = cs_bytes_of(sealed.data + CS_SEAL_HEADER_BYTES, sealed.size - CS_SEAL_HEADER_BYTES);
    const size_t size = frame.size - CS_SEAL_OVERHEAD_BYTES;
    CS_AUTO(cs_buffer) plain = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&plain, size + 1);
    CS_TRY(cs_unseal_frame(seal, frame, true, plain.data));
    cs_buffer_append(ret, plain.data, size);
    cs_crypto_wipe(plain.data, size);
    return CS_OK;
}
