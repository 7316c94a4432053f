/* The store: blobs by hash, and what is thrown away. Uploads are in upload.c. The coordinator's rpc and engine threads
 * and the agent call it, at the same time. */
#include "common/blobs/blobs.h"

#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/random.h"
#include "common/blobs/store.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#define COPY_BYTES     ((size_t)256 * 1024)
#define PARTIAL_FOLDER "partial"
#define TMP_SUFFIX     ".tmp"

static char *folder_of(const cs_blobs *blobs, const cs_hash *hash)
{
    return cs_format("%s/%02x", blobs->folder, hash->bytes[0]);
}

char *cs_blobs_path(cs_blobs *blobs, const cs_hash *hash)
{
    char hex[CS_HASH_HEX_BYTES];
    cs_hash_hex(hash, hex);
    return cs_format("%s/%.2s/%s", blobs->folder, hex, hex);
}

static bool ends_with(const char *text, const char *suffix)
{
    size_t size = strlen(text);
    size_t suffix_size = strlen(suffix);
    return size >= suffix_size && strcmp(text + size - suffix_size, suffix) == 0;
}

/* ---- what collect knows ---- */

/* A hash is as good as random, and only contents that were checked get here. */
static struct cs_blobs_known **known_place(cs_blobs *blobs, const cs_hash *hash)
{
    struct cs_blobs_known **place = &blobs->known[cs_load_le64(hash->bytes) % CS_BLOBS_KNOWN_BUCKETS];
    while (*place && !cs_hash_equal(&(*place)->hash, hash))
        place = &(*place)->next;
    return place;
}

static struct cs_blobs_known *known_make(cs_blobs *blobs, const cs_hash *hash)
{
    struct cs_blobs_known **place = known_place(blobs, hash);
    if (!*place) {
        *place = cs_alloc(sizeof **place);
        **place = (struct cs_blobs_known){.hash = *hash, .arrived_ms = blobs->opened_ms};
    }
    return *place;
}

static void known_forget(cs_blobs *blobs, const cs_hash *hash)
{
    struct cs_blobs_known **place = known_place(blobs, hash);
    struct cs_blobs_known *entry = *place;
    if (!entry)
        return;
    *place = entry->next;
    cs_free(entry);
}

static void note_arrival(cs_blobs *blobs, const cs_hash *hash)
{
    struct cs_blobs_known *entry = known_make(blobs, hash);
    entry->arrived_ms = cs_clock_monotonic_ms();
    entry->was_needed = false;
}

/* ---- open ---- */

static cs_status sweep_partial(void *self, const char *name)
{
    const cs_blobs *blobs = self;
    CS_AUTO(cs_string) path = cs_path_join(blobs->partial_folder, name);
    if (ends_with(name, TMP_SUFFIX))
        return cs_file_remove(path);
    if (ends_with(name, CS_BLOBS_OFFSET_SUFFIX)) {
        CS_AUTO(cs_string) data = cs_strndup(path, strlen(path) - strlen(CS_BLOBS_OFFSET_SUFFIX));
        return cs_file_exists(data) ? CS_OK : cs_file_remove(path);
    }
    uint64_t offset = 0;
    int64_t wall_ms = 0;
    cs_status status = cs_blobs_read_offset(path, &offset, &wall_ms);
    return status == CS_NOT_FOUND ? cs_file_remove(path) : status;
}

/* All at once, so that no blob has to wait for its folder to be durable. */
static cs_status make_hash_folders(const char *folder)
{
    for (unsigned first = 0; first < 256; first++) {
        CS_AUTO(cs_string) path = cs_format("%s/%02x", folder, first);
        CS_TRY(cs_folder_make_unsynced(path, 0700));
    }
    return cs_file_sync_folder(folder);
}

cs_status cs_blobs_open(const char *folder, cs_blobs **ret)
{
    CS_AUTO_PTR(cs_blobs) blobs = cs_alloc(sizeof *blobs);
    pthread_mutex_init(&blobs->lists_mutex, NULL);
    pthread_mutex_init(&blobs->sync_mutex, NULL);
    cs_condition_init(&blobs->sync_wanted);
    blobs->folder = cs_strdup(folder);
    blobs->partial_folder = cs_path_join(folder, PARTIAL_FOLDER);
    blobs->opened_ms = cs_clock_monotonic_ms();
    CS_TRY(cs_folder_make(blobs->partial_folder, 0700));
    CS_TRY(make_hash_folders(folder));
    CS_TRY(cs_folder_list(blobs->partial_folder, sweep_partial, blobs));
    *ret = CS_TAKE(blobs);
    return CS_OK;
}

