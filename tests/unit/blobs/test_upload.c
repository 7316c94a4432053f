/* Uploads: what is acknowledged survives, what is not is cut off, and nobody else's bytes get in. */
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/blobs/blobs.h"
#include "tests/unit/place.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>

static const char content[] = "The quick brown fox jumps over the lazy dog";
#define CONTENT_BYTES (sizeof content - 1)

static cs_hash content_hash(void)
{
    return cs_sha256(cs_bytes_of(content, CONTENT_BYTES));
}

static cs_blobs *open_at(const place *here)
{
    cs_blobs *blobs = NULL;
    assert_ok(cs_blobs_open(here->path, &blobs));
    return blobs;
}

/* "mercy" uploads the content. */
static cs_upload *begin(cs_blobs *blobs, uint64_t expected_offset)
{
    cs_hash hash = content_hash();
    cs_upload *upload = NULL;
    uint64_t offset = 99;
    assert_ok(cs_upload_open(blobs, "mercy", &hash, CONTENT_BYTES, &upload, &offset));
    assert_int_equal(offset, expected_offset);
    return upload;
}

static char *partial_path(const place *here, const char *suffix)
{
    char hex[CS_HASH_HEX_BYTES];
    cs_hash hash = content_hash();
    cs_hash_hex(&hash, hex);
    return cs_format("%s/partial/mercy-%s%s", here->path, hex, suffix);
}

static void assert_stored(cs_blobs *blobs)
{
    cs_hash hash = content_hash();
    CS_AUTO(cs_string) path = cs_blobs_path(blobs, &hash);
    CS_AUTO(cs_buffer) found = CS_BUFFER_EMPTY;
    assert_ok(cs_file_read_all(path, 4096, &found));
    assert_string_equal(cs_buffer_text(&found), content);
}

static void an_upload_in_pieces_becomes_a_blob_and_leaves_nothing_else(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = open_at(here);
    CS_AUTO_PTR(cs_upload) upload = begin(blobs, 0);
    CS_AUTO(cs_string) partial = partial_path(here, "");
    CS_AUTO(cs_string) record = partial_path(here, ".offset");
    uint64_t durable = 0;

    assert_ok(cs_upload_append(upload, 0, content, 10));
    assert_ok(cs_upload_sync(upload, &durable));
    assert_int_equal(durable, 10);
    assert_ok(cs_upload_append(upload, 10, content + 10, CONTENT_BYTES - 10));
    assert_true(cs_file_exists(partial));
    assert_ok(cs_upload_finish(upload));

    assert_stored(blobs);
    assert_false(cs_file_exists(partial));
    assert_false(cs_file_exists(record));
    assert_ok(cs_upload_finish(upload));
    assert_status(cs_upload_append(upload, CONTENT_BYTES, "x", 1), CS_INVALID);
}

static void a_sync_at_the_end_stores_the_blob(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = open_at(here);
    CS_AUTO_PTR(cs_upload) upload = begin(blobs, 0);
    CS_AUTO(cs_string) record = partial_path(here, ".offset");
    uint64_t durable = 0;

    assert_ok(cs_upload_append(upload, 0, content, CONTENT_BYTES));
    assert_true(cs_upload_is_due(upload));
    assert_ok(cs_upload_sync(upload, &durable));

    assert_int_equal(durable, CONTENT_BYTES);
    assert_stored(blobs);
    assert_false(cs_file_exists(record));
    assert_false(cs_upload_is_due(upload));
    assert_ok(cs_upload_sync(upload, &durable));
    assert_ok(cs_upload_finish(upload));
}

static void an_upload_goes_on_where_the_durable_bytes_end(void **state)
{
    const place *here = *state;
    cs_blobs *blobs = open_at(here);
    cs_upload *upload = begin(blobs, 0);
    uint64_t durable = 0;
    assert_ok(cs_upload_append(upload, 0, content, 10));
    assert_ok(cs_upload_sync(upload, &durable));
    assert_ok(cs_upload_append(upload, 10, content + 10, 10));
    cs_upload_free(upload);
    cs_blobs_free(blobs);

    CS_AUTO_PTR(cs_blobs) again = open_at(here);
    CS_AUTO_PTR(cs_upload) resumed = begin(again, 10);
    assert_status(cs_upload_append(resumed, 20, content + 20, 1), CS_INVALID);
    assert_error_says("offset 20, expected 10");
    assert_ok(cs_upload_append(resumed, 10, content + 10, CONTENT_BYTES - 10));
    assert_ok(cs_upload_finish(resumed));
    assert_stored(again);
}

