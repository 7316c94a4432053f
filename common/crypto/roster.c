/* Rosters and their one text: see roster.h. */
#include "common/crypto/roster.h"

#include <string.h>

#define HEAD         "consilium-roster-v1\n"
#define KEY_DIGITS   (2 * CS_SIGN_PUBLIC_BYTES)
#define SHORT_GROUPS 4

void cs_roster_clear(cs_roster *roster)
{
    cs_free(roster->members);
    *roster = CS_ROSTER_EMPTY;
}

cs_status cs_roster_add(cs_roster *roster, const char *site, const uint8_t key[CS_SIGN_PUBLIC_BYTES])
{
    CS_TRY(cs_name_check(site, "site"));
    size_t at = roster->count;
    while (at > 0 && strcmp(roster->members[at - 1].site, site) >= 0)
        at--;
    if (at < roster->count && strcmp(roster->members[at].site, site) == 0)
        return cs_fail(CS_INVALID, "roster: site '%s' stands there twice", site);
    if (roster->count == CS_ROSTER_MEMBERS_MAX)
        return cs_fail(CS_INVALID, "roster: more than %d sites", CS_ROSTER_MEMBERS_MAX);
    roster->members = cs_realloc(roster->members, (roster->count + 1) * sizeof(*roster->members));
    memmove(&roster->members[at + 1], &roster->members[at], (roster->count - at) * sizeof(*roster->members));
    cs_roster_member *member = &roster->members[at];
    memset(member, 0, sizeof(*member));
    memcpy(member->site, site, strlen(site));
    memcpy(member->key, key, sizeof(member->key));
    roster->count++;
    return CS_OK;
}

const cs_roster_member *cs_roster_find(const cs_roster *roster, const char *site)
{
    for (size_t i = 0; i < roster->count; i++)
        if (strcmp(roster->members[i].site, site) == 0)
            return &roster->members[i];
    return NULL;
}

void cs_roster_write(const cs_roster *roster, cs_buffer *out)
{
    cs_buffer_printf(out, HEAD "%s\n", roster->consortium);
    for (size_t i = 0; i < roster->count; i++) {
        char hex[KEY_DIGITS + 1];
        cs_hex_encode(hex, roster->members[i].key, CS_SIGN_PUBLIC_BYTES);
        cs_buffer_printf(out, "%s %s\n", roster->members[i].site, hex);
    }
}

cs_hash cs_roster_hash(const cs_roster *roster)
{
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    cs_roster_write(roster, &text);
    return cs_sha256(cs_buffer_view(&text));
}

/* Copies a line's beginning up to `end` as a name. */
static cs_status take_name(cs_bytes text, size_t at, char end, const char *what, char out[CS_NAME_MAX + 1],
                           size_t *ret_after)
{
    size_t length = 0;
    while (at + length < text.size && text.data[at + length] != (uint8_t)end && length <= CS_NAME_MAX)
        length++;
    if (length > CS_NAME_MAX || at + length == text.size)
        return cs_fail(CS_INVALID, "roster: expected a %s of at most %d characters at byte %zu", what, CS_NAME_MAX, at);
    memcpy(out, text.data + at, length);
    out[length] = '\0';
    if (strlen(out) != length)
        return cs_fail(CS_INVALID, "roster: a zero byte in the %s at byte %zu", what, at);
    *ret_after = at + length + 1;
    return cs_name_check(out, what);
}

cs_status cs_roster_parse(cs_bytes text, cs_roster *ret)
{
    CS_AUTO(cs_roster) roster = CS_ROSTER_EMPTY;
    size_t at = strlen(HEAD);
    if (text.size < at || text.size > CS_ROSTER_MAX_BYTES || memcmp(text.data, HEAD, at) != 0)
        return cs_fail(CS_INVALID, "roster: %zu bytes that do not begin with '%.19s', or more than %d", text.size, HEAD,
                       CS_ROSTER_MAX_BYTES);
    CS_TRY(take_name(text, at, '\n', "consortium", roster.consortium, &at));
    while (at < text.size) {
        char site[CS_NAME_MAX + 1];
        uint8_t key[CS_SIGN_PUBLIC_BYTES];
        CS_TRY(take_name(text, at, ' ', "site", site, &at));
        if (text.size - at < KEY_DIGITS + 1 || text.data[at + KEY_DIGITS] != '\n')
            return cs_fail(CS_INVALID, "roster: site '%s' has no key of %d digits and an end of line", site,
                           KEY_DIGITS);
        CS_TRY(cs_hex_decode((const char *)text.data + at, KEY_DIGITS, "roster key", key, sizeof(key)));
        CS_TRY(cs_roster_add(&roster, site, key));
        at += KEY_DIGITS + 1;
    }
    /* One text for one roster: order and digits are those that would be written. */
    CS_AUTO(cs_buffer) again = CS_BUFFER_EMPTY;
    cs_roster_write(&roster, &again);
    if (!cs_bytes_equal(text, cs_buffer_view(&again)))
        return cs_fail(CS_INVALID, "roster: its sites are not in order, or a key is not in lower-case digits");
    *ret = roster;
    roster = CS_ROSTER_EMPTY;
    return CS_OK;
}

char *cs_key_fingerprint(const uint8_t key[CS_SIGN_PUBLIC_BYTES])
{
    const cs_hash hash = cs_sha256(cs_bytes_of(key, CS_SIGN_PUBLIC_BYTES));
    CS_AUTO(cs_string) words = cs_fingerprint_words(&hash);
    char groups[SHORT_GROUPS][5];
    for (size_t i = 0; i < SHORT_GROUPS; i++)
        cs_hex_encode(groups[i], hash.bytes + 2 * i, 2);
    return cs_format("%s (%s %s %s %s)", words, groups[0], groups[1], groups[2], groups[3]);
}

char *cs_roster_approval_text(const char *site, const cs_hash *roster)
{
    char hex[CS_HASH_HEX_BYTES];
    cs_hash_hex(roster, hex);
    return cs_format("consilium-roster-approval-v1\n%s\n%s", site, hex);
}
