/* A site joins a coordinator over loopback TLS and through files, loses answers, crashes, renews; and what a hostile
 * coordinator or join file cannot do. */
#include "tests/unit/pki/coordinator.h"

#include "common/base/failpoint.h"
#include "common/base/log.h"
#include "common/crypto/tls.h"

#include <sys/stat.h>

typedef struct site {
    coordinator *at;
    cs_enrolment *enrolment;
    char *folder, *state, *join_path, *address;
    cs_join_options options;
} site;

/* A site's folder, a running enrolment port, and a join file for it. */
static void site_start(site *self, coordinator *at, const char *base, const char *name, bool is_rejoin)
{
    *self = (site){.at = at};
    self->folder = cs_path_join(base, "site-XXXXXX");
    assert_non_null(mkdtemp(self->folder));
    self->state = cs_path_join(self->folder, "state");
    self->join_path = cs_path_join(self->folder, "site.join");
    must_be_ok(cs_enrolment_start(at->pki, "127.0.0.1", 0, coordinator_run, at, &self->enrolment));
    self->address = cs_format("localhost:%u", cs_enrolment_port(self->enrolment));
    CS_AUTO(cs_buffer) file = CS_BUFFER_EMPTY;
    new_token(at, name, is_rejoin, self->address, &file);
    must_be_ok(cs_file_write_atomic(self->join_path, cs_buffer_view(&file), 0600));
    self->options = (cs_join_options){.state_folder = self->state, .join_file = self->join_path};
}

static void site_clear(site *self)
{
    cs_enrolment_stop(self->enrolment);
    cs_free(self->folder);
    cs_free(self->state);
    cs_free(self->join_path);
    cs_free(self->address);
}

static void another_token(site *self, const char *name, bool is_rejoin)
{
    CS_AUTO(cs_buffer) file = CS_BUFFER_EMPTY;
    new_token(self->at, name, is_rejoin, self->address, &file);
    must_be_ok(cs_file_write_atomic(self->join_path, cs_buffer_view(&file), 0600));
}

static void read_key_file(const site *self, const char *name, cs_buffer *ret)
{
    CS_AUTO(cs_string) path = cs_path_join(self->state, name);
    cs_buffer_clear(ret);
    must_be_ok(cs_file_read_all(path, CS_PEM_MAX_BYTES, ret));
}

static bool has_file(const site *self, const char *name)
{
    CS_AUTO(cs_string) path = cs_path_join(self->state, name);
    return cs_file_exists(path);
}

/* Replaces the first `from` in the join file. */
static void edit_join_file(const site *self, const char *from, const char *to)
{
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) edited = CS_BUFFER_EMPTY;
    must_be_ok(cs_file_read_all(self->join_path, CS_JOIN_FILE_MAX_BYTES, &text));
    const char *at = strstr(cs_buffer_text(&text), from);
    assert_non_null(at);
    cs_buffer_append(&edited, text.data, (size_t)(at - cs_buffer_text(&text)));
    cs_buffer_append_text(&edited, to);
    cs_buffer_append_text(&edited, at + strlen(from));
    must_be_ok(cs_file_write_atomic(self->join_path, cs_buffer_view(&edited), 0600));
}

#define SITE(name, at)                                                                                                 \
    CS_AUTO(coordinator) at;                                                                                           \
    coordinator_start(&at, *state);                                                                                    \
    CS_AUTO(site) name;                                                                                                \
    site_start(&name, &at, *state, "mercy", false)

static void a_site_that_joins_has_an_identity_that_is_admitted(void **state)
{
    SITE(mercy, here);
    CS_AUTO(cs_site_identity) none = {0};
    must_fail(cs_site_identity_load(mercy.state, &none), CS_STATE, "consilium-client join");

    must_be_ok(cs_join(&mercy.options));

    CS_AUTO(cs_site_identity) identity = {0};
    must_be_ok(cs_site_identity_load(mercy.state, &identity));
    assert_string_equal(identity.site, "mercy");
    assert_string_equal(identity.consortium, "cardiac-consortium");
    assert_string_equal(identity.coordinator, "localhost:8443");
    must_be_ok(cs_registry_admit(&identity.leaf));
    cs_site_record record;
    must_be_ok(cs_registry_find(&here.store, "mercy", &record));
    assert_memory_equal(record.signing_key, cs_sign_key_public(identity.signing_key), CS_SIGN_PUBLIC_BYTES);
    CS_AUTO_PTR(cs_tls_key) key = NULL;
    must_be_ok(cs_tls_key_read(cs_buffer_view(&identity.key_pem), "key", &key));
    must_be_ok(cs_certificate_matches_key(cs_buffer_view(&identity.certificate_pem), key));
    assert_true(has_file(&mercy, "site.yaml"));
    assert_false(has_file(&mercy, "keys/join.key"));
}

