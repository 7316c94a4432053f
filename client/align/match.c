/* The leader's comparison and what comes of it. Called by the worker's tasks on one thread. */
#include "client/align/list.h"
#include "client/align/psi.h"
#include "common/crypto/sign.h"

#include <assert.h>
#include <string.h>

#define BLOCK_GROUPS ((uint32_t)4096)
#define NOBODY       UINT32_MAX
#define ENTRY_BYTES  8 /* of an answer: row, place in the list */

/* What one site's list gave: per group of the own list the place of its partner there, or NOBODY. */
typedef struct partners {
    uint32_t *place;
    size_t matched, ambiguous;
} partners;

struct cs_psi_match {
    const cs_psi_own *own;
    partners *at; /* per site; the leader's own stays empty */
    uint32_t sites;
    bool is_released;
};

/* ---- the leader's own tags, to be looked up ---- */

typedef struct tag_table {
    uint8_t *tags;    /* in the order of the list */
    uint32_t *places; /* open addressing: index of a tag + 1, 0 for none */
    uint64_t multipliers[2];
    int shift;
    size_t mask;
} tag_table;

static void tag_table_clear(tag_table *table)
{
    cs_free(table->tags);
    cs_free(table->places);
}

/* Keyed, so that a peer cannot choose tags that all meet in one place. */
static size_t place_of(const tag_table *table, const uint8_t *tag)
{
    return (size_t)((cs_load_le64(tag) * table->multipliers[0] + cs_load_be32(tag + 8) * table->multipliers[1]) >>
                    table->shift);
}

/* The place that holds the tag, or the free one where it would go. */
static size_t find_tag(const tag_table *table, const uint8_t *tag)
{
    size_t place = place_of(table, tag);
    while (table->places[place] != 0 &&
           memcmp(table->tags + (size_t)(table->places[place] - 1) * CS_PSI_TAG_BYTES, tag, CS_PSI_TAG_BYTES) != 0)
        place = (place + 1) & table->mask;
    return place;
}

static cs_status load_own_tags(const cs_psi_own *own, const char *path, tag_table *table)
{
    const cs_psi_session *session = own->session;
    CS_AUTO(cs_fd) fd = -1;
    cs_psi_header header;
    CS_TRY(cs_psi_list_open(session, session->site, own->counts.groups, session->sites, path, &fd, &header));
    const size_t count = (size_t)header.groups * header.slots;
    int bits = 4;
    while ((size_t)1 << bits < 2 * count)
        bits++;
    void *memory = NULL;
    CS_TRY(cs_alloc_peer(count, CS_PSI_TAG_BYTES, "own tags", &memory));
    table->tags = memory;
    CS_TRY(cs_alloc_peer((size_t)1 << bits, sizeof *table->places, "table of tags", &memory));
    table->places = memory;
    table->mask = ((size_t)1 << bits) - 1;
    table->shift = 64 - bits;
    uint8_t derived[CS_PSI_DERIVED_BYTES];
    cs_psi_derive(session->own_secret, "table", 0, derived);
    for (size_t i = 0; i < CS_COUNT(table->multipliers); i++)
        table->multipliers[i] = cs_load_le64(derived + 8 * i) | 1;
    CS_TRY(cs_file_pread_exact(fd, table->tags, count * CS_PSI_TAG_BYTES, CS_PSI_HEADER_BYTES));
    for (size_t i = 0; i < count; i++) {
        const size_t place = find_tag(table, table->tags + i * CS_PSI_TAG_BYTES);
        if (table->places[place] != 0)
            return cs_fail(CS_INVALID, "the own list came back with the same tag at %u and %zu: a site altered it",
                           table->places[place] - 1, i);
        table->places[place] = (uint32_t)i + 1;
    }
    return CS_OK;
}

/* ---- one site's list ---- */

/* The best partner of each group, as both sides see it. A tie at the top is no partner. */
typedef struct best {
    uint32_t *partner;
    uint8_t *hits;
} best;

static void best_clear(best *best)
{
    cs_free(best->partner);
    cs_free(best->hits);
}

