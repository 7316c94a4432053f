/* One incoming blob: bytes in order, durable every few megabytes, and in the store once they are what their hash says.
 * Runs on the thread of the transfer; cs_upload_sync_later on those of the store. */
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/blobs/store.h"
#include "common/crypto/x509.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define REHASH_BYTES ((size_t)256 * 1024)

struct cs_upload {
    cs_blobs *blobs;
    struct cs_blobs_slot *slot;
    char *path;
    char *offset_path;
    cs_hash hash;
    uint64_t size;
    uint64_t written;
    uint64_t durable;
    int64_t synced_ms;
    cs_digest *digest; /* of the bytes written; NULL once it was ended */
    cs_fd data_fd;
    cs_fd offset_fd;   /* -1 until the first sync */
    bool is_stored;    /* the blob is in the store, */
    bool is_lasting;   /* and its name there durable */
    bool is_broken;    /* after a failed fsync nothing is known about the bytes since the last good one */
    bool is_syncing;   /* a thread of the store has it, or will */
    cs_status failure; /* of that thread */
    char sentence[CS_ERROR_TEXT_BYTES];
    void (*on_synced)(void *self);
    void *on_synced_self;
    cs_upload *next_to_sync;
};

/* ---- the record of what is durable: offset, wall time, check; little endian ---- */

#define RECORD_BYTES       24
#define RECORD_CHECK_BYTES 8

static void record_check(const uint8_t record[RECORD_BYTES], uint8_t out[RECORD_CHECK_BYTES])
{
    cs_hash hash = cs_sha256(cs_bytes_of(record, RECORD_BYTES - RECORD_CHECK_BYTES));
    memcpy(out, hash.bytes, RECORD_CHECK_BYTES);
}

static cs_status read_record(const char *path, uint8_t record[RECORD_BYTES])
{
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(cs_file_open(path, O_RDONLY | O_NOFOLLOW, 0, &fd));
    return cs_file_read_exact(fd, record, RECORD_BYTES);
}

cs_status cs_blobs_read_offset(const char *partial_path, uint64_t *ret_offset, int64_t *ret_wall_ms)
{
    CS_AUTO(cs_string) path = cs_format("%s" CS_BLOBS_OFFSET_SUFFIX, partial_path);
    uint8_t record[RECORD_BYTES];
    uint8_t check[RECORD_CHECK_BYTES] = {0};
    cs_status status = read_record(path, record);
    if (status == CS_OK)
        record_check(record, check);
    else if (status != CS_DATA_LOSS) /* it is there and cannot be read, or it is not there */
        return status;
    if (status == CS_DATA_LOSS || memcmp(check, record + RECORD_BYTES - RECORD_CHECK_BYTES, sizeof check) != 0)
        return cs_fail(CS_NOT_FOUND, "%s is torn", path);
    *ret_offset = cs_load_le64(record);
    *ret_wall_ms = (int64_t)cs_load_le64(record + 8);
    return CS_OK;
}

/* Written only after the bytes it speaks of are durable. */
static cs_status write_record(cs_upload *upload, uint64_t offset)
{
    bool is_new = upload->offset_fd < 0;
    if (is_new)
        CS_TRY(cs_file_open(upload->offset_path, O_WRONLY | O_CREAT | O_NOFOLLOW, 0600, &upload->offset_fd));
    uint8_t record[RECORD_BYTES];
    cs_store_le64(record, offset);
    cs_store_le64(record + 8, (uint64_t)cs_clock_wall_ms());
    record_check(record, record + RECORD_BYTES - RECORD_CHECK_BYTES);
    CS_TRY(cs_file_pwrite(upload->offset_fd, record, sizeof record, 0));
    CS_TRY(cs_file_sync_data(upload->offset_fd));
    /* Both names are new too. */
    return is_new ? cs_file_sync_folder(upload->blobs->partial_folder) : CS_OK;
}

/* ---- who may write ---- */

