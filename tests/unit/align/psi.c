/* The whole protocol in one process: every site's steps over files, against a join of the plain keys. */
#include "client/align/psi.h"

#include "common/crypto/digest.h"
#include "common/crypto/sign.h"
#include "tests/unit/place.h"

#include <errno.h>

#define SITES_MOST 8

typedef uint8_t key_set[CS_PSI_SLOTS_MAX][CS_PSI_KEY_BYTES];

typedef struct site {
    cs_psi_session session;
    key_set *keys;
    uint8_t *present;
    size_t count;
    cs_psi_own *own;
    cs_psi_table table;
} site;

typedef struct federation {
    site sites[SITES_MOST];
    uint32_t count, leader;
    uint32_t any;
    size_t minimum;
    const char *folder;
    char *tags[SITES_MOST], *answers[SITES_MOST];
    cs_psi_match *match;
} federation;

static const char *const names[] = {"ada", "bonn", "cork", "dora", "ely", "fez", "graz", "hull"};

/* A key that stands for a number; the same at every site. */
static void set_key(site *site, size_t record, uint32_t slot, uint64_t number)
{
    uint64_t text[2] = {number, slot};
    const cs_hash hash = cs_sha256(cs_bytes_of(text, sizeof text));
    memcpy(site->keys[record][slot], hash.bytes, CS_PSI_KEY_BYTES);
    site->present[record] |= (uint8_t)(1 << slot);
}

static federation *federation_new(const char *folder, uint32_t count, uint32_t slots)
{
    federation *all = calloc(1, sizeof *all);
    all->folder = folder;
    all->count = count;
    uint8_t shared[CS_PSI_SECRET_BYTES];
    cs_crypto_random(shared, sizeof shared);
    for (uint32_t i = 0; i < count; i++) {
        cs_psi_session *session = &all->sites[i].session;
        *session = (cs_psi_session){.study = "a study of two diseases",
                                    .slots = slots,
                                    .sites = count,
                                    .site = i,
                                    .names = names,
                                    .engine = i % 4 == 1 ? CS_CURVE_PORTABLE : CS_CURVE_BEST,
                                    .threads = 1 + i % 3};
        memcpy(session->shared_secret, shared, sizeof shared);
        cs_crypto_random(session->own_secret, sizeof session->own_secret);
    }
    return all;
}

static void set_leader(federation *all, uint32_t leader)
{
    all->leader = leader;
    for (uint32_t i = 0; i < all->count; i++)
        all->sites[i].session.leader = leader;
}

static void set_size(site *site, size_t count)
{
    site->count = count;
    site->keys = calloc(count + 1, sizeof *site->keys);
    site->present = calloc(count + 1, 1);
}

static void federation_free(federation *all)
{
    cs_psi_match_free(all->match);
    for (uint32_t i = 0; i < all->count; i++) {
        cs_psi_own_free(all->sites[i].own);
        cs_psi_table_clear(&all->sites[i].table);
        free(all->sites[i].keys);
        free(all->sites[i].present);
        cs_free(all->tags[i]);
        cs_free(all->answers[i]);
    }
    free(all);
}

static char *path_of(const federation *all, const char *what, uint32_t owner, uint32_t hop)
{
    return cs_format("%s/%s-%u-%u", all->folder, what, owner, hop);
}

/* The list of `owner` after `hop` hops, from the file of the hop before. */
static cs_status do_hop(federation *all, uint32_t owner, uint32_t hop)
{
    site *site = &all->sites[cs_psi_hop(all->count, all->leader, owner, hop)];
    CS_AUTO(cs_string) to = path_of(all, "list", owner, hop);
    if (hop == 0) {
        CS_TRY(cs_psi_own_new(&site->session, (const uint8_t(*)[CS_PSI_KEY_BYTES])site->keys, CS_PSI_SLOTS_MAX,
                              site->present, site->count, &site->own));
        return cs_psi_own_write(site->own, to, NULL, NULL);
    }
    CS_AUTO(cs_string) from = path_of(all, "list", owner, hop - 1);
    return cs_psi_pass(&site->session, owner, cs_psi_own_counts(all->sites[owner].own).groups, from, to, NULL, NULL);
}

static cs_status do_lists(federation *all)
{
    for (uint32_t hop = 0; hop < all->count; hop++)
        for (uint32_t owner = 0; owner < all->count; owner++)
            CS_TRY(do_hop(all, owner, hop));
    return CS_OK;
}