void cs_blobs_free(cs_blobs *blobs)
{
    if (!blobs)
        return;
    assert(!blobs->slots);
    cs_blobs_stop_syncers(blobs);
    for (size_t i = 0; i < CS_BLOBS_KNOWN_BUCKETS; i++) {
        for (struct cs_blobs_known *entry = blobs->known[i], *next = NULL; entry; entry = next) {
            next = entry->next;
            cs_free(entry);
        }
    }
    pthread_mutex_destroy(&blobs->lists_mutex);
    pthread_mutex_destroy(&blobs->sync_mutex);
    pthread_cond_destroy(&blobs->sync_wanted);
    cs_free(blobs->partial_folder);
    cs_free(blobs->folder);
    cs_free(blobs);
}

/* ---- read ---- */

cs_status cs_blobs_open_read(cs_blobs *blobs, const cs_hash *hash, cs_fd *ret, uint64_t *ret_size)
{
    CS_AUTO(cs_string) path = cs_blobs_path(blobs, hash);
    CS_AUTO(cs_fd) fd = -1;
    cs_status status = cs_file_open(path, O_RDONLY | O_NOFOLLOW, 0, &fd);
    if (status == CS_NOT_FOUND) {
        char text[CS_HASH_TEXT_BYTES];
        cs_hash_text(hash, text);
        return cs_fail(CS_NOT_FOUND, "there is no blob %s", text);
    }
    CS_TRY(status);
    CS_TRY(cs_file_size(fd, ret_size));
    *ret = fd;
    fd = -1;
    return CS_OK;
}

bool cs_blobs_has(cs_blobs *blobs, const cs_hash *hash, uint64_t *ret_size)
{
    CS_AUTO(cs_fd) fd = -1;
    uint64_t size = 0;
    if (cs_blobs_open_read(blobs, hash, &fd, &size) != CS_OK)
        return false;
    if (ret_size)
        *ret_size = size;
    return true;
}

bool cs_blobs_welcome(cs_blobs *blobs, const cs_hash *hash, uint64_t *ret_size)
{
    /* Under the mutex, so that collect cannot remove it between the look and the note. */
    pthread_mutex_lock(&blobs->lists_mutex);
    bool is_there = cs_blobs_has(blobs, hash, ret_size);
    if (is_there)
        note_arrival(blobs, hash);
    pthread_mutex_unlock(&blobs->lists_mutex);
    return is_there;
}

/* ---- write ---- */

cs_status cs_blobs_sync_name(cs_blobs *blobs, const cs_hash *hash)
{
    CS_AUTO(cs_string) folder = folder_of(blobs, hash);
    return cs_file_sync_folder(folder);
}

cs_status cs_blobs_install(cs_blobs *blobs, const char *path, const cs_hash *hash)
{
    CS_AUTO(cs_string) target = cs_blobs_path(blobs, hash);
    CS_FAILPOINT("blobs.rename");
    /* First the note, then the name: collect must never see one without the other. */
    pthread_mutex_lock(&blobs->lists_mutex);
    note_arrival(blobs, hash);
    pthread_mutex_unlock(&blobs->lists_mutex);
    CS_TRY(cs_file_rename(path, target));
    CS_FAILPOINT("blobs.renamed");
    return CS_OK;
}

static char *tmp_path(const cs_blobs *blobs)
{
    uint64_t number = 0;
    cs_random_bytes(&number, sizeof number);
    return cs_format("%s/%016" PRIx64 TMP_SUFFIX, blobs->partial_folder, number);
}

static cs_status write_tmp(const char *path, cs_bytes bytes)
{
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(cs_file_open(path, O_WRONLY | O_CREAT | O_EXCL, 0600, &fd));
    CS_TRY(cs_file_write(fd, bytes.data, bytes.size));
    CS_TRY(cs_file_sync_data(fd));
    return cs_file_close(&fd);
}

