/* Blobs to and from the coordinator. Runs on the agent's transfer thread; cs_transfer_stop comes from the agent thread.
 */
#ifndef CS_AGENT_TRANSFER_H
#define CS_AGENT_TRANSFER_H

#include "client/agent/session.h"
#include "common/blobs/blobs.h"

/* A chunk of 1 MiB at the lowest rate that counts as alive, 1 KiB/s. */
#define CS_TRANSFER_SILENCE_MS (20 * 60 * 1000LL)

typedef struct cs_transfer cs_transfer;
cs_transfer *cs_transfer_new(cs_blobs *blobs);
void cs_transfer_free(cs_transfer *transfer);
/* Bytes of blobs that came and went since the start. Any thread. */
void cs_transfer_bytes(const cs_transfer *transfer, uint64_t *ret_received, uint64_t *ret_sent);
/* Nothing of a transfer has moved for so long: more than a chunk takes at 8 KB/s, less than a session takes to notice
 * that its line hangs (25 s and 120 s, common/rpc/client.c). */
#define CS_TRANSFER_HANGS_MS (140 * 1000LL)
/* A session was lost and there is a new one. If the transfer under way hangs as well it ends, with CS_CANCELLED, to go
 * on over the new connection; alone it would notice after ten minutes. Any thread. */
void cs_transfer_end_hanging(cs_transfer *transfer);
/* Ends the transfer under way and every later one with CS_CANCELLED. Any thread. */
void cs_transfer_stop(cs_transfer *transfer);

/* Tells how far it is; false: stop with CS_CANCELLED. */
typedef bool (*cs_transfer_progress)(void *self, uint64_t done, uint64_t total);

/* Makes sure that the blob is in the store; goes on where an earlier try ended. CS_DATA_LOSS when other bytes came. */
CS_MUST_CHECK cs_status cs_transfer_fetch(cs_transfer *transfer, cs_link *link, const Consilium__V1__TaskKey *task,
                                          const Consilium__V1__Blob *blob, cs_transfer_progress progress, void *self);
/* Until the coordinator said that it has it, durably. */
CS_MUST_CHECK cs_status cs_transfer_store(cs_transfer *transfer, cs_link *link, const Consilium__V1__TaskKey *task,
                                          const Consilium__V1__Blob *blob, cs_transfer_progress progress, void *self);

#endif
