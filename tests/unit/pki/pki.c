/* The authority's decisions: tokens, enrolment and each of its refusals, renewal, revocation, the own certificate. */
#include "tests/unit/pki/coordinator.h"

#include "common/base/failpoint.h"

#include <sys/stat.h>

/* One request as a site makes it; tests bend its fields before they send it. */
typedef struct applicant {
    cs_join_file join;
    cs_tls_key *key;
    cs_sign_key *signing;
    cs_buffer csr, proof;
    uint8_t signature[CS_SIGNATURE_BYTES];
    Consilium__V1__EnrolRequest request;
    cs_arena *arena;
} applicant;

static void applicant_clear(applicant *self)
{
    cs_join_file_clear(&self->join);
    cs_tls_key_free(self->key);
    cs_sign_key_free(self->signing);
    cs_buffer_clear(&self->csr);
    cs_buffer_clear(&self->proof);
    cs_arena_free(self->arena);
}

static void applicant_sign(applicant *self)
{
    self->request.csr = cs_wire_data(self->csr.data, self->csr.size);
    cs_buffer_reset(&self->proof);
    cs_enrol_proof_text(self->request.site, cs_wire_bytes(self->request.token), cs_buffer_view(&self->csr),
                        &self->proof);
    cs_sign(self->signing, cs_buffer_view(&self->proof), self->signature);
    self->request.proof = cs_wire_data(self->signature, sizeof self->signature);
}

static void applicant_with_file(applicant *self, const cs_buffer *join_file)
{
    *self = (applicant){.arena = cs_arena_new(1 << 20)};
    must_be_ok(cs_join_file_parse(cs_buffer_view(join_file), "join file", &self->join));
    must_be_ok(cs_tls_key_new(&self->key));
    self->signing = cs_sign_key_new();
    must_be_ok(cs_csr_make(self->key, &self->csr));
    consilium__v1__enrol_request__init(&self->request);
    self->request.hello = cs_wire_hello();
    self->request.site = self->join.site;
    self->request.token = cs_wire_data(self->join.token, CS_TOKEN_BYTES);
    self->request.signing_key = cs_wire_data(cs_sign_key_public(self->signing), CS_SIGN_PUBLIC_BYTES);
    applicant_sign(self);
}

static void applicant_start(applicant *self, coordinator *at, const char *site, bool is_rejoin)
{
    CS_AUTO(cs_buffer) join_file = CS_BUFFER_EMPTY;
    new_token(at, site, is_rejoin, "localhost:8444", &join_file);
    applicant_with_file(self, &join_file);
}

static const Consilium__V1__EnrolAnswer *ask(applicant *self, coordinator *at)
{
    Consilium__V1__EnrolAnswer *answer = NULL;
    cs_pki_enrol(at->pki, &at->store, &self->request, self->arena, &answer);
    assert_non_null(answer);
    return answer;
}

static const Consilium__V1__EnrolAnswer *must_enrol(applicant *self, coordinator *at)
{
    const Consilium__V1__EnrolAnswer *answer = ask(self, at);
    if (answer->code != CS_OK)
        fail_msg("refused: %s", answer->error);
    return answer;
}

static void must_be_refused(applicant *self, coordinator *at, cs_status status, const char *words)
{
    const Consilium__V1__EnrolAnswer *answer = ask(self, at);
    if (answer->code != status || strstr(answer->error, words) == NULL)
        fail_msg("code %u, '%s'; expected %d, '%s'", answer->code, answer->error, status, words);
    assert_int_equal(answer->certificate.len, 0);
}

static cs_identity identity_of(const Consilium__V1__EnrolAnswer *answer)
{
    cs_identity identity;
    must_be_ok(cs_identity_read(cs_wire_bytes(answer->certificate), &identity));
    return identity;
}

#define COORDINATOR(name)                                                                                              \
    CS_AUTO(coordinator) name;                                                                                         \
    coordinator_start(&name, *state)
#define APPLICANT(name, at, site)                                                                                      \
    CS_AUTO(applicant) name;                                                                                           \
    applicant_start(&name, &at, site, false)

/* ---- init and open ---- */

