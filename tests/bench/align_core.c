/* Private set intersection without a network: what one core does per second with either engine, beside libsodium in the
 * same run, and all parties' processor time for a whole intersection in one process. Processor time, not wall time, so
 * that it means something on a busy machine. Run by hand: bench_align_core [--log2 N] [--sites S] [--engine NAME]. */
#include "client/align/psi.h"

#include "common/base/clock.h"
#include "common/base/command.h"
#include "common/base/file.h"
#include "common/crypto/digest.h"
#include "common/crypto/sign.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define POINTS    16384
#define SODIUM    2048 /* points of the reference in each turn */
#define TURNS     5
#define KEY_BYTES 33
#define SITES     8

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double values[TURNS])
{
    qsort(values, TURNS, sizeof *values, compare);
    return values[TURNS / 2];
}

static uint8_t messages[POINTS * KEY_BYTES], points[POINTS * CS_POINT_BYTES], out[POINTS * CS_POINT_BYTES];

static double reference(const uint8_t scalar[CS_SCALAR_BYTES])
{
    const double start = cpu_seconds();
    for (size_t i = 0; i < SODIUM; i++)
        if (crypto_scalarmult_curve25519(out + i * CS_POINT_BYTES, scalar, points + i * CS_POINT_BYTES) != 0)
            abort();
    return SODIUM / (cpu_seconds() - start);
}

static cs_status measure_engine(cs_curve_engine engine)
{
    const cs_bytes dst = cs_bytes_of_text("consilium-align-1:benchmark");
    uint8_t scalar[CS_SCALAR_BYTES];
    cs_crypto_random(scalar, sizeof scalar);
    cs_crypto_random(messages, sizeof messages);
    double hash[TURNS], ladder[TURNS], mask[TURNS], sodium[TURNS];
    for (int turn = 0; turn < TURNS; turn++) {
        double start = cpu_seconds();
        cs_curve_hash(engine, dst, messages, KEY_BYTES, POINTS, points);
        hash[turn] = POINTS / (cpu_seconds() - start);
        sodium[turn] = reference(scalar);
        start = cpu_seconds();
        cs_curve_x25519(engine, scalar, points, POINTS, out);
        ladder[turn] = POINTS / (cpu_seconds() - start);
        start = cpu_seconds();
        CS_TRY(cs_curve_mask(engine, scalar, points, POINTS, 0, out));
        mask[turn] = POINTS / (cpu_seconds() - start);
    }
    const double reference_rate = median(sodium), ladder_rate = median(ladder), mask_rate = median(mask),
                 hash_rate = median(hash);
    printf("%-10s  hash %9.0f/s  ladder %8.0f/s  checked mask %8.0f/s  libsodium %7.0f/s  ladder/libsodium %5.2f\n",
           cs_curve_engine_name(engine), hash_rate, ladder_rate, mask_rate, reference_rate,
           ladder_rate / reference_rate);
    return CS_OK;
}

typedef struct party {
    cs_psi_session session;
    uint8_t (*keys)[CS_PSI_KEY_BYTES];
    uint8_t *present;
    cs_psi_own *own;
    cs_psi_table table;
    double cpu;
    char *list;
} party;

typedef struct setting {
    int64_t log2, sites;
    cs_curve_engine engine;
    char *folder;
} setting;

/* Half of each list is common to all. */
static void make_keys(party *party, size_t count, uint32_t number)
{
    party->keys = cs_alloc_array(count, sizeof *party->keys);
    party->present = cs_alloc(count);
    for (size_t i = 0; i < count; i++) {
        const uint64_t text[2] = {i, i % 2 == 0 ? 0 : number + 1};
        const cs_hash hash = cs_sha256(cs_bytes_of(text, sizeof text));
        memcpy(party->keys[i], hash.bytes, CS_PSI_KEY_BYTES);
        party->present[i] = 1;
    }
}

