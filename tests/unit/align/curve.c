/* The curve: both back ends against RFC 7748, RFC 9380 and libsodium, and what is refused. */
#include "client/align/curve.h"

#include "client/align/engine.h"
#include "common/crypto/sign.h"
#include "tests/unit/place.h"

#include <sodium.h>

static const cs_curve_engine engines[] = {CS_CURVE_PORTABLE, CS_CURVE_IFMA};

static void from_hex(uint8_t out[32], const char *hex)
{
    assert_ok(cs_hex_decode(hex, 64, "vector", out, 32));
}

/* RFC 9380 prints numbers, so the most significant byte first. */
static void from_number(uint8_t out[32], const char *hex)
{
    uint8_t bytes[32];
    from_hex(bytes, hex);
    for (int i = 0; i < 32; i++)
        out[i] = bytes[31 - i];
}

static void the_processor_says_what_it_can(void **state)
{
    (void)state;
    print_message("engine here: %s\n", cs_curve_engine_name(CS_CURVE_BEST));
    assert_string_equal(cs_curve_engine_name(CS_CURVE_PORTABLE), "portable");
    assert_string_equal(cs_curve_engine_name(CS_CURVE_BEST), cs_curve_engine_name(cs_curve_best()));
}

static void the_ladder_matches_the_vectors_of_rfc_7748(void **state)
{
    (void)state;
    static const char *const vectors[][3] = {
        {"a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
         "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
         "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"},
        {"4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
         "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
         "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957"},
        /* section 6.1 */
        {"77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
         "0900000000000000000000000000000000000000000000000000000000000000",
         "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"},
        {"5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
         "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
         "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"},
    };
    for (size_t e = 0; e < CS_COUNT(engines); e++)
        for (size_t i = 0; i < CS_COUNT(vectors); i++) {
            uint8_t scalar[32], point[32], expected[32], out[32];
            from_hex(scalar, vectors[i][0]);
            from_hex(point, vectors[i][1]);
            from_hex(expected, vectors[i][2]);

            cs_curve_x25519(engines[e], scalar, point, 1, out);

            assert_memory_equal(out, expected, 32);
        }
}

/* RFC 7748 section 5.2: k and u start as 9, then u becomes the old k and k the result. A million times with
 * CONSILIUM_TEST_SLOW set. */
static void a_thousand_and_a_million_iterations_match_rfc_7748(void **state)
{
    (void)state;
    static const struct {
        long times;
        const char *result;
    } marks[] = {{1, "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"},
                 {1000, "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"},
                 {1000000, "7c3911e0ab2586fd864497297e575e6f3bc601c0883c30df5f4dd2d24f665424"}};
    const size_t used = getenv("CONSILIUM_TEST_SLOW") != NULL ? 3 : 2;
    for (size_t e = 0; e < CS_COUNT(engines); e++) {
        uint8_t k[32] = {9}, u[32] = {9}, next[32], expected[32];
        long done = 0;
        for (size_t m = 0; m < used; m++) {
            for (; done < marks[m].times; done++) {
                cs_curve_x25519(engines[e], k, u, 1, next);
                memcpy(u, k, 32);
                memcpy(k, next, 32);
            }
            from_hex(expected, marks[m].result);
            assert_memory_equal(k, expected, 32);
        }
    }
}

static void both_engines_agree_with_libsodium_on_any_bytes_and_any_count(void **state)
{
    (void)state;
    enum { MOST = 300 };
    static uint8_t in[MOST * 32], out[MOST * 32], expected[MOST * 32];
    uint8_t scalar[32];
    static const size_t counts[] = {1, 7, 8, 9, 15, 16, 17, 127, 128, 129, MOST};
    for (size_t c = 0; c < CS_COUNT(counts); c++) {
        randombytes_buf(scalar, sizeof scalar);
        randombytes_buf(in, sizeof in);
        /* Edges: values around p and 2^255, limbs full of ones. */
        memset(in, 0xff, 32);
        if (counts[c] > 5) {
            memset(in + 32, 0xff, 32);
            in[32 + 31] = 0x7f;
            in[32] = 0xed; /* p */
            memset(in + 64, 0xff, 32);
            in[64 + 31] = 0x7f;
            in[64] = 0xec; /* p - 1 */
            memset(in + 96, 0, 32);
            memset(in + 128, 0, 32);
            in[128] = 1;
        }
        for (size_t i = 0; i < counts[c]; i++)
            if (crypto_scalarmult_curve25519(expected + 32 * i, scalar, in + 32 * i) != 0)
                memset(expected + 32 * i, 0, 32); /* libsodium refuses points of small order */
        for (size_t e = 0; e < CS_COUNT(engines); e++) {
            memset(out, 0xaa, sizeof out);

            cs_curve_x25519(engines[e], scalar, in, counts[c], out);

            assert_memory_equal(out, expected, 32 * counts[c]);
            for (size_t i = 32 * counts[c]; i < sizeof out; i++)
                assert_int_equal(out[i], 0xaa);
            memcpy(out, in, sizeof out);
            cs_curve_x25519(engines[e], scalar, out, counts[c], out);
            assert_memory_equal(out, expected, 32 * counts[c]);
        }
    }
}

