/* Content-addressed files: a blob is named by its SHA-256. Transfers resume; what is acknowledged is durable. Used by
 * the coordinator and by agents. Any thread; one upload belongs to one thread at a time. */
#ifndef CS_BLOBS_BLOBS_H
#define CS_BLOBS_BLOBS_H

#include "common/base/file.h"
#include "common/crypto/digest.h"

#define CS_BLOB_ACK_BYTES (4 * 1024 * 1024)
#define CS_BLOB_ACK_MS    2000
/* More than this is not taken ahead of the disk. */
#define CS_BLOB_UNSYNCED_BYTES (4 * CS_BLOB_ACK_BYTES)
/* How long collect spares a blob that has arrived (or that was there when the store was opened) and has not been seen
 * in use yet: long enough for a site to reconnect and report the result that the blob belongs to. */
#define CS_BLOB_GRACE_MS (60 * 60 * 1000)

typedef struct cs_blobs cs_blobs;
/* Makes `folder` and its parts; removes what a crash left behind that nobody can use. One process at a time. */
CS_MUST_CHECK cs_status cs_blobs_open(const char *folder, cs_blobs **ret);
void cs_blobs_free(cs_blobs *blobs);
CS_DEFINE_AUTO_PTR(cs_blobs)

/* What is there at this moment. A blob that nothing refers to may be collected afterwards; cs_upload_open, cs_blobs_put
 * and cs_blobs_adopt protect theirs, also when it was there already. ret_size may be NULL. */
bool cs_blobs_has(cs_blobs *blobs, const cs_hash *hash, uint64_t *ret_size);
/* CS_NOT_FOUND names the hash. */
CS_MUST_CHECK cs_status cs_blobs_open_read(cs_blobs *blobs, const cs_hash *hash, cs_fd *ret, uint64_t *ret_size);
/* Where it lies; free with cs_free. The file may be read, never written. */
char *cs_blobs_path(cs_blobs *blobs, const cs_hash *hash);
CS_MUST_CHECK cs_status cs_blobs_put(cs_blobs *blobs, cs_bytes bytes, cs_hash *ret);
/* Takes a finished file in by rename (same file system) or copy; the source is gone afterwards. Nobody may have it open
 * for writing: what a less trusted process wrote comes in through an upload. */
CS_MUST_CHECK cs_status cs_blobs_adopt(cs_blobs *blobs, const char *path, cs_hash *ret, uint64_t *ret_size);
/* The same for a file that the caller hashed while writing it, where nobody else can write. */
CS_MUST_CHECK cs_status cs_blobs_adopt_hashed(cs_blobs *blobs, const char *path, const cs_hash *hash);
CS_MUST_CHECK cs_status cs_blobs_remove(cs_blobs *blobs, const cs_hash *hash);
/* Removes every blob for which is_needed says no, and partial uploads that nobody works on and whose last durable bytes
 * are older than partial_age_ms. A blob that no collect of this process has seen needed since it arrived is spared for
 * CS_BLOB_GRACE_MS; one that was needed and is not any more goes at once. is_needed runs on the caller's thread; new
 * references to blobs that did not just arrive must be made on that thread too. ret_removed may be NULL. */
CS_MUST_CHECK cs_status cs_blobs_collect(cs_blobs *blobs, bool (*is_needed)(void *self, const cs_hash *hash),
                                         void *self, int64_t partial_age_ms, uint64_t *ret_removed);

/* One incoming blob. `owner` (a site, or "self") keeps the partial files of two senders apart. If a partial file is
 * there, its durable bytes are kept and hashed, and *ret_offset says where to go on; if the blob is whole already,
 * *ret_offset == size and finish succeeds at once. A second upload by the same owner of the same hash takes the partial
 * file over: the first gets CS_ABORTED from then on. CS_INVALID when the blob is there with another size or `owner` is
 * no name. Blocks while the durable bytes are hashed (about 1 s for a gigabyte or two). */
typedef struct cs_upload cs_upload;
CS_MUST_CHECK cs_status cs_upload_open(cs_blobs *blobs, const char *owner, const cs_hash *hash, uint64_t size,
                                       cs_upload **ret, uint64_t *ret_offset);
/* CS_INVALID when `offset` is not where the file ends or more than `size` bytes come. */
CS_MUST_CHECK cs_status cs_upload_append(cs_upload *upload, uint64_t offset, const void *data, size_t size);
/* True every CS_BLOB_ACK_BYTES or CS_BLOB_ACK_MS since the last sync, and at the end. */
bool cs_upload_is_due(const cs_upload *upload);
/* Makes what came durable and says how much that is. Once all bytes are there it stores the blob, and fails as
 * cs_upload_finish does. After a failure only cs_upload_free and a new cs_upload_open go on. */
CS_MUST_CHECK cs_status cs_upload_sync(cs_upload *upload, uint64_t *ret_durable_offset);
/* The same on a thread of the store, while more bytes come: `is_due` and not under way yet, or nothing happens. Bytes
 * that come meanwhile are taken care of too once they are due. */
void cs_upload_sync_later(cs_upload *upload);
/* Called, on a thread of the store, each time the state below has changed; set before the first cs_upload_sync_later.
 * cs_upload_free waits for a call under way: whatever it does must not wait for the thread that frees. */
void cs_upload_on_synced(cs_upload *upload, void (*on_synced)(void *self), void *self);
/* How much is durable, and whether the blob is in the store. As cs_upload_sync when that failed. */
CS_MUST_CHECK cs_status cs_upload_synced(cs_upload *upload, uint64_t *ret_durable_offset, bool *ret_is_stored);
/* False while CS_BLOB_UNSYNCED_BYTES are not durable yet and being made so: append no more, wait for on_synced, or with
 * cs_upload_wait, which returns when that is over. */
bool cs_upload_has_room(cs_upload *upload);
void cs_upload_wait(cs_upload *upload);
/* CS_DATA_LOSS when the bytes have another hash (the partial file is removed), CS_INVALID when they are too few. After
 * other failures as cs_upload_sync. The second time it is CS_OK and changes nothing. */
CS_MUST_CHECK cs_status cs_upload_finish(cs_upload *upload);
/* Keeps the partial file. */
void cs_upload_free(cs_upload *upload);
CS_DEFINE_AUTO_PTR(cs_upload)

#endif