static cs_status best_new(size_t groups, best *ret)
{
    void *memory = NULL;
    CS_TRY(cs_alloc_peer(groups, sizeof *ret->partner, "partners", &memory));
    ret->partner = memory;
    CS_TRY(cs_alloc_peer(groups, 1, "kinds of key in common", &memory));
    ret->hits = memory;
    memset(ret->partner, 0xff, groups * sizeof *ret->partner);
    return CS_OK;
}

static void offer(best *best, uint32_t group, uint32_t partner, uint8_t hits)
{
    if (hits > best->hits[group]) {
        best->hits[group] = hits;
        best->partner[group] = partner;
    } else if (hits == best->hits[group]) {
        best->partner[group] = NOBODY;
    }
}

/* The tags of one group of theirs: who of ours has them, in how many kinds. */
static void compare_group(const tag_table *table, uint32_t slots, uint32_t theirs, const uint8_t *tags, best *our_best,
                          best *their_best)
{
    uint32_t candidates[CS_PSI_SLOTS_MAX];
    uint8_t hits[CS_PSI_SLOTS_MAX];
    uint32_t count = 0;
    for (uint32_t slot = 0; slot < slots; slot++) {
        const uint32_t found = table->places[find_tag(table, tags + (size_t)slot * CS_PSI_TAG_BYTES)];
        if (found == 0 || (found - 1) % slots != slot)
            continue;
        const uint32_t ours = (found - 1) / slots;
        uint32_t i = 0;
        while (i < count && candidates[i] != ours)
            i++;
        if (i == count) {
            candidates[count] = ours;
            hits[count++] = 0;
        }
        hits[i]++;
    }
    for (uint32_t i = 0; i < count; i++) {
        offer(our_best, candidates[i], theirs, hits[i]);
        offer(their_best, theirs, candidates[i], hits[i]);
    }
}

/* Canaries must be found with all their keys, dummies not at all; then canaries are forgotten. */
static cs_status check_canaries(const cs_psi_own *own, uint32_t site, const best *ours, uint32_t *place)
{
    const char *name = own->session->names[site];
    size_t canaries = 0, dummies = 0;
    for (uint32_t group = 0; group < own->counts.groups; group++) {
        const uint32_t item = own->item_at[group];
        if (cs_psi_is_canary(own, item))
            canaries += ours->hits[group] == own->session->slots && place[group] != NOBODY;
        else if (!cs_psi_is_patient(own, item))
            dummies += ours->hits[group] > 0;
    }
    if (canaries != CS_PSI_CANARIES)
        return cs_fail(CS_ABORTED,
                       "site '%s': %zu of %d canaries came back from its list; its keys or its list are not those of "
                       "this session, and nothing is released",
                       name, canaries, CS_PSI_CANARIES);
    if (dummies > 0)
        return cs_fail(CS_ABORTED,
                       "site '%s': %zu groups that only this site can have are in its list; it did not send a list of "
                       "its own, and nothing is released",
                       name, dummies);
    return CS_OK;
}

static cs_status resolve(const cs_psi_own *own, uint32_t site, const best *ours, const best *theirs, partners *ret)
{
    void *memory = NULL;
    CS_TRY(cs_alloc_peer(own->counts.groups, sizeof *ret->place, "matches", &memory));
    ret->place = memory;
    for (uint32_t group = 0; group < own->counts.groups; group++) {
        const uint32_t partner = ours->partner[group];
        const bool is_mutual = partner != NOBODY && theirs->partner[partner] == group;
        ret->place[group] = is_mutual ? partner : NOBODY;
        if (!cs_psi_is_patient(own, own->item_at[group]))
            continue;
        ret->matched += is_mutual;
        ret->ambiguous += !is_mutual && ours->hits[group] > 0;
    }
    return check_canaries(own, site, ours, ret->place);
}