static void bytes_that_were_never_synced_are_cut_off_whatever_they_became(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = open_at(here);
    cs_upload *upload = begin(blobs, 0);
    CS_AUTO(cs_string) partial = partial_path(here, "");
    uint64_t durable = 0;
    assert_ok(cs_upload_append(upload, 0, content, 10));
    assert_ok(cs_upload_sync(upload, &durable));
    cs_upload_free(upload);
    CS_AUTO(cs_fd) fd = -1;
    assert_ok(cs_file_open(partial, O_WRONLY, 0, &fd));
    assert_ok(cs_file_pwrite(fd, "\0\0\0\0\0\0", 6, 10));

    CS_AUTO_PTR(cs_upload) resumed = begin(blobs, 10);
    assert_ok(cs_upload_append(resumed, 10, content + 10, CONTENT_BYTES - 10));
    assert_ok(cs_upload_finish(resumed));

    assert_stored(blobs);
}

static void a_record_that_is_torn_or_says_too_much_means_starting_over(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = open_at(here);
    CS_AUTO(cs_string) record = partial_path(here, ".offset");
    CS_AUTO(cs_string) partial = partial_path(here, "");
    for (int damage = 0; damage < 4; damage++) {
        cs_upload *upload = begin(blobs, 0);
        uint64_t durable = 0;
        assert_ok(cs_upload_append(upload, 0, content, 10));
        assert_ok(cs_upload_sync(upload, &durable));
        cs_upload_free(upload);
        CS_AUTO(cs_fd) fd = -1;
        if (damage == 0) {
            assert_ok(cs_file_open(record, O_WRONLY, 0, &fd));
            assert_ok(cs_file_pwrite(fd, "\x7f", 1, 0));
        } else if (damage == 1) {
            assert_ok(cs_file_open(record, O_WRONLY, 0, &fd));
            assert_ok(cs_file_truncate(fd, 12));
        } else if (damage == 2) {
            assert_ok(cs_file_remove(record));
        } else {
            assert_ok(cs_file_open(partial, O_WRONLY, 0, &fd));
            assert_ok(cs_file_truncate(fd, 9));
        }
    }
    CS_AUTO_PTR(cs_upload) upload = begin(blobs, 0);
    assert_ok(cs_upload_append(upload, 0, content, CONTENT_BYTES));
    assert_ok(cs_upload_finish(upload));
    assert_stored(blobs);
}

static void wrong_bytes_are_data_loss_and_their_partial_file_goes(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = open_at(here);
    CS_AUTO(cs_string) partial = partial_path(here, "");
    char wrong[CONTENT_BYTES];
    memcpy(wrong, content, sizeof wrong);
    wrong[7] ^= 1;
    CS_AUTO_PTR(cs_upload) upload = begin(blobs, 0);
    assert_ok(cs_upload_append(upload, 0, wrong, sizeof wrong));

    assert_status(cs_upload_finish(upload), CS_DATA_LOSS);

    assert_false(cs_file_exists(partial));
    cs_hash hash = content_hash();
    assert_false(cs_blobs_has(blobs, &hash, NULL));
    assert_true(cs_upload_finish(upload) != CS_OK);
    CS_AUTO_PTR(cs_upload) again = begin(blobs, 0);
    assert_ok(cs_upload_append(again, 0, content, CONTENT_BYTES));
    assert_ok(cs_upload_finish(again));
    assert_stored(blobs);
}

static void damage_in_the_durable_bytes_is_found_by_the_hash_at_the_end(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = open_at(here);
    CS_AUTO(cs_string) partial = partial_path(here, "");
    cs_upload *upload = begin(blobs, 0);
    uint64_t durable = 0;
    assert_ok(cs_upload_append(upload, 0, content, 10));
    assert_ok(cs_upload_sync(upload, &durable));
    cs_upload_free(upload);
    CS_AUTO(cs_fd) fd = -1;
    assert_ok(cs_file_open(partial, O_WRONLY, 0, &fd));
    assert_ok(cs_file_pwrite(fd, "!", 1, 3));

    CS_AUTO_PTR(cs_upload) resumed = begin(blobs, 10);
    assert_ok(cs_upload_append(resumed, 10, content + 10, CONTENT_BYTES - 10));
    assert_status(cs_upload_finish(resumed), CS_DATA_LOSS);
}

