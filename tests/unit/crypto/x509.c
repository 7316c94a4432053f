/* The authority, requests, leaves and identities; what is refused. */
#include "common/crypto/x509.h"

#include "tests/unit/crypto/folder.h"

#include <stdio.h>
#include <sys/stat.h>

#define NOW_MS 1780000000000LL /* May 2026 */
#define DAY_MS (24 * 3600 * 1000LL)

typedef struct authority {
    cs_tls_key *key;
    cs_buffer pem;
} authority;

static void authority_clear(authority *owner)
{
    cs_tls_key_free(owner->key);
    cs_buffer_clear(&owner->pem);
}

static authority make_authority(void)
{
    authority made = {0};
    must_be_ok(cs_tls_key_new(&made.key));
    must_be_ok(cs_authority_make(made.key, "cardiac", "Cardiac consortium", NOW_MS, &made.pem));
    return made;
}

static cs_status issue(const authority *by, const cs_tls_key *key, cs_role role, const char *name,
                       const char *const *addresses, int64_t life_ms, cs_buffer *ret)
{
    CS_AUTO(cs_buffer) csr = CS_BUFFER_EMPTY;
    must_be_ok(cs_csr_make(key, &csr));
    cs_leaf_request request = {.csr_der = cs_buffer_view(&csr),
                               .consortium = "cardiac",
                               .role = role,
                               .name = name,
                               .addresses = addresses,
                               .now_ms = NOW_MS,
                               .life_ms = life_ms};
    cs_crypto_random(request.serial, sizeof request.serial);
    request.serial[0] = 0xff; /* the largest numbers must read back too */
    return cs_leaf_issue(by->key, cs_buffer_view(&by->pem), &request, ret);
}

static void a_site_certificate_says_who_it_is_for(void **state)
{
    (void)state;
    CS_AUTO(authority) root = make_authority();
    CS_AUTO_PTR(cs_tls_key) key = NULL;
    must_be_ok(cs_tls_key_new(&key));
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;

    must_be_ok(issue(&root, key, CS_ROLE_SITE, "mercy", NULL, CS_LEAF_LIFE_MS, &pem));

    cs_identity identity;
    must_be_ok(cs_identity_read(cs_buffer_view(&pem), &identity));
    assert_string_equal(identity.consortium, "cardiac");
    assert_string_equal(identity.name, "mercy");
    assert_int_equal(identity.role, CS_ROLE_SITE);
    assert_int_equal(identity.serial[0], 0xff);
    assert_int_equal(identity.not_before_ms, NOW_MS - CS_BACKDATE_MS);
    assert_int_equal(identity.not_after_ms, NOW_MS + CS_LEAF_LIFE_MS);
    assert_int_equal(cs_identity_renew_at_ms(&identity), NOW_MS + CS_LEAF_LIFE_MS * 2 / 3);
    must_be_ok(cs_certificate_matches_key(cs_buffer_view(&pem), key));
    must_fail(cs_certificate_matches_key(cs_buffer_view(&pem), root.key), CS_INVALID, "not for this private key");
    must_be_ok(cs_certificate_verify(cs_buffer_view(&pem), cs_buffer_view(&root.pem), NOW_MS));
}

static void the_coordinator_certificate_covers_its_addresses_only(void **state)
{
    (void)state;
    CS_AUTO(authority) root = make_authority();
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    const char *const addresses[] = {"coordinator.example.org", "127.0.0.1", "::1", NULL};

    must_be_ok(issue(&root, root.key, CS_ROLE_COORDINATOR, NULL, addresses, DAY_MS, &pem));

    cs_bytes leaf = cs_buffer_view(&pem);
    cs_identity identity;
    must_be_ok(cs_identity_read(leaf, &identity));
    assert_int_equal(identity.role, CS_ROLE_COORDINATOR);
    assert_string_equal(identity.name, "");
    must_be_ok(cs_certificate_verify(leaf, cs_buffer_view(&root.pem), NOW_MS));
    assert_true(cs_certificate_covers(leaf, "coordinator.example.org"));
    assert_true(cs_certificate_covers(leaf, "127.0.0.1"));
    assert_true(cs_certificate_covers(leaf, "::1"));
    assert_false(cs_certificate_covers(leaf, "example.org"));
    assert_false(cs_certificate_covers(leaf, "127.0.0.2"));
    assert_false(cs_certificate_covers(leaf, "coordinator")); /* that is the CN */
}

