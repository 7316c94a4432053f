/* Start and end of the gRPC core in this process, and what both halves of the folder use. Any thread, but for start and
 * stop. */
#include "common/rpc/core.h"

#include "common/base/log.h"

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/support/log.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

/* Every thread that receives would otherwise keep a heap of its own, each as large as its largest moment. */
#define HEAPS_MAX 2
/* Messages of a megabyte come and go: from the heap, and what they leave at its end stays for the next ones. By default
 * each would be mapped, cleared page by page and unmapped again. */
#define HEAP_MESSAGE_BYTES (4 * 1024 * 1024)
#define HEAP_SLACK_BYTES   (4 * 1024 * 1024)
/* A chunk in four pieces instead of 64: a fifth more bytes a second. Progress has a connection of its own and does not
 * wait. */
#define FRAME_BYTES (256 * 1024)

/* The core is of the opinion that much is an error; whoever owns the call says what is one. */
static void log_core(gpr_log_func_args *line)
{
    const char *file = strrchr(line->file, '/');
    cs_log(CS_LOG_DEBUG, "grpc", line->message, CS_S("file", file ? file + 1 : line->file), CS_I("line", line->line));
}

void cs_rpc_start(void)
{
    mallopt(M_ARENA_MAX, HEAPS_MAX);
    mallopt(M_MMAP_THRESHOLD, HEAP_MESSAGE_BYTES);
    mallopt(M_TRIM_THRESHOLD, HEAP_SLACK_BYTES);
    /* Names are looked up as every other program on the machine does it. */
    setenv("GRPC_DNS_RESOLVER", "native", 1);
    gpr_set_log_function(log_core);
    gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR);
    grpc_init();
}

void cs_rpc_stop(void)
{
    grpc_shutdown();
}

gpr_timespec cs_rpc_deadline(int64_t in_ms)
{
    if (in_ms < 0)
        return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(in_ms, GPR_TIMESPAN));
}

grpc_byte_buffer *cs_rpc_pack(const ProtobufCMessage *message)
{
    grpc_slice slice = grpc_slice_malloc(cs_wire_size(message));
    cs_wire_pack_to(message, GRPC_SLICE_START_PTR(slice));
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    return buffer;
}

cs_status cs_rpc_unpack(grpc_byte_buffer *buffer, const ProtobufCMessageDescriptor *type, cs_arena *arena,
                        ProtobufCMessage **ret)
{
    if (buffer->data.raw.compression != GRPC_COMPRESS_NONE)
        return cs_fail(CS_UNIMPLEMENTED, "%s: compressed messages are not read", type->name);
    grpc_byte_buffer_reader reader;
    if (!grpc_byte_buffer_reader_init(&reader, buffer))
        return cs_fail(CS_INVALID, "%s: the message cannot be read", type->name);
    /* Once from the transport's slices to where it stays. */
    const size_t size = grpc_byte_buffer_length(buffer);
    uint8_t *whole = cs_arena_alloc_unset(arena, size);
    size_t copied = 0;
    grpc_slice slice;
    while (whole && grpc_byte_buffer_reader_next(&reader, &slice)) {
        const size_t part = CS_MIN(GRPC_SLICE_LENGTH(slice), size - copied);
        memcpy(whole + copied, GRPC_SLICE_START_PTR(slice), part);
        copied += part;
        grpc_slice_unref(slice);
    }
    grpc_byte_buffer_reader_destroy(&reader);
    if (!whole)
        return cs_fail(CS_EXHAUSTED, "%s: %zu bytes do not fit in the memory set aside for a message", type->name,
                       size);
    return cs_wire_unpack_in_place(type, cs_bytes_of(whole, copied), arena, ret);
}

void cs_rpc_start_batch(grpc_call *call, const grpc_op *operations, size_t count, void *tag)
{
    grpc_call_error error = grpc_call_start_batch(call, operations, count, tag, NULL);
    if (error == GRPC_CALL_OK)
        return;
    cs_log(CS_LOG_ERROR, "rpc", "gRPC refuses a batch", CS_S("error", grpc_call_error_to_string(error)));
    abort();
}

static grpc_arg *next_argument(cs_rpc_arguments *arguments, const char *key)
{
    if (arguments->count == CS_RPC_ARGUMENTS_MAX)
        abort();
    grpc_arg *item = &arguments->items[arguments->count++];
    item->key = (char *)(uintptr_t)key;
    return item;
}

void cs_rpc_argument_int(cs_rpc_arguments *arguments, const char *key, int value)
{
    grpc_arg *item = next_argument(arguments, key);
    item->type = GRPC_ARG_INTEGER;
    item->value.integer = value;
}

void cs_rpc_argument_text(cs_rpc_arguments *arguments, const char *key, const char *value)
{
    grpc_arg *item = next_argument(arguments, key);
    item->type = GRPC_ARG_STRING;
    item->value.string = (char *)(uintptr_t)value;
}

void cs_rpc_arguments_common(cs_rpc_arguments *arguments)
{
    cs_rpc_argument_int(arguments, GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, CS_WIRE_MESSAGE_MAX_BYTES);
    cs_rpc_argument_int(arguments, GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, CS_WIRE_MESSAGE_MAX_BYTES);
    /* Bounds what a stream holds while its handler is slow: not what the link could carry. Half a chunk beyond the
     * message that is being read: a whole one costs 0.4 MB more for every uploading site and is no faster. */
    cs_rpc_argument_int(arguments, GRPC_ARG_HTTP2_BDP_PROBE, 0);
    cs_rpc_argument_int(arguments, GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, CS_WIRE_CHUNK_BYTES / 2);
    cs_rpc_argument_int(arguments, GRPC_ARG_HTTP2_MAX_FRAME_SIZE, FRAME_BYTES);
    cs_rpc_argument_int(arguments, GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0);
    cs_rpc_argument_int(arguments, GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
    cs_rpc_argument_int(arguments, GRPC_ARG_ENABLE_CHANNELZ, 0);
    cs_rpc_argument_int(arguments, GRPC_ARG_MAX_CHANNEL_TRACE_EVENT_MEMORY_PER_NODE, 0);
}

grpc_channel_args cs_rpc_arguments_view(cs_rpc_arguments *arguments)
{
    return (grpc_channel_args){.num_args = arguments->count, .args = arguments->items};
}
