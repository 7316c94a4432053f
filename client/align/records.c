/* Which keys of a site's records go into its list. Called for the list and for `align --dry-run`, on any thread. */
#include "client/align/psi.h"

#include <assert.h>
#include <string.h>

struct records {
    const uint8_t (*keys)[CS_PSI_KEY_BYTES];
    size_t stride, count;
    uint32_t slots;
    const uint8_t *present;
    uint8_t *usable, *shared;
    /* Open addressing by the first bytes of what identifies a record: hashes already, of this site's own patients. */
    uint32_t *places; /* record + 1, 0 for none */
    size_t mask;
};

static const uint8_t *key_of(const struct records *records, size_t record, uint32_t slot)
{
    return records->keys[record * records->stride + slot];
}

static bool has_same_keys(const struct records *records, size_t a, size_t b)
{
    if (records->present[a] != records->present[b])
        return false;
    for (uint32_t slot = 0; slot < records->slots; slot++)
        if ((records->present[a] >> slot & 1) &&
            memcmp(key_of(records, a, slot), key_of(records, b, slot), CS_PSI_KEY_BYTES) != 0)
            return false;
    return true;
}

/* The first of records with the same keys counts; usable = 0 for the others and for records without a key. */
static void set_repeated_aside(struct records *records, cs_psi_counts *counts)
{
    for (size_t i = 0; i < records->count; i++) {
        records->usable[i] = records->present[i];
        if (records->present[i] == 0) {
            counts->without_key++;
            continue;
        }
        uint64_t hash = 0;
        for (uint32_t slot = 0; slot < records->slots; slot++)
            if (records->present[i] >> slot & 1)
                hash = (hash << 7 | hash >> 57) ^ cs_load_le64(key_of(records, i, slot));
        size_t place = (size_t)hash & records->mask;
        while (records->places[place] != 0 && !has_same_keys(records, records->places[place] - 1, i))
            place = (place + 1) & records->mask;
        if (records->places[place] != 0) {
            records->usable[i] = 0;
            counts->repeated++;
        } else {
            records->places[place] = (uint32_t)i + 1;
        }
    }
}

/* A key that two patients share tells neither from the other, and two equal points would show in the list. */
static void find_shared(struct records *records, uint32_t slot)
{
    memset(records->places, 0, (records->mask + 1) * sizeof *records->places);
    for (size_t i = 0; i < records->count; i++) {
        if (!(records->usable[i] >> slot & 1))
            continue;
        const uint8_t *key = key_of(records, i, slot);
        size_t place = (size_t)cs_load_le64(key) & records->mask;
        while (records->places[place] != 0 &&
               memcmp(key_of(records, records->places[place] - 1, slot), key, CS_PSI_KEY_BYTES) != 0)
            place = (place + 1) & records->mask;
        if (records->places[place] != 0) {
            records->shared[i] |= (uint8_t)(1 << slot);
            records->shared[records->places[place] - 1] |= (uint8_t)(1 << slot);
        } else {
            records->places[place] = (uint32_t)i + 1;
        }
    }
}

static void leave_shared_out(struct records *records, cs_psi_counts *counts)
{
    for (uint32_t slot = 0; slot < records->slots; slot++)
        find_shared(records, slot);
    for (size_t i = 0; i < records->count; i++) {
        if (records->usable[i] == 0)
            continue;
        for (uint32_t slot = 0; slot < records->slots; slot++)
            counts->shared[slot] += records->shared[i] >> slot & 1;
        records->usable[i] &= (uint8_t)~records->shared[i];
        counts->keys += (size_t)__builtin_popcount(records->usable[i]);
        if (records->usable[i] == 0)
            counts->only_shared++;
        else
            counts->listed++;
    }
}

cs_status cs_psi_sort_out(const uint8_t (*keys)[CS_PSI_KEY_BYTES], size_t stride, uint32_t slots,
                          const uint8_t *present, size_t count, uint8_t *usable, cs_psi_counts *ret)
{
    struct records records = {
        .keys = keys, .stride = stride, .count = count, .slots = slots, .present = present, .usable = usable};
    void *places = NULL, *shared = NULL;
    size_t size = 16;

    assert(slots >= 1 && slots <= CS_PSI_SLOTS_MAX && stride >= slots && count <= UINT32_MAX - 1);
    *ret = (cs_psi_counts){.records = count};
    for (size_t i = 0; i < count; i++)
        if (present[i] >> slots != 0)
            return cs_fail(CS_INVALID, "record %zu has a key of a kind above the %u of the plan", i, slots);
    while (size < 2 * count)
        size *= 2;
    records.mask = size - 1;
    cs_status status = cs_alloc_peer(size, sizeof *records.places, "table of records", &places);
    if (status == CS_OK)
        status = cs_alloc_peer(count + 1, 1, "shared keys", &shared);
    if (status == CS_OK) {
        records.places = places;
        records.shared = shared;
        set_repeated_aside(&records, ret);
        leave_shared_out(&records, ret);
        ret->groups = cs_psi_padded_groups(ret->listed);
    }
    cs_free(places);
    cs_free(shared);
    return status;
}
