/* Ed25519 keys, their files, and the small services. */
#include "common/crypto/sign.h"

#include "common/crypto/keyfile.h"
#include "tests/unit/crypto/folder.h"

#include <sys/stat.h>

/* RFC 8032 section 7.1, tests 1 to 3: secret, public, message, signature. */
static const struct {
    const char *seed, *public_key, *message, *signature;
} vectors[] = {
    {"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
     "655141438e7a100b"},
    {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
     "b00d291612bb0c00"},
    {"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
     "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
     "c027beceea1ec40a"},
};

/* Test vectors come as seeds, keys come from files: this is the PKCS #8 file of a seed. */
static void write_key_file(const char *path, const char *seed_hex)
{
    uint8_t pkcs8[48] = {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06,
                         0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20};
    must_be_ok(cs_hex_decode(seed_hex, 64, "seed", pkcs8 + 16, 32));
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&pem, "-----BEGIN PRIVATE KEY-----\n");
    cs_base64_encode(&pem, cs_bytes_of(pkcs8, sizeof pkcs8));
    cs_buffer_append_text(&pem, "\n-----END PRIVATE KEY-----\n");
    must_be_ok(cs_key_file_write(path, cs_buffer_view(&pem)));
}

static void signatures_match_rfc_8032(void **state)
{
    CS_AUTO(cs_string) path = cs_path_join(*state, "vector.key");
    for (size_t i = 0; i < CS_COUNT(vectors); i++) {
        write_key_file(path, vectors[i].seed);
        CS_AUTO_PTR(cs_sign_key) key = NULL;
        must_be_ok(cs_sign_key_load(path, &key));
        uint8_t message[8], signature[CS_SIGNATURE_BYTES];
        size_t size = strlen(vectors[i].message) / 2;
        must_be_ok(cs_hex_decode(vectors[i].message, 2 * size, "message", message, size));

        cs_sign(key, cs_bytes_of(message, size), signature);

        char hex[2 * CS_SIGNATURE_BYTES + 1];
        cs_hex_encode(hex, cs_sign_key_public(key), CS_SIGN_PUBLIC_BYTES);
        assert_string_equal(hex, vectors[i].public_key);
        cs_hex_encode(hex, signature, sizeof signature);
        assert_string_equal(hex, vectors[i].signature);
        must_be_ok(cs_sign_verify(cs_sign_key_public(key), cs_bytes_of(message, size),
                                  cs_bytes_of(signature, sizeof signature), "vector"));
    }
}

static void a_changed_message_signature_or_key_is_refused(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_sign_key) key = cs_sign_key_new();
    CS_AUTO_PTR(cs_sign_key) other = cs_sign_key_new();
    uint8_t signature[CS_SIGNATURE_BYTES];
    cs_bytes message = cs_bytes_of_text("approved");
    cs_sign(key, message, signature);

    must_fail(cs_sign_verify(cs_sign_key_public(key), cs_bytes_of_text("refused"), cs_bytes_of(signature, 64), "mercy"),
              CS_UNAUTHENTICATED, "mercy");
    must_fail(cs_sign_verify(cs_sign_key_public(other), message, cs_bytes_of(signature, 64), "mercy"),
              CS_UNAUTHENTICATED, "mercy");
    must_fail(cs_sign_verify(cs_sign_key_public(key), message, cs_bytes_of(signature, 63), "mercy"), CS_UNAUTHENTICATED,
              "63");
    for (size_t i = 0; i < sizeof signature; i++) {
        signature[i] ^= 1;
        assert_int_equal(cs_sign_verify(cs_sign_key_public(key), message, cs_bytes_of(signature, 64), "mercy"),
                         CS_UNAUTHENTICATED);
        signature[i] ^= 1;
    }
}

static void the_all_zero_key_verifies_nothing(void **state)
{
    (void)state;
    uint8_t zero[CS_SIGNATURE_BYTES] = {0};

    assert_int_equal(cs_sign_verify(zero, cs_bytes_of_text("x"), cs_bytes_of(zero, 64), "nobody"), CS_UNAUTHENTICATED);
}

static void a_saved_key_is_private_and_reads_back(void **state)
{
    CS_AUTO(cs_string) path = cs_path_join(*state, "signing.key");
    CS_AUTO_PTR(cs_sign_key) key = cs_sign_key_new();
    must_be_ok(cs_sign_key_save(key, path));

    struct stat about;
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_mode & 07777, 0600);
    CS_AUTO_PTR(cs_sign_key) back = NULL;
    must_be_ok(cs_sign_key_load(path, &back));
    assert_memory_equal(cs_sign_key_public(key), cs_sign_key_public(back), CS_SIGN_PUBLIC_BYTES);
}

static void a_key_file_that_others_may_read_is_refused_with_its_mode(void **state)
{
    CS_AUTO(cs_string) path = cs_path_join(*state, "open.key");
    CS_AUTO_PTR(cs_sign_key) key = cs_sign_key_new();
    must_be_ok(cs_sign_key_save(key, path));
    static const struct {
        mode_t mode;
        const char *text;
    } modes[] = {{0640, "0640"}, {0604, "0604"}, {0620, "0620"}, {0644, "0644"}};

    for (size_t i = 0; i < CS_COUNT(modes); i++) {
        assert_int_equal(chmod(path, modes[i].mode), 0);
        CS_AUTO_PTR(cs_sign_key) back = NULL;
        must_fail(cs_sign_key_load(path, &back), CS_DENIED, "open.key", modes[i].text);
        assert_null(back);
    }
}