static void init_makes_private_keys_and_refuses_a_second_time(void **state)
{
    COORDINATOR(here);
    static const char *const secrets[] = {"keys/authority.key", "keys/signing.key", "keys/coordinator.pem"};
    for (size_t i = 0; i < CS_COUNT(secrets); i++) {
        CS_AUTO(cs_string) path = cs_path_join(here.folder, secrets[i]);
        struct stat about;
        assert_int_equal(stat(path, &about), 0);
        assert_int_equal(about.st_mode & 07777, 0600);
    }

    must_fail(cs_pki_init(here.folder, "Other", "localhost", 8443, 8444), CS_EXISTS, here.folder, "already");
    assert_string_equal(cs_pki_consortium(here.pki), "cardiac-consortium");
}

static void an_interrupted_init_is_done_again_from_the_start(void **state)
{
    CS_AUTO(cs_string) folder = cs_path_join(*state, "interrupted");
    CS_AUTO(cs_string) keys = cs_path_join(folder, "keys");
    CS_AUTO(cs_string) leftover = cs_path_join(folder, "keys.new");
    if (cs_failpoint_configure("pki.init=error") != CS_OK)
        skip();

    assert_int_equal(cs_pki_init(folder, "Cardiac", "localhost", 8443, 8444), CS_INTERNAL);
    must_be_ok(cs_failpoint_configure(NULL));
    assert_false(cs_file_exists(keys));
    must_be_ok(cs_pki_init(folder, "Cardiac", "localhost", 8443, 8444));

    assert_true(cs_file_exists(keys));
    assert_false(cs_file_exists(leftover));
}

static void init_refuses_names_and_addresses_that_cannot_be_used(void **state)
{
    CS_AUTO(cs_string) folder = cs_path_join(*state, "refused");
    CS_AUTO(cs_string) config = cs_path_join(folder, "server.yaml");

    must_fail(cs_pki_init(folder, "***", "localhost", 8443, 8444), CS_INVALID, "***");
    must_fail(cs_pki_init(folder, "Cardiac", "two words", 8443, 8444), CS_INVALID, "two words");

    assert_false(cs_file_exists(config));
}

static void a_loose_authority_key_stops_the_coordinator(void **state)
{
    COORDINATOR(here);
    coordinator_close(&here);
    CS_AUTO(cs_string) path = cs_path_join(here.folder, "keys/authority.key");
    assert_int_equal(chmod(path, 0640), 0);

    must_fail(cs_pki_open(here.folder, &here.config, NULL, &here.pki), CS_DENIED, "authority.key", "0640");

    assert_int_equal(chmod(path, 0600), 0);
    coordinator_open(&here);
}

static void the_own_certificate_is_renewed_at_two_thirds_of_its_life(void **state)
{
    COORDINATOR(here);
    CS_AUTO(cs_buffer) first = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) second = CS_BUFFER_EMPTY;
    CS_AUTO(cs_secret) key = CS_BUFFER_EMPTY;
    must_be_ok(cs_pki_own_identity(here.pki, &first, &key));
    bool has_changed = true;

    cs_clock_fake_advance(7 * DAY_MS * 2 / 3 - 1000);
    must_be_ok(cs_pki_renew_own(here.pki, &has_changed));
    assert_false(has_changed);
    cs_clock_fake_advance(2000);
    must_be_ok(cs_pki_renew_own(here.pki, &has_changed));
    assert_true(has_changed);

    must_be_ok(cs_pki_own_identity(here.pki, &second, &key));
    assert_false(cs_bytes_equal(cs_buffer_view(&first), cs_buffer_view(&second)));
    CS_AUTO_PTR(cs_tls_key) parsed = NULL;
    must_be_ok(cs_tls_key_read(cs_buffer_view(&key), "key", &parsed));
    must_be_ok(cs_certificate_matches_key(cs_buffer_view(&second), parsed));
    must_be_ok(cs_certificate_verify(cs_buffer_view(&second), cs_pki_authority_pem(here.pki), cs_clock_wall_ms()));
    assert_int_equal(count_of(&here, "certificate_renewed"), 1);
    coordinator_close(&here); /* and it is what the next start finds */
    coordinator_open(&here);
    must_be_ok(cs_pki_own_identity(here.pki, &first, &key));
    assert_true(cs_bytes_equal(cs_buffer_view(&first), cs_buffer_view(&second)));
}

