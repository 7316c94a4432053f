/* Any bytes on the control socket, or on the pair between agent and worker: each frame is a message or an error, and
 * never more is read than its length says. The first byte chooses who is listening. */
#include "common/wire/wire.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define BUDGET_BYTES (1024 * 1024)

static const ProtobufCMessageDescriptor *const types[] = {
    &consilium__v1__control_request__descriptor,
    &consilium__v1__control_answer__descriptor,
    &consilium__v1__to_worker__descriptor,
    &consilium__v1__from_worker__descriptor,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A file in memory reads like a socket whose other end has written all this and closed. */
static int stream_of(const uint8_t *data, size_t size)
{
    static int fd = -1;
    if (fd < 0)
        fd = memfd_create("frames", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size || lseek(fd, 0, SEEK_SET) != 0)
        abort();
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const ProtobufCMessageDescriptor *type = types[data[0] % CS_COUNT(types)];
    int fd = stream_of(data + 1, size - 1);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(BUDGET_BYTES);
    CS_AUTO(cs_buffer) packed = CS_BUFFER_EMPTY;
    for (;;) {
        cs_arena_reset(arena);
        ProtobufCMessage *message = NULL;
        cs_status status = cs_frame_read_message(fd, type, -1, arena, &message);
        if (status == CS_DONE && lseek(fd, 0, SEEK_CUR) != (off_t)size - 1)
            abort(); /* a clean end before the end */
        if (status != CS_OK && status != CS_DONE && status != CS_INVALID && status != CS_DATA_LOSS &&
            status != CS_EXHAUSTED)
            abort();
        if (status != CS_OK)
            return 0;
        cs_buffer_reset(&packed);
        cs_wire_pack(message, &packed);
    }
}