static void dates_are_checked_against_the_callers_clock(void **state)
{
    (void)state;
    CS_AUTO(authority) root = make_authority();
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    must_be_ok(issue(&root, root.key, CS_ROLE_SITE, "mercy", NULL, DAY_MS, &pem));
    cs_bytes leaf = cs_buffer_view(&pem), trusted = cs_buffer_view(&root.pem);

    must_be_ok(cs_certificate_verify(leaf, trusted, NOW_MS + DAY_MS - 1000));
    must_fail(cs_certificate_verify(leaf, trusted, NOW_MS + DAY_MS + 1000), CS_UNAUTHENTICATED, "expired", "mercy",
              "2026-");
    must_be_ok(cs_certificate_verify(leaf, trusted, NOW_MS - CS_BACKDATE_MS + 1000));
    must_fail(cs_certificate_verify(leaf, trusted, NOW_MS - CS_BACKDATE_MS - 1000), CS_UNAUTHENTICATED,
              "not yet valid");
}

static void a_leaf_ends_with_the_authority_at_the_latest(void **state)
{
    (void)state;
    CS_AUTO(authority) root = make_authority();
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;

    must_be_ok(issue(&root, root.key, CS_ROLE_SITE, "mercy", NULL, 2 * CS_AUTHORITY_LIFE_MS, &pem));

    cs_identity identity;
    must_be_ok(cs_identity_read(cs_buffer_view(&pem), &identity));
    assert_int_equal(identity.not_after_ms, NOW_MS + CS_AUTHORITY_LIFE_MS);
}

static void a_certificate_of_another_authority_is_refused_with_its_issuer(void **state)
{
    (void)state;
    CS_AUTO(authority) ours = make_authority();
    CS_AUTO(authority) theirs = make_authority(); /* even under the same name */
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    must_be_ok(issue(&theirs, theirs.key, CS_ROLE_SITE, "mercy", NULL, DAY_MS, &pem));

    must_fail(cs_certificate_verify(cs_buffer_view(&pem), cs_buffer_view(&ours.pem), NOW_MS), CS_UNAUTHENTICATED,
              "Cardiac consortium");
}

static void a_leaf_cannot_issue_certificates(void **state)
{
    (void)state;
    CS_AUTO(authority) root = make_authority();
    CS_AUTO(authority) rogue = {0};
    must_be_ok(cs_tls_key_new(&rogue.key));
    must_be_ok(issue(&root, rogue.key, CS_ROLE_SITE, "mercy", NULL, DAY_MS, &rogue.pem));
    CS_AUTO(cs_buffer) forged = CS_BUFFER_EMPTY;
    must_be_ok(issue(&rogue, rogue.key, CS_ROLE_SITE, "charity", NULL, DAY_MS, &forged));

    assert_int_equal(cs_certificate_verify(cs_buffer_view(&forged), cs_buffer_view(&root.pem), NOW_MS),
                     CS_UNAUTHENTICATED);
    assert_int_equal(cs_certificate_verify(cs_buffer_view(&forged), cs_buffer_view(&rogue.pem), NOW_MS),
                     CS_UNAUTHENTICATED);
}

static void the_authority_itself_is_no_identity(void **state)
{
    (void)state;
    CS_AUTO(authority) root = make_authority();
    cs_identity identity;

    must_fail(cs_identity_read(cs_buffer_view(&root.pem), &identity), CS_INVALID, "0 URIs");
}

/* Certificates that our own issuer would never make, from the openssl command. */
static bool openssl_certificate(const char *folder, const char *key_options, const char *san, cs_buffer *ret)
{
    CS_AUTO(cs_string) path = cs_path_join(folder, "made.pem");
    CS_AUTO(cs_string) command = cs_format(
        "openssl req -x509 -nodes %s -set_serial 7 -subj /CN=x -days 2 -keyout %s.key -out %s %s%s 2>/dev/null",
        key_options, path, path, san[0] != 0 ? "-addext subjectAltName=" : "", san);
    if (system(command) != 0)
        return false;
    cs_buffer_clear(ret);
    must_be_ok(cs_file_read_all(path, CS_PEM_MAX_BYTES, ret));
    return true;
}