static cs_status do_match(federation *all)
{
    for (uint32_t owner = 0; owner < all->count; owner++) {
        all->tags[owner] = path_of(all, "list", owner, all->count - 1);
        all->answers[owner] = owner == all->leader ? NULL : path_of(all, "answer", owner, 0);
    }
    return cs_psi_match_new(all->sites[all->leader].own, (const char *const *)all->tags, &all->match);
}

static cs_status do_release(federation *all)
{
    return cs_psi_release(all->match, all->any, all->minimum, (const char *const *)all->answers,
                          &all->sites[all->leader].table);
}

static cs_status do_accept(federation *all)
{
    for (uint32_t i = 0; i < all->count; i++)
        if (i != all->leader)
            CS_TRY(cs_psi_accept(all->sites[i].own, all->minimum, all->answers[i], &all->sites[i].table));
    return CS_OK;
}

static cs_status do_all(federation *all)
{
    CS_TRY(do_lists(all));
    CS_TRY(do_match(all));
    CS_TRY(do_release(all));
    return do_accept(all);
}

/* --- the plain join ------------------------------------------------------------------------------------------------
 */

static bool is_same_record(const site *site, size_t a, size_t b)
{
    if (site->present[a] != site->present[b])
        return false;
    for (uint32_t slot = 0; slot < site->session.slots; slot++)
        if ((site->present[a] >> slot & 1) && memcmp(site->keys[a][slot], site->keys[b][slot], CS_PSI_KEY_BYTES) != 0)
            return false;
    return true;
}

/* The kinds of key of a record that count: none where an earlier record is the same, none that another patient has. */
static uint8_t *usable_keys(const site *site)
{
    uint8_t *usable = calloc(site->count + 1, 1);
    for (size_t a = 0; a < site->count; a++) {
        bool is_repeated = false;
        for (size_t b = 0; b < a && !is_repeated; b++)
            is_repeated = is_same_record(site, a, b);
        usable[a] = is_repeated ? 0 : site->present[a];
    }
    uint8_t *firsts = calloc(site->count + 1, 1);
    memcpy(firsts, usable, site->count);
    for (size_t a = 0; a < site->count; a++)
        for (size_t b = 0; b < site->count; b++)
            for (uint32_t slot = 0; slot < site->session.slots; slot++)
                if (a != b && (firsts[a] >> slot & 1) && (firsts[b] >> slot & 1) &&
                    memcmp(site->keys[a][slot], site->keys[b][slot], CS_PSI_KEY_BYTES) == 0)
                    usable[a] &= (uint8_t) ~(1 << slot);
    free(firsts);
    return usable;
}

static uint32_t keys_in_common(const site *ours, const uint8_t *our_keys, size_t a, const site *theirs,
                               const uint8_t *their_keys, size_t b)
{
    uint32_t hits = 0;
    for (uint32_t slot = 0; slot < ours->session.slots; slot++)
        hits += (our_keys[a] >> slot & 1) && (their_keys[b] >> slot & 1) &&
                memcmp(ours->keys[a][slot], theirs->keys[b][slot], CS_PSI_KEY_BYTES) == 0;
    return hits;
}

/* The one record there with the most keys in common, CS_PSI_NO_RECORD for none or a tie. */
static uint32_t best_of(const site *ours, const uint8_t *our_keys, size_t a, const site *theirs,
                        const uint8_t *their_keys)
{
    uint32_t best = CS_PSI_NO_RECORD, most = 0;
    for (size_t b = 0; b < theirs->count; b++) {
        const uint32_t hits = keys_in_common(ours, our_keys, a, theirs, their_keys, b);
        if (hits > most)
            most = hits, best = (uint32_t)b;
        else if (hits == most)
            best = CS_PSI_NO_RECORD;
    }
    return best;
}

