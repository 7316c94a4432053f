/* The roster: which sites are in a consortium and with which Ed25519 key each signs. Its hash is what people compare
 * and approve, so a roster has exactly one text: "consilium-roster-v1" 0x0A consortium 0x0A, then for each site in
 * ascending byte order  site ' ' 64 hex digits 0x0A Used by the agent; the coordinator only names members. Any thread.
 */
#ifndef CS_CRYPTO_ROSTER_H
#define CS_CRYPTO_ROSTER_H

#include "common/crypto/digest.h"
#include "common/crypto/sign.h"
#include "common/crypto/x509.h"

#define CS_ROSTER_MEMBERS_MAX 1024
#define CS_ROSTER_MAX_BYTES   (CS_ROSTER_MEMBERS_MAX * (CS_NAME_MAX + 66) + 128)

typedef struct cs_roster_member {
    char site[CS_NAME_MAX + 1];
    uint8_t key[CS_SIGN_PUBLIC_BYTES];
} cs_roster_member;

typedef struct cs_roster {
    char consortium[CS_NAME_MAX + 1];
    cs_roster_member *members; /* in ascending order of their names, each once */
    size_t count;
} cs_roster;
#define CS_ROSTER_EMPTY ((cs_roster){0})
void cs_roster_clear(cs_roster *roster);

/* Puts the member in its place. CS_INVALID for a name that is none, one that is there already, or one too many. */
CS_MUST_CHECK cs_status cs_roster_add(cs_roster *roster, const char *site, const uint8_t key[CS_SIGN_PUBLIC_BYTES]);
/* NULL when it is no member. */
const cs_roster_member *cs_roster_find(const cs_roster *roster, const char *site);
/* Appends the text. */
void cs_roster_write(const cs_roster *roster, cs_buffer *out);
cs_hash cs_roster_hash(const cs_roster *roster);
/* Only the one text of a roster is read; CS_INVALID with the line and what is wrong. */
CS_MUST_CHECK cs_status cs_roster_parse(cs_bytes text, cs_roster *ret);

/* A signing key for people to compare by telephone: six words and sixteen digits of its SHA-256,
 * "lusab-babad-… (9f31 88ab 01cd 77e0)". Free with cs_free. */
char *cs_key_fingerprint(const uint8_t key[CS_SIGN_PUBLIC_BYTES]);

/* What a site signs when a person there approved a roster. Free with cs_free. */
char *cs_roster_approval_text(const char *site, const cs_hash *roster);

#endif