/* The RFC's Q is what cs_curve_hash gives; its P = 8 Q, once the cofactor is cleared, cannot be had alone, because a
 * clamped scalar is never 8. But 2^255 - 24 d = 8 m and m = 8 (2^251) modulo the order of the subgroup, 2^252 + d: that
 * multiple of Q is 2^254 times P. Both scalars are as clamping leaves them. */
static void hashing_matches_the_vectors_of_rfc_9380(void **state)
{
    (void)state;
    static const struct {
        const char *message, *fill;
        size_t repeat;
        const char *q;
        const char *p;
    } vectors[] = {
        {"", "", 0, "51125222da5e763d97f3c10fcc92ea6860b9ccbbd2eb1285728f566721c1e65b",
         "1bb913f0c9daefa0b3375378ffa534bda5526c97391952a7789eb976edfe4d08"},
        {"abc", "", 0, "7d56d1e08cb0ccb92baf069c18c49bb5a0dcd927eff8dcf75ca921ef7f3e6eeb",
         "7c22950b7d900fa866334262fcaea47a441a578df43b894b4625c9b450f9a026"},
        {"abcdef0123456789", "", 0, "3fbe66b9c9883d79e8407150e7c2a1c8680bee496c62fabe4619a72b3cabe90f",
         "31ad08a8b0deeb2a4d8b0206ca25f567ab4e042746f792f4b7973f3ae2096c52"},
        {"q128_", "q", 128, "227e0bb89de700385d19ec40e857db6e6a3e634b1c32962f370d26f84ff19683",
         "027877759d155b1997d0d84683a313eb78bdb493271d935b622900459d52ceaa"},
        {"a512_", "a", 512, "3bcd651ee54d5f7b6013898aab251ee8ecc0688166fce6e9548d38472f6bd196",
         "5fd892c0958d1a75f54c3182a18d286efab784e774d1e017ba2fb252998b5dc1"},
    };
    const cs_bytes dst = cs_bytes_of_text("QUUX-V01-CS02-with-curve25519_XMD:SHA-512_ELL2_NU_");
    for (size_t e = 0; e < CS_COUNT(engines); e++)
        for (size_t i = 0; i < CS_COUNT(vectors); i++) {
            char message[600];
            strcpy(message, vectors[i].message);
            for (size_t r = 0; r < vectors[i].repeat; r++)
                strcat(message, vectors[i].fill);
            uint8_t out[32], q[32], p[32];
            from_number(q, vectors[i].q);
            from_number(p, vectors[i].p);

            cs_curve_hash(engines[e], dst, (const uint8_t *)message, strlen(message), 1, out);

            assert_memory_equal(out, q, 32);
            uint8_t of_q[32], of_p[32], twice_254[32] = {[31] = 0x40}, multiple[32];
            from_hex(multiple, "c821f44887b546bee74bc9b82093180bfeffffffffffffffffffffffffffff7f");
            assert_ok(cs_curve_mask(engines[e], multiple, q, 1, 0, of_q));
            cs_curve_x25519(engines[e], twice_254, p, 1, of_p);
            assert_memory_equal(of_q, of_p, 32);
        }
}