static void certificates_with_foreign_or_several_uris_are_refused(void **state)
{
    static const char *const refused[] = {
        "",
        "DNS:mercy",
        "URI:https://consilium/cardiac/site/mercy",
        "URI:spiffe://other/cardiac/site/mercy",
        "URI:spiffe://consilium/cardiac/site/",
        "URI:spiffe://consilium/cardiac/site/Mercy",
        "URI:spiffe://consilium/cardiac/site/mercy/more",
        "URI:spiffe://consilium/cardiac/site/-mercy",
        "URI:spiffe://consilium/cardiac/coordinator/x",
        "URI:spiffe://consilium//site/mercy",
        "URI:spiffe://consilium/cardiac",
        "URI:spiffe://consilium/cardiac/operator/x",
        "URI:spiffe://consilium/cardiac/site/mercy,URI:spiffe://consilium/cardiac/coordinator",
        "URI:spiffe://consilium/cardiac/site/mercy,URI:spiffe://consilium/cardiac/site/mercy",
        "URI:https://example.org,URI:spiffe://consilium/cardiac/site/mercy",
        "URI:spiffe://consilium/cardiac/site/a123456789b123456789c123456789d123456789e123456789f123456789g123",
    };
    static const char p256[] = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    cs_identity identity;
    if (!openssl_certificate(*state, p256, "URI:spiffe://consilium/cardiac/site/mercy", &pem))
        skip();
    must_be_ok(cs_identity_read(cs_buffer_view(&pem), &identity));
    assert_string_equal(identity.name, "mercy");

    for (size_t i = 0; i < CS_COUNT(refused); i++) {
        assert_true(openssl_certificate(*state, p256, refused[i], &pem));
        if (cs_identity_read(cs_buffer_view(&pem), &identity) != CS_INVALID)
            fail_msg("accepted '%s'", refused[i]);
    }
}

static void keys_that_are_not_p256_are_refused_everywhere(void **state)
{
    static const char *const kinds[] = {
        "-newkey ec -pkeyopt ec_paramgen_curve:P-384",
        "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit",
        "-newkey rsa:2048",
        "-newkey ed25519",
    };
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    CS_AUTO(cs_string) key_path = cs_path_join(*state, "made.pem.key");
    CS_AUTO(cs_string) csr_path = cs_path_join(*state, "made.csr");
    for (size_t i = 0; i < CS_COUNT(kinds); i++) {
        if (!openssl_certificate(*state, kinds[i], "URI:spiffe://consilium/cardiac/site/mercy", &pem))
            skip();
        cs_identity identity;
        must_fail(cs_identity_read(cs_buffer_view(&pem), &identity), CS_INVALID, "P-256");
        CS_AUTO_PTR(cs_tls_key) key = NULL;
        must_fail(cs_tls_key_load(key_path, &key), CS_INVALID, "P-256");

        CS_AUTO(cs_string) command =
            cs_format("openssl req -new -key %s -subj /CN=x -outform DER -out %s 2>/dev/null", key_path, csr_path);
        assert_int_equal(system(command), 0);
        CS_AUTO(cs_buffer) csr = CS_BUFFER_EMPTY;
        must_be_ok(cs_file_read_all(csr_path, CS_CSR_MAX_BYTES, &csr));
        cs_hash hash;
        must_fail(cs_csr_check(cs_buffer_view(&csr), &hash), CS_INVALID, "P-256");
    }
}

static void requests_are_checked_before_they_are_believed(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_tls_key) key = NULL;
    must_be_ok(cs_tls_key_new(&key));
    CS_AUTO(cs_buffer) csr = CS_BUFFER_EMPTY;
    must_be_ok(cs_csr_make(key, &csr));
    cs_hash hash;

    must_be_ok(cs_csr_check(cs_buffer_view(&csr), &hash));
    csr.data[csr.size - 1] ^= 1;
    must_fail(cs_csr_check(cs_buffer_view(&csr), &hash), CS_UNAUTHENTICATED, "not signed by the key");
    csr.data[csr.size - 1] ^= 1;
    must_fail(cs_csr_check(cs_bytes_of(csr.data, csr.size - 1), &hash), CS_INVALID, "PKCS #10");
    cs_buffer_append_text(&csr, "x");
    must_fail(cs_csr_check(cs_buffer_view(&csr), &hash), CS_INVALID, "PKCS #10");
    while (csr.size <= CS_CSR_MAX_BYTES)
        cs_buffer_append_text(&csr, "x");
    must_fail(cs_csr_check(cs_buffer_view(&csr), &hash), CS_INVALID, "4097");
    must_fail(cs_csr_check(cs_bytes_of(NULL, 0), &hash), CS_INVALID, "0 bytes");
}

