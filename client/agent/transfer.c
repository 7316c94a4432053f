/* FetchBlob and StoreBlob from the site's end. See transfer.h for the threads. */
#include "client/agent/transfer.h"

#include "common/base/clock.h"
#include "common/base/failpoint.h"

#include <pthread.h>
#include <stdatomic.h>

#define FETCH_PATH "/consilium.v1.Federation/FetchBlob"
#define STORE_PATH "/consilium.v1.Federation/StoreBlob"
/* One chunk and its message. */
#define CHUNK_ARENA_BYTES (4 * 1024 * 1024)
#define SELF              "self"

struct cs_transfer {
    cs_blobs *blobs;
    pthread_mutex_t stream_lock;
    cs_rpc_stream *stream;    /* guarded by stream_lock: the one under way */
    bool is_stopped;          /* guarded by stream_lock */
    _Atomic int64_t moved_ms; /* when the last chunk went or came */
    atomic_uint_least64_t received, sent;
};

cs_transfer *cs_transfer_new(cs_blobs *blobs)
{
    cs_transfer *transfer = cs_alloc(sizeof(*transfer));
    transfer->blobs = blobs;
    pthread_mutex_init(&transfer->stream_lock, NULL);
    return transfer;
}

void cs_transfer_free(cs_transfer *transfer)
{
    if (transfer == NULL)
        return;
    pthread_mutex_destroy(&transfer->stream_lock);
    cs_free(transfer);
}

void cs_transfer_bytes(const cs_transfer *transfer, uint64_t *ret_received, uint64_t *ret_sent)
{
    *ret_received = atomic_load(&transfer->received);
    *ret_sent = atomic_load(&transfer->sent);
}

void cs_transfer_stop(cs_transfer *transfer)
{
    pthread_mutex_lock(&transfer->stream_lock);
    transfer->is_stopped = true;
    if (transfer->stream != NULL)
        cs_rpc_stream_cancel(transfer->stream);
    pthread_mutex_unlock(&transfer->stream_lock);
}

static void has_moved(cs_transfer *transfer)
{
    atomic_store(&transfer->moved_ms, cs_clock_monotonic_ms());
}

void cs_transfer_end_hanging(cs_transfer *transfer)
{
    pthread_mutex_lock(&transfer->stream_lock);
    if (transfer->stream != NULL &&
        cs_clock_monotonic_ms() - atomic_load(&transfer->moved_ms) >= cs_network_ms(CS_TRANSFER_HANGS_MS))
        cs_rpc_stream_cancel(transfer->stream);
    pthread_mutex_unlock(&transfer->stream_lock);
}

/* Opens a stream that cs_transfer_stop can end. */
static cs_status open_stream(cs_transfer *transfer, cs_link *link, const char *path,
                             const ProtobufCMessageDescriptor *answer, cs_rpc_stream **ret)
{
    CS_AUTO_PTR(cs_rpc_stream) stream = NULL;
    CS_TRY(cs_rpc_stream_open(link->bulk, path, answer, 0, &stream));
    has_moved(transfer);
    pthread_mutex_lock(&transfer->stream_lock);
    const bool is_stopped = transfer->is_stopped;
    if (!is_stopped)
        transfer->stream = *ret = CS_TAKE(stream);
    pthread_mutex_unlock(&transfer->stream_lock);
    return is_stopped ? cs_fail(CS_CANCELLED, "the agent is stopping") : CS_OK;
}

static void close_stream(cs_transfer *transfer)
{
    pthread_mutex_lock(&transfer->stream_lock);
    cs_rpc_stream_free(transfer->stream);
    transfer->stream = NULL;
    pthread_mutex_unlock(&transfer->stream_lock);
}

static int64_t patience(void)
{
    return cs_clock_monotonic_ms() + cs_network_ms(CS_TRANSFER_SILENCE_MS);
}

/* CS_DONE from a write means that the other side has ended the call: its status says why. */
static cs_status why_it_ended(cs_rpc_stream *stream)
{
    for (;;) {
        CS_AUTO_PTR(cs_arena) arena = cs_arena_new(CHUNK_ARENA_BYTES);
        ProtobufCMessage *ignored = NULL;
        const cs_status status = cs_rpc_stream_read(stream, patience(), arena, &ignored);
        if (status == CS_DONE)
            return cs_fail(CS_UNAVAILABLE, "the coordinator ended the transfer early");
        CS_TRY(status);
    }
}