/* Every table against the join; returns the rows. */
static size_t assert_is_the_join(const federation *all)
{
    const site *leader = &all->sites[all->leader];
    uint8_t *usable[SITES_MOST];
    for (uint32_t i = 0; i < all->count; i++)
        usable[i] = usable_keys(&all->sites[i]);
    uint32_t *row_of = malloc((leader->count + 1) * sizeof *row_of);
    memset(row_of, 0xff, (leader->count + 1) * sizeof *row_of);
    for (uint32_t row = 0; row < leader->table.rows; row++) {
        assert_true(leader->table.records[row] < leader->count);
        assert_int_equal(row_of[leader->table.records[row]], CS_PSI_NO_RECORD);
        row_of[leader->table.records[row]] = row;
    }
    size_t rows = 0;
    for (size_t a = 0; a < leader->count; a++) {
        uint32_t partner[SITES_MOST], found = 0;
        uint64_t found_at = 0;
        for (uint32_t i = 0; i < all->count; i++) {
            partner[i] = CS_PSI_NO_RECORD;
            if (i == all->leader)
                continue;
            const uint32_t best = best_of(leader, usable[all->leader], a, &all->sites[i], usable[i]);
            if (best != CS_PSI_NO_RECORD &&
                best_of(&all->sites[i], usable[i], best, leader, usable[all->leader]) == a) {
                partner[i] = best;
                found++;
                found_at |= (uint64_t)1 << i;
            }
        }
        const bool is_in = all->any == 0 ? found == all->count - 1 : found >= all->any;
        assert_int_equal(is_in, row_of[a] != CS_PSI_NO_RECORD);
        if (!is_in)
            continue;
        rows++;
        assert_int_equal(leader->table.found_at[row_of[a]], found_at);
        for (uint32_t i = 0; i < all->count; i++)
            if (i != all->leader)
                assert_int_equal(all->sites[i].table.records[row_of[a]], partner[i]);
    }
    assert_int_equal(rows, leader->table.rows);
    for (uint32_t i = 0; i < all->count; i++) {
        assert_int_equal(all->sites[i].table.rows, rows);
        free(usable[i]);
    }
    free(row_of);
    return rows;
}

/* --- tests
 * ------------------------------------------------------------------------------------------------------------ */

static void lists_are_padded_in_steps_of_a_sixteenth(void **state)
{
    (void)state;
    assert_int_equal(cs_psi_padded_groups(0), 128);
    assert_int_equal(cs_psi_padded_groups(64), 128);
    assert_int_equal(cs_psi_padded_groups(65), 136);
    assert_int_equal(cs_psi_padded_groups(65536 - 64), 65536);
    assert_int_equal(cs_psi_padded_groups(65536), 69632);
    assert_int_equal(cs_psi_padded_groups(CS_PSI_GROUPS_MAX - 64), CS_PSI_GROUPS_MAX);
    uint32_t last = 128;
    for (size_t patients = 0; patients < 100000; patients += 7) {
        const uint32_t padded = cs_psi_padded_groups(patients);
        assert_true(padded >= patients + CS_PSI_CANARIES + CS_PSI_DUMMIES);
        assert_true(padded == last || (padded > last && (padded - last) * 16 <= last));
        last = padded;
    }
}

static void every_list_passes_every_site_once_and_the_leader_last(void **state)
{
    (void)state;
    for (uint32_t sites = 2; sites <= CS_PSI_SITES_MAX; sites++)
        for (uint32_t leader = 0; leader < sites; leader += 1 + sites / 5)
            for (uint32_t owner = 0; owner < sites; owner++) {
                uint64_t seen = 0;
                for (uint32_t hop = 0; hop < sites; hop++)
                    seen |= (uint64_t)1 << cs_psi_hop(sites, leader, owner, hop);
                assert_int_equal(__builtin_popcountll(seen), sites);
                assert_int_equal(cs_psi_hop(sites, leader, owner, 0), owner);
                assert_int_equal(cs_psi_hop(sites, leader, owner, sites), leader);
                if (owner != leader)
                    assert_int_equal(cs_psi_hop(sites, leader, owner, sites - 1), leader);
            }
}

/* `overlap`: patients that all have, of `count`; the others belong to one site, or to two neighbours. */
static void fill_single(federation *all, size_t count, size_t overlap)
{
    for (uint32_t i = 0; i < all->count; i++) {
        set_size(&all->sites[i], count);
        for (size_t r = 0; r < count; r++) {
            const size_t turned = (r * 7 + i) % count; /* 7 and the counts used have no common factor */
            uint64_t number = turned;
            if (turned >= overlap)
                number = turned % 3 == 0 ? 1000000 + 10000 * (i / 2) + turned : 1000000 * (i + 2) + turned;
            set_key(&all->sites[i], r, 0, number);
        }
    }
}