static void a_coordinator_that_moved_gets_a_certificate_for_its_new_address(void **state)
{
    COORDINATOR(here);
    coordinator_close(&here);
    cs_free(here.config.address);
    here.config.address = cs_strdup("coordinator.example.org");

    coordinator_open(&here);

    CS_AUTO(cs_buffer) certificate = CS_BUFFER_EMPTY;
    CS_AUTO(cs_secret) key = CS_BUFFER_EMPTY;
    must_be_ok(cs_pki_own_identity(here.pki, &certificate, &key));
    assert_true(cs_certificate_covers(cs_buffer_view(&certificate), "coordinator.example.org"));
    assert_false(cs_certificate_covers(cs_buffer_view(&certificate), "localhost"));
}

static void a_shorter_life_in_the_configuration_counts_at_once(void **state)
{
    COORDINATOR(here);
    coordinator_close(&here);
    here.config.leaf_life_ms = 12000;
    bool has_changed = true;

    coordinator_open(&here);
    must_be_ok(cs_pki_renew_own(here.pki, &has_changed));
    assert_false(has_changed);
    cs_clock_fake_advance(8000);
    must_be_ok(cs_pki_renew_own(here.pki, &has_changed));

    assert_true(has_changed);
}

/* ---- tokens ---- */

static void a_join_file_says_everything_and_the_database_keeps_no_token(void **state)
{
    COORDINATOR(here);
    CS_AUTO(cs_buffer) file = CS_BUFFER_EMPTY;
    new_token(&here, "mercy", false, "localhost:8444", &file);
    CS_AUTO(cs_join_file) join = {0};

    must_be_ok(cs_join_file_parse(cs_buffer_view(&file), "mercy.join", &join));

    assert_string_equal(join.site, "mercy");
    assert_string_equal(join.consortium, "cardiac-consortium");
    assert_string_equal(join.coordinator, "localhost:8443");
    assert_string_equal(join.enrolment, "localhost:8444");
    assert_int_equal(join.expires_ms, NOW_MS + DAY_MS);
    assert_true(cs_bytes_equal(cs_buffer_view(&join.authority_pem), cs_pki_authority_pem(here.pki)));
    CS_AUTO(cs_token_record) record = {0};
    cs_hash hash = cs_sha256(cs_bytes_of(join.token, CS_TOKEN_BYTES));
    must_be_ok(cs_token_find(&here.store, &hash, &record));
    char text[CS_TOKEN_TEXT_BYTES], hex[2 * CS_TOKEN_BYTES + 1];
    cs_token_text(join.token, text);
    cs_hex_encode(hex, join.token, CS_TOKEN_BYTES);
    assert_int_equal(count_of(&here, "\"token_created\""), 1);
    assert_int_equal(count_of(&here, text) + count_of(&here, hex), 0);
}

static void a_newer_token_makes_the_older_one_void(void **state)
{
    COORDINATOR(here);
    APPLICANT(first, here, "mercy");
    APPLICANT(second, here, "mercy");

    must_be_refused(&first, &here, CS_DENIED, "not known here");
    must_enrol(&second, &here);
}

static void tokens_follow_the_state_of_the_site(void **state)
{
    COORDINATOR(here);
    CS_AUTO(cs_buffer) file = CS_BUFFER_EMPTY;
    int64_t expires_ms = 0;
#define token_for(site, is_rejoin, valid_ms)                                                                           \
    cs_pki_token_new(here.pki, &here.store, site, is_rejoin, valid_ms, "localhost:8443", "localhost:8444", &file,      \
                     &expires_ms)

    must_fail(token_for("Mercy", false, 0), CS_INVALID, "Mercy");
    must_fail(token_for("mercy", true, 0), CS_NOT_FOUND, "without --rejoin");
    must_fail(token_for("mercy", false, CS_TOKEN_VALID_MAX_MS + 1), CS_INVALID, "30 days");
    must_fail(token_for("mercy", false, -1), CS_INVALID, "30 days");
    must_be_ok(token_for("mercy", false, 5000));
    assert_int_equal(expires_ms, NOW_MS + 5000);
    must_fail(token_for("mercy", true, 0), CS_STATE, "has not enrolled yet");
    APPLICANT(mercy, here, "mercy");
    must_enrol(&mercy, &here);
    must_fail(token_for("mercy", false, 0), CS_EXISTS, "is enrolled", "--rejoin");
    must_be_ok(cs_pki_revoke(here.pki, &here.store, "mercy", ""));
    must_fail(token_for("mercy", false, 0), CS_EXISTS, "is revoked", "--rejoin");
    must_be_ok(token_for("mercy", true, 0));
}