static void a_proxy_login_is_the_first_line_of_a_file_of_its_owner(void **state)
{
    CS_AUTO(cs_string) path = cs_path_join(*state, "proxy.login");
    CS_AUTO(cs_secret) login = CS_BUFFER_EMPTY;
    must_be_ok(cs_file_write_atomic(path, cs_bytes_of_text("radiology:pass:word \r\nwritten by IT\n"), 0600));

    must_be_ok(cs_proxy_login_read(path, &login));
    assert_string_equal(cs_buffer_text(&login), "radiology:pass:word ");

    assert_int_equal(chmod(path, 0640), 0);
    must_fail(cs_proxy_login_read(path, &login), CS_DENIED, "holds a password", "0640");
    static const char *const bad[] = {"radiology\n", "\nradiology:password\n", "radio\tlogy:password\n"};
    for (size_t i = 0; i < CS_COUNT(bad); i++) {
        must_be_ok(cs_file_write_atomic(path, cs_bytes_of_text(bad[i]), 0600));
        must_fail(cs_proxy_login_read(path, &login), CS_INVALID, "proxy.login", "");
        assert_null(strstr(cs_error_text(), "password:"));
    }
    CS_AUTO(cs_buffer) large = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&large, "u:");
    while (large.size <= CS_PROXY_LOGIN_MAX_BYTES)
        cs_buffer_append_text(&large, "x");
    must_be_ok(cs_file_write_atomic(path, cs_buffer_view(&large), 0600));
    must_fail(cs_proxy_login_read(path, &login), CS_INVALID, "at most 512 bytes", "");
}

static void a_key_file_with_other_content_is_refused(void **state)
{
    CS_AUTO(cs_string) path = cs_path_join(*state, "bad.key");
    CS_AUTO_PTR(cs_sign_key) key = NULL;
    CS_AUTO(cs_buffer) large = CS_BUFFER_EMPTY;
    for (size_t i = 0; i < CS_KEY_FILE_MAX_BYTES + 1; i++)
        cs_buffer_append_text(&large, "x");

    must_be_ok(cs_key_file_write(path, cs_bytes_of_text("hello")));
    must_fail(cs_sign_key_load(path, &key), CS_INVALID, "bad.key", "Ed25519");
    must_be_ok(cs_key_file_write(path, cs_buffer_view(&large)));
    must_fail(cs_sign_key_load(path, &key), CS_INVALID, "bad.key", "65537");
    must_be_ok(cs_key_file_write(path, cs_bytes_of_text("")));
    must_fail(cs_sign_key_load(path, &key), CS_INVALID, "bad.key");
    must_fail(cs_sign_key_load(*state, &key), CS_DENIED, "regular file");
    must_be_ok(
        cs_key_file_write(path, cs_bytes_of_text("-----BEGIN PRIVATE KEY-----\n"
                                                 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
                                                 "\n-----END PRIVATE KEY-----\n")));
    must_fail(cs_sign_key_load(path, &key), CS_INVALID, "RFC 8410");
}

static int no_space(void *self, const char *operation, const char *path)
{
    (void)self;
    (void)path;
    return strcmp(operation, "fsync") == 0 || strcmp(operation, "write") == 0 ? 28 : 0; /* ENOSPC */
}

static void a_full_disk_leaves_the_old_key_in_place(void **state)
{
    CS_AUTO(cs_string) path = cs_path_join(*state, "kept.key");
    CS_AUTO_PTR(cs_sign_key) first = cs_sign_key_new();
    CS_AUTO_PTR(cs_sign_key) second = cs_sign_key_new();
    must_be_ok(cs_sign_key_save(first, path));

    cs_file_set_fault(no_space, NULL);
    assert_int_equal(cs_sign_key_save(second, path), CS_EXHAUSTED);
    cs_file_set_fault(NULL, NULL);

    CS_AUTO_PTR(cs_sign_key) back = NULL;
    must_be_ok(cs_sign_key_load(path, &back));
    assert_memory_equal(cs_sign_key_public(first), cs_sign_key_public(back), CS_SIGN_PUBLIC_BYTES);
}

static void comparison_and_wiping_do_what_they_say(void **state)
{
    (void)state;
    uint8_t a[32], b[32], zero[32] = {0};
    cs_crypto_random(a, sizeof a);
    memcpy(b, a, sizeof b);

    assert_true(cs_crypto_equal(a, b, sizeof a));
    b[31] ^= 1;
    assert_false(cs_crypto_equal(a, b, sizeof a));
    cs_crypto_wipe(a, sizeof a);
    assert_memory_equal(a, zero, sizeof a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signatures_match_rfc_8032),
        cmocka_unit_test(a_changed_message_signature_or_key_is_refused),
        cmocka_unit_test(the_all_zero_key_verifies_nothing),
        cmocka_unit_test(a_saved_key_is_private_and_reads_back),
        cmocka_unit_test(a_key_file_that_others_may_read_is_refused_with_its_mode),
        cmocka_unit_test(a_proxy_login_is_the_first_line_of_a_file_of_its_owner),
        cmocka_unit_test(a_key_file_with_other_content_is_refused),
        cmocka_unit_test(a_full_disk_leaves_the_old_key_in_place),
        cmocka_unit_test(comparison_and_wiping_do_what_they_say),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
