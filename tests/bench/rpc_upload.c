/* Uploads in 1 MiB messages over mutual TLS on loopback: bytes a second, and what a server's start costs. It
 * measures; CTest does not run it. bench_rpc [MEGABYTES] [UPLOADS] */
#include "tests/unit/rpc/rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#define UPLOADS_MAX 64

struct upload {
    rig *rig;
    size_t megabytes;
};

static void *run_upload(void *self)
{
    struct upload *upload = self;
    static const uint8_t part[CS_WIRE_CHUNK_BYTES];
    cs_rpc_channel *channel = connect_as(upload->rig, &upload->rig->mercy);
    cs_rpc_stream *stream = open_stream(channel, PUSH, CHUNK);
    for (size_t i = 0; i < upload->megabytes; i++)
        must_be_ok(send_part(stream, part, sizeof part));
    close_writes(stream);
    must_be_ok(read_next(stream, -1));
    cs_rpc_stream_free(stream);
    cs_rpc_channel_free(channel);
    return NULL;
}

int main(int argc, char **argv)
{
    size_t megabytes = argc > 1 ? strtoul(argv[1], NULL, 10) : 2000;
    size_t uploads = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
    if (uploads == 0 || uploads > UPLOADS_MAX)
        return 2;
    cs_rpc_start();
    void *state = NULL;
    if (rig_start(&state) != 0)
        return 1;
    rig *rig = state;
    cs_rpc_server_config config = server_config(rig);
    config.unix_socket = NULL;
    cs_rpc_server *second = NULL;
    int64_t before_us = cs_clock_monotonic_us();
    must_be_ok(cs_rpc_server_start(&config, &second));
    printf("server start: %.1f ms\n", (double)(cs_clock_monotonic_us() - before_us) / 1e3);
    cs_rpc_server_stop(second, 0);

    cs_rpc_channel *channel = connect_as(rig, &rig->mercy);
    must_be_ok(ask(channel, UNARY, 1, 0, NULL));
    before_us = cs_clock_monotonic_us();
    for (int i = 0; i < 1000; i++)
        must_be_ok(ask(channel, UNARY, 1, 0, NULL));
    printf("unary call: %.0f us\n", (double)(cs_clock_monotonic_us() - before_us) / 1000);

    before_us = cs_clock_monotonic_us();
    pthread_t threads[UPLOADS_MAX];
    struct upload jobs[UPLOADS_MAX];
    for (size_t i = 0; i < uploads; i++) {
        jobs[i] = (struct upload){rig, megabytes / uploads};
        if (pthread_create(&threads[i], NULL, run_upload, &jobs[i]) != 0)
            return 1;
    }
    for (size_t i = 0; i < uploads; i++)
        pthread_join(threads[i], NULL);
    double seconds = (double)(cs_clock_monotonic_us() - before_us) / 1e6;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("%zu uploads: %.2f GB/s, %ld MB resident at most (clients and server together)\n", uploads,
           (double)(megabytes / uploads * uploads) * CS_WIRE_CHUNK_BYTES / seconds / 1e9, usage.ru_maxrss / 1024);
    cs_rpc_channel_free(channel);
    int status = rig_stop(&state);
    cs_rpc_stop();
    return status;
}