static void a_leaf_needs_valid_names_addresses_and_the_right_authority(void **state)
{
    (void)state;
    CS_AUTO(authority) root = make_authority();
    CS_AUTO(authority) other = make_authority();
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    const char *const injected[] = {"a.example,DNS:b.example", NULL};
    const char *const dots[] = {"a..example", NULL};

    must_fail(issue(&root, root.key, CS_ROLE_SITE, "Mercy", NULL, DAY_MS, &pem), CS_INVALID, "site", "Mercy");
    must_fail(issue(&root, root.key, CS_ROLE_COORDINATOR, NULL, injected, DAY_MS, &pem), CS_INVALID, "a.example,DNS:");
    must_fail(issue(&root, root.key, CS_ROLE_COORDINATOR, NULL, dots, DAY_MS, &pem), CS_INVALID, "a..example");
    must_fail(issue(&root, root.key, CS_ROLE_SITE, "mercy", NULL, 0, &pem), CS_INVALID, "life");
    authority mixed = {.key = other.key, .pem = root.pem};
    must_fail(issue(&mixed, root.key, CS_ROLE_SITE, "mercy", NULL, DAY_MS, &pem), CS_INVALID, "private key");
    must_fail(cs_authority_make(root.key, "cardiac", "", NOW_MS, &pem), CS_INVALID, "display name");
    must_fail(cs_authority_make(root.key, "cardiac",
                                "a name of sixty-five letters is one too many for RFC 5280, as you see", NOW_MS, &pem),
              CS_INVALID, "display name");
    assert_int_equal(pem.size, 0);
}

static void names_are_dns_labels(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "mercy", "st-mary-2",
                                       "a123456789b123456789c123456789d123456789e123456789f123456789g12"};
    static const char *const bad[] = {
        "",    "-a",       "a-",
        "A",   "a b",      "a.b",
        "a/b", "\xc3\xa4", "a123456789b123456789c123456789d123456789e123456789f123456789g123"};

    for (size_t i = 0; i < CS_COUNT(good); i++)
        must_be_ok(cs_name_check(good[i], "site"));
    for (size_t i = 0; i < CS_COUNT(bad); i++)
        must_fail(cs_name_check(bad[i], "site"), CS_INVALID, "site");
}

static void text_that_is_no_certificate_is_refused(void **state)
{
    (void)state;
    cs_identity identity;
    CS_AUTO(cs_buffer) large = CS_BUFFER_EMPTY;
    for (size_t i = 0; i < CS_PEM_MAX_BYTES + 1; i++)
        cs_buffer_append_text(&large, "x");

    must_fail(cs_identity_read(cs_bytes_of_text("hello"), &identity), CS_INVALID, "PEM");
    must_fail(cs_identity_read(cs_bytes_of(NULL, 0), &identity), CS_INVALID, "0 bytes");
    must_fail(cs_identity_read(cs_buffer_view(&large), &identity), CS_INVALID, "65537");
}

static void key_and_certificate_are_kept_and_loaded_as_a_pair(void **state)
{
    CS_AUTO(cs_string) path = cs_path_join(*state, "tls.pem");
    CS_AUTO(authority) root = make_authority();
    CS_AUTO_PTR(cs_tls_key) key = NULL;
    must_be_ok(cs_tls_key_new(&key));
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    must_be_ok(issue(&root, key, CS_ROLE_SITE, "mercy", NULL, DAY_MS, &pem));

    must_be_ok(cs_tls_pair_save(path, key, cs_buffer_view(&pem)));
    must_fail(cs_tls_pair_save(path, root.key, cs_buffer_view(&pem)), CS_INVALID, "private key");

    CS_AUTO_PTR(cs_tls_key) back = NULL;
    CS_AUTO(cs_buffer) back_pem = CS_BUFFER_EMPTY;
    must_be_ok(cs_tls_pair_load(path, &back, &back_pem));
    assert_true(cs_bytes_equal(cs_buffer_view(&pem), cs_buffer_view(&back_pem)));
    must_be_ok(cs_certificate_matches_key(cs_buffer_view(&back_pem), back));
    struct stat about;
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_mode & 07777, 0600);
    assert_int_equal(chmod(path, 0644), 0);
    CS_AUTO_PTR(cs_tls_key) refused = NULL;
    must_fail(cs_tls_pair_load(path, &refused, &back_pem), CS_DENIED, "tls.pem", "0644");
}

static void a_pair_that_does_not_belong_together_is_data_loss(void **state)
{
    CS_AUTO(cs_string) path = cs_path_join(*state, "mixed.pem");
    CS_AUTO(authority) root = make_authority();
    CS_AUTO_PTR(cs_tls_key) key = NULL;
    must_be_ok(cs_tls_key_new(&key));
    CS_AUTO(cs_secret) text = CS_BUFFER_EMPTY;
    must_be_ok(cs_tls_key_write(key, &text));
    cs_buffer_append(&text, root.pem.data, root.pem.size);
    must_be_ok(cs_key_file_write(path, cs_buffer_view(&text)));

    CS_AUTO_PTR(cs_tls_key) back = NULL;
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    must_fail(cs_tls_pair_load(path, &back, &pem), CS_DATA_LOSS, "mixed.pem", "private key");
}

