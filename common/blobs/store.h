/* What the store and its uploads share. Private to this folder.
 *   FOLDER/ab/<64 hex digits>              a blob
 *   FOLDER/partial/<owner>-<hex>           bytes of an upload that has not finished
 *   FOLDER/partial/<owner>-<hex>.offset    how many of them are durable
 *   FOLDER/partial/<random>.tmp            a put or a copy in progress; removed when the store is opened */
#ifndef CS_BLOBS_STORE_H
#define CS_BLOBS_STORE_H

#include "common/blobs/blobs.h"

#include <pthread.h>

#define CS_BLOBS_OFFSET_SUFFIX ".offset"
#define CS_BLOBS_KNOWN_BUCKETS 1024

/* One for each partial file that somebody works on. */
struct cs_blobs_slot {
    struct cs_blobs_slot *next;
    char *name; /* <owner>-<hex> */
    size_t users;
    pthread_mutex_t holder_mutex;
    pthread_cond_t sync_ended; /* of any of its uploads */
    const cs_upload *holder;   /* who may write; the others have been taken over */
};

/* What collect remembers about a blob that arrived, or that was needed, while this process ran. */
struct cs_blobs_known {
    struct cs_blobs_known *next;
    cs_hash hash;
    int64_t arrived_ms;
    bool was_needed;
};

/* Fewer than disks could use, and enough that journal commits are shared. */
#define CS_BLOBS_SYNCERS 4

/* Where both mutexes are needed, a slot's comes first. */
struct cs_blobs {
    char *folder;
    char *partial_folder;
    int64_t opened_ms;
    pthread_mutex_t lists_mutex; /* slots and known */
    struct cs_blobs_slot *slots;
    struct cs_blobs_known *known[CS_BLOBS_KNOWN_BUCKETS];
    pthread_mutex_t sync_mutex; /* guards what follows; taken after a slot's */
    pthread_cond_t sync_wanted;
    cs_upload *first_to_sync, *last_to_sync;
    pthread_t syncers[CS_BLOBS_SYNCERS]; /* started when first needed */
    size_t syncers_count, syncers_idle;
    bool is_stopping;
};

/* Ends the threads of cs_upload_sync_later; all uploads are freed. */
void cs_blobs_stop_syncers(cs_blobs *blobs);

/* True when the blob is there; from now on collect spares it as one that has just arrived. */
bool cs_blobs_welcome(cs_blobs *blobs, const cs_hash *hash, uint64_t *ret_size);
/* Gives the durable file `path` its name in the store, durably. */
CS_MUST_CHECK cs_status cs_blobs_install(cs_blobs *blobs, const char *path, const cs_hash *hash);
/* Makes sure that the name of a blob that is there survives a crash. */
CS_MUST_CHECK cs_status cs_blobs_sync_name(cs_blobs *blobs, const cs_hash *hash);

/* The record beside a partial file; CS_NOT_FOUND when there is none or it is torn. */
CS_MUST_CHECK cs_status cs_blobs_read_offset(const char *partial_path, uint64_t *ret_offset, int64_t *ret_wall_ms);

#endif