static void more_or_fewer_bytes_than_announced_are_refused(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = open_at(here);
    CS_AUTO_PTR(cs_upload) upload = begin(blobs, 0);
    char more[CONTENT_BYTES + 1] = "";

    assert_status(cs_upload_append(upload, 0, more, sizeof more), CS_INVALID);
    assert_ok(cs_upload_append(upload, 0, content, CONTENT_BYTES - 1));
    assert_status(cs_upload_finish(upload), CS_INVALID);
    assert_error_says("ends at 42 of 43 bytes");
    assert_status(cs_upload_append(upload, CONTENT_BYTES - 1, more, 2), CS_INVALID);
    assert_ok(cs_upload_append(upload, CONTENT_BYTES - 1, content + CONTENT_BYTES - 1, 1));
    assert_ok(cs_upload_finish(upload));
}

static void a_blob_that_is_there_is_not_sent_again(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = open_at(here);
    cs_hash hash;
    assert_ok(cs_blobs_put(blobs, cs_bytes_of(content, CONTENT_BYTES), &hash));

    CS_AUTO_PTR(cs_upload) upload = begin(blobs, CONTENT_BYTES);
    assert_false(cs_upload_is_due(upload));
    assert_ok(cs_upload_finish(upload));

    cs_upload *other = NULL;
    uint64_t offset = 0;
    assert_status(cs_upload_open(blobs, "nord", &hash, CONTENT_BYTES + 1, &other, &offset), CS_INVALID);
    assert_error_says("has 43 bytes, 44 were announced");
}

static void an_empty_blob_can_be_uploaded(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = open_at(here);
    cs_hash hash = cs_sha256(cs_bytes_of("", 0));
    CS_AUTO_PTR(cs_upload) upload = NULL;
    uint64_t offset = 99;

    assert_ok(cs_upload_open(blobs, "mercy", &hash, 0, &upload, &offset));
    assert_int_equal(offset, 0);
    assert_ok(cs_upload_finish(upload));

    uint64_t size = 99;
    assert_true(cs_blobs_has(blobs, &hash, &size));
    assert_int_equal(size, 0);
}

static void owners_that_are_no_names_never_become_paths(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = open_at(here);
    static const char *const owners[] = {
        "", "../x", "a/b", "A", "-", "a.b", "0123456789012345678901234567890123456789012345678901234567890123"};
    cs_hash hash = content_hash();
    for (size_t i = 0; i < CS_COUNT(owners); i++) {
        cs_upload *upload = NULL;
        uint64_t offset = 0;
        assert_status(cs_upload_open(blobs, owners[i], &hash, 1, &upload, &offset), CS_INVALID);
    }
}

static void two_senders_of_the_same_blob_do_not_touch_each_other(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = open_at(here);
    cs_hash hash = content_hash();
    CS_AUTO_PTR(cs_upload) mercy = begin(blobs, 0);
    CS_AUTO_PTR(cs_upload) nord = NULL;
    uint64_t offset = 99;
    assert_ok(cs_upload_append(mercy, 0, content, 20));
    assert_ok(cs_upload_open(blobs, "nord", &hash, CONTENT_BYTES, &nord, &offset));
    assert_int_equal(offset, 0);
    assert_ok(cs_upload_append(nord, 0, "garbage", 7));

    assert_ok(cs_upload_append(mercy, 20, content + 20, CONTENT_BYTES - 20));
    assert_ok(cs_upload_finish(mercy));

    assert_stored(blobs);
    assert_ok(cs_upload_append(nord, 7, content, CONTENT_BYTES - 7));
    assert_status(cs_upload_finish(nord), CS_DATA_LOSS);
    assert_stored(blobs);
}