static struct cs_blobs_slot *slot_acquire(cs_blobs *blobs, const char *name)
{
    pthread_mutex_lock(&blobs->lists_mutex);
    struct cs_blobs_slot *slot = blobs->slots;
    while (slot && strcmp(slot->name, name) != 0)
        slot = slot->next;
    if (!slot) {
        slot = cs_alloc(sizeof *slot);
        slot->name = cs_strdup(name);
        pthread_mutex_init(&slot->holder_mutex, NULL);
        cs_condition_init(&slot->sync_ended);
        slot->next = blobs->slots;
        blobs->slots = slot;
    }
    slot->users++;
    pthread_mutex_unlock(&blobs->lists_mutex);
    return slot;
}

static void slot_release(cs_blobs *blobs, struct cs_blobs_slot *slot)
{
    pthread_mutex_lock(&blobs->lists_mutex);
    if (--slot->users == 0) {
        struct cs_blobs_slot **place = &blobs->slots;
        while (*place != slot)
            place = &(*place)->next;
        *place = slot->next;
        pthread_mutex_destroy(&slot->holder_mutex);
        pthread_cond_destroy(&slot->sync_ended);
        cs_free(slot->name);
        cs_free(slot);
    }
    pthread_mutex_unlock(&blobs->lists_mutex);
}

/* With the slot's mutex held. */
static cs_status check_usable(const cs_upload *upload)
{
    if (upload->slot->holder != upload)
        return cs_fail(CS_ABORTED, "upload %s: a newer stream of the same sender has taken it over",
                       upload->slot->name);
    if (upload->failure != CS_OK)
        return cs_fail(upload->failure, "%s", upload->sentence);
    if (upload->is_broken)
        return cs_fail(CS_STATE, "upload %s: a write failed before; open it again to go on", upload->slot->name);
    return CS_OK;
}

/* With the slot's mutex held. */
static void wait_for_sync(cs_upload *upload)
{
    while (upload->is_syncing)
        cs_condition_wait(&upload->slot->sync_ended, &upload->slot->holder_mutex, -1);
}

/* ---- open ---- */

static cs_status rehash(cs_upload *upload, uint64_t size)
{
    CS_AUTO(cs_buffer) chunk = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&chunk, REHASH_BYTES);
    for (uint64_t offset = 0; offset < size;) {
        size_t part = (size_t)CS_MIN(size - offset, (uint64_t)REHASH_BYTES);
        CS_TRY(cs_file_pread_exact(upload->data_fd, chunk.data, part, offset));
        cs_digest_add(upload->digest, chunk.data, part);
        offset += part;
    }
    return CS_OK;
}

/* Keeps the durable bytes of an earlier attempt and cuts off what came after them. */
static cs_status resume(cs_upload *upload)
{
    uint64_t durable = 0;
    uint64_t there = 0;
    int64_t wall_ms = 0;
    CS_TRY(cs_file_open(upload->path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600, &upload->data_fd));
    CS_TRY(cs_file_size(upload->data_fd, &there));
    cs_status record = cs_blobs_read_offset(upload->path, &durable, &wall_ms);
    if (record != CS_OK && record != CS_NOT_FOUND)
        return record;
    if (record == CS_NOT_FOUND || durable > there || durable > upload->size) {
        /* A record that does not fit must not be believed after the next crash either. */
        CS_TRY(cs_file_remove(upload->offset_path));
        durable = 0;
    }
    if (there > durable)
        CS_TRY(cs_file_truncate(upload->data_fd, durable));
    upload->digest = cs_digest_new();
    CS_TRY(rehash(upload, durable));
    upload->written = durable;
    upload->durable = durable;
    return CS_OK;
}

/* With the slot's mutex held: whoever wrote here before has stopped. */
static cs_status start(cs_upload *upload)
{
    uint64_t stored_size = 0;
    upload->slot->holder = upload;
    upload->synced_ms = cs_clock_monotonic_ms();
    if (!cs_blobs_welcome(upload->blobs, &upload->hash, &stored_size))
        return resume(upload);
    if (stored_size != upload->size)
        return cs_fail(CS_INVALID, "the blob has %" PRIu64 " bytes, %" PRIu64 " were announced", stored_size,
                       upload->size);
    upload->is_stored = true;
    upload->written = upload->size;
    upload->durable = upload->size;
    return CS_OK;
}

