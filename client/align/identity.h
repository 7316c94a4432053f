/* Who a person is, in a form that is the same at every site: fields are normalized, then combined and hashed into the
 * keys that a plan names. Pure functions, any thread. `docs/alignment.md` has the rules, tests/vectors/identity.json
 * the vectors; an independent script replays them. Nothing here is logged: all of it is patient data. */
#ifndef CS_ALIGN_IDENTITY_H
#define CS_ALIGN_IDENTITY_H

#include "common/config/plan.h"
#include "common/config/site.h"

#define CS_IDENTITY_KEY_BYTES 32
/* Of one canonical field, with its zero byte. A longer one cannot be read. */
#define CS_IDENTITY_FIELD_BYTES 128

/* A person's fields as the table has them: UTF-8 with a zero byte behind; NULL or blank: not there. */
typedef struct cs_identity_text {
    const char *fields[CS_FIELDS];
} cs_identity_text;

/* Canonical fields, "" where one is not there or could not be read:
 *   names        words of letters and digits, one space between, without marks and case: "anne marie o connor"
 *   birth date   "1980-02-29"
 *   sex          "f", "m" or "x"
 *   postcode,
 *   national id  letters and digits, without case: "sw1a1aa" */
typedef struct cs_identity {
    char fields[CS_FIELDS][CS_IDENTITY_FIELD_BYTES];
    unsigned
        unreadable; /* bits 1 << cs_identity_field: was there, but is no UTF-8, no date of the calendar, too long */
} cs_identity;

/* `dates`: in which order dates stand that are not ISO 8601. */
void cs_identity_normalize(const cs_identity_text *text, cs_date_order dates, cs_identity *ret);

/* Phonetic code of a canonical name: Soundex as the US National Archives has it, "r163", or the Cologne code, "65752".
 * A name with a letter outside a … z has none and is its own code. `out` holds CS_IDENTITY_FIELD_BYTES. */
void cs_identity_phonetic(cs_phonetic phonetic, const char *name, char *out);

/* The keys that `alignment` names, in its order: SHA-256 over the study and the parts with their numbers, so that keys
 * of two kinds or two studies are never equal. A key that lacks a part is not there. Returns the bits 1 << i of those
 * that are; `ret` has room for alignment->keys_count. */
unsigned cs_identity_keys(const cs_alignment *alignment, const cs_identity *identity,
                          uint8_t (*ret)[CS_IDENTITY_KEY_BYTES]);

#endif