static void a_newer_stream_of_the_same_sender_takes_the_upload_over(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = open_at(here);
    CS_AUTO_PTR(cs_upload) old = begin(blobs, 0);
    uint64_t durable = 0;
    assert_ok(cs_upload_append(old, 0, content, 10));
    assert_ok(cs_upload_sync(old, &durable));
    assert_ok(cs_upload_append(old, 10, "not synced", 10));

    CS_AUTO_PTR(cs_upload) new = begin(blobs, 10);

    assert_status(cs_upload_append(old, 20, content + 20, 1), CS_ABORTED);
    assert_status(cs_upload_sync(old, &durable), CS_ABORTED);
    assert_status(cs_upload_finish(old), CS_ABORTED);
    assert_ok(cs_upload_append(new, 10, content + 10, CONTENT_BYTES - 10));
    assert_ok(cs_upload_finish(new));
    assert_stored(blobs);
}

static void an_acknowledgement_is_due_by_size_by_time_and_at_the_end(void **state)
{
    const place *here = *state;
    cs_clock_fake(1000, 1000);
    CS_AUTO_PTR(cs_blobs) blobs = open_at(here);
    cs_hash hash = cs_sha256(cs_bytes_of("any", 3));
    CS_AUTO(cs_string) chunk = cs_alloc(CS_BLOB_ACK_BYTES);
    CS_AUTO_PTR(cs_upload) upload = NULL;
    uint64_t offset = 0;
    assert_ok(cs_upload_open(blobs, "mercy", &hash, 2 * CS_BLOB_ACK_BYTES, &upload, &offset));

    cs_clock_fake_advance(CS_BLOB_ACK_MS);
    assert_false(cs_upload_is_due(upload)); /* nothing came */
    assert_ok(cs_upload_append(upload, 0, chunk, 1));
    assert_true(cs_upload_is_due(upload));
    assert_ok(cs_upload_sync(upload, &offset));
    assert_ok(cs_upload_append(upload, 1, chunk, CS_BLOB_ACK_BYTES - 1));
    assert_false(cs_upload_is_due(upload));
    cs_clock_fake_advance(CS_BLOB_ACK_MS - 1);
    assert_false(cs_upload_is_due(upload));
    assert_ok(cs_upload_append(upload, CS_BLOB_ACK_BYTES, chunk, 1));
    assert_true(cs_upload_is_due(upload));
    assert_ok(cs_upload_sync(upload, &offset));
    assert_int_equal(offset, CS_BLOB_ACK_BYTES + 1);
    assert_ok(cs_upload_append(upload, offset, chunk, CS_BLOB_ACK_BYTES - 1));
    assert_true(cs_upload_is_due(upload)); /* the end */
    cs_clock_real();
}

static bool needs_nothing(void *self, const cs_hash *hash)
{
    (void)self;
    (void)hash;
    return false;
}

static void old_partial_files_are_collected_unless_somebody_works_on_them(void **state)
{
    const place *here = *state;
    cs_clock_fake(1000, 1000);
    CS_AUTO_PTR(cs_blobs) blobs = open_at(here);
    cs_upload *upload = begin(blobs, 0);
    CS_AUTO(cs_string) partial = partial_path(here, "");
    CS_AUTO(cs_string) record = partial_path(here, ".offset");
    uint64_t durable = 0;
    assert_ok(cs_upload_append(upload, 0, content, 10));
    assert_ok(cs_upload_sync(upload, &durable));

    cs_clock_fake_advance(5000);
    assert_ok(cs_blobs_collect(blobs, needs_nothing, NULL, 5000, NULL));
    assert_true(cs_file_exists(partial));
    cs_upload_free(upload);
    assert_ok(cs_blobs_collect(blobs, needs_nothing, NULL, 5001, NULL));
    assert_true(cs_file_exists(partial));
    assert_ok(cs_blobs_collect(blobs, needs_nothing, NULL, 5000, NULL));
    assert_false(cs_file_exists(partial));
    assert_false(cs_file_exists(record));
    cs_clock_real();
}

static void an_upload_that_was_just_finished_is_not_collected(void **state)
{
    const place *here = *state;
    cs_clock_fake(1000, 1000);
    CS_AUTO_PTR(cs_blobs) blobs = open_at(here);
    CS_AUTO_PTR(cs_upload) upload = begin(blobs, 0);
    cs_clock_fake_advance(10 * CS_BLOB_GRACE_MS);
    assert_ok(cs_upload_append(upload, 0, content, CONTENT_BYTES));
    assert_ok(cs_upload_finish(upload));

    assert_ok(cs_blobs_collect(blobs, needs_nothing, NULL, 0, NULL));

    assert_stored(blobs);
    cs_clock_real();
}