static void keys_are_private_and_an_existing_configuration_is_kept(void **state)
{
    SITE(mercy, here);
    CS_AUTO(cs_string) config = cs_path_join(mercy.folder, "mercy.yaml");
    must_be_ok(cs_file_write_atomic(config, cs_bytes_of_text("site: mercy\n"), 0640));
    mercy.options.site_config = config;

    must_be_ok(cs_join(&mercy.options));

    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    must_be_ok(cs_file_read_all(config, 1024, &text));
    assert_string_equal(cs_buffer_text(&text), "site: mercy\n");
    assert_false(has_file(&mercy, "site.yaml"));
    static const struct {
        const char *name;
        mode_t mode;
    } files[] = {{"keys", 0700}, {"keys/tls.pem", 0600}, {"keys/signing.key", 0600}, {"keys/site.txt", 0600}};
    for (size_t i = 0; i < CS_COUNT(files); i++) {
        CS_AUTO(cs_string) path = cs_path_join(mercy.state, files[i].name);
        struct stat about;
        assert_int_equal(stat(path, &about), 0);
        assert_int_equal(about.st_mode & 07777, files[i].mode);
    }
}

static void joining_again_with_the_same_file_changes_nothing(void **state)
{
    SITE(mercy, here);
    CS_AUTO(cs_buffer) before = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) after = CS_BUFFER_EMPTY;
    must_be_ok(cs_join(&mercy.options));
    read_key_file(&mercy, "keys/tls.pem", &before);
    CS_AUTO(cs_string) authority = cs_path_join(mercy.state, "keys/authority.crt");
    must_be_ok(cs_file_remove(authority));

    must_be_ok(cs_join(&mercy.options));

    read_key_file(&mercy, "keys/tls.pem", &after);
    assert_true(cs_bytes_equal(cs_buffer_view(&before), cs_buffer_view(&after)));
    CS_AUTO(cs_site_identity) identity = {0};
    must_be_ok(cs_site_identity_load(mercy.state, &identity));
    CS_AUTO(cs_string) request = cs_path_join(mercy.folder, "request");
    must_fail(cs_join_request(&mercy.options, request), CS_STATE, "already");
}

/* Wherever it stops, the same command with the same file ends with the certificate that was issued first. */
static void a_join_that_stops_anywhere_is_finished_by_the_next(void **state)
{
    static const char *const places[] = {"enrol.asked=error@1", "enrol.answered=error@1",
                                         "enrol.authority_written=error@1", "enrol.pair_written=error@1"};
    if (cs_failpoint_configure("nothing.here=error") != CS_OK)
        skip();
    for (size_t i = 0; i < CS_COUNT(places); i++) {
        SITE(mercy, here);
        must_be_ok(cs_failpoint_configure(places[i]));
        assert_int_equal(cs_join(&mercy.options), CS_INTERNAL);
        must_be_ok(cs_failpoint_configure(NULL));
        cs_site_record issued;
        CS_AUTO(cs_site_identity) identity = {0};
        if (cs_site_identity_load(mercy.state, &identity) == CS_OK)
            fail_msg("%s: half an identity was taken for a whole one", places[i]);

        must_be_ok(cs_join(&mercy.options));

        must_be_ok(cs_site_identity_load(mercy.state, &identity));
        must_be_ok(cs_registry_find(&here.store, "mercy", &issued));
        assert_true(cs_hash_equal(&issued.leaf_key, &identity.leaf.public_key));
        assert_int_equal(count_of(&here, "\"enrolled\""), 1);
        assert_int_equal(count_of(&here, "enrol_refused"), 0);
    }
    must_be_ok(cs_failpoint_configure(NULL));
}