cs_status cs_upload_open(cs_blobs *blobs, const char *owner, const cs_hash *hash, uint64_t size, cs_upload **ret,
                         uint64_t *ret_offset)
{
    /* The name becomes part of a path. */
    CS_TRY(cs_name_check(owner, "the owner of an upload"));
    char hex[CS_HASH_HEX_BYTES];
    cs_hash_hex(hash, hex);
    CS_AUTO(cs_string) name = cs_format("%s-%s", owner, hex);
    CS_AUTO_PTR(cs_upload) upload = cs_alloc(sizeof *upload);
    *upload = (cs_upload){.blobs = blobs, .hash = *hash, .size = size, .data_fd = -1, .offset_fd = -1};
    upload->path = cs_path_join(blobs->partial_folder, name);
    upload->offset_path = cs_format("%s" CS_BLOBS_OFFSET_SUFFIX, upload->path);
    upload->slot = slot_acquire(blobs, name);

    pthread_mutex_lock(&upload->slot->holder_mutex);
    cs_status status = start(upload);
    pthread_mutex_unlock(&upload->slot->holder_mutex);
    if (status != CS_OK)
        return cs_wrap(status, "upload %s", name);
    *ret_offset = upload->written;
    *ret = CS_TAKE(upload);
    return CS_OK;
}

void cs_upload_free(cs_upload *upload)
{
    if (!upload)
        return;
    pthread_mutex_lock(&upload->slot->holder_mutex);
    wait_for_sync(upload);
    if (upload->slot->holder == upload)
        upload->slot->holder = NULL;
    pthread_mutex_unlock(&upload->slot->holder_mutex);
    slot_release(upload->blobs, upload->slot);
    cs_fd_clear(&upload->data_fd);
    cs_fd_clear(&upload->offset_fd);
    cs_digest_free(upload->digest);
    cs_free(upload->path);
    cs_free(upload->offset_path);
    cs_free(upload);
}

/* ---- write ---- */

static cs_status append(cs_upload *upload, uint64_t offset, const void *data, size_t size)
{
    CS_TRY(check_usable(upload));
    if (offset != upload->written)
        return cs_fail(CS_INVALID, "upload %s: bytes for offset %" PRIu64 ", expected %" PRIu64, upload->slot->name,
                       offset, upload->written);
    if (size > upload->size - upload->written)
        return cs_fail(CS_INVALID, "upload %s: more than the %" PRIu64 " bytes that were announced", upload->slot->name,
                       upload->size);
    if (size == 0)
        return CS_OK;
    if (!upload->digest)
        return cs_fail(CS_STATE, "upload %s: it has ended", upload->slot->name);
    CS_FAILPOINT("blobs.append");
    CS_TRY(cs_file_pwrite(upload->data_fd, data, size, offset));
    cs_digest_add(upload->digest, data, size);
    upload->written += size;
    return CS_OK;
}

cs_status cs_upload_append(cs_upload *upload, uint64_t offset, const void *data, size_t size)
{
    pthread_mutex_lock(&upload->slot->holder_mutex);
    cs_status status = append(upload, offset, data, size);
    pthread_mutex_unlock(&upload->slot->holder_mutex);
    return status;
}

/* With the slot's mutex held. */
static bool is_due(const cs_upload *upload)
{
    uint64_t pending = upload->written - upload->durable;
    return pending > 0 && (pending >= CS_BLOB_ACK_BYTES || upload->written == upload->size ||
                           cs_clock_monotonic_ms() - upload->synced_ms >= CS_BLOB_ACK_MS);
}

bool cs_upload_is_due(const cs_upload *upload)
{
    pthread_mutex_lock(&upload->slot->holder_mutex);
    bool result = is_due(upload);
    pthread_mutex_unlock(&upload->slot->holder_mutex);
    return result;
}

/* ---- become a blob ---- */

static cs_status check_hash(cs_upload *upload)
{
    cs_hash found = cs_digest_end(upload->digest);
    cs_digest_free(upload->digest);
    upload->digest = NULL;
    if (cs_hash_equal(&found, &upload->hash))
        return CS_OK;
    CS_TRY(cs_file_remove(upload->path));
    CS_TRY(cs_file_remove(upload->offset_path));
    char text[CS_HASH_TEXT_BYTES];
    cs_hash_text(&found, text);
    return cs_fail(CS_DATA_LOSS, "upload %s: the bytes that came have the hash %s", upload->slot->name, text);
}

