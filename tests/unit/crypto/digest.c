/* SHA-256 and the text form of hashes. */
#include "common/crypto/digest.h"

#include "common/base/file.h"
#include "tests/unit/crypto/folder.h"

#include <string.h>

static void sha256_matches_the_vectors_of_fips_180_4(void **state)
{
    (void)state;
    static const struct {
        const char *message, *hex;
    } vectors[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };

    for (size_t i = 0; i < CS_COUNT(vectors); i++) {
        char hex[CS_HASH_HEX_BYTES];
        cs_hash hash = cs_sha256(cs_bytes_of_text(vectors[i].message));
        cs_hash_hex(&hash, hex);
        assert_string_equal(hex, vectors[i].hex);
    }
}

static void a_million_letters_in_uneven_pieces_match_the_vector(void **state)
{
    (void)state;
    char piece[997];
    memset(piece, 'a', sizeof piece);
    CS_AUTO_PTR(cs_digest) digest = cs_digest_new();

    for (size_t left = 1000000; left > 0;) {
        size_t now = CS_MIN(left, sizeof piece);
        cs_digest_add(digest, piece, now);
        left -= now;
    }

    char hex[CS_HASH_HEX_BYTES];
    cs_hash hash = cs_digest_end(digest);
    cs_hash_hex(&hash, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void a_file_has_the_hash_of_its_bytes(void **state)
{
    CS_AUTO(cs_string) path = cs_path_join(*state, "blob");
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&bytes, 700001);
    for (size_t i = 0; i < 700001; i++)
        cs_buffer_append(&bytes, &(uint8_t){(uint8_t)(i * 31)}, 1);
    must_be_ok(cs_file_write_atomic(path, cs_buffer_view(&bytes), 0600));

    cs_hash hash;
    uint64_t size = 0;
    must_be_ok(cs_sha256_file(path, &hash, &size));

    cs_hash expected = cs_sha256(cs_buffer_view(&bytes));
    assert_true(cs_hash_equal(&hash, &expected));
    assert_int_equal(size, 700001);
}

static void a_missing_file_is_named(void **state)
{
    CS_AUTO(cs_string) path = cs_path_join(*state, "nothing-here");
    cs_hash hash;

    assert_int_equal(cs_sha256_file(path, &hash, NULL), CS_NOT_FOUND);

    assert_non_null(strstr(cs_error_text(), "nothing-here"));
}

static void the_text_of_a_hash_reads_back(void **state)
{
    (void)state;
    cs_hash hash = cs_sha256(cs_bytes_of_text("x")), back = {0};
    char text[CS_HASH_TEXT_BYTES];
    cs_hash_text(&hash, text);

    must_be_ok(cs_hash_parse(text, "the plan", &back));
    assert_true(cs_hash_equal(&hash, &back));
    must_be_ok(cs_hash_parse(text + 7, "the plan", &back));
    assert_true(cs_hash_equal(&hash, &back));
    assert_false(cs_hash_is_zero(&hash));
}

static void malformed_hashes_are_refused_by_name(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "sha256:",
        "sha256:00",
        "sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85g",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8550",
    };
    cs_hash hash;

    for (size_t i = 0; i < CS_COUNT(bad); i++) {
        assert_int_equal(cs_hash_parse(bad[i], "the plan", &hash), CS_INVALID);
        assert_non_null(strstr(cs_error_text(), "the plan"));
    }
    uint8_t raw[33] = {0};
    assert_int_equal(cs_hash_from(cs_bytes_of(raw, 31), "the blob", &hash), CS_INVALID);
    assert_int_equal(cs_hash_from(cs_bytes_of(raw, 33), "the blob", &hash), CS_INVALID);
    must_be_ok(cs_hash_from(cs_bytes_of(raw, 32), "the blob", &hash));
    assert_true(cs_hash_is_zero(&hash));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_matches_the_vectors_of_fips_180_4),
        cmocka_unit_test(a_million_letters_in_uneven_pieces_match_the_vector),
        cmocka_unit_test(a_file_has_the_hash_of_its_bytes),
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(the_text_of_a_hash_reads_back),
        cmocka_unit_test(malformed_hashes_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