static int no_space(void *self, const char *operation, const char *path)
{
    (void)self;
    (void)path;
    return strcmp(operation, "write") == 0 ? 28 : 0; /* ENOSPC */
}

static void a_full_disk_uses_up_no_token(void **state)
{
    SITE(mercy, here);

    cs_file_set_fault(no_space, NULL);
    assert_int_equal(cs_join(&mercy.options), CS_EXHAUSTED);
    cs_file_set_fault(NULL, NULL);

    assert_int_equal(count_of(&here, "\"enrolled\""), 0);
    must_be_ok(cs_join(&mercy.options));
}

static void a_second_site_with_the_same_file_is_refused(void **state)
{
    SITE(mercy, here);
    must_be_ok(cs_join(&mercy.options));
    CS_AUTO(cs_string) elsewhere = cs_path_join(mercy.folder, "thief");
    cs_join_options thief = mercy.options;
    thief.state_folder = elsewhere;

    must_fail(cs_join(&thief), CS_DENIED, "the coordinator refused", "other keys");

    CS_AUTO(cs_site_identity) identity = {0};
    must_fail(cs_site_identity_load(elsewhere, &identity), CS_STATE, "join");
}

static void expired_and_foreign_tokens_are_refused_in_the_coordinators_words(void **state)
{
    SITE(mercy, here);
    edit_join_file(&mercy, "site: mercy", "site: general");
    must_fail(cs_join(&mercy.options), CS_DENIED, "for site 'mercy', not for 'general'");
    edit_join_file(&mercy, "site: general", "site: mercy");

    cs_clock_fake_advance(2 * DAY_MS);
    must_fail(cs_join(&mercy.options), CS_DENIED, "expired");
}

static void a_coordinator_of_another_authority_is_not_asked(void **state)
{
    SITE(mercy, here);
    CS_AUTO(coordinator) other;
    coordinator_start(&other, *state);
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    new_token(&other, "mercy", false, mercy.address, &text); /* the other's file, this one's address */
    must_be_ok(cs_file_write_atomic(mercy.join_path, cs_buffer_view(&text), 0600));

    must_fail(cs_join(&mercy.options), CS_UNAUTHENTICATED, "did not issue");

    assert_int_equal(count_of(&here, "enrol_refused"), 0);
}

static void an_unreachable_coordinator_leaves_the_keys_for_the_next_try(void **state)
{
    SITE(mercy, here);
    CS_AUTO(cs_buffer) before = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) after = CS_BUFFER_EMPTY;
    CS_AUTO(cs_string) right = cs_format("enrolment: %s", mercy.address);
    edit_join_file(&mercy, right, "enrolment: localhost:1");
    must_fail(cs_join(&mercy.options), CS_UNAVAILABLE, "localhost:1");
    read_key_file(&mercy, "keys/join.key", &before);
    edit_join_file(&mercy, "enrolment: localhost:1", right);

    must_be_ok(cs_join(&mercy.options));

    read_key_file(&mercy, "keys/tls.pem", &after);
    assert_memory_equal(after.data, before.data, before.size); /* the pair begins with that very key */
}

static void a_rejoin_keeps_the_signing_key_and_changes_the_other(void **state)
{
    SITE(mercy, here);
    must_be_ok(cs_join(&mercy.options));
    CS_AUTO(cs_site_identity) before = {0};
    CS_AUTO(cs_site_identity) after = {0};
    must_be_ok(cs_site_identity_load(mercy.state, &before));
    must_be_ok(cs_pki_revoke(here.pki, &here.store, "mercy", "laptop lost"));
    another_token(&mercy, "mercy", true);

    must_be_ok(cs_join(&mercy.options));

    must_be_ok(cs_site_identity_load(mercy.state, &after));
    assert_memory_equal(cs_sign_key_public(before.signing_key), cs_sign_key_public(after.signing_key),
                        CS_SIGN_PUBLIC_BYTES);
    must_be_ok(cs_registry_admit(&after.leaf));
    must_fail(cs_registry_admit(&before.leaf), CS_UNAUTHENTICATED, "replaced");
}

