/* A bounded ring of pointers with a lock. Posted to by any thread, taken from by the one that owns it. */
#include "common/base/mailbox.h"

#include "common/base/clock.h"
#include "common/base/memory.h"

#include <assert.h>
#include <pthread.h>

struct cs_mailbox {
    pthread_mutex_t ring_mutex; /* guards everything below */
    pthread_cond_t has_message;
    pthread_cond_t has_room;
    void **messages;
    size_t capacity;
    size_t first;
    size_t count;
    bool is_closed;
};

cs_mailbox *cs_mailbox_new(size_t capacity)
{
    assert(capacity > 0);
    cs_mailbox *mailbox = cs_alloc(sizeof(*mailbox));
    pthread_mutex_init(&mailbox->ring_mutex, NULL);
    cs_condition_init(&mailbox->has_message);
    cs_condition_init(&mailbox->has_room);
    mailbox->messages = cs_alloc_array(capacity, sizeof(void *));
    mailbox->capacity = capacity;
    return mailbox;
}

void cs_mailbox_free(cs_mailbox *mailbox)
{
    if (mailbox == NULL)
        return;
    pthread_cond_destroy(&mailbox->has_room);
    pthread_cond_destroy(&mailbox->has_message);
    pthread_mutex_destroy(&mailbox->ring_mutex);
    cs_free(mailbox->messages);
    cs_free(mailbox);
}

static cs_status post(cs_mailbox *mailbox, void *message, bool may_wait)
{
    cs_status status = CS_OK;
    pthread_mutex_lock(&mailbox->ring_mutex);
    while (may_wait && mailbox->count == mailbox->capacity && !mailbox->is_closed)
        cs_condition_wait(&mailbox->has_room, &mailbox->ring_mutex, -1);
    if (mailbox->is_closed) {
        status = cs_fail(CS_CANCELLED, "the mailbox is closed");
    } else if (mailbox->count == mailbox->capacity) {
        status = cs_fail(CS_EXHAUSTED, "the mailbox is full: %zu messages wait", mailbox->count);
    } else {
        mailbox->messages[(mailbox->first + mailbox->count) % mailbox->capacity] = message;
        mailbox->count++;
        pthread_cond_signal(&mailbox->has_message);
    }
    pthread_mutex_unlock(&mailbox->ring_mutex);
    return status;
}

cs_status cs_mailbox_try_post(cs_mailbox *mailbox, void *message)
{
    return post(mailbox, message, false);
}

cs_status cs_mailbox_post(cs_mailbox *mailbox, void *message)
{
    return post(mailbox, message, true);
}

cs_status cs_mailbox_take(cs_mailbox *mailbox, int64_t until_ms, void **ret_message)
{
    cs_status status = CS_OK;
    pthread_mutex_lock(&mailbox->ring_mutex);
    bool is_in_time = true;
    while (mailbox->count == 0 && !mailbox->is_closed && is_in_time)
        is_in_time = cs_condition_wait(&mailbox->has_message, &mailbox->ring_mutex, until_ms);
    if (mailbox->count > 0) {
        *ret_message = mailbox->messages[mailbox->first];
        mailbox->first = (mailbox->first + 1) % mailbox->capacity;
        mailbox->count--;
        pthread_cond_signal(&mailbox->has_room);
    } else if (mailbox->is_closed) {
        status = cs_fail(CS_CANCELLED, "the mailbox is closed");
    } else {
        status = cs_fail(CS_DEADLINE, "no message came in time");
    }
    pthread_mutex_unlock(&mailbox->ring_mutex);
    return status;
}

void cs_mailbox_close(cs_mailbox *mailbox)
{
    pthread_mutex_lock(&mailbox->ring_mutex);
    mailbox->is_closed = true;
    pthread_cond_broadcast(&mailbox->has_message);
    pthread_cond_broadcast(&mailbox->has_room);
    pthread_mutex_unlock(&mailbox->ring_mutex);
}

size_t cs_mailbox_depth(cs_mailbox *mailbox)
{
    pthread_mutex_lock(&mailbox->ring_mutex);
    const size_t depth = mailbox->count;
    pthread_mutex_unlock(&mailbox->ring_mutex);
    return depth;
}