static cs_status write_message(cs_rpc_stream *stream, const ProtobufCMessage *message)
{
    const cs_status status = cs_rpc_stream_write(stream, message);
    return status == CS_DONE ? why_it_ended(stream) : status;
}

static cs_status take_chunk(cs_upload *upload, const Consilium__V1__BlobChunk *chunk, uint64_t size, uint64_t *offset)
{
    if (chunk->offset != *offset)
        return cs_fail(CS_INVALID, "blob chunk at %llu, expected %llu", (unsigned long long)chunk->offset,
                       (unsigned long long)*offset);
    if (chunk->data.len > CS_WIRE_CHUNK_BYTES || chunk->data.len > size - *offset)
        return cs_fail(CS_INVALID, "blob chunk of %zu bytes at %llu of %llu", chunk->data.len,
                       (unsigned long long)*offset, (unsigned long long)size);
    cs_upload_wait(upload);
    CS_TRY(cs_upload_append(upload, *offset, chunk->data.data, chunk->data.len));
    *offset += chunk->data.len;
    cs_upload_sync_later(upload);
    CS_FAILPOINT("agent.fetch.chunk");
    return CS_OK;
}

static cs_status receive(cs_transfer *transfer, cs_rpc_stream *stream, cs_upload *upload, uint64_t size,
                         uint64_t offset, cs_transfer_progress progress, void *self)
{
    bool is_first = true;
    while (is_first || offset < size) {
        CS_AUTO_PTR(cs_arena) arena = cs_arena_new(CHUNK_ARENA_BYTES);
        ProtobufCMessage *message = NULL;
        const cs_status status = cs_rpc_stream_read(stream, patience(), arena, &message);
        if (status == CS_DONE)
            return cs_fail(CS_UNAVAILABLE, "the blob ended after %llu of %llu bytes", (unsigned long long)offset,
                           (unsigned long long)size);
        CS_TRY(status);
        const Consilium__V1__BlobChunk *chunk = (const Consilium__V1__BlobChunk *)message;
        if (is_first) {
            uint32_t minor = 0;
            uint64_t features = 0;
            CS_TRY(cs_wire_agree(chunk->hello, &minor, &features));
            if (chunk->size != size)
                return cs_fail(CS_INVALID, "the blob has %llu bytes, the task says %llu",
                               (unsigned long long)chunk->size, (unsigned long long)size);
        }
        /* The first message may be only the greeting. */
        if (!is_first || chunk->data.len > 0)
            CS_TRY(take_chunk(upload, chunk, size, &offset));
        atomic_fetch_add(&transfer->received, (uint64_t)chunk->data.len);
        is_first = false;
        has_moved(transfer);
        if (!progress(self, offset, size))
            return cs_fail(CS_CANCELLED, "the task was cancelled");
    }
    return CS_OK;
}

cs_status cs_transfer_fetch(cs_transfer *transfer, cs_link *link, const Consilium__V1__TaskKey *task,
                            const Consilium__V1__Blob *blob, cs_transfer_progress progress, void *self)
{
    cs_hash hash;
    CS_TRY(cs_hash_from(cs_wire_bytes(blob->sha256), blob->name, &hash));
    if (cs_blobs_has(transfer->blobs, &hash, NULL))
        return CS_OK;
    CS_AUTO_PTR(cs_upload) upload = NULL;
    uint64_t offset = 0;
    CS_TRY(cs_upload_open(transfer->blobs, SELF, &hash, blob->size, &upload, &offset));
    if (offset < blob->size || blob->size == 0) {
        Consilium__V1__FetchBlobRequest request = CONSILIUM__V1__FETCH_BLOB_REQUEST__INIT;
        request.hello = cs_wire_hello();
        request.task = (Consilium__V1__TaskKey *)(uintptr_t)task;
        request.sha256 = cs_wire_data(hash.bytes, sizeof(hash.bytes));
        request.offset = offset;
        cs_rpc_stream *stream = NULL;
        CS_TRY(open_stream(transfer, link, FETCH_PATH, &consilium__v1__blob_chunk__descriptor, &stream));
        cs_status status = write_message(stream, &request.base);
        if (status == CS_OK)
            status = cs_rpc_stream_writes_done(stream);
        if (status == CS_OK || status == CS_DONE)
            status = receive(transfer, stream, upload, blob->size, offset, progress, self);
        close_stream(transfer);
        if (status != CS_OK)
            return cs_wrap(status, "blob '%.64s'", blob->name);
    }
    CS_FAILPOINT("agent.fetch.finish");
    return cs_upload_finish(upload);
}