/* ---- a disk that fails ---- */

struct countdown {
    int left; /* the call that makes it 0 fails */
    int number;
};

static int fail_at_zero(void *self, const char *operation, const char *path)
{
    (void)operation;
    (void)path;
    struct countdown *countdown = self;
    return --countdown->left == 0 ? countdown->number : 0;
}

/* What a receiver does with one stream; *acknowledged is what it told the sender. */
static cs_status receive(cs_blobs *blobs, uint64_t *acknowledged)
{
    cs_hash hash = content_hash();
    CS_AUTO_PTR(cs_upload) upload = NULL;
    uint64_t offset = 0;
    CS_TRY(cs_upload_open(blobs, "mercy", &hash, CONTENT_BYTES, &upload, &offset));
    while (offset < CONTENT_BYTES) {
        size_t size = (size_t)CS_MIN(CONTENT_BYTES - offset, (uint64_t)16);
        CS_TRY(cs_upload_append(upload, offset, content + offset, size));
        offset += size;
        CS_TRY(cs_upload_sync(upload, acknowledged));
    }
    return cs_upload_finish(upload);
}

static void whichever_call_fails_no_acknowledged_byte_is_lost_and_the_upload_can_go_on(void **state)
{
    const place *here = *state;
    cs_hash hash = content_hash();
    int failed = 0;
    for (int k = 1;; k++) {
        struct countdown countdown = {k, k % 2 ? ENOSPC : EIO};
        uint64_t acknowledged = 0;
        assert_ok(cs_folder_remove(here->path));
        cs_blobs *blobs = open_at(here);

        cs_file_set_fault(fail_at_zero, &countdown);
        cs_status status = receive(blobs, &acknowledged);
        cs_file_set_fault(NULL, NULL);
        cs_blobs_free(blobs);
        if (countdown.left > 0) {
            assert_ok(status);
            break;
        }
        failed++;

        /* The daemon starts again and the sender asks where to go on. */
        blobs = open_at(here);
        cs_upload *upload = NULL;
        uint64_t offset = 0;
        assert_ok(cs_upload_open(blobs, "mercy", &hash, CONTENT_BYTES, &upload, &offset));
        cs_upload_free(upload);
        if (offset < acknowledged)
            fail_msg("call %d: %d bytes were acknowledged, %d are there", k, (int)acknowledged, (int)offset);
        assert_ok(receive(blobs, &acknowledged));
        assert_stored(blobs);
        cs_blobs_free(blobs);
    }
    assert_true(failed > 20);
}

/* ---- a disk that is slow ---- */

/* Holds up the first fdatasync of a file until it is let go; `error` is what that one comes back with. */
struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool is_reached, is_open;
    int error;
    int told; /* calls of on_synced */
};

static struct gate *gate_make(int error)
{
    struct gate *gate = cs_alloc(sizeof *gate);
    pthread_mutex_init(&gate->mutex, NULL);
    cs_condition_init(&gate->changed);
    gate->error = error;
    return gate;
}

static void gate_free(struct gate *gate)
{
    cs_file_set_fault(NULL, NULL);
    pthread_cond_destroy(&gate->changed);
    pthread_mutex_destroy(&gate->mutex);
    cs_free(gate);
}

static int hold_up(void *self, const char *operation, const char *path)
{
    (void)path;
    struct gate *gate = self;
    if (strcmp(operation, "fdatasync") != 0)
        return 0;
    pthread_mutex_lock(&gate->mutex);
    bool is_first = !gate->is_reached;
    gate->is_reached = true;
    pthread_cond_broadcast(&gate->changed);
    while (!gate->is_open)
        cs_condition_wait(&gate->changed, &gate->mutex, -1);
    pthread_mutex_unlock(&gate->mutex);
    return is_first ? gate->error : 0;
}

static void count_synced(void *self)
{
    struct gate *gate = self;
    pthread_mutex_lock(&gate->mutex);
    gate->told++;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->mutex);
}

