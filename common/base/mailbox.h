/* A bounded queue of pointers from many threads to one. The door of every thread that owns state. */
#ifndef CS_BASE_MAILBOX_H
#define CS_BASE_MAILBOX_H

#include "common/base/status.h"

typedef struct cs_mailbox cs_mailbox;

cs_mailbox *cs_mailbox_new(size_t capacity);
/* Messages still inside are the owner's to take out before. */
void cs_mailbox_free(cs_mailbox *mailbox);
CS_DEFINE_AUTO_PTR(cs_mailbox)

/* CS_EXHAUSTED when full, CS_CANCELLED once closed; the message stays the caller's then. Any thread, never waits. */
CS_MUST_CHECK cs_status cs_mailbox_try_post(cs_mailbox *mailbox, void *message);
/* Waits for room; CS_CANCELLED once closed. Any thread that may wait. */
CS_MUST_CHECK cs_status cs_mailbox_post(cs_mailbox *mailbox, void *message);
/* The oldest message; waits until `until_ms` of the monotonic clock (< 0: for ever). CS_DEADLINE when none came,
 * CS_CANCELLED once closed and empty. Owner's thread only. */
CS_MUST_CHECK cs_status cs_mailbox_take(cs_mailbox *mailbox, int64_t until_ms, void **ret_message);
void cs_mailbox_close(cs_mailbox *mailbox);
/* How many messages wait at this moment. Any thread. */
size_t cs_mailbox_depth(cs_mailbox *mailbox);

#endif
