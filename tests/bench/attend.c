/* Holds many sites at one coordinator: each gets its token, joins with keys of its own, and attends on a connection of
 * its own, as an agent does; no agent, no worker. idle.py drives it and looks at the coordinator meanwhile.
 *
 *   bench_attend ADMIN_SOCKET FOLDER SITES
 *
 * Prints "attending N" when all do. Then for each line on its standard input "alive N": the streams that nobody has
 * ended. At the end of the input it goes. Each stream has a thread that waits for what comes, as in an agent: without
 * one nobody would read the answers to the connection's pings. */
#include "client/agent/enrol.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/rpc/rpc.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#define SITES_MAX         4096
#define ANSWER_TIMEOUT_MS 60000
#define ARENA_BYTES       ((size_t)1024 * 1024)
/* Beside the connection of each site: files, the core's own. */
#define DESCRIPTORS_BESIDE 256

struct site {
    cs_rpc_channel *channel;
    cs_rpc_stream *stream;
    pthread_t reader;
    bool has_reader;
};

static _Atomic size_t alive;
static _Atomic bool is_leaving;

/* As the operator's `token new`, without a process for each. */
static cs_status fetch_join_file(cs_rpc_channel *admin, const char *name, const char *path)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(ARENA_BYTES);
    Consilium__V1__NewTokenRequest request = CONSILIUM__V1__NEW_TOKEN_REQUEST__INIT;
    request.site = (char *)(uintptr_t)name;
    ProtobufCMessage *message = NULL;
    CS_TRY(cs_rpc_unary(admin, "/consilium.v1.Admin/NewToken", &request.base,
                        &consilium__v1__new_token_answer__descriptor, ANSWER_TIMEOUT_MS, arena, &message));
    const Consilium__V1__NewTokenAnswer *answer = (const Consilium__V1__NewTokenAnswer *)message;
    return cs_file_write_atomic(path, cs_wire_bytes(answer->join_file), 0600);
}

static cs_status read_greeting(cs_rpc_stream *stream)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(ARENA_BYTES);
    ProtobufCMessage *message = NULL;
    CS_TRY(cs_rpc_stream_read(stream, cs_clock_monotonic_ms() + ANSWER_TIMEOUT_MS, arena, &message));
    const Consilium__V1__CoordinatorMessage *answer = (const Consilium__V1__CoordinatorMessage *)message;
    return answer->body_case == CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_HELLO
               ? CS_OK
               : cs_fail(CS_STATE, "the coordinator's first message is no Hello");
}

/* Hello, Hello, and what an agent without tasks says of itself. */
static cs_status greet(cs_rpc_stream *stream)
{
    Consilium__V1__SiteMessage hello = CONSILIUM__V1__SITE_MESSAGE__INIT;
    hello.body_case = CONSILIUM__V1__SITE_MESSAGE__BODY_HELLO;
    hello.hello = cs_wire_hello();
    CS_TRY(cs_rpc_stream_write(stream, &hello.base));
    CS_TRY(read_greeting(stream));
    Consilium__V1__SiteState nothing = CONSILIUM__V1__SITE_STATE__INIT;
    Consilium__V1__SiteMessage state = CONSILIUM__V1__SITE_MESSAGE__INIT;
    state.body_case = CONSILIUM__V1__SITE_MESSAGE__BODY_STATE;
    state.state = &nothing;
    return cs_rpc_stream_write(stream, &state.base);
}

static void *wait_for_the_end(void *self)
{
    struct site *site = self;
    cs_status status = CS_OK;
    while (status == CS_OK) {
        CS_AUTO_PTR(cs_arena) arena = cs_arena_new(ARENA_BYTES);
        ProtobufCMessage *message = NULL;
        status = cs_rpc_stream_read(site->stream, -1, arena, &message);
    }
    atomic_fetch_sub(&alive, 1);
    if (!atomic_load(&is_leaving))
        fprintf(stderr, "bench_attend: a stream ended: %s\n", cs_error_text());
    return NULL;
}

