/* What goes from one site to another through a coordinator that must not read it: keys for a pair of sites, and sealed
 * streams. docs/protocol.md, "Between sites", is the same in words; tests/vectors/seal.json in numbers. Any thread.
 *
 * A sealed stream is a header and frames of crypto_secretstream_xchacha20poly1305 (libsodium), whose numbering and last
 * frame are authenticated; every frame also carries what it belongs to, so that a frame of another session, phase, pair
 * or direction does not open. */
#ifndef CS_CRYPTO_SEAL_H
#define CS_CRYPTO_SEAL_H

#include "common/crypto/digest.h"
#include "common/crypto/sign.h"

#define CS_EXCHANGE_KEY_BYTES  32 /* X25519, either half */
#define CS_SEAL_KEY_BYTES      32
#define CS_SEAL_FRAME_BYTES    (1024 * 1024) /* of plain text in every frame but the last, which has less or as much */
#define CS_SEAL_OVERHEAD_BYTES 17            /* of a frame */
#define CS_SEAL_HEADER_BYTES   32

/* ---- keys of a pair ---- */

void cs_exchange_make(uint8_t secret[CS_EXCHANGE_KEY_BYTES], uint8_t key[CS_EXCHANGE_KEY_BYTES]);
void cs_exchange_public(const uint8_t secret[CS_EXCHANGE_KEY_BYTES], uint8_t ret_key[CS_EXCHANGE_KEY_BYTES]);

typedef struct cs_seal_keys {
    uint8_t send[CS_SEAL_KEY_BYTES], receive[CS_SEAL_KEY_BYTES];
} cs_seal_keys;
void cs_seal_keys_clear(cs_seal_keys *keys); /* wipes */
/* BLAKE2b-512 under the key X25519(secret, peer) of  "consilium-keys-v1" session lower key, higher key:  the first half
 * seals from the holder of the lower key to the other, the second half back. CS_INVALID when the peer's key is of small
 * order or this site's own. */
CS_MUST_CHECK cs_status cs_seal_keys_make(const uint8_t secret[CS_EXCHANGE_KEY_BYTES],
                                          const uint8_t peer[CS_EXCHANGE_KEY_BYTES], const cs_hash *session,
                                          cs_seal_keys *ret);

/* What a session is about: both sides must come to the same hash. SHA-256 of "consilium-session-v1" 0x0A job 0x0A round
 * 0x0A hex(plan) 0x0A hex(roster) 0x0A; `roster`: of the participants alone. */
cs_hash cs_session_hash(const char *job, uint32_t round, const cs_hash *plan, const cs_hash *roster);
/* What every party knows and nobody else: BLAKE2b-256 of "consilium-seed-v1", the session and each party's 32 random
 * bytes, in the order of the names. */
#define CS_CONTRIBUTION_BYTES 32
void cs_session_seed(const cs_hash *session, const uint8_t (*contributions)[CS_CONTRIBUTION_BYTES], size_t count,
                     uint8_t ret[CS_CONTRIBUTION_BYTES]);
/* What the sender of a Handshake signs: its key, and, where `peer_key` is there, that it is for that key. Appends. */
void cs_handshake_text(const cs_hash *session, const char *from, const char *to,
                       const uint8_t key[CS_EXCHANGE_KEY_BYTES], const uint8_t *peer_key, cs_buffer *out);

/* ---- sealed streams ---- */

typedef struct cs_seal_label {
    const cs_hash *session, *roster;
    const char *phase, *from, *to; /* names */
} cs_seal_label;

/* Bytes of the stream for so many plain ones; the plain ones of a stream of `sealed_size`, CS_INVALID where no stream
 * has that size. */
uint64_t cs_sealed_size(uint64_t plain_size);
CS_MUST_CHECK cs_status cs_unsealed_size(uint64_t sealed_size, uint64_t *ret);

typedef struct cs_seal cs_seal;
/* Writes the header. Free with cs_seal_free. */
cs_seal *cs_seal_begin(const uint8_t key[CS_SEAL_KEY_BYTES], const cs_seal_label *label,
                       uint8_t ret_header[CS_SEAL_HEADER_BYTES]);
/* CS_INVALID when the header is not one. */
CS_MUST_CHECK cs_status cs_unseal_begin(const uint8_t key[CS_SEAL_KEY_BYTES], const cs_seal_label *label,
                                        const uint8_t header[CS_SEAL_HEADER_BYTES], cs_seal **ret);
void cs_seal_free(cs_seal *seal); /* wipes */
CS_DEFINE_AUTO_PTR(cs_seal)
/* `out` takes plain.size + CS_SEAL_OVERHEAD_BYTES. Every frame but the last has CS_SEAL_FRAME_BYTES. */
void cs_seal_frame(cs_seal *seal, cs_bytes plain, bool is_last, uint8_t *out);
/* `out` takes frame.size − CS_SEAL_OVERHEAD_BYTES. CS_UNAUTHENTICATED when the frame was altered, is not the next one,
 * not of this label, or is the last where it must not be or the other way round. Nothing in `out` may be used then. */
CS_MUST_CHECK cs_status cs_unseal_frame(cs_seal *seal, cs_bytes frame, bool is_last, uint8_t *out);

/* A short message as a stream of one frame. Appends; plain.size at most CS_SEAL_FRAME_BYTES. */
void cs_seal_message(const uint8_t key[CS_SEAL_KEY_BYTES], const cs_seal_label *label, cs_bytes plain, cs_buffer *out);
CS_MUST_CHECK cs_status cs_unseal_message(const uint8_t key[CS_SEAL_KEY_BYTES], const cs_seal_label *label,
                                          cs_bytes sealed, cs_buffer *ret);

#endif