static void any_number_of_sites_and_any_overlap_gives_the_plain_join(void **state)
{
    const place *here = *state;
    static const size_t counts[] = {0, 1, 100, 401};
    for (uint32_t sites = 2; sites <= SITES_MOST; sites++)
        for (size_t c = 0; c < CS_COUNT(counts); c++)
            for (size_t kind = 0; kind < 4; kind++) {
                const size_t overlaps[] = {0, CS_MIN(counts[c], (size_t)1), counts[c] / 2, counts[c]};
                if ((kind > 0 && overlaps[kind] == overlaps[kind - 1]) || (counts[c] > 100 && sites > 3))
                    continue;
                federation *all = federation_new(here->folder, sites, 1);
                set_leader(all, (sites + (uint32_t)kind) % sites);
                all->any = kind % 2 == 0 ? 0 : 1 + (uint32_t)c % (sites - 1);
                fill_single(all, counts[c], overlaps[kind]);

                assert_ok(do_all(all));

                const size_t rows = assert_is_the_join(all);
                if (all->any == 0)
                    assert_true(rows >= overlaps[kind]);
                federation_free(all);
            }
}

static void a_patient_listed_twice_counts_once_and_the_first_record_stands(void **state)
{
    const place *here = *state;
    federation *all = federation_new(here->folder, 2, 1);
    for (uint32_t i = 0; i < 2; i++) {
        set_size(&all->sites[i], 90);
        for (size_t r = 0; r < 90; r++)
            set_key(&all->sites[i], r, 0, r % (60 + 10 * i));
    }

    assert_ok(do_all(all));

    assert_int_equal(assert_is_the_join(all), 60);
    const cs_psi_counts counts = cs_psi_own_counts(all->sites[0].own);
    assert_int_equal(counts.repeated, 30);
    assert_int_equal(counts.listed, 60);
    federation_free(all);
}

static void keys_of_two_patients_tell_neither_and_the_most_kinds_in_common_decide(void **state)
{
    const place *here = *state;
    for (uint32_t round = 0; round < 6; round++) {
        federation *all = federation_new(here->folder, 2 + round % 3, 6);
        set_leader(all, round % 2);
        all->any = round % 2;
        uint64_t seed = 77 + round;
        for (uint32_t i = 0; i < all->count; i++) {
            set_size(&all->sites[i], 250);
            for (size_t r = 0; r < 250; r++) {
                const uint64_t person = (r * 3 + i * 40) % 400;
                for (uint32_t slot = 0; slot < 6; slot++) {
                    seed = seed * 6364136223846793005u + 1442695040888963407u;
                    const uint64_t chance = seed >> 33;
                    if (chance % 10 == 0)
                        continue; /* a missing field */
                    /* a wrong field, or one that brothers and sisters share */
                    uint64_t value = chance % 10 == 1 ? 100000 + chance : person;
                    if (slot >= 4)
                        value = person / 3 + 7000000;
                    set_key(&all->sites[i], r, slot, value);
                }
            }
        }

        assert_ok(do_all(all));

        const size_t rows = assert_is_the_join(all);
        print_message("%zu rows\n", rows);
        assert_true(rows > 5);
        federation_free(all);
    }
}

static void records_without_keys_are_counted_and_match_nobody(void **state)
{
    const place *here = *state;
    federation *all = federation_new(here->folder, 2, 3);
    for (uint32_t i = 0; i < 2; i++) {
        set_size(&all->sites[i], 50);
        for (size_t r = 0; r < 30; r++)
            set_key(&all->sites[i], r, (uint32_t)(r % 3), r);
    }

    assert_ok(do_all(all));

    assert_int_equal(assert_is_the_join(all), 30);
    assert_int_equal(cs_psi_own_counts(all->sites[1].own).without_key, 20);
    federation_free(all);
}

static void kinds_of_key_never_match_each_other(void **state)
{
    const place *here = *state;
    federation *all = federation_new(here->folder, 2, 2);
    for (uint32_t i = 0; i < 2; i++) {
        set_size(&all->sites[i], 30);
        for (size_t r = 0; r < 30; r++) {
            memset(all->sites[i].keys[r][i], (int)r + 1, CS_PSI_KEY_BYTES);
            all->sites[i].present[r] = (uint8_t)(1 << i);
        }
    }

    assert_ok(do_all(all));

    assert_int_equal(assert_is_the_join(all), 0);
    federation_free(all);
}

static void another_study_matches_nobody_and_the_canaries_say_so(void **state)
{
    const place *here = *state;
    federation *all = federation_new(here->folder, 2, 1);
    fill_single(all, 100, 100);
    all->sites[1].session.study = "another study";
    assert_ok(do_lists(all));

    assert_status(do_match(all), CS_ABORTED);

    assert_error_says("site 'bonn': 0 of 32 canaries");
    federation_free(all);
}