/* ---- enrolment ---- */

static void an_enrolled_site_is_admitted_and_recorded(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");

    const Consilium__V1__EnrolAnswer *answer = must_enrol(&mercy, &here);

    cs_identity identity = identity_of(answer);
    assert_string_equal(identity.name, "mercy");
    assert_string_equal(identity.consortium, "cardiac-consortium");
    assert_int_equal(identity.not_after_ms, NOW_MS + 7 * DAY_MS);
    must_be_ok(cs_certificate_verify(cs_wire_bytes(answer->certificate), cs_wire_bytes(answer->authority), NOW_MS));
    must_be_ok(cs_certificate_matches_key(cs_wire_bytes(answer->certificate), mercy.key));
    must_be_ok(cs_registry_admit(&identity));
    assert_string_equal(answer->coordinator, "localhost:8443");
    cs_site_record record;
    must_be_ok(cs_registry_find(&here.store, "mercy", &record));
    assert_int_equal(record.state, CS_SITE_ENROLLED);
    assert_memory_equal(record.signing_key, cs_sign_key_public(mercy.signing), CS_SIGN_PUBLIC_BYTES);
    char serial[2 * CS_SERIAL_BYTES + 1];
    cs_hex_encode(serial, identity.serial, CS_SERIAL_BYTES);
    assert_int_equal(count_of(&here, "\"enrolled\""), 1);
    assert_int_equal(count_of(&here, serial), 1);
}

static void a_lost_answer_is_given_again_with_the_same_bytes(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");
    const Consilium__V1__EnrolAnswer *first = must_enrol(&mercy, &here);
    cs_buffer_reset(&mercy.csr);
    must_be_ok(cs_csr_make(mercy.key, &mercy.csr)); /* another signature, the same key */
    applicant_sign(&mercy);

    cs_clock_fake_advance(2 * DAY_MS); /* past the token's own end */
    const Consilium__V1__EnrolAnswer *second = must_enrol(&mercy, &here);

    assert_true(cs_bytes_equal(cs_wire_bytes(first->certificate), cs_wire_bytes(second->certificate)));
    assert_int_equal(count_of(&here, "\"enrolled\""), 1);
    cs_clock_fake_advance(5 * DAY_MS + 1000);
    must_be_refused(&mercy, &here, CS_DENIED, "has expired");
}

static void a_used_token_with_other_keys_is_refused_and_recorded(void **state)
{
    COORDINATOR(here);
    CS_AUTO(cs_buffer) file = CS_BUFFER_EMPTY;
    new_token(&here, "mercy", false, "localhost:8444", &file);
    CS_AUTO(applicant) mercy, thief, half;
    applicant_with_file(&mercy, &file);
    applicant_with_file(&thief, &file);
    applicant_with_file(&half, &file);
    const Consilium__V1__EnrolAnswer *answer = must_enrol(&mercy, &here);
    cs_identity before = identity_of(answer);

    must_be_refused(&thief, &here, CS_DENIED, "other keys");
    cs_tls_key_free(half.key); /* the right TLS key alone is not enough */
    half.key = NULL;
    cs_buffer_reset(&half.csr);
    must_be_ok(cs_csr_make(mercy.key, &half.csr));
    applicant_sign(&half);
    must_be_refused(&half, &here, CS_DENIED, "other keys");

    assert_int_equal(count_of(&here, "enrol_refused\""), 1); /* one for each kind, so that nobody fills the disk */
    must_be_ok(cs_registry_admit(&before));
}