/* What the operator's command does with a request file. */
static void answer_file(coordinator *at, const char *request_path, const char *answer_path)
{
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) packed = CS_BUFFER_EMPTY;
    must_be_ok(cs_file_read_all(request_path, CS_ENROL_FILE_MAX_BYTES, &text));
    must_be_ok(cs_enrol_file_parse("request", cs_buffer_view(&text), &packed));
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(1 << 20);
    ProtobufCMessage *request = NULL;
    Consilium__V1__EnrolAnswer *answer = NULL;
    must_be_ok(cs_wire_unpack(&consilium__v1__enrol_request__descriptor, cs_buffer_view(&packed), arena, &request));
    cs_pki_enrol(at->pki, &at->store, (const Consilium__V1__EnrolRequest *)request, arena, &answer);
    cs_buffer_reset(&packed);
    cs_buffer_reset(&text);
    cs_wire_pack(&answer->base, &packed);
    cs_enrol_file_write("answer", cs_buffer_view(&packed), &text);
    must_be_ok(cs_file_write_atomic(answer_path, cs_buffer_view(&text), 0600));
}

static void joining_through_files_needs_no_network(void **state)
{
    SITE(mercy, here);
    CS_AUTO(cs_string) request = cs_path_join(mercy.folder, "request");
    CS_AUTO(cs_string) answer = cs_path_join(mercy.folder, "answer");
    cs_enrolment_stop(mercy.enrolment);
    mercy.enrolment = NULL;

    must_be_ok(cs_join_request(&mercy.options, request));
    answer_file(&here, request, answer);
    must_be_ok(cs_join_answer(&mercy.options, answer));
    must_be_ok(cs_join_answer(&mercy.options, answer));

    CS_AUTO(cs_site_identity) identity = {0};
    must_be_ok(cs_site_identity_load(mercy.state, &identity));
    must_be_ok(cs_registry_admit(&identity.leaf));
    struct stat about;
    assert_int_equal(stat(request, &about), 0);
    assert_int_equal(about.st_mode & 07777, 0600); /* the token is in it */
}

static void an_answer_for_somebody_else_is_not_taken(void **state)
{
    SITE(mercy, here);
    CS_AUTO(site) charity;
    site_start(&charity, &here, *state, "charity", false);
    CS_AUTO(cs_string) request = cs_path_join(mercy.folder, "request");
    CS_AUTO(cs_string) theirs = cs_path_join(mercy.folder, "theirs");
    CS_AUTO(cs_string) request_of_charity = cs_path_join(charity.folder, "request");
    must_be_ok(cs_join_request(&mercy.options, request));
    must_be_ok(cs_join_request(&charity.options, request_of_charity));
    answer_file(&here, request_of_charity, theirs);

    must_fail(cs_join_answer(&mercy.options, theirs), CS_UNAUTHENTICATED, "charity", "mercy");
    must_fail(cs_join_answer(&mercy.options, request), CS_INVALID, "request", "consilium enrolment answer");
    CS_AUTO(cs_string) next = cs_path_join(mercy.state, "keys/join.key");
    CS_AUTO(cs_string) mine = cs_path_join(mercy.folder, "mine");
    answer_file(&here, request, mine);
    must_be_ok(cs_file_remove(next)); /* the key that the answer is for is gone */
    must_fail(cs_join_answer(&mercy.options, mine), CS_INVALID, "not for this private key");

    assert_false(has_file(&mercy, "keys/tls.pem"));
}

/* ---- renewal ---- */

static void issue_renewal(coordinator *at, const cs_site_identity *identity, cs_bytes csr, cs_buffer *ret_pem)
{
    int64_t not_after_ms = 0;
    must_be_ok(cs_pki_renew(at->pki, &at->store, &identity->leaf, csr, ret_pem, &not_after_ms));
}