static void a_site_that_returns_the_leaders_own_list_as_its_own_is_found_out(void **state)
{
    const place *here = *state;
    federation *all = federation_new(here->folder, 2, 1);
    fill_single(all, 100, 10);
    assert_ok(do_hop(all, 0, 0));
    assert_ok(do_hop(all, 1, 0));
    assert_ok(do_hop(all, 0, 1));
    /* The tags of the leader's list, sent as if they were those of the site's. */
    CS_AUTO(cs_string) tags = path_of(all, "list", 0, 1);
    CS_AUTO(cs_string) forged = path_of(all, "list", 1, 1);
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    assert_ok(cs_file_read_all(tags, 1 << 20, &bytes));
    bytes.data[11] = 1;
    assert_ok(cs_file_write_atomic(forged, cs_buffer_view(&bytes), 0600));

    assert_status(do_match(all), CS_ABORTED);

    assert_error_says("site 'bonn': ");
    assert_error_says("groups that only this site can have");
    federation_free(all);
}

static void below_the_minimum_no_position_is_released_to_anybody(void **state)
{
    const place *here = *state;
    federation *all = federation_new(here->folder, 3, 1);
    fill_single(all, 100, 19);
    all->minimum = CS_PSI_MINIMUM;
    assert_ok(do_lists(all));
    assert_ok(do_match(all));

    assert_status(do_release(all), CS_DENIED);

    assert_error_says("fewer patients than the minimum of 20");
    assert_null(strstr(cs_error_text(), "19"));
    assert_int_equal(cs_psi_match_counts_of(all->match, 1).matched, 0);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(all->sites[i].table.rows, 0);
        assert_null(all->sites[i].table.records);
        assert_true(all->answers[i] == NULL || !cs_file_exists(all->answers[i]));
    }
    all->minimum = 19;
    assert_ok(do_release(all));
    assert_ok(do_accept(all));
    assert_int_equal(assert_is_the_join(all), 19);
    federation_free(all);
}

static void a_site_with_fewer_than_the_minimum_of_a_large_cohort_stops_the_release(void **state)
{
    const place *here = *state;
    federation *all = federation_new(here->folder, 3, 1);
    set_size(&all->sites[0], 100);
    set_size(&all->sites[1], 100);
    set_size(&all->sites[2], 100);
    for (size_t r = 0; r < 100; r++) {
        set_key(&all->sites[0], r, 0, r);
        set_key(&all->sites[1], r, 0, r);
        set_key(&all->sites[2], r, 0, r < 5 ? r : 1000 + r);
    }
    all->any = 1;
    all->minimum = 20;
    assert_ok(do_lists(all));
    assert_ok(do_match(all));

    assert_status(do_release(all), CS_DENIED);

    assert_error_says("site 'cork'");
    for (uint32_t i = 1; i < 3; i++)
        assert_false(cs_file_exists(all->answers[i]));
    federation_free(all);
}

static void an_answer_with_a_dummy_or_without_a_canary_is_refused(void **state)
{
    const place *here = *state;
    federation *all = federation_new(here->folder, 2, 1);
    fill_single(all, 101, 40);
    assert_ok(do_lists(all));
    assert_ok(do_match(all));
    assert_ok(do_release(all));
    CS_AUTO(cs_buffer) answer = CS_BUFFER_EMPTY;
    assert_ok(cs_file_read_all(all->answers[1], 1 << 20, &answer));
    const size_t rows = all->sites[0].table.rows;
    assert_int_equal((answer.size - CS_PSI_HEADER_BYTES) / 8, rows + CS_PSI_CANARIES);
    uint8_t *first = answer.data + CS_PSI_HEADER_BYTES;

    /* Every other place of the list instead of a right one: a patient there is another one, all else is noticed. */
    const uint32_t right = cs_load_be32(first + 4);
    size_t refused = 0;
    const uint32_t groups = cs_psi_own_counts(all->sites[1].own).groups;
    for (uint32_t place = 0; place <= groups; place++) {
        cs_store_be32(first + 4, place);
        assert_ok(cs_file_write_atomic(all->answers[1], cs_buffer_view(&answer), 0600));
        CS_AUTO(cs_psi_table) table = CS_PSI_TABLE_EMPTY;
        const cs_status status = cs_psi_accept(all->sites[1].own, 0, all->answers[1], &table);
        refused += status != CS_OK;
        if (place == groups)
            assert_int_equal(status, CS_INVALID);
    }
    assert_int_equal(refused, groups + 1 - (101 - (rows - 1)));
    cs_store_be32(first + 4, right);

    /* A canary less. */
    answer.size -= 8;
    assert_ok(cs_file_write_atomic(all->answers[1], cs_buffer_view(&answer), 0600));
    assert_status(cs_psi_accept(all->sites[1].own, 0, all->answers[1], &all->sites[1].table), CS_ABORTED);
    assert_error_says("31 of 32 canaries");
    answer.size += 8;
    assert_ok(cs_file_write_atomic(all->answers[1], cs_buffer_view(&answer), 0600));
    assert_status(cs_psi_accept(all->sites[1].own, rows + 1, all->answers[1], &all->sites[1].table), CS_DENIED);
    assert_ok(cs_psi_accept(all->sites[1].own, rows, all->answers[1], &all->sites[1].table));
    assert_int_equal(assert_is_the_join(all), rows);
    federation_free(all);
}