static void an_expired_token_is_refused_with_its_date(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");

    cs_clock_fake_advance(DAY_MS - 1);
    cs_clock_fake_advance(1);
    must_be_refused(&mercy, &here, CS_DENIED, "expired at 2026-");

    assert_int_equal(count_of(&here, "enrol_refused\""), 1);
}

static void an_unknown_token_is_refused_and_leaves_no_record(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");
    mercy.join.token[0] ^= 1;
    applicant_sign(&mercy);

    must_be_refused(&mercy, &here, CS_DENIED, "not known here");

    assert_int_equal(count_of(&here, "enrol_refused"), 0);
}

static void a_token_is_for_its_site_only(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");
    char other[] = "charity", broken[] = "Mercy!";
    mercy.request.site = other;
    applicant_sign(&mercy);
    must_be_refused(&mercy, &here, CS_DENIED, "for site 'mercy', not for 'charity'");
    mercy.request.site = broken;
    applicant_sign(&mercy);
    must_be_refused(&mercy, &here, CS_INVALID, "Mercy!");

    mercy.request.site = mercy.join.site;
    applicant_sign(&mercy);
    must_enrol(&mercy, &here);
}

static void the_proof_ties_site_token_and_request_together(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");
    CS_AUTO_PTR(cs_sign_key) other = cs_sign_key_new();

    mercy.signature[0] ^= 1;
    must_be_refused(&mercy, &here, CS_UNAUTHENTICATED, "proof");
    applicant_sign(&mercy);
    mercy.request.proof.len--;
    must_be_refused(&mercy, &here, CS_UNAUTHENTICATED, "proof");
    applicant_sign(&mercy);
    mercy.request.signing_key = cs_wire_data(cs_sign_key_public(other), CS_SIGN_PUBLIC_BYTES);
    must_be_refused(&mercy, &here, CS_UNAUTHENTICATED, "proof");
    mercy.request.signing_key = cs_wire_data(cs_sign_key_public(mercy.signing), CS_SIGN_PUBLIC_BYTES);
    CS_AUTO(cs_buffer) another = CS_BUFFER_EMPTY;
    must_be_ok(cs_csr_make(mercy.key, &another));
    mercy.request.csr = cs_wire_data(another.data, another.size);
    must_be_refused(&mercy, &here, CS_UNAUTHENTICATED, "proof");

    applicant_sign(&mercy);
    must_enrol(&mercy, &here);
}

static void malformed_requests_are_each_refused_with_their_own_words(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");
    Consilium__V1__Hello stranger = *cs_wire_hello();
    stranger.major = 99;

    mercy.request.hello = NULL;
    must_be_refused(&mercy, &here, CS_STATE, "Hello");
    mercy.request.hello = &stranger;
    must_be_refused(&mercy, &here, CS_STATE, "99");
    mercy.request.hello = cs_wire_hello();
    mercy.request.token.len = 31;
    must_be_refused(&mercy, &here, CS_INVALID, "token has 31 bytes");
    mercy.request.token.len = 32;
    mercy.request.signing_key.len = 31;
    must_be_refused(&mercy, &here, CS_INVALID, "signing key has 31 bytes");
    mercy.request.signing_key.len = 32;
    mercy.csr.data[mercy.csr.size - 1] ^= 1;
    applicant_sign(&mercy);
    must_be_refused(&mercy, &here, CS_UNAUTHENTICATED, "not signed by the key");
    mercy.csr.data[mercy.csr.size - 1] ^= 1;
    while (mercy.csr.size <= CS_CSR_MAX_BYTES)
        cs_buffer_append_text(&mercy.csr, "x");
    applicant_sign(&mercy);
    must_be_refused(&mercy, &here, CS_INVALID, "4097 bytes");
}

static void a_request_on_another_curve_is_refused(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");
    CS_AUTO(cs_string) path = cs_path_join(*state, "p384.csr");
    CS_AUTO(cs_string) command = cs_format("openssl req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-384 "
                                           "-keyout /dev/null -subj /CN=x -outform DER -out %s 2>/dev/null",
                                           path);
    if (system(command) != 0)
        skip();
    cs_buffer_clear(&mercy.csr);
    must_be_ok(cs_file_read_all(path, CS_CSR_MAX_BYTES, &mercy.csr));
    applicant_sign(&mercy);

    must_be_refused(&mercy, &here, CS_INVALID, "P-256");
}