static void a_renewal_replaces_key_and_certificate_together(void **state)
{
    SITE(mercy, here);
    must_be_ok(cs_join(&mercy.options));
    CS_AUTO(cs_site_identity) before = {0};
    CS_AUTO(cs_site_identity) after = {0};
    CS_AUTO(cs_buffer) csr = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) again = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    must_be_ok(cs_site_identity_load(mercy.state, &before));
    cs_clock_fake_advance(5 * DAY_MS);

    must_be_ok(cs_renewal_prepare(mercy.state, &csr));
    must_be_ok(cs_renewal_prepare(mercy.state, &again));
    cs_hash first, second;
    must_be_ok(cs_csr_check(cs_buffer_view(&csr), &first));
    must_be_ok(cs_csr_check(cs_buffer_view(&again), &second));
    assert_true(cs_hash_equal(&first, &second)); /* asked twice, for one key */
    issue_renewal(&here, &before, cs_buffer_view(&csr), &pem);
    must_be_ok(cs_renewal_install(mercy.state, cs_buffer_view(&pem), cs_buffer_view(&before.authority_pem)));

    must_be_ok(cs_site_identity_load(mercy.state, &after));
    assert_true(cs_hash_equal(&after.leaf.public_key, &first));
    assert_false(cs_hash_equal(&after.leaf.public_key, &before.leaf.public_key));
    assert_true(after.leaf.not_after_ms > before.leaf.not_after_ms);
    must_be_ok(cs_registry_admit(&before.leaf));
    must_be_ok(cs_registry_admit(&after.leaf));
    assert_false(has_file(&mercy, "keys/next.key"));
}

static void a_crash_in_a_renewal_leaves_the_old_pair_or_the_new_one(void **state)
{
    SITE(mercy, here);
    must_be_ok(cs_join(&mercy.options));
    if (cs_failpoint_configure("enrol.renewal=error@1") != CS_OK)
        skip();
    CS_AUTO(cs_site_identity) old = {0};
    CS_AUTO(cs_site_identity) now = {0};
    CS_AUTO(cs_buffer) csr = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    must_be_ok(cs_site_identity_load(mercy.state, &old));
    must_be_ok(cs_renewal_prepare(mercy.state, &csr));
    issue_renewal(&here, &old, cs_buffer_view(&csr), &pem);
    cs_bytes authority = cs_buffer_view(&old.authority_pem);

    assert_int_equal(cs_renewal_install(mercy.state, cs_buffer_view(&pem), authority), CS_INTERNAL);
    must_be_ok(cs_site_identity_load(mercy.state, &now));
    assert_true(cs_hash_equal(&now.leaf.public_key, &old.leaf.public_key));
    cs_site_identity_clear(&now);
    must_be_ok(cs_failpoint_configure("enrol.renewed=error@1"));
    assert_int_equal(cs_renewal_install(mercy.state, cs_buffer_view(&pem), authority), CS_INTERNAL);
    must_be_ok(cs_failpoint_configure(NULL));
    must_be_ok(cs_site_identity_load(mercy.state, &now));
    assert_false(cs_hash_equal(&now.leaf.public_key, &old.leaf.public_key));

    cs_hash used = now.leaf.public_key,
            next; /* next.key is still there; it has its certificate, so it is not used again */
    cs_buffer_reset(&csr);
    must_be_ok(cs_renewal_prepare(mercy.state, &csr));
    must_be_ok(cs_csr_check(cs_buffer_view(&csr), &next));
    assert_false(cs_hash_equal(&used, &next));
}

static void a_renewal_with_another_key_name_or_authority_is_not_installed(void **state)
{
    SITE(mercy, here);
    must_be_ok(cs_join(&mercy.options));
    CS_AUTO(site) charity;
    site_start(&charity, &here, *state, "charity", false);
    must_be_ok(cs_join(&charity.options));
    CS_AUTO(coordinator) rogue;
    coordinator_start(&rogue, *state);
    CS_AUTO(cs_site_identity) mine = {0};
    CS_AUTO(cs_site_identity) theirs = {0};
    CS_AUTO(cs_site_identity) after = {0};
    CS_AUTO(cs_buffer) csr = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    must_be_ok(cs_site_identity_load(mercy.state, &mine));
    must_be_ok(cs_site_identity_load(charity.state, &theirs));
    cs_bytes authority = cs_buffer_view(&mine.authority_pem);
    must_be_ok(cs_renewal_prepare(mercy.state, &csr));

    must_fail(cs_renewal_install(mercy.state, cs_buffer_view(&mine.certificate_pem), authority), CS_INVALID,
              "not for this private key");
    issue_renewal(&here, &theirs, cs_buffer_view(&csr), &pem);
    must_fail(cs_renewal_install(mercy.state, cs_buffer_view(&pem), authority), CS_UNAUTHENTICATED, "charity");
    issue_renewal(&here, &mine, cs_buffer_view(&csr), &pem);
    must_fail(cs_renewal_install(mercy.state, cs_buffer_view(&pem), cs_pki_authority_pem(rogue.pki)),
              CS_UNAUTHENTICATED, "certificate");

    must_be_ok(cs_site_identity_load(mercy.state, &after));
    assert_true(cs_hash_equal(&after.leaf.public_key, &mine.leaf.public_key));
}