static cs_status read_ack(cs_rpc_stream *stream, cs_arena *arena, Consilium__V1__StoreBlobAck **ret)
{
    ProtobufCMessage *message = NULL;
    const cs_status status = cs_rpc_stream_read(stream, patience(), arena, &message);
    if (status == CS_DONE)
        return cs_fail(CS_UNAVAILABLE, "the coordinator ended the transfer without saying that it is complete");
    CS_TRY(status);
    *ret = (Consilium__V1__StoreBlobAck *)message;
    return CS_OK;
}

static cs_status send_bytes(cs_transfer *transfer, cs_rpc_stream *stream, int fd, uint64_t offset, uint64_t size,
                            cs_transfer_progress progress, void *self)
{
    CS_AUTO(cs_buffer) chunk = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&chunk, CS_WIRE_CHUNK_BYTES);
    while (offset < size) {
        const size_t count = (size_t)CS_MIN(size - offset, (uint64_t)CS_WIRE_CHUNK_BYTES);
        CS_TRY(cs_file_pread_exact(fd, chunk.data, count, offset));
        Consilium__V1__StoreBlobRequest request = CONSILIUM__V1__STORE_BLOB_REQUEST__INIT;
        request.offset = offset;
        request.data = cs_wire_data(chunk.data, count);
        CS_TRY(write_message(stream, &request.base));
        offset += count;
        atomic_fetch_add(&transfer->sent, (uint64_t)count);
        CS_FAILPOINT("agent.store.chunk");
        has_moved(transfer);
        if (!progress(self, offset, size))
            return cs_fail(CS_CANCELLED, "the task was cancelled");
    }
    return cs_rpc_stream_writes_done(stream);
}

static cs_status send_blob(cs_transfer *transfer, cs_rpc_stream *stream, const Consilium__V1__TaskKey *task,
                           const Consilium__V1__Blob *blob, int fd, cs_transfer_progress progress, void *self)
{
    Consilium__V1__StoreBlobRequest request = CONSILIUM__V1__STORE_BLOB_REQUEST__INIT;
    request.hello = cs_wire_hello();
    request.task = (Consilium__V1__TaskKey *)(uintptr_t)task;
    request.sha256 = blob->sha256;
    request.size = blob->size;
    CS_TRY(write_message(stream, &request.base));

    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(CHUNK_ARENA_BYTES);
    Consilium__V1__StoreBlobAck *ack = NULL;
    CS_TRY(read_ack(stream, arena, &ack));
    uint32_t minor = 0;
    uint64_t features = 0;
    CS_TRY(cs_wire_agree(ack->hello, &minor, &features));
    if (ack->complete)
        return CS_OK;
    if (ack->durable_offset > blob->size)
        return cs_fail(CS_INVALID, "the coordinator acknowledges %llu of %llu bytes",
                       (unsigned long long)ack->durable_offset, (unsigned long long)blob->size);
    const cs_status sent = send_bytes(transfer, stream, fd, ack->durable_offset, blob->size, progress, self);
    if (sent != CS_OK && sent != CS_DONE)
        return sent;
    while (!ack->complete) {
        cs_arena_reset(arena);
        CS_TRY(read_ack(stream, arena, &ack));
        has_moved(transfer);
    }
    return CS_OK;
}

cs_status cs_transfer_store(cs_transfer *transfer, cs_link *link, const Consilium__V1__TaskKey *task,
                            const Consilium__V1__Blob *blob, cs_transfer_progress progress, void *self)
{
    cs_hash hash;
    CS_TRY(cs_hash_from(cs_wire_bytes(blob->sha256), blob->name, &hash));
    CS_AUTO(cs_fd) fd = -1;
    uint64_t size = 0;
    CS_TRY(cs_blobs_open_read(transfer->blobs, &hash, &fd, &size));
    if (size != blob->size)
        return cs_fail(CS_DATA_LOSS, "blob '%.64s' has %llu bytes here, its result says %llu", blob->name,
                       (unsigned long long)size, (unsigned long long)blob->size);
    cs_rpc_stream *stream = NULL;
    CS_TRY(open_stream(transfer, link, STORE_PATH, &consilium__v1__store_blob_ack__descriptor, &stream));
    const cs_status status = send_blob(transfer, stream, task, blob, fd, progress, self);
    close_stream(transfer);
    return status == CS_OK ? CS_OK : cs_wrap(status, "blob '%.64s'", blob->name);
}