static void a_crash_between_decision_and_record_is_mended_by_the_repeat(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");
    if (cs_failpoint_configure("pki.enrolled=error@1") != CS_OK)
        skip();

    must_be_refused(&mercy, &here, CS_INTERNAL, "pki.enrolled");
    must_be_ok(cs_failpoint_configure(NULL));
    assert_int_equal(count_of(&here, "\"enrolled\""), 0);
    coordinator_close(&here);
    coordinator_open(&here);
    must_enrol(&mercy, &here);

    assert_int_equal(count_of(&here, "\"enrolled\""), 1);
}

static void a_failed_commit_leaves_the_token_unused(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");
    if (cs_failpoint_configure("registry.token_put=error@1") != CS_OK)
        skip();

    must_be_refused(&mercy, &here, CS_INTERNAL, "registry.token_put");
    must_be_ok(cs_failpoint_configure(NULL));

    cs_site_record record;
    must_be_ok(cs_registry_find(&here.store, "mercy", &record));
    assert_int_equal(record.state, CS_SITE_INVITED);
    must_enrol(&mercy, &here);
}

static void enrolment_works_inside_an_open_transaction(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");

    must_be_ok(cs_db_begin(here.store.db));
    const Consilium__V1__EnrolAnswer *answer = must_enrol(&mercy, &here);
    must_be_ok(cs_db_commit(here.store.db));

    cs_identity identity = identity_of(answer);
    must_be_ok(cs_registry_admit(&identity));
}

static void an_arena_without_room_still_gives_an_answer(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");
    CS_AUTO_PTR(cs_arena) small = cs_arena_new(256);
    Consilium__V1__EnrolAnswer *answer = NULL;

    cs_pki_enrol(here.pki, &here.store, &mercy.request, small, &answer);

    assert_int_equal(answer->code, CS_EXHAUSTED);
    assert_non_null(strstr(answer->error, "try again"));
    must_enrol(&mercy, &here);
}

/* ---- renewal, revocation, rejoin ---- */

static cs_status renew(coordinator *at, const cs_identity *identity, const cs_tls_key *key, cs_identity *ret)
{
    CS_AUTO(cs_buffer) csr = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    int64_t not_after_ms = 0;
    must_be_ok(cs_csr_make(key, &csr));
    CS_TRY(cs_pki_renew(at->pki, &at->store, identity, cs_buffer_view(&csr), &pem, &not_after_ms));
    must_be_ok(cs_identity_read(cs_buffer_view(&pem), ret));
    assert_int_equal(ret->not_after_ms, not_after_ms);
    return CS_OK;
}

static void the_previous_key_stays_admitted_through_a_renewal(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");
    cs_identity first = identity_of(must_enrol(&mercy, &here)), second, third;
    CS_AUTO_PTR(cs_tls_key) second_key = NULL;
    CS_AUTO_PTR(cs_tls_key) third_key = NULL;
    must_be_ok(cs_tls_key_new(&second_key));
    must_be_ok(cs_tls_key_new(&third_key));

    cs_clock_fake_advance(5 * DAY_MS);
    must_be_ok(renew(&here, &first, second_key, &second));
    assert_string_equal(second.name, "mercy");
    assert_int_equal(second.not_after_ms, NOW_MS + 12 * DAY_MS);
    must_be_ok(cs_registry_admit(&first));
    must_be_ok(cs_registry_admit(&second));
    must_be_ok(renew(&here, &second, third_key, &third));

    must_fail(cs_registry_admit(&first), CS_UNAUTHENTICATED, "replaced");
    must_be_ok(cs_registry_admit(&second));
    must_be_ok(cs_registry_admit(&third));
    assert_int_equal(count_of(&here, "certificate_renewed"), 2);
}