static void a_loose_key_file_is_refused_with_its_mode(void **state)
{
    SITE(mercy, here);
    must_be_ok(cs_join(&mercy.options));
    CS_AUTO(cs_string) path = cs_path_join(mercy.state, "keys/tls.pem");
    assert_int_equal(chmod(path, 0644), 0);
    CS_AUTO(cs_site_identity) identity = {0};

    must_fail(cs_site_identity_load(mercy.state, &identity), CS_DENIED, "tls.pem", "0644");
}

/* ---- the enrolment port against bad callers, and a site against bad answers ---- */

static cs_tls *dial(const site *self)
{
    cs_tls_target target = {.host = "localhost",
                            .port = cs_enrolment_port(self->enrolment),
                            .authority_pem = cs_pki_authority_pem(self->at->pki),
                            .timeout_ms = 20000};
    cs_tls *tls = NULL;
    must_be_ok(cs_tls_connect(&target, &tls));
    return tls;
}

static void must_answer(cs_tls *tls, uint32_t code, const char *words)
{
    uint8_t length[4];
    must_be_ok(cs_tls_read_exact(tls, length, sizeof length));
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&bytes, cs_load_be32(length));
    must_be_ok(cs_tls_read_exact(tls, bytes.data, cs_load_be32(length)));
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(1 << 20);
    ProtobufCMessage *message = NULL;
    must_be_ok(cs_wire_unpack(&consilium__v1__enrol_answer__descriptor, cs_bytes_of(bytes.data, cs_load_be32(length)),
                              arena, &message));
    const Consilium__V1__EnrolAnswer *answer = (const Consilium__V1__EnrolAnswer *)message;
    if (answer->code != code || strstr(answer->error, words) == NULL)
        fail_msg("code %u '%s', expected %u '%s'", answer->code, answer->error, code, words);
}

static void the_port_answers_oversized_and_malformed_requests_with_a_reason(void **state)
{
    SITE(mercy, here);
    uint8_t length[4];

    CS_AUTO_PTR(cs_tls) large = dial(&mercy);
    cs_store_be32(length, CS_ENROL_MESSAGE_MAX_BYTES + 1);
    must_be_ok(cs_tls_write(large, length, sizeof length));
    must_answer(large, CS_INVALID, "65537 bytes");

    CS_AUTO_PTR(cs_tls) garbled = dial(&mercy);
    cs_store_be32(length, 3);
    must_be_ok(cs_tls_write(garbled, length, sizeof length));
    must_be_ok(cs_tls_write(garbled, "\xff\xff\xff", 3));
    must_answer(garbled, CS_INVALID, "");

    CS_AUTO_PTR(cs_tls) empty = dial(&mercy);
    cs_store_be32(length, 0);
    must_be_ok(cs_tls_write(empty, length, sizeof length));
    must_answer(empty, CS_STATE, "Hello");
    must_be_ok(cs_join(&mercy.options));
}

static void the_port_shows_a_renewed_certificate_after_a_reload(void **state)
{
    SITE(mercy, here);
    bool has_changed = false;
    cs_clock_fake_advance(5 * DAY_MS);
    must_be_ok(cs_pki_renew_own(here.pki, &has_changed));
    assert_true(has_changed);

    must_be_ok(cs_enrolment_reload(mercy.enrolment));

    CS_AUTO_PTR(cs_tls) tls = dial(&mercy);
    CS_AUTO(cs_buffer) shown = CS_BUFFER_EMPTY;
    cs_identity identity;
    must_be_ok(cs_tls_peer_certificate(tls, &shown));
    must_be_ok(cs_identity_read(cs_buffer_view(&shown), &identity));
    assert_int_equal(identity.not_after_ms, NOW_MS + 12 * DAY_MS);
}

static cs_status engine_is_stopping(void *self, cs_status (*work)(void *argument, cs_store *store), void *argument)
{
    (void)self;
    (void)work;
    (void)argument;
    return cs_fail(CS_CANCELLED, "the engine is stopping");
}