static cs_status read_and_compare(const cs_psi_own *own, const tag_table *table, int fd, const cs_psi_header *header,
                                  best *ours, best *theirs)
{
    const size_t group_bytes = (size_t)header->slots * CS_PSI_TAG_BYTES;
    CS_AUTO(cs_buffer) block = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&block, BLOCK_GROUPS * group_bytes);
    CS_TRY(best_new(own->counts.groups, ours));
    CS_TRY(best_new(header->groups, theirs));
    for (uint32_t first = 0; first < header->groups; first += BLOCK_GROUPS) {
        const uint32_t now = CS_MIN(BLOCK_GROUPS, header->groups - first);
        CS_TRY(cs_file_pread_exact(fd, block.data, now * group_bytes,
                                   CS_PSI_HEADER_BYTES + (uint64_t)first * group_bytes));
        for (uint32_t i = 0; i < now; i++)
            compare_group(table, header->slots, first + i, block.data + i * group_bytes, ours, theirs);
    }
    return CS_OK;
}

static cs_status compare_site(const cs_psi_own *own, const tag_table *table, uint32_t site, const char *path,
                              partners *ret)
{
    CS_AUTO(cs_fd) fd = -1;
    cs_psi_header header;
    CS_TRY(cs_psi_list_open(own->session, site, 0, own->session->sites, path, &fd, &header));
    CS_AUTO(best) ours = {0};
    CS_AUTO(best) theirs = {0};
    CS_TRY(read_and_compare(own, table, fd, &header, &ours, &theirs));
    return resolve(own, site, &ours, &theirs, ret);
}

cs_status cs_psi_match_new(const cs_psi_own *own, const char *const *tags, cs_psi_match **ret)
{
    const cs_psi_session *session = own->session;
    assert(session->site == session->leader);
    CS_AUTO(tag_table) table = {0};
    CS_TRY(load_own_tags(own, tags[session->leader], &table));
    CS_AUTO_PTR(cs_psi_match) match = cs_alloc(sizeof *match);
    match->own = own;
    match->sites = session->sites;
    match->at = cs_alloc_array(session->sites, sizeof *match->at);
    for (uint32_t site = 0; site < session->sites; site++)
        if (site != session->leader)
            CS_TRY(compare_site(own, &table, site, tags[site], &match->at[site]));
    *ret = CS_TAKE(match);
    return CS_OK;
}

void cs_psi_match_free(cs_psi_match *match)
{
    if (match == NULL)
        return;
    for (uint32_t site = 0; match->at != NULL && site < match->sites; site++)
        cs_free(match->at[site].place);
    cs_free(match->at);
    cs_free(match);
}

cs_psi_match_counts cs_psi_match_counts_of(const cs_psi_match *match, uint32_t site)
{
    if (!match->is_released)
        return (cs_psi_match_counts){0};
    return (cs_psi_match_counts){match->at[site].matched, match->at[site].ambiguous};
}

/* ---- release ---- */

void cs_psi_table_clear(cs_psi_table *table)
{
    cs_free(table->records);
    cs_free(table->found_at);
    *table = CS_PSI_TABLE_EMPTY;
}

static cs_status table_new(size_t rows, bool is_leader, cs_psi_table *ret)
{
    void *memory = NULL;
    *ret = (cs_psi_table){.rows = rows};
    CS_TRY(cs_alloc_peer(rows + 1, sizeof *ret->records, "rows of the cohort", &memory));
    ret->records = memory;
    memset(ret->records, 0xff, (rows + 1) * sizeof *ret->records);
    if (!is_leader)
        return CS_OK;
    CS_TRY(cs_alloc_peer(rows + 1, sizeof *ret->found_at, "sites of the cohort's rows", &memory));
    ret->found_at = memory;
    return CS_OK;
}

static uint64_t sites_with(const cs_psi_match *match, uint32_t group)
{
    uint64_t found = 0;
    for (uint32_t site = 0; site < match->own->session->sites; site++)
        if (match->at[site].place != NULL && match->at[site].place[group] != NOBODY)
            found |= (uint64_t)1 << site;
    return found;
}

/* The groups of the cohort, canaries left out, in the order of their rows. `groups` has room for all. */
static size_t choose_cohort(const cs_psi_match *match, uint32_t needed, uint32_t *groups)
{
    const cs_psi_own *own = match->own;
    size_t count = 0;
    for (uint32_t group = 0; group < own->counts.groups; group++)
        if (cs_psi_is_patient(own, own->item_at[group]) &&
            (uint32_t)__builtin_popcountll(sites_with(match, group)) >= needed)
            groups[count++] = group;
    cs_psi_shuffle(own->session->own_secret, "rows", groups, count);
    return count;
}