static void the_openssl_command_agrees_with_the_chain(void **state)
{
    if (system("openssl version >/dev/null 2>&1") != 0)
        skip();
    CS_AUTO(authority) root = make_authority();
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    const char *const addresses[] = {"coordinator.example.org", "127.0.0.1", NULL};
    CS_AUTO(cs_string) root_path = cs_path_join(*state, "authority.crt");
    CS_AUTO(cs_string) leaf_path = cs_path_join(*state, "leaf.crt");
    must_be_ok(cs_file_write_atomic(root_path, cs_buffer_view(&root.pem), 0644));

    must_be_ok(issue(&root, root.key, CS_ROLE_SITE, "mercy", NULL, DAY_MS, &pem));
    must_be_ok(cs_file_write_atomic(leaf_path, cs_buffer_view(&pem), 0644));
    CS_AUTO(cs_string) client = cs_format("openssl verify -x509_strict -attime %lld -purpose sslclient -CAfile %s %s "
                                          ">/dev/null",
                                          NOW_MS / 1000, root_path, leaf_path);
    CS_AUTO(cs_string) as_server =
        cs_format("openssl verify -x509_strict -attime %lld -purpose sslserver -CAfile %s %s "
                  ">/dev/null 2>&1",
                  NOW_MS / 1000, root_path, leaf_path);
    assert_int_equal(system(client), 0);
    assert_int_not_equal(system(as_server), 0);

    cs_buffer_reset(&pem);
    must_be_ok(issue(&root, root.key, CS_ROLE_COORDINATOR, NULL, addresses, DAY_MS, &pem));
    must_be_ok(cs_file_write_atomic(leaf_path, cs_buffer_view(&pem), 0644));
    CS_AUTO(cs_string) server = cs_format("openssl verify -x509_strict -attime %lld -purpose sslserver "
                                          "-verify_hostname coordinator.example.org -CAfile %s %s >/dev/null",
                                          NOW_MS / 1000, root_path, leaf_path);
    CS_AUTO(cs_string) as_client =
        cs_format("openssl verify -x509_strict -attime %lld -purpose sslclient -CAfile %s %s "
                  ">/dev/null 2>&1",
                  NOW_MS / 1000, root_path, leaf_path);
    assert_int_equal(system(server), 0);
    assert_int_not_equal(system(as_client), 0);
}

static void fingerprints_are_six_words_that_follow_the_hash(void **state)
{
    (void)state;
    cs_hash hash = {.bytes = {0x7f, 0, 0, 1, 0x3f, 0x54, 0xdc, 0xc1, 0xff, 0xff, 0, 0}};

    CS_AUTO(cs_string) words = cs_fingerprint_words(&hash);

    /* The first four are the examples of the proquint paper: 127.0.0.1 and 63.84.220.193. */
    assert_string_equal(words, "lusab-babad-gutih-tugad-zuzuz-babab");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_site_certificate_says_who_it_is_for),
        cmocka_unit_test(the_coordinator_certificate_covers_its_addresses_only),
        cmocka_unit_test(dates_are_checked_against_the_callers_clock),
        cmocka_unit_test(a_leaf_ends_with_the_authority_at_the_latest),
        cmocka_unit_test(a_certificate_of_another_authority_is_refused_with_its_issuer),
        cmocka_unit_test(a_leaf_cannot_issue_certificates),
        cmocka_unit_test(the_authority_itself_is_no_identity),
        cmocka_unit_test(certificates_with_foreign_or_several_uris_are_refused),
        cmocka_unit_test(keys_that_are_not_p256_are_refused_everywhere),
        cmocka_unit_test(requests_are_checked_before_they_are_believed),
        cmocka_unit_test(a_leaf_needs_valid_names_addresses_and_the_right_authority),
        cmocka_unit_test(names_are_dns_labels),
        cmocka_unit_test(text_that_is_no_certificate_is_refused),
        cmocka_unit_test(key_and_certificate_are_kept_and_loaded_as_a_pair),
        cmocka_unit_test(a_pair_that_does_not_belong_together_is_data_loss),
        cmocka_unit_test(the_openssl_command_agrees_with_the_chain),
        cmocka_unit_test(fingerprints_are_six_words_that_follow_the_hash),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