static void gate_wait_reached(struct gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    while (!gate->is_reached)
        cs_condition_wait(&gate->changed, &gate->mutex, -1);
    pthread_mutex_unlock(&gate->mutex);
}

static void gate_open(struct gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    gate->is_open = true;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->mutex);
}

static void gate_wait_told(struct gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    while (gate->told == 0)
        cs_condition_wait(&gate->changed, &gate->mutex, -1);
    pthread_mutex_unlock(&gate->mutex);
}

#define BIG_BYTES (2 * CS_BLOB_UNSYNCED_BYTES)

/* "mercy" uploads zeros; the first part of it is being synced when this returns. */
static cs_upload *begin_big(cs_blobs *blobs, struct gate *gate, const char *zeros)
{
    cs_hash hash = cs_sha256(cs_bytes_of(zeros, BIG_BYTES));
    cs_upload *upload = NULL;
    uint64_t offset = 99;
    assert_ok(cs_upload_open(blobs, "mercy", &hash, BIG_BYTES, &upload, &offset));
    cs_upload_on_synced(upload, count_synced, gate);
    assert_ok(cs_upload_append(upload, 0, zeros, CS_BLOB_ACK_BYTES - 1));
    cs_upload_sync_later(upload); /* not yet due */
    assert_false(gate->is_reached);
    assert_ok(cs_upload_append(upload, CS_BLOB_ACK_BYTES - 1, zeros, 1));
    cs_file_set_fault(hold_up, gate);
    cs_upload_sync_later(upload);
    gate_wait_reached(gate);
    return upload;
}

static void bytes_are_taken_while_the_disk_works_but_only_so_many(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = open_at(here);
    CS_AUTO(cs_string) zeros = cs_alloc(BIG_BYTES);
    struct gate *gate = gate_make(0);
    cs_upload *upload = begin_big(blobs, gate, zeros);
    uint64_t durable = 99;
    bool is_stored = true;

    assert_true(cs_upload_has_room(upload));
    assert_ok(cs_upload_append(upload, CS_BLOB_ACK_BYTES, zeros, CS_BLOB_UNSYNCED_BYTES - CS_BLOB_ACK_BYTES));
    cs_upload_sync_later(upload);
    assert_false(cs_upload_has_room(upload));
    assert_ok(cs_upload_synced(upload, &durable, &is_stored));
    assert_int_equal(durable, 0);
    assert_false(is_stored);
    gate_open(gate);
    cs_upload_wait(upload);
    assert_ok(cs_upload_synced(upload, &durable, &is_stored));
    assert_true(durable >= CS_BLOB_ACK_BYTES);
    assert_ok(cs_upload_append(upload, CS_BLOB_UNSYNCED_BYTES, zeros, BIG_BYTES - CS_BLOB_UNSYNCED_BYTES));
    cs_upload_sync_later(upload);
    assert_ok(cs_upload_finish(upload));

    assert_ok(cs_upload_synced(upload, &durable, &is_stored));
    assert_int_equal(durable, BIG_BYTES);
    assert_true(is_stored);
    assert_true(gate->told > 0);
    cs_upload_free(upload);
    gate_free(gate);
}

static void a_sync_that_failed_meanwhile_is_told_to_whoever_goes_on(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = open_at(here);
    CS_AUTO(cs_string) zeros = cs_alloc(BIG_BYTES);
    struct gate *gate = gate_make(ENOSPC);
    cs_upload *upload = begin_big(blobs, gate, zeros);
    uint64_t durable = 99;
    bool is_stored = true;

    gate_open(gate);
    gate_wait_told(gate);

    assert_status(cs_upload_synced(upload, &durable, &is_stored), CS_EXHAUSTED);
    assert_int_equal(durable, 0);
    assert_true(cs_upload_has_room(upload));
    assert_status(cs_upload_append(upload, CS_BLOB_ACK_BYTES, zeros, 1), CS_EXHAUSTED);
    assert_status(cs_upload_finish(upload), CS_EXHAUSTED);
    cs_upload_free(upload);
    gate_free(gate);
}