/* Rows of the cohort first, then one row more for each canary. */
static void append_entry(cs_buffer *answer, uint32_t row, uint32_t place)
{
    uint8_t bytes[ENTRY_BYTES];
    cs_store_be32(bytes, row);
    cs_store_be32(bytes + 4, place);
    cs_buffer_append(answer, bytes, sizeof bytes);
}

static void write_answer(const cs_psi_match *match, uint32_t site, const uint32_t *groups, size_t rows,
                         cs_buffer *answer)
{
    const cs_psi_own *own = match->own;
    const uint32_t *place = match->at[site].place;
    const cs_psi_header header = {.kind = CS_PSI_ANSWER,
                                  .slots = own->session->slots,
                                  .sites = own->session->sites,
                                  .owner = site,
                                  .groups = (uint32_t)rows};
    uint8_t bytes[CS_PSI_HEADER_BYTES];
    cs_psi_header_write(&header, bytes);
    cs_buffer_append(answer, bytes, sizeof bytes);
    for (uint32_t row = 0; row < rows; row++)
        if (place[groups[row]] != NOBODY)
            append_entry(answer, row, place[groups[row]]);
    uint32_t group_of_canary[CS_PSI_CANARIES];
    for (uint32_t group = 0; group < own->counts.groups; group++)
        if (cs_psi_is_canary(own, own->item_at[group]))
            group_of_canary[own->item_at[group] - own->counts.listed] = group;
    for (uint32_t i = 0; i < CS_PSI_CANARIES; i++)
        append_entry(answer, (uint32_t)rows + i, place[group_of_canary[i]]);
}

/* The sentences name no number: they travel. */
static cs_status check_minimum(const cs_psi_match *match, const uint32_t *groups, size_t rows, size_t minimum)
{
    const cs_psi_session *session = match->own->session;
    if (rows < minimum)
        return cs_fail(CS_DENIED, "the cohort has fewer patients than the minimum of %zu; nothing is released",
                       minimum);
    for (uint32_t site = 0; site < session->sites; site++) {
        size_t told = 0;
        for (size_t row = 0; row < rows && site != session->leader; row++)
            told += match->at[site].place[groups[row]] != NOBODY;
        if (site != session->leader && told < minimum)
            return cs_fail(CS_DENIED,
                           "site '%s' has fewer patients of the cohort than the minimum of %zu; nothing is released to "
                           "any site",
                           session->names[site], minimum);
    }
    return CS_OK;
}

static cs_status release(const cs_psi_match *match, uint32_t needed, size_t minimum, const char *const *answers,
                         uint32_t *groups, cs_psi_table *ret)
{
    const cs_psi_own *own = match->own;
    const size_t rows = choose_cohort(match, needed, groups);
    CS_TRY(check_minimum(match, groups, rows, minimum));
    CS_TRY(table_new(rows, true, ret));
    for (size_t row = 0; row < rows; row++) {
        ret->records[row] = own->record_of[own->item_at[groups[row]]];
        ret->found_at[row] = sites_with(match, groups[row]);
    }
    for (uint32_t site = 0; site < own->session->sites; site++) {
        if (site == own->session->leader || answers[site] == NULL)
            continue;
        CS_AUTO(cs_buffer) answer = CS_BUFFER_EMPTY;
        write_answer(match, site, groups, rows, &answer);
        CS_TRY(cs_file_write_atomic(answers[site], cs_buffer_view(&answer), 0600));
    }
    return CS_OK;
}

cs_status cs_psi_release(cs_psi_match *match, uint32_t any, size_t minimum, const char *const *answers,
                         cs_psi_table *ret)
{
    const uint32_t others = match->own->session->sites - 1;
    if (any > others)
        return cs_fail(CS_INVALID, "cohort of patients at any %u other sites: there are %u", any, others);
    void *groups = NULL;
    CS_TRY(cs_alloc_peer(match->own->counts.groups, sizeof(uint32_t), "cohort", &groups));
    cs_psi_table table = CS_PSI_TABLE_EMPTY;
    const cs_status status = release(match, any == 0 ? others : any, minimum, answers, groups, &table);
    cs_free(groups);
    if (status != CS_OK)
        cs_psi_table_clear(&table);
    else
        *ret = table;
    match->is_released = status == CS_OK;
    return status;
}