cs_status cs_blobs_put(cs_blobs *blobs, cs_bytes bytes, cs_hash *ret)
{
    CS_FAILPOINT("blobs.put");
    cs_hash hash = cs_sha256(bytes);
    *ret = hash;
    if (cs_blobs_welcome(blobs, &hash, NULL))
        return cs_blobs_sync_name(blobs, &hash);
    CS_AUTO(cs_string) path = tmp_path(blobs);
    cs_status status = write_tmp(path, bytes);
    if (status == CS_OK)
        status = cs_blobs_install(blobs, path, &hash);
    if (status != CS_OK) {
        status = cs_wrap(status, "storing a blob of %zu bytes", bytes.size);
        CS_IGNORE(cs_file_remove(path), "swept when the store is opened");
    }
    return status;
}

/* The copy must be what was hashed, though the source could have changed in between. */
static cs_status copy_tmp(const char *source, const char *path, const cs_hash *expected)
{
    CS_AUTO(cs_fd) from = -1;
    CS_AUTO(cs_fd) to = -1;
    CS_TRY(cs_file_open(source, O_RDONLY, 0, &from));
    CS_TRY(cs_file_open(path, O_WRONLY | O_CREAT | O_EXCL, 0600, &to));
    CS_AUTO_PTR(cs_digest) digest = cs_digest_new();
    CS_AUTO(cs_buffer) chunk = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&chunk, COPY_BYTES);
    size_t size = 0;
    do {
        CS_TRY(cs_file_read(from, chunk.data, COPY_BYTES, &size));
        cs_digest_add(digest, chunk.data, size);
        CS_TRY(cs_file_write(to, chunk.data, size));
    } while (size > 0);
    CS_TRY(cs_file_sync_data(to));
    cs_hash hash = cs_digest_end(digest);
    if (!cs_hash_equal(&hash, expected))
        return cs_fail(CS_DATA_LOSS, "%s changed while it was copied", source);
    return cs_file_close(&to);
}

static cs_status adopt_copy(cs_blobs *blobs, const char *source, const cs_hash *hash)
{
    CS_AUTO(cs_string) path = tmp_path(blobs);
    cs_status status = copy_tmp(source, path, hash);
    if (status == CS_OK)
        status = cs_blobs_install(blobs, path, hash);
    if (status != CS_OK) {
        CS_IGNORE(cs_file_remove(path), "swept when the store is opened");
        return status;
    }
    return cs_file_remove(source);
}

static cs_status make_durable(const char *path)
{
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(cs_file_open(path, O_RDONLY | O_NOFOLLOW, 0, &fd));
    return cs_file_sync(fd);
}

cs_status cs_blobs_adopt_hashed(cs_blobs *blobs, const char *path, const cs_hash *hash)
{
    CS_FAILPOINT("blobs.adopt");
    CS_TRY(make_durable(path));
    if (cs_blobs_welcome(blobs, hash, NULL)) {
        CS_TRY(cs_blobs_sync_name(blobs, hash));
        return cs_file_remove(path);
    }
    cs_status status = cs_blobs_install(blobs, path, hash);
    /* Another file system, most likely: then a copy works, else it fails with the better sentence. */
    if (status == CS_DENIED && cs_file_exists(path))
        status = adopt_copy(blobs, path, hash);
    return status;
}

cs_status cs_blobs_adopt(cs_blobs *blobs, const char *path, cs_hash *ret, uint64_t *ret_size)
{
    CS_TRY(cs_sha256_file(path, ret, ret_size));
    return cs_blobs_adopt_hashed(blobs, path, ret);
}

/* ---- throw away ---- */

static cs_status remove_locked(cs_blobs *blobs, const cs_hash *hash)
{
    CS_FAILPOINT("blobs.remove");
    CS_AUTO(cs_string) path = cs_blobs_path(blobs, hash);
    CS_TRY(cs_file_remove(path));
    known_forget(blobs, hash);
    return CS_OK;
}

cs_status cs_blobs_remove(cs_blobs *blobs, const cs_hash *hash)
{
    pthread_mutex_lock(&blobs->lists_mutex);
    cs_status status = remove_locked(blobs, hash);
    pthread_mutex_unlock(&blobs->lists_mutex);
    return status;
}

struct collection {
    cs_blobs *blobs;
    bool (*is_needed)(void *self, const cs_hash *hash);
    void *self;
    int64_t partial_age_ms;
    uint64_t removed;
    const char *folder; /* the two hex digits of the folder being walked */
};