static void put_point(const char *path, size_t point, const uint8_t bytes[32])
{
    CS_AUTO(cs_buffer) list = CS_BUFFER_EMPTY;
    assert_ok(cs_file_read_all(path, 1 << 24, &list));
    memcpy(list.data + CS_PSI_HEADER_BYTES + 32 * point, bytes, 32);
    assert_ok(cs_file_write_atomic(path, cs_buffer_view(&list), 0600));
}

static void bad_points_are_refused_with_the_owner_and_their_place(void **state)
{
    const place *here = *state;
    federation *all = federation_new(here->folder, 2, 1);
    all->sites[0].session.threads = 3;
    fill_single(all, 1000, 10);
    assert_ok(do_hop(all, 0, 0));
    assert_ok(do_hop(all, 1, 0));
    CS_AUTO(cs_string) path = path_of(all, "list", 1, 0);
    static const uint8_t twist[32] = {2}, zero[32] = {0};
    uint8_t large[32];
    memset(large, 0xff, sizeof large);

    put_point(path, 900, twist);
    assert_status(do_hop(all, 1, 1), CS_INVALID);
    assert_error_says("list of site 'bonn': point 900 lies on the twist");
    put_point(path, 700, zero);
    assert_status(do_hop(all, 1, 1), CS_INVALID);
    assert_error_says("list of site 'bonn': point 700 is of small order");
    put_point(path, 3, large);
    assert_status(do_hop(all, 1, 1), CS_INVALID);
    assert_error_says("list of site 'bonn': point 3: ");
    federation_free(all);
}

static void lists_of_another_size_kind_owner_or_route_are_refused(void **state)
{
    const place *here = *state;
    federation *all = federation_new(here->folder, 3, 2);
    for (uint32_t i = 0; i < 3; i++)
        set_size(&all->sites[i], 0);
    for (uint32_t i = 0; i < 3; i++)
        assert_ok(do_hop(all, i, 0));
    CS_AUTO(cs_string) list = path_of(all, "list", 1, 0);
    CS_AUTO(cs_buffer) right = CS_BUFFER_EMPTY;
    assert_ok(cs_file_read_all(list, 1 << 20, &right));
    static const struct {
        size_t place;
        uint8_t value;
        const char *sentence;
    } bad[] = {{0, 'X', "is not a list of an alignment"},
               {8, 9, "kind 9, expected 1"},
               {8, 2, "holds tags, expected points"},
               {9, 0, "0 kinds of key"},
               {9, 3, "with 3 kinds of key"},
               {10, 1, "of 1 sites"},
               {10, 4, "of 4 with"},
               {11, 2, "of site number 2"},
               {12, 2, "33554560 groups, expected at most"},
               {15, 129, "129 groups, expected the announced 128"},
               {16, 3, "masked by the sites of the bits 3, expected 2"},
               {16, 9, "is not among the 3"},
               {31, 1, "not zero"}};
    for (size_t i = 0; i < CS_COUNT(bad); i++) {
        const uint8_t kept = right.data[bad[i].place];
        right.data[bad[i].place] = bad[i].value;
        assert_ok(cs_file_write_atomic(list, cs_buffer_view(&right), 0600));

        assert_status(do_hop(all, 1, 1), CS_INVALID);

        assert_error_says("list of site 'bonn'");
        assert_error_says(bad[i].sentence);
        right.data[bad[i].place] = kept;
    }
    right.size -= 1;
    assert_ok(cs_file_write_atomic(list, cs_buffer_view(&right), 0600));
    assert_status(do_hop(all, 1, 1), CS_INVALID);
    right.size = 31;
    assert_ok(cs_file_write_atomic(list, cs_buffer_view(&right), 0600));
    assert_status(do_hop(all, 1, 1), CS_INVALID);
    federation_free(all);
}

