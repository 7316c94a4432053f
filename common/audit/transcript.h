/* The transcript: one record for every decision and for everything that leaves the building, as leaves of a Merkle tree
 * (RFC 6962 section 2). A record is one line of JSON in transcript.jsonl; its leaf hash is SHA-256(0x00 ‖ line without
 * the line feed). Owner's thread only, except where said. */
#ifndef CS_AUDIT_TRANSCRIPT_H
#define CS_AUDIT_TRANSCRIPT_H

#include "common/base/json.h"
#include "common/crypto/digest.h"

#define CS_RECORD_MAX_BYTES     (16 * 1024) /* a line without its line feed */
#define CS_RECORD_KIND_MAX      63          /* [a-z0-9_] */
#define CS_RECORD_KEY_MAX_BYTES 255

/* The tree alone. Leaves are added, never changed. */
typedef struct cs_merkle cs_merkle;
cs_merkle *cs_merkle_new(void);
void cs_merkle_free(cs_merkle *tree);
CS_DEFINE_AUTO_PTR(cs_merkle)
/* SHA-256(0x00 ‖ leaf) */
cs_hash cs_merkle_leaf(cs_bytes leaf);
void cs_merkle_add(cs_merkle *tree, cs_bytes leaf);
uint64_t cs_merkle_size(const cs_merkle *tree);
/* Root of the first `size` leaves (of all, if there are fewer); of none: SHA-256 of nothing. */
cs_hash cs_merkle_root(const cs_merkle *tree, uint64_t size);
/* RFC 6962 2.1.1 and 2.1.2; paths are appended to `ret` (32 bytes each). CS_RANGE beyond the tree. From the empty tree
 * and from a tree to itself the consistency path is empty. */
CS_MUST_CHECK cs_status cs_merkle_inclusion(const cs_merkle *tree, uint64_t index, uint64_t size, cs_buffer *ret);
CS_MUST_CHECK cs_status cs_merkle_consistency(const cs_merkle *tree, uint64_t old_size, uint64_t size, cs_buffer *ret);
/* `leaf` is the leaf's hash. */
bool cs_merkle_verify_inclusion(const cs_hash *leaf, uint64_t index, uint64_t size, cs_bytes path, const cs_hash *root);
bool cs_merkle_verify_consistency(uint64_t old_size, const cs_hash *old_root, uint64_t size, const cs_hash *root,
                                  cs_bytes path);

typedef struct cs_transcript cs_transcript;
/* Opens or makes FOLDER/transcript.jsonl (0600); a torn last line (never acknowledged) is cut off; a damaged line
 * before that is CS_DATA_LOSS naming it. One process at a time. */
CS_MUST_CHECK cs_status cs_transcript_open(const char *folder, cs_transcript **ret);
void cs_transcript_free(cs_transcript *transcript);
CS_DEFINE_AUTO_PTR(cs_transcript)
/* A record: {"index":…,"time":"…","kind":"update_sent",<fields>}. Durable on return. Any thread (locked inside).
 * `fields`: what a cs_json wrote as one object, "{…}", whose first key is not "key"; may be empty. No patient data, no
 * paths. CS_INVALID for a record that is too long or would not be one line; after any other failure nothing was
 * recorded and the same call may be made again. ret_index may be NULL. */
CS_MUST_CHECK cs_status cs_transcript_append(cs_transcript *transcript, const char *kind, cs_bytes fields,
                                             uint64_t *ret_index);
/* The same record is appended once, however often the caller repeats it after a crash: `key` (unique in this
 * transcript) is stored as "key", right after the kind; a second append with it changes nothing. Any thread. */
CS_MUST_CHECK cs_status cs_transcript_append_once(cs_transcript *transcript, const char *kind, const char *key,
                                                  cs_bytes fields);
/* The same for several at once, with one fsync: all of them are recorded, in order, or none. Any thread. */
typedef struct cs_record {
    const char *kind, *key;
    cs_bytes fields;
} cs_record;
CS_MUST_CHECK cs_status cs_transcript_append_all(cs_transcript *transcript, const cs_record *records, size_t count);
/* Any thread. */
void cs_transcript_head(cs_transcript *transcript, uint64_t *ret_size, cs_hash *ret_root);
/* Free with cs_free. */
char *cs_transcript_path(const cs_transcript *transcript);

#endif