/* Between arriving and being referred to there is a gap (an upload ends, its result comes later), so what has never
 * been seen in use is spared for a while. What was in use once and is not any more goes at once. */
static bool may_go(const cs_blobs *blobs, const struct cs_blobs_known *entry)
{
    if (entry && entry->was_needed)
        return true;
    int64_t arrived_ms = entry ? entry->arrived_ms : blobs->opened_ms;
    return cs_clock_monotonic_ms() - arrived_ms >= CS_BLOB_GRACE_MS;
}

static cs_status collect_blob(void *self, const char *name)
{
    struct collection *collection = self;
    cs_blobs *blobs = collection->blobs;
    cs_hash hash;
    bool is_blob = strlen(name) == CS_HASH_HEX_BYTES - 1 && strncmp(name, collection->folder, 2) == 0 &&
                   cs_hex_decode(name, strlen(name), "blob", hash.bytes, sizeof hash.bytes) == CS_OK;
    if (!is_blob)
        return CS_OK;

    bool is_needed = collection->is_needed(collection->self, &hash);
    cs_status status = CS_OK;
    pthread_mutex_lock(&blobs->lists_mutex);
    if (is_needed) {
        known_make(blobs, &hash)->was_needed = true;
    } else if (may_go(blobs, *known_place(blobs, &hash))) {
        status = remove_locked(blobs, &hash);
        collection->removed += status == CS_OK;
    }
    pthread_mutex_unlock(&blobs->lists_mutex);
    return status;
}

static cs_status collect_folder(void *self, const char *name)
{
    struct collection *collection = self;
    uint8_t first = 0;
    if (strlen(name) != 2 || cs_hex_decode(name, 2, "folder", &first, 1) != CS_OK)
        return CS_OK;
    CS_AUTO(cs_string) path = cs_path_join(collection->blobs->folder, name);
    collection->folder = name;
    return cs_folder_list(path, collect_blob, collection);
}

static bool is_in_use(const cs_blobs *blobs, const char *partial_name)
{
    for (const struct cs_blobs_slot *slot = blobs->slots; slot; slot = slot->next) {
        if (strcmp(slot->name, partial_name) == 0)
            return true;
    }
    return false;
}

static cs_status remove_old_partial(const struct collection *collection, const char *name)
{
    CS_AUTO(cs_string) path = cs_path_join(collection->blobs->partial_folder, name);
    CS_AUTO(cs_string) offset_path = cs_format("%s" CS_BLOBS_OFFSET_SUFFIX, path);
    uint64_t offset = 0;
    int64_t wall_ms = 0;
    cs_status status = cs_blobs_read_offset(path, &offset, &wall_ms);
    if (status == CS_OK && cs_clock_wall_ms() - wall_ms < collection->partial_age_ms)
        return CS_OK;
    /* Without a record nothing of it is durable: nobody can go on there. */
    if (status != CS_OK && status != CS_NOT_FOUND)
        return status;
    CS_TRY(cs_file_remove(path));
    return cs_file_remove(offset_path);
}

static cs_status collect_partial(void *self, const char *name)
{
    struct collection *collection = self;
    cs_blobs *blobs = collection->blobs;
    if (ends_with(name, TMP_SUFFIX) || ends_with(name, CS_BLOBS_OFFSET_SUFFIX))
        return CS_OK;
    pthread_mutex_lock(&blobs->lists_mutex);
    cs_status status = is_in_use(blobs, name) ? CS_OK : remove_old_partial(collection, name);
    pthread_mutex_unlock(&blobs->lists_mutex);
    return status;
}

cs_status cs_blobs_collect(cs_blobs *blobs, bool (*is_needed)(void *self, const cs_hash *hash), void *self,
                           int64_t partial_age_ms, uint64_t *ret_removed)
{
    CS_FAILPOINT("blobs.collect");
    struct collection collection = {blobs, is_needed, self, partial_age_ms, 0, NULL};
    cs_status status = cs_folder_list(blobs->folder, collect_folder, &collection);
    if (status == CS_OK)
        status = cs_folder_list(blobs->partial_folder, collect_partial, &collection);
    if (ret_removed)
        *ret_removed = collection.removed;
    return status;
}