static cs_status store(cs_upload *upload)
{
    CS_TRY(check_hash(upload));
    CS_FAILPOINT("blobs.finish");
    if (upload->durable < upload->size || upload->size == 0)
        CS_TRY(cs_file_sync_data(upload->data_fd));
    CS_TRY(cs_blobs_install(upload->blobs, upload->path, &upload->hash));
    CS_IGNORE(cs_file_remove(upload->offset_path), "swept when the store is opened");
    return CS_OK;
}

static cs_status complete(cs_upload *upload)
{
    cs_status status = store(upload);
    if (status != CS_OK) {
        upload->is_broken = true;
        return status;
    }
    upload->durable = upload->size;
    upload->is_stored = true;
    upload->is_lasting = true;
    return CS_OK;
}

/* ---- make durable ---- */

/* With the slot's mutex held, but not during the sync itself: bytes may come meanwhile, and a newer stream may take
 * over and then writes the records. */
static cs_status write_through(cs_upload *upload)
{
    uint64_t target = upload->written;
    CS_FAILPOINT("blobs.sync");
    pthread_mutex_unlock(&upload->slot->holder_mutex);
    cs_status status = cs_file_sync_data(upload->data_fd);
    pthread_mutex_lock(&upload->slot->holder_mutex);
    CS_TRY(status);
    CS_FAILPOINT("blobs.synced");
    CS_TRY(check_usable(upload));
    CS_TRY(write_record(upload, target));
    upload->durable = target;
    return CS_OK;
}

static cs_status sync_held(cs_upload *upload)
{
    CS_TRY(check_usable(upload));
    upload->synced_ms = cs_clock_monotonic_ms();
    if (upload->durable == upload->written)
        return CS_OK;
    /* At the end the blob itself is the record, which saves writing one. */
    if (upload->written == upload->size)
        return complete(upload);
    cs_status status = write_through(upload);
    if (status != CS_OK)
        upload->is_broken = true;
    return status;
}

cs_status cs_upload_sync(cs_upload *upload, uint64_t *ret_durable_offset)
{
    pthread_mutex_lock(&upload->slot->holder_mutex);
    wait_for_sync(upload);
    cs_status status = sync_held(upload);
    if (status == CS_OK)
        *ret_durable_offset = upload->durable;
    pthread_mutex_unlock(&upload->slot->holder_mutex);
    return status;
}

/* ---- the same on threads of the store ---- */

static void tell_synced(cs_upload *upload)
{
    pthread_cond_broadcast(&upload->slot->sync_ended);
    pthread_mutex_unlock(&upload->slot->holder_mutex);
    if (upload->on_synced)
        upload->on_synced(upload->on_synced_self);
    pthread_mutex_lock(&upload->slot->holder_mutex);
}

/* Until nothing is due any more: what came during a sync may be due when it ends. */
static void sync_while_due(cs_upload *upload)
{
    struct cs_blobs_slot *slot = upload->slot;
    pthread_mutex_lock(&slot->holder_mutex);
    do {
        upload->failure = sync_held(upload);
        if (upload->failure != CS_OK)
            snprintf(upload->sentence, sizeof upload->sentence, "%s", cs_error_text());
        tell_synced(upload);
    } while (upload->failure == CS_OK && is_due(upload));
    upload->is_syncing = false;
    pthread_cond_broadcast(&slot->sync_ended);
    pthread_mutex_unlock(&slot->holder_mutex); /* from here on it may be freed */
}

static void *run_syncer(void *argument)
{
    cs_blobs *blobs = argument;
    pthread_mutex_lock(&blobs->sync_mutex);
    for (;;) {
        blobs->syncers_idle++;
        while (!blobs->first_to_sync && !blobs->is_stopping)
            cs_condition_wait(&blobs->sync_wanted, &blobs->sync_mutex, -1);
        blobs->syncers_idle--;
        cs_upload *upload = blobs->first_to_sync;
        if (!upload)
            break;
        blobs->first_to_sync = upload->next_to_sync;
        pthread_mutex_unlock(&blobs->sync_mutex);
        sync_while_due(upload);
        pthread_mutex_lock(&blobs->sync_mutex);
    }
    pthread_mutex_unlock(&blobs->sync_mutex);
    return NULL;
}