static cs_status attend(cs_rpc_channel *admin, const char *folder, const char *name, struct site *ret)
{
    CS_AUTO(cs_string) state = cs_path_join(folder, name);
    CS_AUTO(cs_string) join_file = cs_format("%s.join", state);
    CS_TRY(fetch_join_file(admin, name, join_file));
    CS_TRY(cs_join(&(cs_join_options){.state_folder = state, .join_file = join_file}));

    CS_AUTO(cs_site_identity) identity = {0};
    CS_TRY(cs_site_identity_load(state, &identity));
    const cs_rpc_channel_config config = {.target = identity.coordinator,
                                          .identity = {.certificate_pem = cs_buffer_view(&identity.certificate_pem),
                                                       .key_pem = cs_buffer_view(&identity.key_pem),
                                                       .authority_pem = cs_buffer_view(&identity.authority_pem)}};
    CS_TRY(cs_rpc_channel_open(&config, &ret->channel));
    CS_TRY(cs_rpc_stream_open(ret->channel, "/consilium.v1.Federation/Attend",
                              &consilium__v1__coordinator_message__descriptor, 0, &ret->stream));
    CS_TRY(greet(ret->stream));
    ret->has_reader = pthread_create(&ret->reader, NULL, wait_for_the_end, ret) == 0;
    if (!ret->has_reader)
        return cs_fail(CS_EXHAUSTED, "no thread can be started for it");
    atomic_fetch_add(&alive, 1);
    return CS_OK;
}

static cs_status attend_all(const char *admin_socket, const char *folder, struct site *sites, size_t count)
{
    CS_AUTO(cs_string) target = cs_format("unix:%s", admin_socket);
    CS_AUTO_PTR(cs_rpc_channel) admin = NULL;
    CS_TRY(cs_rpc_channel_open(&(cs_rpc_channel_config){.target = target}, &admin));
    for (size_t i = 0; i < count; i++) {
        CS_AUTO(cs_string) name = cs_format("site-%04zu", i);
        cs_status status = attend(admin, folder, name, &sites[i]);
        if (status != CS_OK)
            return cs_wrap(status, "%s", name);
    }
    return CS_OK;
}

static void let_go(struct site *sites, size_t count)
{
    atomic_store(&is_leaving, true);
    for (size_t i = 0; i < count; i++) {
        if (sites[i].stream)
            cs_rpc_stream_cancel(sites[i].stream);
        if (sites[i].has_reader)
            pthread_join(sites[i].reader, NULL);
        cs_rpc_stream_free(sites[i].stream);
        cs_rpc_channel_free(sites[i].channel);
    }
}

static cs_status make_room(size_t count)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return cs_fail_errno("the limit of descriptors");
    rlim_t wanted = (rlim_t)count + DESCRIPTORS_BESIDE;
    if (limit.rlim_max < wanted)
        return cs_fail(CS_EXHAUSTED, "%zu sites need %llu descriptors here, the limit is %llu: ulimit -Hn", count,
                       (unsigned long long)wanted, (unsigned long long)limit.rlim_max);
    limit.rlim_cur = CS_MAX(limit.rlim_cur, wanted);
    return setrlimit(RLIMIT_NOFILE, &limit) == 0 ? CS_OK : cs_fail_errno("the limit of descriptors");
}

int main(int argc, char **argv)
{
    size_t count = argc == 4 ? strtoul(argv[3], NULL, 10) : 0;
    if (count == 0 || count > SITES_MAX) {
        fprintf(stderr, "usage: bench_attend ADMIN_SOCKET FOLDER SITES (at most %d)\n", SITES_MAX);
        return 2;
    }
    cs_status status = cs_crypto_start();
    cs_rpc_start();
    struct site *sites = cs_alloc_array(count, sizeof *sites);
    if (status == CS_OK)
        status = make_room(count);
    if (status == CS_OK)
        status = attend_all(argv[1], argv[2], sites, count);
    if (status == CS_OK) {
        printf("attending %zu\n", count);
        fflush(stdout);
        char line[16];
        while (fgets(line, sizeof line, stdin)) {
            printf("alive %zu\n", atomic_load(&alive));
            fflush(stdout);
        }
    } else {
        fprintf(stderr, "bench_attend: %s\n", cs_error_text());
    }
    let_go(sites, count);
    cs_free(sites);
    cs_rpc_stop();
    return status == CS_OK ? 0 : 1;
}