static void a_stopping_engine_is_an_answer_and_the_site_can_ask_again(void **state)
{
    SITE(mercy, here);
    cs_enrolment_stop(mercy.enrolment);
    must_be_ok(cs_enrolment_start(here.pki, "127.0.0.1", 0, engine_is_stopping, NULL, &mercy.enrolment));
    CS_AUTO(cs_string) before = cs_format("enrolment: %s", mercy.address);
    CS_AUTO(cs_string) after = cs_format("enrolment: localhost:%u", cs_enrolment_port(mercy.enrolment));
    edit_join_file(&mercy, before, after);

    must_fail(cs_join(&mercy.options), CS_CANCELLED, "the engine is stopping");

    assert_true(has_file(&mercy, "keys/join.key"));
}

/* A coordinator with the right certificate that answers with whatever it likes. */
static void answer_hugely(void *self, cs_tls *tls)
{
    uint8_t length[4];
    CS_AUTO(cs_buffer) request = CS_BUFFER_EMPTY;
    if (cs_tls_read_exact(tls, length, sizeof length) != CS_OK)
        return;
    cs_buffer_reserve(&request, cs_load_be32(length));
    if (cs_tls_read_exact(tls, request.data, cs_load_be32(length)) != CS_OK)
        return;
    cs_store_be32(length, *(const uint32_t *)self);
    CS_IGNORE(cs_tls_write(tls, length, sizeof length), "the site says what it thinks of it");
}

static void answers_of_impossible_length_are_refused(void **state)
{
    SITE(mercy, here);
    CS_AUTO(cs_buffer) certificate = CS_BUFFER_EMPTY;
    CS_AUTO(cs_secret) key_pem = CS_BUFFER_EMPTY;
    CS_AUTO_PTR(cs_tls_key) key = NULL;
    must_be_ok(cs_pki_own_identity(here.pki, &certificate, &key_pem));
    must_be_ok(cs_tls_key_read(cs_buffer_view(&key_pem), "key", &key));
    uint32_t sizes[] = {CS_ENROL_MESSAGE_MAX_BYTES + 1, UINT32_MAX, 0};
    CS_AUTO(cs_string) before = cs_format("enrolment: %s", mercy.address);
    for (size_t i = 0; i < CS_COUNT(sizes); i++) {
        cs_tls_listener *listener = NULL;
        must_be_ok(cs_tls_listener_start("127.0.0.1", 0, cs_buffer_view(&certificate), key, 1, 20000, answer_hugely,
                                         &sizes[i], &listener));
        CS_AUTO(cs_string) rogue = cs_format("enrolment: localhost:%u", cs_tls_listener_port(listener));
        edit_join_file(&mercy, before, rogue);
        must_fail(cs_join(&mercy.options), CS_INVALID, "answer has");
        edit_join_file(&mercy, rogue, before);
        cs_tls_listener_stop(listener);
    }
}

/* ---- join files ---- */

static void damaged_join_files_are_refused_with_the_reason(void **state)
{
    SITE(mercy, here);
    CS_AUTO(cs_buffer) good = CS_BUFFER_EMPTY;
    must_be_ok(cs_file_read_all(mercy.join_path, CS_JOIN_FILE_MAX_BYTES, &good));
    static const struct {
        const char *from, *to, *said;
    } cases[] = {
        {"consilium join file\n", "consilium answer\n", "first line 'consilium join file'"},
        {"consilium join file\n", "consilium join files\n", "key: value"},
        {"site: mercy\n", "site: Mercy\n", "Mercy"},
        {"site: mercy\n", "", "'site: …' is missing"},
        {"site: mercy\n", "site: mercy\nsite: mercy\n", "twice"},
        {"site: mercy\n", "site: mercy\ncolour: red\n", "site.join:3"},
        {"coordinator: localhost:8443", "coordinator: localhost", "coordinator"},
        {"enrolment: localhost:", "enrolment: local host:", "enrolment"},
        {"token: ", "token: x", "token"},
        {"expires: 2026", "expires: soon 2026", "expires"},
        {"Z\n-----BEGIN", "\n-----BEGIN", "expires"},
        {"-----BEGIN CERTIFICATE-----", "-----BEGIN NOTHING-----", "key: value"},
        {"-----END CERTIFICATE-----", "", "cut off"},
    };
    for (size_t i = 0; i < CS_COUNT(cases); i++) {
        must_be_ok(cs_file_write_atomic(mercy.join_path, cs_buffer_view(&good), 0600));
        edit_join_file(&mercy, cases[i].from, cases[i].to);
        must_fail(cs_join(&mercy.options), CS_INVALID, "site.join", cases[i].said);
    }
    while (good.size <= CS_JOIN_FILE_MAX_BYTES)
        cs_buffer_append_text(&good, "\n");
    CS_AUTO(cs_join_file) join = {0};
    must_fail(cs_join_file_parse(cs_buffer_view(&good), "site.join", &join), CS_INVALID, "65537");
    assert_false(has_file(&mercy, "keys"));
}