/* False: there is no thread to be had. */
static bool hand_over(cs_blobs *blobs, cs_upload *upload)
{
    pthread_mutex_lock(&blobs->sync_mutex);
    if (blobs->syncers_idle == 0 && blobs->syncers_count < CS_BLOBS_SYNCERS &&
        pthread_create(&blobs->syncers[blobs->syncers_count], NULL, run_syncer, blobs) == 0)
        blobs->syncers_count++;
    bool is_taken = blobs->syncers_count > 0;
    if (is_taken) {
        upload->next_to_sync = NULL;
        if (blobs->first_to_sync)
            blobs->last_to_sync->next_to_sync = upload;
        else
            blobs->first_to_sync = upload;
        blobs->last_to_sync = upload;
        pthread_cond_signal(&blobs->sync_wanted);
    }
    pthread_mutex_unlock(&blobs->sync_mutex);
    return is_taken;
}

void cs_blobs_stop_syncers(cs_blobs *blobs)
{
    pthread_mutex_lock(&blobs->sync_mutex);
    blobs->is_stopping = true;
    pthread_cond_broadcast(&blobs->sync_wanted);
    pthread_mutex_unlock(&blobs->sync_mutex);
    for (size_t i = 0; i < blobs->syncers_count; i++)
        pthread_join(blobs->syncers[i], NULL);
}

void cs_upload_on_synced(cs_upload *upload, void (*on_synced)(void *self), void *self)
{
    upload->on_synced = on_synced;
    upload->on_synced_self = self;
}

void cs_upload_sync_later(cs_upload *upload)
{
    pthread_mutex_lock(&upload->slot->holder_mutex);
    bool is_wanted = !upload->is_syncing && upload->failure == CS_OK && is_due(upload);
    upload->is_syncing = upload->is_syncing || is_wanted;
    pthread_mutex_unlock(&upload->slot->holder_mutex);
    if (is_wanted && !hand_over(upload->blobs, upload))
        sync_while_due(upload);
}

cs_status cs_upload_synced(cs_upload *upload, uint64_t *ret_durable_offset, bool *ret_is_stored)
{
    pthread_mutex_lock(&upload->slot->holder_mutex);
    cs_status status = check_usable(upload);
    *ret_durable_offset = upload->durable;
    *ret_is_stored = upload->is_stored && upload->is_lasting;
    pthread_mutex_unlock(&upload->slot->holder_mutex);
    return status;
}

/* With the slot's mutex held. */
static bool has_room(const cs_upload *upload)
{
    return !upload->is_syncing || upload->failure != CS_OK ||
           upload->written - upload->durable < CS_BLOB_UNSYNCED_BYTES;
}

bool cs_upload_has_room(cs_upload *upload)
{
    pthread_mutex_lock(&upload->slot->holder_mutex);
    bool result = has_room(upload);
    pthread_mutex_unlock(&upload->slot->holder_mutex);
    return result;
}

void cs_upload_wait(cs_upload *upload)
{
    pthread_mutex_lock(&upload->slot->holder_mutex);
    while (!has_room(upload))
        cs_condition_wait(&upload->slot->sync_ended, &upload->slot->holder_mutex, -1);
    pthread_mutex_unlock(&upload->slot->holder_mutex);
}

/* ---- the end ---- */

static cs_status finish(cs_upload *upload)
{
    CS_TRY(check_usable(upload));
    if (upload->written < upload->size)
        return cs_fail(CS_INVALID, "upload %s: it ends at %" PRIu64 " of %" PRIu64 " bytes", upload->slot->name,
                       upload->written, upload->size);
    if (!upload->is_stored)
        return complete(upload);
    /* It was there: an earlier attempt may have failed after giving the name and before making it durable. */
    if (!upload->is_lasting)
        CS_TRY(cs_blobs_sync_name(upload->blobs, &upload->hash));
    upload->is_lasting = true;
    return CS_OK;
}

cs_status cs_upload_finish(cs_upload *upload)
{
    pthread_mutex_lock(&upload->slot->holder_mutex);
    wait_for_sync(upload);
    cs_status status = finish(upload);
    pthread_mutex_unlock(&upload->slot->holder_mutex);
    return status;
}