static void too_many_records_and_unknown_kinds_of_key_are_refused(void **state)
{
    const place *here = *state;
    federation *all = federation_new(here->folder, 2, 2);
    set_size(&all->sites[0], 3);
    site *site = &all->sites[0];

    assert_status(cs_psi_own_new(&site->session, (const uint8_t(*)[CS_PSI_KEY_BYTES])site->keys, CS_PSI_SLOTS_MAX,
                                 site->present, CS_PSI_GROUPS_MAX - CS_PSI_CANARIES - CS_PSI_DUMMIES + 1, &site->own),
                  CS_EXHAUSTED);
    site->present[2] = 4;
    assert_status(cs_psi_own_new(&site->session, (const uint8_t(*)[CS_PSI_KEY_BYTES])site->keys, CS_PSI_SLOTS_MAX,
                                 site->present, 3, &site->own),
                  CS_INVALID);
    assert_error_says("record 2");
    char study[CS_PSI_STUDY_BYTES + 2];
    memset(study, 's', sizeof study);
    study[CS_PSI_STUDY_BYTES + 1] = 0;
    site->session.study = study;
    assert_status(cs_psi_own_new(&site->session, (const uint8_t(*)[CS_PSI_KEY_BYTES])site->keys, CS_PSI_SLOTS_MAX,
                                 site->present, 2, &site->own),
                  CS_INVALID);
    federation_free(all);
}

typedef struct stop {
    uint64_t after;
    uint64_t blocks;
} stop;

static cs_status stop_after(void *self, uint64_t done, uint64_t total)
{
    stop *stop = self;
    assert_true(done <= total);
    return ++stop->blocks == stop->after ? cs_fail(CS_CANCELLED, "stopped by the test") : CS_OK;
}

/* Threads, engines, and any number of interruptions. */
static void the_bytes_depend_on_nothing_but_the_secrets(void **state)
{
    const place *here = *state;
    federation *all = federation_new(here->folder, 2, 3);
    for (uint32_t i = 0; i < 2; i++) {
        set_size(&all->sites[i], 6000);
        for (size_t r = 0; r < 6000; r++)
            for (uint32_t slot = 0; slot < 3; slot++)
                if (r % 5 != slot)
                    set_key(&all->sites[i], r, slot, r);
    }
    assert_ok(do_hop(all, 0, 0));
    assert_ok(do_hop(all, 0, 1));
    CS_AUTO(cs_string) own = path_of(all, "list", 0, 0);
    CS_AUTO(cs_string) passed = path_of(all, "list", 0, 1);
    CS_AUTO(cs_string) again = cs_format("%s/again", here->folder);
    cs_hash own_hash, passed_hash, hash;
    assert_ok(cs_sha256_file(own, &own_hash, NULL));
    assert_ok(cs_sha256_file(passed, &passed_hash, NULL));
    const uint32_t groups = cs_psi_own_counts(all->sites[0].own).groups;

    for (uint64_t round = 1; round <= 2; round++) {
        all->sites[0].session.threads = 5 - (uint32_t)round;
        all->sites[1].session.threads = 1 + (uint32_t)round;
        all->sites[0].session.engine = round % 2 == 0 ? CS_CURVE_BEST : CS_CURVE_PORTABLE;
        all->sites[1].session.engine = round % 2 == 1 ? CS_CURVE_BEST : CS_CURVE_PORTABLE;
        /* The last, smaller block is done again when the step was stopped after it; no other is. */
        uint64_t blocks = 0;
        cs_status status = CS_CANCELLED;
        while (status == CS_CANCELLED && blocks < 8) {
            stop stop = {.after = 1 + round};
            status = cs_psi_own_write(all->sites[0].own, again, stop_after, &stop);
            blocks += stop.blocks;
        }
        assert_int_equal(status, CS_OK);
        assert_in_range(blocks, 2, 3);
        assert_ok(cs_sha256_file(again, &hash, NULL));
        assert_true(cs_hash_equal(&hash, &own_hash));
        for (;;) {
            stop stop = {.after = 1 + round};
            const cs_status status = cs_psi_pass(&all->sites[1].session, 0, groups, own, again, stop_after, &stop);
            if (status == CS_OK)
                break;
            assert_int_equal(status, CS_CANCELLED);
        }
        assert_ok(cs_sha256_file(again, &hash, NULL));
        assert_true(cs_hash_equal(&hash, &passed_hash));
    }
    /* What an interrupted step of another session left is not gone on with. */
    stop stop = {.after = 1};
    assert_status(cs_psi_own_write(all->sites[0].own, again, stop_after, &stop), CS_CANCELLED);
    all->sites[0].session.own_secret[0] ^= 1;
    federation *other = all;
    cs_psi_own_free(other->sites[0].own);
    assert_ok(do_hop(other, 0, 0));
    assert_ok(cs_sha256_file(own, &own_hash, NULL));
    assert_ok(cs_psi_own_write(other->sites[0].own, again, NULL, NULL));
    assert_ok(cs_sha256_file(again, &hash, NULL));
    assert_true(cs_hash_equal(&hash, &own_hash));
    federation_free(all);
}