static void only_the_first_certificate_of_a_join_file_is_an_authority(void **state)
{
    SITE(mercy, here);
    CS_AUTO(coordinator) other;
    coordinator_start(&other, *state);
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    must_be_ok(cs_file_read_all(mercy.join_path, CS_JOIN_FILE_MAX_BYTES, &text));
    cs_bytes second = cs_pki_authority_pem(other.pki);
    cs_buffer_append(&text, second.data, second.size);
    CS_AUTO(cs_join_file) join = {0};

    must_be_ok(cs_join_file_parse(cs_buffer_view(&text), "site.join", &join));

    assert_true(cs_bytes_equal(cs_buffer_view(&join.authority_pem), cs_pki_authority_pem(here.pki)));
}

static void a_join_file_from_a_mail_program_is_read(void **state)
{
    SITE(mercy, here);
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) mailed = CS_BUFFER_EMPTY;
    must_be_ok(cs_file_read_all(mercy.join_path, CS_JOIN_FILE_MAX_BYTES, &text));
    for (size_t i = 0; i < text.size; i++)
        cs_buffer_append(&mailed, text.data[i] == '\n' ? "\r\n" : (const char *)&text.data[i],
                         text.data[i] == '\n' ? 2 : 1);
    must_be_ok(cs_file_write_atomic(mercy.join_path, cs_buffer_view(&mailed), 0600));

    must_be_ok(cs_join(&mercy.options));
}

int main(void)
{
    cs_log_set_level(CS_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_site_that_joins_has_an_identity_that_is_admitted),
        cmocka_unit_test(keys_are_private_and_an_existing_configuration_is_kept),
        cmocka_unit_test(joining_again_with_the_same_file_changes_nothing),
        cmocka_unit_test(a_join_that_stops_anywhere_is_finished_by_the_next),
        cmocka_unit_test(a_full_disk_uses_up_no_token),
        cmocka_unit_test(a_second_site_with_the_same_file_is_refused),
        cmocka_unit_test(expired_and_foreign_tokens_are_refused_in_the_coordinators_words),
        cmocka_unit_test(a_coordinator_of_another_authority_is_not_asked),
        cmocka_unit_test(an_unreachable_coordinator_leaves_the_keys_for_the_next_try),
        cmocka_unit_test(a_rejoin_keeps_the_signing_key_and_changes_the_other),
        cmocka_unit_test(joining_through_files_needs_no_network),
        cmocka_unit_test(an_answer_for_somebody_else_is_not_taken),
        cmocka_unit_test(a_renewal_replaces_key_and_certificate_together),
        cmocka_unit_test(a_crash_in_a_renewal_leaves_the_old_pair_or_the_new_one),
        cmocka_unit_test(a_renewal_with_another_key_name_or_authority_is_not_installed),
        cmocka_unit_test(a_loose_key_file_is_refused_with_its_mode),
        cmocka_unit_test(the_port_answers_oversized_and_malformed_requests_with_a_reason),
        cmocka_unit_test(the_port_shows_a_renewed_certificate_after_a_reload),
        cmocka_unit_test(a_stopping_engine_is_an_answer_and_the_site_can_ask_again),
        cmocka_unit_test(answers_of_impossible_length_are_refused),
        cmocka_unit_test(damaged_join_files_are_refused_with_the_reason),
        cmocka_unit_test(only_the_first_certificate_of_a_join_file_is_an_authority),
        cmocka_unit_test(a_join_file_from_a_mail_program_is_read),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