/* ---- the answer, at another site ---- */

static cs_status read_entries(const cs_psi_own *own, cs_bytes entries, cs_psi_table *table, uint8_t *is_used,
                              size_t *ret_patients)
{
    uint32_t last_row = 0;
    size_t canaries = 0;
    for (size_t at = 0; at < entries.size; at += ENTRY_BYTES) {
        const uint32_t row = cs_load_be32(entries.data + at), place = cs_load_be32(entries.data + at + 4);
        if ((at > 0 && row <= last_row) || row >= table->rows + CS_PSI_CANARIES)
            return cs_fail(CS_INVALID, "answer: row %u after row %u, expected ascending rows below %zu", row, last_row,
                           table->rows + CS_PSI_CANARIES);
        if (place >= own->counts.groups || is_used[place])
            return cs_fail(CS_INVALID, "answer: place %u %s, expected different places below %u", place,
                           place >= own->counts.groups ? "is not in the list" : "is named twice", own->counts.groups);
        last_row = row;
        is_used[place] = 1;
        const uint32_t item = own->item_at[place];
        if (row >= table->rows)
            canaries += item == own->counts.listed + (row - table->rows);
        else if (cs_psi_is_patient(own, item))
            table->records[row] = own->record_of[item], ++*ret_patients;
        else
            return cs_fail(CS_ABORTED, "the answer of site '%s' names a %s as a patient; it is not used",
                           own->session->names[own->session->leader],
                           cs_psi_is_canary(own, item) ? "canary" : "place that only fills the list");
    }
    if (canaries != CS_PSI_CANARIES)
        return cs_fail(CS_ABORTED, "the answer of site '%s' has %zu of %d canaries; it is not used",
                       own->session->names[own->session->leader], canaries, CS_PSI_CANARIES);
    return CS_OK;
}

static cs_status accept(const cs_psi_own *own, size_t minimum, cs_bytes answer, cs_psi_table *ret)
{
    const cs_psi_session *session = own->session;
    cs_psi_header header;
    CS_TRY(cs_psi_header_read(answer, "answer", &header));
    const cs_bytes entries = cs_bytes_of(answer.data + CS_PSI_HEADER_BYTES, answer.size - CS_PSI_HEADER_BYTES);
    if (header.kind != CS_PSI_ANSWER || header.slots != session->slots || header.sites != session->sites ||
        header.owner != session->site || header.passed != 0)
        return cs_fail(CS_INVALID, "answer: not for site number %u of %u with %u kinds of key", session->site,
                       session->sites, session->slots);
    if (entries.size % ENTRY_BYTES != 0)
        return cs_fail(CS_INVALID, "answer: %zu bytes of entries, expected a multiple of %d", entries.size,
                       ENTRY_BYTES);
    CS_TRY(table_new(header.groups, false, ret));
    size_t patients = 0;
    uint8_t *is_used = cs_alloc(own->counts.groups);
    const cs_status status = read_entries(own, entries, ret, is_used, &patients);
    cs_free(is_used);
    CS_TRY(status);
    if (patients < minimum)
        return cs_fail(CS_DENIED, "the answer has fewer patients than the minimum of %zu; it is not used", minimum);
    return CS_OK;
}

cs_status cs_psi_accept(const cs_psi_own *own, size_t minimum, const char *path, cs_psi_table *ret)
{
    assert(own->session->site != own->session->leader);
    CS_AUTO(cs_buffer) answer = CS_BUFFER_EMPTY;
    CS_TRY(cs_file_read_all(path, CS_PSI_HEADER_BYTES + (size_t)own->counts.groups * ENTRY_BYTES, &answer));
    cs_psi_table table = CS_PSI_TABLE_EMPTY;
    const cs_status status = accept(own, minimum, cs_buffer_view(&answer), &table);
    if (status != CS_OK)
        cs_psi_table_clear(&table);
    else
        *ret = table;
    return status;
}