static void lost_answers_to_renewals_never_lock_a_site_out(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");
    cs_identity first = identity_of(must_enrol(&mercy, &here)), lost, again, other;
    CS_AUTO_PTR(cs_tls_key) next = NULL;
    CS_AUTO_PTR(cs_tls_key) after_wipe = NULL;
    must_be_ok(cs_tls_key_new(&next));
    must_be_ok(cs_tls_key_new(&after_wipe));

    must_be_ok(renew(&here, &first, next, &lost));
    must_be_ok(renew(&here, &first, next, &again)); /* the same key once more */
    must_be_ok(cs_registry_admit(&first));
    must_be_ok(cs_registry_admit(&again));
    must_be_ok(renew(&here, &first, after_wipe, &other)); /* the waiting key was lost as well */

    must_be_ok(cs_registry_admit(&first));
    must_be_ok(cs_registry_admit(&other));
    must_be_ok(renew(&here, &other, after_wipe, &again)); /* the same key for longer */
    must_be_ok(cs_registry_admit(&again));
}

/* A call that was admitted before the rejoin and sends its request after it. */
static void a_key_that_a_rejoin_replaced_cannot_renew_on_a_call_that_waited(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");
    cs_identity stolen = identity_of(must_enrol(&mercy, &here)), next;
    must_be_ok(cs_registry_admit(&stolen));
    CS_AUTO(applicant) again;
    applicant_start(&again, &here, "mercy", true);
    cs_identity current = identity_of(must_enrol(&again, &here));

    must_fail(renew(&here, &stolen, mercy.key, &next), CS_UNAUTHENTICATED, "replaced");

    must_be_ok(cs_registry_admit(&current));
    cs_clock_fake_advance(8 * DAY_MS);
    must_fail(renew(&here, &current, again.key, &next), CS_UNAUTHENTICATED, "run out");
}

static void a_site_that_renews_in_a_loop_is_slowed_down(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");
    APPLICANT(charity, here, "charity");
    cs_identity identity = identity_of(must_enrol(&mercy, &here)), next;
    cs_identity other = identity_of(must_enrol(&charity, &here));
    for (int i = 0; i < 10; i++)
        must_be_ok(renew(&here, &identity, mercy.key, &next));

    must_fail(renew(&here, &identity, mercy.key, &next), CS_EXHAUSTED, "10 times within 3600 s", "again in 3601 s");

    assert_int_equal(count_of(&here, "certificate_renewed"), 10);
    must_be_ok(renew(&here, &other, charity.key, &next));
    cs_clock_fake_advance(HOUR_MS);
    must_be_ok(renew(&here, &identity, mercy.key, &next));
}

static void a_revoked_site_is_out_and_cannot_renew_or_repeat(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");
    cs_identity identity = identity_of(must_enrol(&mercy, &here)), next;

    must_be_ok(cs_pki_revoke(here.pki, &here.store, "mercy", "key stolen"));
    must_be_ok(cs_pki_revoke(here.pki, &here.store, "mercy", "again"));

    must_fail(cs_registry_admit(&identity), CS_DENIED, "key stolen");
    must_fail(renew(&here, &identity, mercy.key, &next), CS_DENIED, "revoked");
    must_be_refused(&mercy, &here, CS_DENIED, "--rejoin");
    assert_int_equal(count_of(&here, "site_revoked"), 1);
    must_fail(cs_pki_revoke(here.pki, &here.store, "nobody", ""), CS_NOT_FOUND, "nobody");
    CS_AUTO(cs_buffer) reason = CS_BUFFER_EMPTY;
    APPLICANT(charity, here, "charity");
    while (reason.size < 256)
        cs_buffer_append_text(&reason, "x");
    must_fail(cs_pki_revoke(here.pki, &here.store, "charity", cs_buffer_text(&reason)), CS_INVALID, "256");
}

static void a_token_that_is_out_does_not_survive_a_revocation(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");
    must_enrol(&mercy, &here);
    CS_AUTO(applicant) later;
    applicant_start(&later, &here, "mercy", true);

    must_be_ok(cs_pki_revoke(here.pki, &here.store, "mercy", "key stolen"));

    must_be_refused(&later, &here, CS_DENIED, "not known here");
}