static int no_space_at_the_second_block(void *self, const char *operation, const char *path)
{
    (void)path;
    int *writes = self;
    return strcmp(operation, "pwrite") == 0 && ++*writes == 3 ? ENOSPC : 0;
}

static void a_full_disk_is_told_and_nothing_takes_the_name(void **state)
{
    const place *here = *state;
    federation *all = federation_new(here->folder, 2, 1);
    fill_single(all, 20001, 0);
    site *site = &all->sites[0];
    assert_ok(cs_psi_own_new(&site->session, (const uint8_t(*)[CS_PSI_KEY_BYTES])site->keys, CS_PSI_SLOTS_MAX,
                             site->present, site->count, &site->own));
    CS_AUTO(cs_string) path = path_of(all, "full", 0, 0);
    int writes = 0;
    cs_file_set_fault(no_space_at_the_second_block, &writes);

    const cs_status status = cs_psi_own_write(site->own, path, NULL, NULL);

    cs_file_set_fault(NULL, NULL);
    assert_int_equal(status, CS_EXHAUSTED);
    assert_false(cs_file_exists(path));
    assert_ok(cs_psi_own_write(site->own, path, NULL, NULL));
    federation_free(all);
}

/* Masked twice with the same secret, the same patient would be the same point: sessions have secrets of their own. And
 * two lists of one site show neither order nor patients to each other. */
static void the_order_and_the_points_of_two_sessions_have_nothing_in_common(void **state)
{
    const place *here = *state;
    cs_buffer lists[2] = {CS_BUFFER_EMPTY, CS_BUFFER_EMPTY};
    for (int i = 0; i < 2; i++) {
        federation *all = federation_new(here->folder, 2, 1);
        fill_single(all, 100, 100);
        assert_ok(do_hop(all, 0, 0));
        CS_AUTO(cs_string) path = path_of(all, "list", 0, 0);
        assert_ok(cs_file_read_all(path, 1 << 20, &lists[i]));
        federation_free(all);
    }
    for (size_t a = CS_PSI_HEADER_BYTES; a < lists[0].size; a += 32)
        for (size_t b = CS_PSI_HEADER_BYTES; b < lists[1].size; b += 32)
            assert_memory_not_equal(lists[0].data + a, lists[1].data + b, 32);
    cs_buffer_clear(&lists[0]);
    cs_buffer_clear(&lists[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_padded_in_steps_of_a_sixteenth),
        cmocka_unit_test(every_list_passes_every_site_once_and_the_leader_last),
        PLACE_TEST(any_number_of_sites_and_any_overlap_gives_the_plain_join),
        PLACE_TEST(a_patient_listed_twice_counts_once_and_the_first_record_stands),
        PLACE_TEST(keys_of_two_patients_tell_neither_and_the_most_kinds_in_common_decide),
        PLACE_TEST(records_without_keys_are_counted_and_match_nobody),
        PLACE_TEST(kinds_of_key_never_match_each_other),
        PLACE_TEST(another_study_matches_nobody_and_the_canaries_say_so),
        PLACE_TEST(a_site_that_returns_the_leaders_own_list_as_its_own_is_found_out),
        PLACE_TEST(below_the_minimum_no_position_is_released_to_anybody),
        PLACE_TEST(a_site_with_fewer_than_the_minimum_of_a_large_cohort_stops_the_release),
        PLACE_TEST(an_answer_with_a_dummy_or_without_a_canary_is_refused),
        PLACE_TEST(bad_points_are_refused_with_the_owner_and_their_place),
        PLACE_TEST(lists_of_another_size_kind_owner_or_route_are_refused),
        PLACE_TEST(too_many_records_and_unknown_kinds_of_key_are_refused),
        PLACE_TEST(the_bytes_depend_on_nothing_but_the_secrets),
        PLACE_TEST(a_full_disk_is_told_and_nothing_takes_the_name),
        PLACE_TEST(the_order_and_the_points_of_two_sessions_have_nothing_in_common),
    };
    if (cs_crypto_start() != CS_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
