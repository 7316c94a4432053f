/* What the wire costs without Consilium: a server and clients, one process each, on the gRPC core over mutual TLS on
 * loopback, with the product's channel arguments and messages of 1 MiB of plain bytes. tests/bench/transfer.py runs it
 * in turns with the product.
 *
 *   bare    the sender sends from memory, the receiver drops.
 *   synced  the sender reads a file and hashes what it sends; the receiver hashes it too, writes it to a file, makes
 *           it durable with fdatasync every 4 MiB and at the end (fsync, rename, fsync of the folder), and only then
 *           answers.
 *
 * Each client downloads (if asked to), then uploads, and does not wait for the others. The time runs from the moment
 * when all are connected until the last has its answer. Prints one line of JSON. */
#include "common/base/clock.h"
#include "common/base/command.h"
#include "common/base/file.h"
#include "common/crypto/sign.h"
#include "common/crypto/x509.h"
#include "common/rpc/core.h"

#include <fcntl.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc_security.h>
#include <limits.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define MESSAGE_BYTES ((size_t)1024 * 1024)
#define SYNC_BYTES    (4 * MESSAGE_BYTES)
#define CLIENTS_MAX   64
#define QUEUES        2 /* as many as the product's server has */
#define SLICES_MAX    512
#define UPLOAD        "/reference/Upload"
#define DOWNLOAD      "/reference/Download"
#define HELLO         "/reference/Hello"

static struct setting {
    bool is_synced;
    uint64_t down_bytes, up_bytes; /* of each client */
    int clients;
    const char *folder;
    char *source; /* the file that every sender reads */
    cs_buffer authority;
    struct pair {
        cs_buffer certificate, key;
    } of_server, of_client;
    char target[32];
} setting;

static void must(bool is_true, const char *what)
{
    if (is_true)
        return;
    fprintf(stderr, "bench_reference: %s: %s\n", what, cs_error_text());
    _exit(1);
}

/* ---- a sender and a receiver, the same at both ends ---- */

struct sender {
    int fd;
    EVP_MD_CTX *digest;
    uint64_t offset, size;
};

static void sender_open(struct sender *sender, uint64_t size)
{
    *sender = (struct sender){.fd = -1, .size = size};
    if (!setting.is_synced)
        return;
    sender->fd = open(setting.source, O_RDONLY | O_CLOEXEC);
    must(sender->fd >= 0, "source");
    sender->digest = EVP_MD_CTX_new();
    EVP_DigestInit_ex(sender->digest, EVP_sha256(), NULL);
}

static void sender_close(struct sender *sender)
{
    uint8_t hash[EVP_MAX_MD_SIZE];
    if (sender->fd < 0)
        return;
    EVP_DigestFinal_ex(sender->digest, hash, NULL);
    EVP_MD_CTX_free(sender->digest);
    close(sender->fd);
}

/* NULL at the end. */
static grpc_byte_buffer *sender_next(struct sender *sender)
{
    if (sender->offset == sender->size)
        return NULL;
    const size_t size = (size_t)CS_MIN(sender->size - sender->offset, (uint64_t)MESSAGE_BYTES);
    static const uint8_t memory[MESSAGE_BYTES];
    grpc_slice slice = setting.is_synced ? grpc_slice_malloc(size) : grpc_slice_from_static_buffer(memory, size);
    if (setting.is_synced) {
        must(pread(sender->fd, GRPC_SLICE_START_PTR(slice), size, (off_t)sender->offset) == (ssize_t)size, "read");
        EVP_DigestUpdate(sender->digest, GRPC_SLICE_START_PTR(slice), size);
    }
    sender->offset += size;
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    return buffer;
}

struct receiver {
    int fd;
    char *path, *partial_path;
    EVP_MD_CTX *digest;
    uint64_t received, synced;
};