static cs_status intersect(const setting *setting, party *parties)
{
    static const char *const names[SITES] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    const uint32_t sites = (uint32_t)setting->sites;
    const size_t count = (size_t)1 << setting->log2;
    uint8_t shared[CS_PSI_SECRET_BYTES];
    cs_crypto_random(shared, sizeof shared);
    for (uint32_t i = 0; i < sites; i++) {
        party *party = &parties[i];
        party->session = (cs_psi_session){.study = "benchmark",
                                          .slots = 1,
                                          .sites = sites,
                                          .site = i,
                                          .names = names,
                                          .engine = setting->engine,
                                          .threads = 1};
        memcpy(party->session.shared_secret, shared, sizeof shared);
        cs_crypto_random(party->session.own_secret, sizeof party->session.own_secret);
        make_keys(party, count, i);
        party->list = cs_format("%s/list-%u", setting->folder, i);
        const double start = cpu_seconds();
        CS_TRY(cs_psi_own_new(&party->session, (const uint8_t(*)[CS_PSI_KEY_BYTES])party->keys, 1, party->present,
                              count, &party->own));
        CS_TRY(cs_psi_own_write(party->own, party->list, NULL, NULL));
        party->cpu += cpu_seconds() - start;
    }
    for (uint32_t hop = 1; hop < sites; hop++)
        for (uint32_t owner = 0; owner < sites; owner++) {
            party *party = &parties[cs_psi_hop(sites, 0, owner, hop)];
            const double start = cpu_seconds();
            CS_TRY(cs_psi_pass(&party->session, owner, cs_psi_own_counts(parties[owner].own).groups,
                               parties[owner].list, parties[owner].list, NULL, NULL));
            party->cpu += cpu_seconds() - start;
        }
    const char *lists[SITES], *answers[SITES];
    CS_AUTO(cs_string) answer = cs_format("%s/answer", setting->folder);
    for (uint32_t i = 0; i < sites; i++)
        lists[i] = parties[i].list, answers[i] = NULL;
    const double start = cpu_seconds();
    CS_AUTO_PTR(cs_psi_match) match = NULL;
    CS_TRY(cs_psi_match_new(parties[0].own, lists, &match));
    answers[1] = answer;
    CS_TRY(cs_psi_release(match, 0, CS_PSI_MINIMUM, answers, &parties[0].table));
    parties[0].cpu += cpu_seconds() - start;
    CS_TRY(cs_psi_accept(parties[1].own, CS_PSI_MINIMUM, answer, &parties[1].table));
    if (parties[0].table.rows != count / 2 || parties[1].table.rows != count / 2)
        return cs_fail(CS_INTERNAL, "%zu rows, expected %zu", parties[0].table.rows, count / 2);
    return CS_OK;
}

static cs_status measure_intersection(const setting *setting)
{
    party parties[SITES] = {0};
    const int64_t start_us = cs_clock_monotonic_us();
    cs_status status = intersect(setting, parties);
    double total = 0, most = 0;
    for (int64_t i = 0; i < setting->sites; i++) {
        total += parties[i].cpu;
        most = CS_MAX(most, parties[i].cpu);
        if (status == CS_OK && i == 0)
            printf("%lld sites x 2^%lld (padded to %u), %s: ", (long long)setting->sites, (long long)setting->log2,
                   cs_psi_own_counts(parties[0].own).groups, cs_curve_engine_name(setting->engine));
        cs_psi_own_free(parties[i].own);
        cs_psi_table_clear(&parties[i].table);
        cs_free(parties[i].keys);
        cs_free(parties[i].present);
        cs_free(parties[i].list);
    }
    if (status == CS_OK)
        printf("%.2f CPU-seconds in all, %.2f at the busiest site, %.2f s on one core\n", total, most,
               (double)(cs_clock_monotonic_us() - start_us) / 1e6);
    return status;
}

static int run(const cs_arguments *arguments)
{
    setting setting = {.log2 = 16, .sites = 2};
    const char *engine = cs_argument(arguments, "--engine");
    if (cs_argument_int(arguments, "--log2", 1, 22, &setting.log2) != CS_OK ||
        cs_argument_int(arguments, "--sites", 2, SITES, &setting.sites) != CS_OK)
        return cs_command_fail(arguments, CS_INVALID);
    setting.engine = engine != NULL && strcmp(engine, "portable") == 0 ? CS_CURVE_PORTABLE : CS_CURVE_BEST;
    setting.folder = cs_strdup("/tmp/consilium-bench-XXXXXX");
    if (mkdtemp(setting.folder) == NULL)
        return cs_command_fail(arguments, cs_fail_errno("cannot make '%s'", setting.folder));

    cs_status status = cs_crypto_start();
    if (status == CS_OK && !cs_argument_flag(arguments, "--only-intersection")) {
        status = measure_engine(CS_CURVE_PORTABLE);
        if (status == CS_OK && cs_curve_best() == CS_CURVE_IFMA)
            status = measure_engine(CS_CURVE_IFMA);
    }
    if (status == CS_OK)
        status = measure_intersection(&setting);
    const int code = status == CS_OK ? CS_EXIT_OK : cs_command_fail(arguments, status);
    CS_IGNORE(cs_folder_remove(setting.folder), "the measurement stands, the folder is a temporary one");
    cs_free(setting.folder);
    return code;
}

int main(int argc, char **argv)
{
    static const cs_option options[] = {{"--log2", "N", "2^N patients at each site (16)", false, false},
                                        {"--sites", "S", "2 to 8 (2)", false, false},
                                        {"--engine", "NAME", "portable, or what the processor does best", false, false},
                                        {"--only-intersection", NULL, "without points per second", false, false},
                                        {0}};
    static const cs_command commands[] = {{"", "measures masking and whole intersections", options, run}, {0}};
    return cs_command_main("bench_align_core", "Private set intersection, without a network.", commands, argc, argv);
}