static void rejoin_brings_a_site_back_with_new_keys_and_shuts_out_the_old(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");
    cs_identity before = identity_of(must_enrol(&mercy, &here));
    must_be_ok(cs_pki_revoke(here.pki, &here.store, "mercy", "key stolen"));
    CS_AUTO(applicant) back;
    applicant_start(&back, &here, "mercy", true);

    cs_identity after = identity_of(must_enrol(&back, &here));

    must_be_ok(cs_registry_admit(&after));
    must_fail(cs_registry_admit(&before), CS_UNAUTHENTICATED, "replaced");
    cs_site_record record;
    must_be_ok(cs_registry_find(&here.store, "mercy", &record));
    assert_string_equal(record.reason, "");
    assert_memory_equal(record.signing_key, cs_sign_key_public(back.signing), CS_SIGN_PUBLIC_BYTES);
}

static void only_sites_renew_on_request(void **state)
{
    COORDINATOR(here);
    APPLICANT(mercy, here, "mercy");
    cs_identity coordinator_identity = {.role = CS_ROLE_COORDINATOR}, next;
    cs_identity invited = {.role = CS_ROLE_SITE, .name = "mercy"}, nobody = {.role = CS_ROLE_SITE, .name = "nobody"};

    must_fail(renew(&here, &coordinator_identity, mercy.key, &next), CS_DENIED, "only a site");
    must_fail(renew(&here, &invited, mercy.key, &next), CS_DENIED, "not enrolled");
    must_fail(renew(&here, &nobody, mercy.key, &next), CS_NOT_FOUND, "nobody");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(init_makes_private_keys_and_refuses_a_second_time),
        cmocka_unit_test(an_interrupted_init_is_done_again_from_the_start),
        cmocka_unit_test(init_refuses_names_and_addresses_that_cannot_be_used),
        cmocka_unit_test(a_loose_authority_key_stops_the_coordinator),
        cmocka_unit_test(the_own_certificate_is_renewed_at_two_thirds_of_its_life),
        cmocka_unit_test(a_coordinator_that_moved_gets_a_certificate_for_its_new_address),
        cmocka_unit_test(a_shorter_life_in_the_configuration_counts_at_once),
        cmocka_unit_test(a_join_file_says_everything_and_the_database_keeps_no_token),
        cmocka_unit_test(a_newer_token_makes_the_older_one_void),
        cmocka_unit_test(tokens_follow_the_state_of_the_site),
        cmocka_unit_test(an_enrolled_site_is_admitted_and_recorded),
        cmocka_unit_test(a_lost_answer_is_given_again_with_the_same_bytes),
        cmocka_unit_test(a_used_token_with_other_keys_is_refused_and_recorded),
        cmocka_unit_test(an_expired_token_is_refused_with_its_date),
        cmocka_unit_test(an_unknown_token_is_refused_and_leaves_no_record),
        cmocka_unit_test(a_token_is_for_its_site_only),
        cmocka_unit_test(the_proof_ties_site_token_and_request_together),
        cmocka_unit_test(malformed_requests_are_each_refused_with_their_own_words),
        cmocka_unit_test(a_request_on_another_curve_is_refused),
        cmocka_unit_test(a_crash_between_decision_and_record_is_mended_by_the_repeat),
        cmocka_unit_test(a_failed_commit_leaves_the_token_unused),
        cmocka_unit_test(enrolment_works_inside_an_open_transaction),
        cmocka_unit_test(an_arena_without_room_still_gives_an_answer),
        cmocka_unit_test(the_previous_key_stays_admitted_through_a_renewal),
        cmocka_unit_test(lost_answers_to_renewals_never_lock_a_site_out),
        cmocka_unit_test(a_key_that_a_rejoin_replaced_cannot_renew_on_a_call_that_waited),
        cmocka_unit_test(a_site_that_renews_in_a_loop_is_slowed_down),
        cmocka_unit_test(a_revoked_site_is_out_and_cannot_renew_or_repeat),
        cmocka_unit_test(a_token_that_is_out_does_not_survive_a_revocation),
        cmocka_unit_test(rejoin_brings_a_site_back_with_new_keys_and_shuts_out_the_old),
        cmocka_unit_test(only_sites_renew_on_request),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