static void a_sync_under_way_writes_no_record_once_a_newer_stream_has_taken_over(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = open_at(here);
    CS_AUTO(cs_string) zeros = cs_alloc(BIG_BYTES);
    struct gate *gate = gate_make(0);
    cs_upload *old = begin_big(blobs, gate, zeros);
    cs_hash hash = cs_sha256(cs_bytes_of(zeros, BIG_BYTES));
    CS_AUTO_PTR(cs_upload) new = NULL;
    uint64_t offset = 99;

    assert_ok(cs_upload_open(blobs, "mercy", &hash, BIG_BYTES, &new, &offset));
    assert_int_equal(offset, 0);
    gate_open(gate);
    gate_wait_told(gate);
    cs_upload_free(old);

    CS_AUTO_PTR(cs_upload) newest = NULL;
    assert_ok(cs_upload_open(blobs, "mercy", &hash, BIG_BYTES, &newest, &offset));
    assert_int_equal(offset, 0);
    gate_free(gate);
}

static cs_status put_and_adopt(cs_blobs *blobs, const char *source)
{
    cs_hash hash;
    uint64_t size = 0;
    CS_TRY(cs_blobs_put(blobs, cs_bytes_of("abc", 3), &hash));
    return cs_blobs_adopt(blobs, source, &hash, &size);
}

static void whichever_call_fails_a_put_and_an_adoption_can_be_repeated(void **state)
{
    const place *here = *state;
    CS_AUTO(cs_string) source = cs_path_join(here->folder, "model");
    int failed = 0;
    for (int k = 1;; k++) {
        struct countdown countdown = {k, k % 2 ? ENOSPC : EIO};
        assert_ok(cs_folder_remove(here->path));
        CS_AUTO_PTR(cs_blobs) blobs = open_at(here);
        assert_ok(cs_file_write_atomic(source, cs_bytes_of(content, CONTENT_BYTES), 0600));

        cs_file_set_fault(fail_at_zero, &countdown);
        cs_status status = put_and_adopt(blobs, source);
        cs_file_set_fault(NULL, NULL);
        if (countdown.left > 0) {
            assert_ok(status);
            break;
        }
        failed++;

        cs_hash hash;
        assert_ok(cs_blobs_put(blobs, cs_bytes_of("abc", 3), &hash));
        uint64_t size = 0;
        if (cs_file_exists(source))
            assert_ok(cs_blobs_adopt(blobs, source, &hash, &size));
        assert_stored(blobs);
    }
    assert_true(failed > 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLACE_TEST(an_upload_in_pieces_becomes_a_blob_and_leaves_nothing_else),
        PLACE_TEST(a_sync_at_the_end_stores_the_blob),
        PLACE_TEST(an_upload_goes_on_where_the_durable_bytes_end),
        PLACE_TEST(bytes_that_were_never_synced_are_cut_off_whatever_they_became),
        PLACE_TEST(a_record_that_is_torn_or_says_too_much_means_starting_over),
        PLACE_TEST(wrong_bytes_are_data_loss_and_their_partial_file_goes),
        PLACE_TEST(damage_in_the_durable_bytes_is_found_by_the_hash_at_the_end),
        PLACE_TEST(more_or_fewer_bytes_than_announced_are_refused),
        PLACE_TEST(a_blob_that_is_there_is_not_sent_again),
        PLACE_TEST(an_empty_blob_can_be_uploaded),
        PLACE_TEST(owners_that_are_no_names_never_become_paths),
        PLACE_TEST(two_senders_of_the_same_blob_do_not_touch_each_other),
        PLACE_TEST(a_newer_stream_of_the_same_sender_takes_the_upload_over),
        PLACE_TEST(an_acknowledgement_is_due_by_size_by_time_and_at_the_end),
        PLACE_TEST(old_partial_files_are_collected_unless_somebody_works_on_them),
        PLACE_TEST(an_upload_that_was_just_finished_is_not_collected),
        PLACE_TEST(whichever_call_fails_no_acknowledged_byte_is_lost_and_the_upload_can_go_on),
        PLACE_TEST(bytes_are_taken_while_the_disk_works_but_only_so_many),
        PLACE_TEST(a_sync_that_failed_meanwhile_is_told_to_whoever_goes_on),
        PLACE_TEST(a_sync_under_way_writes_no_record_once_a_newer_stream_has_taken_over),
        PLACE_TEST(whichever_call_fails_a_put_and_an_adoption_can_be_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