static void receiver_open(struct receiver *receiver, int number)
{
    *receiver = (struct receiver){.fd = -1};
    if (!setting.is_synced)
        return;
    receiver->path = cs_format("%s/received-%d-%d", setting.folder, (int)getpid(), number);
    receiver->partial_path = cs_format("%s.partial", receiver->path);
    receiver->fd = open(receiver->partial_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    must(receiver->fd >= 0, "file");
    receiver->digest = EVP_MD_CTX_new();
    EVP_DigestInit_ex(receiver->digest, EVP_sha256(), NULL);
}

/* Hashes and writes the slices where they lie; nothing is copied in between. */
static void receiver_write(struct receiver *receiver, grpc_byte_buffer *buffer)
{
    struct iovec parts[SLICES_MAX];
    int count = 0;
    size_t size = 0;
    grpc_byte_buffer_reader reader;
    must(grpc_byte_buffer_reader_init(&reader, buffer) != 0, "message");
    grpc_slice *slice = NULL;
    while (grpc_byte_buffer_reader_peek(&reader, &slice)) {
        must(count < SLICES_MAX, "slices");
        parts[count++] = (struct iovec){GRPC_SLICE_START_PTR(*slice), GRPC_SLICE_LENGTH(*slice)};
        size += GRPC_SLICE_LENGTH(*slice);
        EVP_DigestUpdate(receiver->digest, GRPC_SLICE_START_PTR(*slice), GRPC_SLICE_LENGTH(*slice));
    }
    must(pwritev(receiver->fd, parts, count, (off_t)receiver->received) == (ssize_t)size, "write");
    grpc_byte_buffer_reader_destroy(&reader);
}

static void receiver_take(struct receiver *receiver, grpc_byte_buffer *buffer)
{
    if (setting.is_synced)
        receiver_write(receiver, buffer);
    receiver->received += grpc_byte_buffer_length(buffer);
    if (setting.is_synced && receiver->received - receiver->synced >= SYNC_BYTES) {
        must(fdatasync(receiver->fd) == 0, "fdatasync");
        receiver->synced = receiver->received;
    }
}

static void receiver_finish(struct receiver *receiver)
{
    uint8_t hash[EVP_MAX_MD_SIZE];
    if (!setting.is_synced)
        return;
    EVP_DigestFinal_ex(receiver->digest, hash, NULL);
    EVP_MD_CTX_free(receiver->digest);
    must(fsync(receiver->fd) == 0, "fsync");
    close(receiver->fd);
    must(rename(receiver->partial_path, receiver->path) == 0, "rename");
    const int folder = open(setting.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    must(folder >= 0 && fsync(folder) == 0, "folder");
    close(folder);
    cs_free(receiver->path);
    cs_free(receiver->partial_path);
}

/* ---- the server ---- */

struct call;
struct step {
    void (*done)(struct call *call, bool is_ok);
    struct call *call;
};

struct call {
    grpc_server *server;
    grpc_completion_queue *events;
    grpc_call *grpc;
    grpc_call_details details;
    grpc_metadata_array metadata;
    struct step accepted, received, sent, closed;
    grpc_byte_buffer *incoming, *outgoing;
    struct sender sender;
    struct receiver receiver;
    int is_cancelled, steps_left;
};

static void arm(grpc_server *server, grpc_completion_queue *events);

static void start(struct call *call, const grpc_op *operations, size_t count, struct step *step)
{
    must(grpc_call_start_batch(call->grpc, operations, count, step, NULL) == GRPC_CALL_OK, "batch");
}

static void step_is_over(struct call *call)
{
    if (--call->steps_left > 0)
        return;
    grpc_call_unref(call->grpc);
    grpc_call_details_destroy(&call->details);
    grpc_metadata_array_destroy(&call->metadata);
    cs_free(call);
}

static void was_closed(struct call *call, bool is_ok)
{
    (void)is_ok;
    step_is_over(call);
}

static void answer(struct call *call)
{
    grpc_op operations[] = {{.op = GRPC_OP_SEND_STATUS_FROM_SERVER}};
    operations[0].data.send_status_from_server.status = GRPC_STATUS_OK;
    call->sent.done = was_closed;
    start(call, operations, 1, &call->sent);
}

static void send_next(struct call *call, bool is_ok)
{
    if (call->outgoing)
        grpc_byte_buffer_destroy(call->outgoing);
    call->outgoing = is_ok ? sender_next(&call->sender) : NULL;
    if (!call->outgoing) {
        sender_close(&call->sender);
        answer(call);
        return;
    }
    grpc_op operation = {.op = GRPC_OP_SEND_MESSAGE};
    operation.data.send_message.send_message = call->outgoing;
    start(call, &operation, 1, &call->sent);
}

static void receive_next(struct call *call)
{
    grpc_op operation = {.op = GRPC_OP_RECV_MESSAGE};
    operation.data.recv_message.recv_message = &call->incoming;
    start(call, &operation, 1, &call->received);
}

static void take_next(struct call *call, bool is_ok)
{
    if (is_ok && call->incoming) {
        receiver_take(&call->receiver, call->incoming);
        grpc_byte_buffer_destroy(call->incoming);
        call->incoming = NULL;
        receive_next(call);
        return;
    }
    receiver_finish(&call->receiver);
    answer(call);
}

static void accepted(struct call *call, bool is_ok)
{
    if (!is_ok)
        return;
    static _Atomic int number;
    arm(call->server, call->events);
    grpc_op operations[2] = {{.op = GRPC_OP_RECV_CLOSE_ON_SERVER}, {.op = GRPC_OP_SEND_INITIAL_METADATA}};
    operations[0].data.recv_close_on_server.cancelled = &call->is_cancelled;
    call->steps_left = 2;
    /* Two batches: the close comes last, the headers go at once. */
    call->closed = (struct step){was_closed, call};
    start(call, operations, 1, &call->closed);
    if (grpc_slice_str_cmp(call->details.method, UPLOAD) == 0) {
        receiver_open(&call->receiver, ++number);
        call->received = (struct step){take_next, call};
        operations[0] = operations[1];
        operations[1] = (grpc_op){.op = GRPC_OP_RECV_MESSAGE};
        operations[1].data.recv_message.recv_message = &call->incoming;
        start(call, operations, 2, &call->received);
        call->sent = (struct step){NULL, call};
        return;
    }
    const bool is_hello = grpc_slice_str_cmp(call->details.method, HELLO) == 0;
    sender_open(&call->sender, is_hello ? 0 : setting.down_bytes);
    call->sent = (struct step){send_next, call};
    start(call, operations + 1, 1, &call->sent);
}

static void arm(grpc_server *server, grpc_completion_queue *events)
{
    struct call *call = cs_alloc(sizeof *call);
    call->server = server;
    call->events = events;
    call->accepted = (struct step){accepted, call};
    grpc_call_details_init(&call->details);
    grpc_metadata_array_init(&call->metadata);
    must(grpc_server_request_call(server, &call->grpc, &call->details, &call->metadata, events, events,
                                  &call->accepted) == GRPC_CALL_OK,
         "request");
}

static void *serve_queue(void *argument)
{
    grpc_completion_queue *events = argument;
    for (;;) {
        const grpc_event event = grpc_completion_queue_next(events, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        struct step *step = event.tag;
        step->done(step->call, event.success != 0);
    }
    return NULL;
}

/* Until it is killed. */
static void serve(int port_pipe)
{
    cs_rpc_start();
    cs_rpc_arguments arguments = {0};
    cs_rpc_arguments_common(&arguments);
    const grpc_channel_args view = cs_rpc_arguments_view(&arguments);
    grpc_server *server = grpc_server_create(&view, NULL);
    grpc_completion_queue *queues[QUEUES];
    for (int i = 0; i < QUEUES; i++) {
        queues[i] = grpc_completion_queue_create_for_next(NULL);
        grpc_server_register_completion_queue(server, queues[i], NULL);
    }
    grpc_ssl_pem_key_cert_pair pair = {cs_buffer_text(&setting.of_server.key),
                                       cs_buffer_text(&setting.of_server.certificate)};
    grpc_server_credentials *credentials = grpc_ssl_server_credentials_create_ex(
        cs_buffer_text(&setting.authority), &pair, 1, GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY, NULL);
    const int port = grpc_server_add_http2_port(server, "127.0.0.1:0", credentials);
    must(port > 0, "port");
    grpc_server_start(server);
    for (int i = 0; i < QUEUES; i++)
        for (int n = 0; n < 4; n++)
            arm(server, queues[i]);
    must(write(port_pipe, &port, sizeof port) == sizeof port, "pipe");
    pthread_t thread;
    must(pthread_create(&thread, NULL, serve_queue, queues[1]) == 0, "thread");
    serve_queue(queues[0]);
}

/* ---- a client ---- */

struct stream {
    grpc_completion_queue *events;
    grpc_call *call;
    grpc_metadata_array initial, trailing;
    grpc_status_code code;
    grpc_slice details;
};

static bool run_batch(struct stream *stream, grpc_op operation, void *tag)
{
    must(grpc_call_start_batch(stream->call, &operation, 1, tag, NULL) == GRPC_CALL_OK, "batch");
    return grpc_completion_queue_pluck(stream->events, tag, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).success != 0;
}

static void stream_open(struct stream *stream, grpc_channel *channel, const char *path)
{
    *stream = (struct stream){.details = grpc_empty_slice()};
    grpc_metadata_array_init(&stream->initial);
    grpc_metadata_array_init(&stream->trailing);
    stream->events = grpc_completion_queue_create_for_pluck(NULL);
    stream->call =
        grpc_channel_create_call(channel, NULL, GRPC_PROPAGATE_DEFAULTS, stream->events,
                                 grpc_slice_from_static_string(path), NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    run_batch(stream, (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA}, &stream->call);
    grpc_op operation = {.op = GRPC_OP_RECV_INITIAL_METADATA};
    operation.data.recv_initial_metadata.recv_initial_metadata = &stream->initial;
    must(grpc_call_start_batch(stream->call, &operation, 1, &stream->initial, NULL) == GRPC_CALL_OK, "batch");
}

static void stream_end(struct stream *stream)
{
    grpc_completion_queue_pluck(stream->events, &stream->initial, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    grpc_op operation = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
    operation.data.recv_status_on_client.trailing_metadata = &stream->trailing;
    operation.data.recv_status_on_client.status = &stream->code;
    operation.data.recv_status_on_client.status_details = &stream->details;
    run_batch(stream, operation, &stream->trailing);
    if (stream->code != GRPC_STATUS_OK)
        CS_IGNORE(cs_fail(CS_UNAVAILABLE, "%.*s", (int)GRPC_SLICE_LENGTH(stream->details),
                          (const char *)GRPC_SLICE_START_PTR(stream->details)),
                  "the sentence is printed next");
    must(stream->code == GRPC_STATUS_OK, "call");
    grpc_call_unref(stream->call);
    grpc_completion_queue_shutdown(stream->events);
    grpc_completion_queue_destroy(stream->events);
    grpc_metadata_array_destroy(&stream->initial);
    grpc_metadata_array_destroy(&stream->trailing);
    grpc_slice_unref(stream->details);
}

static void upload(grpc_channel *channel)
{
    struct stream stream;
    struct sender sender;
    stream_open(&stream, channel, UPLOAD);
    sender_open(&sender, setting.up_bytes);
    for (grpc_byte_buffer *buffer; (buffer = sender_next(&sender)) != NULL;) {
        grpc_op operation = {.op = GRPC_OP_SEND_MESSAGE};
        operation.data.send_message.send_message = buffer;
        must(run_batch(&stream, operation, &sender), "send");
        grpc_byte_buffer_destroy(buffer);
    }
    run_batch(&stream, (grpc_op){.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT}, &sender);
    sender_close(&sender);
    stream_end(&stream);
}

static void download(grpc_channel *channel, const char *path)
{
    struct stream stream;
    struct receiver receiver;
    stream_open(&stream, channel, path);
    run_batch(&stream, (grpc_op){.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT}, &receiver);
    receiver_open(&receiver, 0);
    for (grpc_byte_buffer *buffer = NULL;; buffer = NULL) {
        grpc_op operation = {.op = GRPC_OP_RECV_MESSAGE};
        operation.data.recv_message.recv_message = &buffer;
        if (!run_batch(&stream, operation, &receiver) || !buffer)
            break;
        receiver_take(&receiver, buffer);
        grpc_byte_buffer_destroy(buffer);
    }
    must(strcmp(path, HELLO) == 0 || receiver.received == setting.down_bytes, "bytes");
    receiver_finish(&receiver);
    stream_end(&stream);
}

/* Says when it is connected, waits for the word, says when it is done. */
static void attend(int go_pipe, int done_pipe)
{
    cs_rpc_start();
    cs_rpc_arguments arguments = {0};
    cs_rpc_arguments_common(&arguments);
    cs_rpc_argument_text(&arguments, GRPC_SSL_TARGET_NAME_OVERRIDE_ARG, "localhost");
    const grpc_channel_args view = cs_rpc_arguments_view(&arguments);
    grpc_ssl_pem_key_cert_pair pair = {cs_buffer_text(&setting.of_client.key),
                                       cs_buffer_text(&setting.of_client.certificate)};
    grpc_channel_credentials *credentials =
        grpc_ssl_credentials_create_ex(cs_buffer_text(&setting.authority), &pair, NULL, NULL);
    grpc_channel *channel = grpc_channel_create(setting.target, credentials, &view);
    download(channel, HELLO);
    char word = 'c';
    must(write(done_pipe, &word, 1) == 1 && read(go_pipe, &word, 1) == 1, "pipe");
    if (setting.down_bytes > 0)
        download(channel, DOWNLOAD);
    if (setting.up_bytes > 0)
        upload(channel);
    must(write(done_pipe, &word, 1) == 1, "pipe");
}

/* ---- set up ---- */

/* `name` NULL: the server's. */
static cs_status make_pair(const cs_tls_key *root, const char *name, struct pair *pair)
{
    CS_AUTO_PTR(cs_tls_key) key = NULL;
    CS_AUTO(cs_buffer) csr = CS_BUFFER_EMPTY;
    CS_AUTO(cs_secret) pem = {0};
    static const char *const addresses[] = {"localhost", "127.0.0.1", NULL};
    CS_TRY(cs_tls_key_new(&key));
    CS_TRY(cs_csr_make(key, &csr));
    cs_leaf_request request = {.csr_der = cs_buffer_view(&csr),
                               .consortium = "reference",
                               .role = name ? CS_ROLE_SITE : CS_ROLE_COORDINATOR,
                               .name = name,
                               .addresses = name ? NULL : addresses,
                               .now_ms = cs_clock_wall_ms(),
                               .life_ms = CS_LEAF_LIFE_MS};
    cs_crypto_random(request.serial, sizeof request.serial);
    CS_TRY(cs_leaf_issue(root, cs_buffer_view(&setting.authority), &request, &pair->certificate));
    CS_TRY(cs_tls_key_write(key, &pem));
    const cs_bytes text = cs_buffer_view((const cs_buffer *)&pem);
    cs_buffer_append(&pair->key, text.data, text.size);
    return CS_OK;
}

static cs_status make_certificates(void)
{
    CS_AUTO_PTR(cs_tls_key) root = NULL;
    CS_TRY(cs_tls_key_new(&root));
    CS_TRY(cs_authority_make(root, "reference", "Reference", cs_clock_wall_ms(), &setting.authority));
    CS_TRY(make_pair(root, NULL, &setting.of_server));
    return make_pair(root, "site", &setting.of_client);
}

static cs_status make_source(uint64_t size)
{
    setting.source = cs_path_join(setting.folder, "source");
    CS_AUTO(cs_fd) fd = -1;
    CS_AUTO(cs_buffer) chunk = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&chunk, MESSAGE_BYTES);
    CS_TRY(cs_file_open(setting.source, O_WRONLY | O_CREAT | O_TRUNC, 0600, &fd));
    for (uint64_t offset = 0; offset < size; offset += MESSAGE_BYTES) {
        memset(chunk.data, (int)(offset / MESSAGE_BYTES % 251), MESSAGE_BYTES);
        CS_TRY(cs_file_write(fd, chunk.data, (size_t)CS_MIN(size - offset, (uint64_t)MESSAGE_BYTES)));
    }
    return cs_file_sync(fd);
}

static pid_t fork_or_die(void)
{
    fflush(NULL);
    const pid_t pid = fork();
    must(pid >= 0, "fork");
    return pid;
}

static void read_words(int pipe, int count, pid_t server)
{
    char word = 0;
    for (int i = 0; i < count; i++) {
        if (read(pipe, &word, 1) == 1)
            continue;
        kill(server, SIGKILL);
        must(false, "a client ended early");
    }
}

/* The core is started only in the children: it does not survive a fork. */
static double measure(void)
{
    int port_pipe[2], go_pipe[2], done_pipe[2], port = 0;
    must(pipe(port_pipe) == 0 && pipe(go_pipe) == 0 && pipe(done_pipe) == 0, "pipe");
    const pid_t server = fork_or_die();
    if (server == 0) {
        close(done_pipe[1]); /* whose end tells that a client is gone */
        serve(port_pipe[1]);
    }
    close(port_pipe[1]);
    must(read(port_pipe[0], &port, sizeof port) == sizeof port, "the server did not start");
    snprintf(setting.target, sizeof setting.target, "127.0.0.1:%d", port);
    pid_t clients[CLIENTS_MAX];
    for (int i = 0; i < setting.clients; i++) {
        clients[i] = fork_or_die();
        if (clients[i] == 0) {
            close(done_pipe[0]);
            attend(go_pipe[0], done_pipe[1]);
            _exit(0);
        }
    }
    close(done_pipe[1]);
    read_words(done_pipe[0], setting.clients, server);
    const char words[CLIENTS_MAX] = {0};
    const int64_t begun_us = cs_clock_monotonic_us();
    must(write(go_pipe[1], words, (size_t)setting.clients) == setting.clients, "pipe");
    read_words(done_pipe[0], setting.clients, server);
    const double seconds = (double)(cs_clock_monotonic_us() - begun_us) / 1e6;
    for (int i = 0; i < setting.clients; i++)
        waitpid(clients[i], NULL, 0);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    return seconds;
}

static int run(const cs_arguments *arguments)
{
    int64_t clients = 1, down = 0, up = 0;
    if (cs_argument_int(arguments, "--clients", 1, CLIENTS_MAX, &clients) != CS_OK ||
        cs_argument_int(arguments, "--down", 0, INT64_MAX, &down) != CS_OK ||
        cs_argument_int(arguments, "--up", 0, INT64_MAX, &up) != CS_OK)
        return cs_command_fail(arguments, CS_INVALID);
    const char *parent = cs_argument(arguments, "--folder");
    CS_AUTO(cs_string) folder = cs_format("%s/reference-XXXXXX", parent ? parent : "/tmp");
    if (mkdtemp(folder) == NULL)
        return cs_command_fail(arguments, cs_fail_errno("cannot make '%s'", folder));
    setting.is_synced = cs_argument_flag(arguments, "--synced");
    setting.clients = (int)clients;
    setting.down_bytes = (uint64_t)down;
    setting.up_bytes = (uint64_t)up;
    setting.folder = folder;
    must(cs_crypto_start() == CS_OK && make_certificates() == CS_OK, "certificate");
    if (setting.is_synced)
        must(make_source(CS_MAX(setting.down_bytes, setting.up_bytes)) == CS_OK, "source");
    printf("{\"kind\": \"%s\", \"clients\": %d, \"down\": %lld, \"up\": %lld, \"seconds\": %.4f}\n",
           setting.is_synced ? "synced" : "bare", setting.clients, (long long)down, (long long)up, measure());
    CS_IGNORE(cs_folder_remove(folder), "the measurement stands, the folder is a temporary one");
    return CS_EXIT_OK;
}

int main(int argc, char **argv)
{
    static const cs_option options[] = {
        {"--synced", NULL, "hash at both ends, write, fdatasync every 4 MiB", false, false},
        {"--clients", "N", "processes that transfer at the same time (1)", false, false},
        {"--down", "BYTES", "that each client downloads first (0)", false, false},
        {"--up", "BYTES", "that each client uploads then (0)", false, false},
        {"--folder", "DIR", "where the files lie (/tmp)", false, false},
        {0}};
    static const cs_command commands[] = {{"", "measures streams on the bare gRPC core", options, run}, {0}};
    return cs_command_main("bench_reference", "Streams on the bare gRPC core.", commands, argc, argv);
}