static void what_no_honest_peer_sends_is_refused_by_its_place(void **state)
{
    (void)state;
    enum { COUNT = 600 };
    static uint8_t points[COUNT * 32], out[COUNT * 32];
    static uint8_t keys[COUNT * 32];
    uint8_t scalar[32];
    randombytes_buf(scalar, sizeof scalar);
    randombytes_buf(keys, sizeof keys);
    static const struct {
        const char *point, *sentence;
    } refused[] = {
        {"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "not below 2^255 - 19"}, /* p */
        {"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "not below 2^255 - 19"},
        {"0900000000000000000000000000000000000000000000000000000000000080", "not below 2^255 - 19"}, /* bit 255 */
        {"0200000000000000000000000000000000000000000000000000000000000000", "twist"},
        {"0000000000000000000000000000000000000000000000000000000000000000", "small order"},
        {"0100000000000000000000000000000000000000000000000000000000000000", "small order"},
        {"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "twist"},       /* -1, of order 4 there */
        {"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800", "small order"}, /* order 8 */
        {"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157", "small order"}, /* order 8 */
    };
    for (size_t e = 0; e < CS_COUNT(engines); e++)
        for (size_t i = 0; i < CS_COUNT(refused); i++)
            for (size_t place = 0; place < COUNT; place += 299) {
                cs_curve_hash(engines[e], cs_bytes_of_text("test"), keys, 32, COUNT, points);
                assert_ok(cs_curve_mask(engines[e], scalar, points, COUNT, 1000, out));
                from_hex(points + 32 * place, refused[i].point);

                assert_status(cs_curve_mask(engines[e], scalar, points, COUNT, 1000, out), CS_INVALID);

                CS_AUTO(cs_string) name = cs_format("point %zu ", 1000 + place);
                CS_AUTO(cs_string) name_colon = cs_format("point %zu:", 1000 + place);
                assert_true(strstr(cs_error_text(), name) != NULL || strstr(cs_error_text(), name_colon) != NULL);
                assert_error_says(refused[i].sentence);
            }
}

static void every_hash_is_on_the_curve_and_the_engines_agree(void **state)
{
    (void)state;
    enum { COUNT = 1000, BYTES = 33 };
    static uint8_t messages[COUNT * BYTES], portable[COUNT * 32], ifma[COUNT * 32], on_curve[COUNT];
    randombytes_buf(messages, sizeof messages);
    static const size_t dst_sizes[] = {1, 20, 45, 46, 100, 172, 173, 255};
    uint8_t dst[255];
    randombytes_buf(dst, sizeof dst);
    for (size_t d = 0; d < CS_COUNT(dst_sizes); d++) {
        cs_curve_hash(CS_CURVE_PORTABLE, cs_bytes_of(dst, dst_sizes[d]), messages, BYTES, COUNT, portable);
        cs_curve_hash(CS_CURVE_IFMA, cs_bytes_of(dst, dst_sizes[d]), messages, BYTES, COUNT, ifma);

        assert_memory_equal(portable, ifma, sizeof portable);
        cs_curve_field_portable.check(portable, COUNT, on_curve);
        for (size_t i = 0; i < COUNT; i++)
            assert_true(on_curve[i]);
    }
}

/* Half of all values lie on the twist; both engines must say which, and the map never gives one. */
static void the_engines_agree_which_values_are_on_the_curve(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    static uint8_t points[COUNT * 32], portable[COUNT], other[COUNT], mapped[2][COUNT * 32];
    randombytes_buf(points, sizeof points);
    for (size_t i = 0; i < COUNT; i++)
        points[32 * i + 31] &= 0x7f;
    memset(points, 0, 32);
    size_t found = 0;

    cs_curve_field_portable.check(points, COUNT, portable);
    cs_curve_field_portable.map(points, COUNT, mapped[0]);

    for (size_t i = 0; i < COUNT; i++)
        found += portable[i];
    assert_in_range(found, 400, 600);
    const cs_curve_field *ifma = cs_curve_field_ifma();
    if (ifma == NULL) {
        print_message("not run for AVX-512 IFMA: this processor has none\n");
        return;
    }
    ifma->check(points, COUNT, other);
    ifma->map(points, COUNT, mapped[1]);
    assert_memory_equal(portable, other, COUNT);
    assert_memory_equal(mapped[0], mapped[1], sizeof mapped[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_processor_says_what_it_can),
        cmocka_unit_test(the_ladder_matches_the_vectors_of_rfc_7748),
        cmocka_unit_test(a_thousand_and_a_million_iterations_match_rfc_7748),
        cmocka_unit_test(both_engines_agree_with_libsodium_on_any_bytes_and_any_count),
        cmocka_unit_test(hashing_matches_the_vectors_of_rfc_9380),
        cmocka_unit_test(what_no_honest_peer_sends_is_refused_by_its_place),
        cmocka_unit_test(every_hash_is_on_the_curve_and_the_engines_agree),
        cmocka_unit_test(the_engines_agree_which_values_are_on_the_curve),
    };
    if (cs_crypto_start() != CS_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
