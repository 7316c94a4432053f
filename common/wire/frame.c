/* Messages behind their length on sockets and pipes: agent and worker, agent and its commands. A descriptor is read by
 * one thread and written by one thread at a time. */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/wire/wire.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define FRAME_HEADER_BYTES 4

static cs_status wait_readable(int fd, int64_t until_ms)
{
    for (;;) {
        int64_t remaining_ms = until_ms < 0 ? -1 : until_ms - cs_clock_monotonic_ms();
        if (until_ms >= 0 && remaining_ms <= 0)
            remaining_ms = 0;
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        int ready = poll(&poll_fd, 1, (int)CS_MIN(remaining_ms, (int64_t)INT_MAX));
        if (ready > 0)
            return CS_OK;
        if (ready < 0 && errno != EINTR)
            return cs_fail_errno("wait for a frame");
        if (until_ms >= 0 && cs_clock_monotonic_ms() >= until_ms)
            return cs_fail(CS_DEADLINE, "no whole frame came in time");
    }
}

/* CS_DONE when the other side has closed before the first of these bytes. read(2) itself, because cs_file_read waits,
 * without a deadline, until it has everything. */
static cs_status read_part(int fd, void *data, size_t size, int64_t until_ms)
{
    for (size_t done = 0; done < size;) {
        CS_TRY(wait_readable(fd, until_ms));
        ssize_t got = read(fd, (uint8_t *)data + done, size - done);
        if (got < 0 && errno != EINTR)
            return cs_fail_errno("read a frame");
        if (got == 0)
            return done == 0 ? CS_DONE : cs_fail(CS_DATA_LOSS, "a frame ends after %zu of %zu bytes", done, size);
        done += got > 0 ? (size_t)got : 0;
    }
    return CS_OK;
}

cs_status cs_frame_read(int fd, size_t max_bytes, int64_t until_ms, cs_buffer *ret)
{
    cs_buffer_reset(ret);
    uint8_t header[FRAME_HEADER_BYTES];
    CS_TRY(read_part(fd, header, sizeof header, until_ms));
    size_t size = cs_load_be32(header);
    if (size > max_bytes)
        return cs_fail(CS_INVALID, "a frame of %zu bytes, at most %zu are read", size, max_bytes);
    CS_TRY(cs_buffer_reserve_peer(ret, size, "a frame"));
    cs_status status = read_part(fd, ret->data, size, until_ms);
    if (status == CS_DONE)
        return cs_fail(CS_DATA_LOSS, "a frame ends after 0 of %zu bytes", size);
    CS_TRY(status);
    ret->size = size;
    ret->data[size] = 0;
    return CS_OK;
}

/* A peer that died must not kill the writer with SIGPIPE; pipes and files cannot say so and go the usual way. */
static cs_status write_part(int fd, const void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t sent = send(fd, (const uint8_t *)data + done, size - done, MSG_NOSIGNAL);
        if (sent < 0 && errno == ENOTSOCK)
            return cs_file_write(fd, (const uint8_t *)data + done, size - done);
        if (sent < 0 && errno != EINTR)
            return cs_fail_errno("write a frame");
        done += sent > 0 ? (size_t)sent : 0;
    }
    return CS_OK;
}

cs_status cs_frame_write(int fd, cs_bytes bytes)
{
    if (bytes.size > UINT32_MAX)
        return cs_fail(CS_INVALID, "a frame of %zu bytes does not fit behind its length", bytes.size);
    uint8_t header[FRAME_HEADER_BYTES];
    cs_store_be32(header, (uint32_t)bytes.size);
    CS_TRY(write_part(fd, header, sizeof header));
    return write_part(fd, bytes.data, bytes.size);
}

cs_status cs_frame_read_message(int fd, const ProtobufCMessageDescriptor *type, int64_t until_ms, cs_arena *arena,
                                ProtobufCMessage **ret)
{
    CS_AUTO(cs_buffer) frame = CS_BUFFER_EMPTY;
    CS_TRY(cs_frame_read(fd, CS_WIRE_MESSAGE_MAX_BYTES, until_ms, &frame));
    return cs_wire_unpack(type, cs_buffer_view(&frame), arena, ret);
}

cs_status cs_frame_write_message(int fd, const ProtobufCMessage *message)
{
    CS_AUTO(cs_buffer) frame = CS_BUFFER_EMPTY;
    cs_wire_pack(message, &frame);
    return cs_frame_write(fd, cs_buffer_view(&frame));
}
