/* Calls of every kind over a real connection: the straight ways, and slow, rude and vanishing clients. */
#include "tests/unit/rpc/rig.h"

static void a_unary_call_is_answered_over_both_doors(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) remote = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_channel) local = connect_locally(rig);
    uint64_t offset = 0;

    must_be_ok(ask(remote, UNARY, 41, 0, &offset));
    assert_int_equal(offset, 41);
    assert_string_equal(rig->seen.last_name, "mercy");
    must_be_ok(ask(local, UNARY, 42, PATIENCE_MS, &offset));
    assert_int_equal(offset, 42);
    assert_string_equal(rig->seen.last_name, "(local)");

    wait_until(&rig->seen, &rig->seen.done, 2);
    assert_int_equal(read_count(&rig->seen, &rig->seen.cancelled), 0);
}

static void a_server_s_error_arrives_with_its_sentence(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);

    must_fail(ask(channel, FAIL, 1, 0, NULL), CS_DENIED, "site 'mercy' may not do that: Zürich closed");
    must_fail(ask(channel, "/test.Rig/Nothing", 1, 0, NULL), CS_UNIMPLEMENTED, "no method '/test.Rig/Nothing'");

    wait_until(&rig->seen, &rig->seen.done, 1);
    assert_int_equal(read_count(&rig->seen, &rig->seen.cancelled), 0);
}

static void a_server_stream_comes_whole_and_in_order(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_stream) stream = open_stream(channel, PULL, CHUNK);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(1024 * 1024);
    must_be_ok(send_fetch(stream, 100));
    close_writes(stream);

    uint64_t chunks = 0;
    ProtobufCMessage *message = NULL;
    cs_status status = CS_OK;
    while ((status = cs_rpc_stream_read(stream, -1, arena, &message)) == CS_OK) {
        const Consilium__V1__BlobChunk *chunk = (const Consilium__V1__BlobChunk *)message;
        assert_int_equal(chunk->offset, chunks++ * PULL_BYTES);
        assert_int_equal(chunk->data.len, PULL_BYTES);
        cs_arena_reset(arena);
    }

    assert_int_equal(status, CS_DONE);
    assert_int_equal(chunks, 100);
    assert_int_equal(read_next(stream, -1), CS_DONE); /* and stays ended */
}

static void a_slow_reader_holds_the_source_back(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_channel) other = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_stream) stream = open_stream(channel, PULL, CHUNK);
    must_be_ok(send_fetch(stream, 2000));
    close_writes(stream);

    for (int i = 0; i < 50; i++)
        must_be_ok(read_next(stream, -1));
    for (int i = 0; i < 50; i++) /* the server's threads had every chance to go on */
        must_be_ok(ask(other, UNARY, 1, 0, NULL));

    /* What the transport holds at most: its windows of a few MiB, not the 125 MiB that were asked for. */
    assert_true(read_count(&rig->seen, &rig->seen.handed_over) < 50 + (8 * 1024 * 1024) / PULL_BYTES);
}

static void a_client_stream_is_summed_at_its_end(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_stream) stream = open_stream(channel, PUSH, CHUNK);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(1024 * 1024);
    static const uint8_t part[CS_WIRE_CHUNK_BYTES];

    for (int i = 0; i < 20; i++)
        must_be_ok(send_part(stream, part, sizeof part));
    close_writes(stream);

    ProtobufCMessage *message = NULL;
    must_be_ok(cs_rpc_stream_read(stream, -1, arena, &message));
    assert_int_equal(((const Consilium__V1__BlobChunk *)message)->size, 20 * sizeof part);
    assert_int_equal(read_next(stream, -1), CS_DONE);
    assert_int_equal(read_count(&rig->seen, &rig->seen.ends), 1);
}

static void a_ball_goes_back_and_forth(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_stream) stream = open_stream(channel, DUPLEX, COORD);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(1024 * 1024);

    for (int i = 0; i < 200; i++) {
        char text[32];
        snprintf(text, sizeof text, "ball %d", i);
        must_be_ok(send_ball(stream, text));
        ProtobufCMessage *message = NULL;
        must_be_ok(cs_rpc_stream_read(stream, -1, arena, &message));
        assert_string_equal(((const Consilium__V1__CoordinatorMessage *)message)->ack->reason, text);
        cs_arena_reset(arena);
    }
    close_writes(stream);

    assert_int_equal(read_next(stream, -1), CS_DONE);
}

struct thrower {
    cs_rpc_stream *stream;
    int balls;
};

static void *throw_balls(void *self)
{
    struct thrower *thrower = self;
    for (int i = 0; i < thrower->balls; i++) {
        if (send_ball(thrower->stream, "ball") != CS_OK)
            return NULL;
    }
    return cs_rpc_stream_writes_done(thrower->stream) == CS_OK ? thrower : NULL;
}

static void one_thread_reads_while_another_writes(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_stream) stream = open_stream(channel, DUPLEX, COORD);
    struct thrower thrower = {stream, 500};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, throw_balls, &thrower), 0);

    int caught = 0;
    cs_status status = CS_OK;
    while ((status = read_next(stream, -1)) == CS_OK)
        caught++;

    void *result = NULL;
    pthread_join(thread, &result);
    assert_ptr_equal(result, &thrower);
    assert_int_equal(status, CS_DONE);
    assert_int_equal(caught, 500);
}

static void a_request_put_off_is_given_again_after_resume(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_stream) stream = open_stream(channel, PARK, CHUNK);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(1024 * 1024);
    must_be_ok(send_fetch(stream, 4711));
    close_writes(stream);
    wait_until(&rig->seen, &rig->seen.requests, 1);

    cs_rpc_resume(rig->seen.parked); /* too early: it is put off again */
    wait_until(&rig->seen, &rig->seen.requests, 2);
    pthread_mutex_lock(&rig->seen.guard);
    rig->seen.is_gate_open = true;
    pthread_mutex_unlock(&rig->seen.guard);
    cs_rpc_resume(rig->seen.parked);
    cs_rpc_resume(rig->seen.parked);

    ProtobufCMessage *message = NULL;
    must_be_ok(cs_rpc_stream_read(stream, -1, arena, &message));
    assert_int_equal(((const Consilium__V1__BlobChunk *)message)->offset, 4711);
    assert_int_equal(read_next(stream, -1), CS_DONE);
    wait_until(&rig->seen, &rig->seen.done, 1);
    assert_int_equal(read_count(&rig->seen, &rig->seen.requests), 3);
}

static void resuming_or_ending_a_call_that_is_over_is_harmless(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);
    cs_rpc_stream *stream = open_stream(channel, HANG, COORD);
    wait_until(&rig->seen, &rig->seen.opened, 1);
    cs_rpc_stream_free(stream);
    wait_until(&rig->seen, &rig->seen.done, 1);

    cs_rpc_resume(rig->seen.parked);
    cs_rpc_end(rig->seen.parked, CS_ABORTED, "too late");

    cs_rpc_server_stop(rig->server, 0);
    rig->server = NULL;
    cs_rpc_resume(rig->seen.parked); /* also when there is no server any more */
}

static void a_cancel_by_the_client_is_heard(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_stream) stream = open_stream(channel, HANG, COORD);
    wait_until(&rig->seen, &rig->seen.opened, 1);

    cs_rpc_stream_cancel(stream);

    wait_until(&rig->seen, &rig->seen.done, 1);
    assert_int_equal(read_count(&rig->seen, &rig->seen.cancelled), 1);
    assert_int_equal(read_next(stream, -1), CS_CANCELLED);
}

static void a_client_that_vanishes_in_the_middle_has_not_ended_its_requests(void **state)
{
    rig *rig = *state;
    for (int i = 0; i < 20; i++) {
        cs_rpc_channel *channel = connect_as(rig, &rig->mercy);
        cs_rpc_stream *stream = open_stream(channel, SILENT, CHUNK);
        static const uint8_t part[1000];
        must_be_ok(send_part(stream, part, sizeof part));
        wait_until(&rig->seen, &rig->seen.requests, i + 1);
        cs_rpc_stream_free(stream);
        cs_rpc_channel_free(channel);
        wait_until(&rig->seen, &rig->seen.done, i + 1);
    }

    assert_int_equal(read_count(&rig->seen, &rig->seen.ends), 0);
    assert_int_equal(read_count(&rig->seen, &rig->seen.cancelled), 20);
}

static void *cancel_stream(void *stream)
{
    cs_rpc_stream_cancel(stream);
    return NULL;
}

static void a_waiting_read_comes_back_when_another_thread_cancels(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_stream) stream = open_stream(channel, HANG, COORD);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, cancel_stream, stream), 0);

    assert_int_equal(read_next(stream, -1), CS_CANCELLED);

    pthread_join(thread, NULL);
}

static void a_read_that_ran_out_of_time_goes_on_with_the_next(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_stream) stream = open_stream(channel, DUPLEX, COORD);

    assert_int_equal(read_next(stream, 0), CS_DEADLINE);
    assert_int_equal(read_next(stream, 10), CS_DEADLINE);
    must_be_ok(send_ball(stream, "ball"));
    must_be_ok(read_next(stream, PATIENCE_MS));
    assert_int_equal(read_next(stream, 0), CS_DEADLINE);
    /* freed with a read under way */
}

static void a_deadline_ends_the_call_on_both_sides(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);
    must_be_ok(ask(channel, UNARY, 1, 0, NULL)); /* connected: the deadline is the call's alone */

    must_fail(ask(channel, PARK, 1, 200, NULL), CS_DEADLINE, "/test.Rig/Park", "200 ms");

    wait_until(&rig->seen, &rig->seen.done, 2);
    assert_int_equal(read_count(&rig->seen, &rig->seen.cancelled), 1);
}

static bool is_mercy(void *self, const cs_rpc_peer *peer)
{
    (void)self;
    return !peer->is_local && strcmp(peer->identity.name, "mercy") == 0;
}

static void end_calls_ends_those_that_match_and_no_others(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) remote = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_channel) local = connect_locally(rig);
    CS_AUTO_PTR(cs_rpc_stream) theirs = open_stream(remote, HANG, COORD);
    CS_AUTO_PTR(cs_rpc_stream) ours = open_stream(local, HANG, COORD);
    wait_until(&rig->seen, &rig->seen.opened, 2);

    rig->seen.must_refuse = true;
    cs_rpc_server_end_calls(rig->server, is_mercy, NULL, CS_DENIED, "site 'mercy' was revoked: key lost");

    must_fail(read_next(theirs, -1), CS_DENIED, "revoked: key lost");
    must_fail(ask(remote, UNARY, 1, 0, NULL), CS_DENIED, "site 'mercy' was revoked");
    assert_int_equal(read_next(ours, 50), CS_DEADLINE);
    wait_until(&rig->seen, &rig->seen.done, 1);
    assert_int_equal(read_count(&rig->seen, &rig->seen.cancelled), 0);
}

static void a_call_ends_when_it_would_not_be_admitted_any_more(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) remote = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_channel) local = connect_locally(rig);
    CS_AUTO_PTR(cs_rpc_stream) theirs = open_stream(remote, HANG, COORD);
    CS_AUTO_PTR(cs_rpc_stream) ours = open_stream(local, HANG, COORD);
    wait_until(&rig->seen, &rig->seen.opened, 2);

    rig->seen.must_refuse = true; /* and nobody ends the call */

    must_fail(read_next(theirs, -1), CS_DENIED, "site 'mercy' was revoked");
    wait_until(&rig->seen, &rig->seen.done, 1);
    assert_int_equal(read_next(ours, 0), CS_DEADLINE);
}

static void one_site_has_so_many_calls_and_no_more(void **state)
{
    enum { MOST = 64, CHANNELS = 2 };
    rig *rig = *state;
    cs_rpc_channel *channels[CHANNELS]; /* more than one connection's streams */
    cs_rpc_stream *streams[MOST];
    for (size_t i = 0; i < CHANNELS; i++)
        channels[i] = connect_as(rig, &rig->mercy);
    for (size_t i = 0; i < MOST; i++)
        streams[i] = open_stream(channels[i % CHANNELS], HANG, COORD);
    wait_until(&rig->seen, &rig->seen.opened, MOST);

    must_fail(ask(channels[0], UNARY, 1, 0, NULL), CS_EXHAUSTED, "'mercy' has 64 calls open");

    leaf charity = {0};
    leaf_make(&charity, &rig->root, "charity", NULL, cs_clock_wall_ms());
    CS_AUTO_PTR(cs_rpc_channel) other = connect_as(rig, &charity);
    must_be_ok(ask(other, UNARY, 1, 0, NULL));
    cs_rpc_stream_free(streams[0]);
    wait_until(&rig->seen, &rig->seen.done, 2); /* the other site's and that one */
    while (ask(channels[0], UNARY, 1, 0, NULL) == CS_EXHAUSTED)
        ; /* it is off the list a moment after on_done */
    for (size_t i = 1; i < MOST; i++)
        cs_rpc_stream_free(streams[i]);
    for (size_t i = 0; i < CHANNELS; i++)
        cs_rpc_channel_free(channels[i]);
    cs_buffer_clear(&charity.pem);
    cs_secret_clear(&charity.key_pem);
}

static void a_call_that_is_stuck_behind_a_reader_ends_too(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_stream) stream = open_stream(channel, PULL, CHUNK);
    must_be_ok(send_fetch(stream, 100000));
    close_writes(stream);
    must_be_ok(read_next(stream, -1));

    cs_rpc_server_end_calls(rig->server, is_mercy, NULL, CS_DENIED, "revoked");

    wait_until(&rig->seen, &rig->seen.done, 1); /* though nobody reads */
    cs_status status = CS_OK;
    while ((status = read_next(stream, -1)) == CS_OK)
        ;
    assert_int_equal(status, CS_DENIED);
}

static void a_malformed_request_ends_the_call_unseen(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(4096);
    Consilium__V1__Blob blob = CONSILIUM__V1__BLOB__INIT;
    blob.name = "\x7f\x7f"; /* FetchBlobRequest has a message where Blob has its name */
    ProtobufCMessage *answer = NULL;

    must_fail(cs_rpc_unary(channel, UNARY, &blob.base, CHUNK, 0, arena, &answer), CS_INVALID, "consilium.v1.Hello");

    wait_until(&rig->seen, &rig->seen.done, 1);
    assert_int_equal(read_count(&rig->seen, &rig->seen.requests), 0);
}

static void an_answer_that_makes_no_sense_is_refused_by_the_client(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(4096);
    Consilium__V1__FetchBlobRequest request = CONSILIUM__V1__FETCH_BLOB_REQUEST__INIT;
    request.offset = 1;
    ProtobufCMessage *answer = NULL;

    /* BlobChunk.offset is a number where StoreBlobAck has a truth value and CoordinatorMessage a message. */
    must_fail(cs_rpc_unary(channel, UNARY, &request.base, COORD, 0, arena, &answer), CS_INVALID, "answer of localhost");
}

static void an_oversized_message_is_sent_by_neither_side(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_stream) stream = open_stream(channel, PUSH, CHUNK);
    static const uint8_t part[CS_WIRE_MESSAGE_MAX_BYTES];

    must_fail(send_part(stream, part, sizeof part), CS_INVALID, "at most 2097152");
    must_be_ok(send_part(stream, part, sizeof part - 16));
    must_fail(ask(channel, HUGE_, 1, 0, NULL), CS_INTERNAL, "at most 2097152");
}

static void a_method_of_one_request_takes_no_second_and_not_none(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_stream) two = open_stream(channel, UNARY, CHUNK);
    CS_AUTO_PTR(cs_rpc_stream) none = open_stream(channel, UNARY, CHUNK);

    must_be_ok(send_fetch(two, 1));
    must_be_ok(send_fetch(two, 2));
    must_fail(read_next(two, -1), CS_INVALID, "another came");
    close_writes(none);
    must_fail(read_next(none, -1), CS_INVALID, "none came");

    assert_true(read_count(&rig->seen, &rig->seen.requests) <= 1);
}

static void stop_ends_open_streams_after_the_grace(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_stream) stream = open_stream(channel, HANG, COORD);
    wait_until(&rig->seen, &rig->seen.opened, 1);

    cs_rpc_server_stop(rig->server, 50);
    rig->server = NULL;

    assert_int_equal(read_count(&rig->seen, &rig->seen.done), 1);
    assert_int_equal(read_count(&rig->seen, &rig->seen.cancelled), 1);
    assert_int_not_equal(read_next(stream, -1), CS_OK);
    must_fail(ask(channel, UNARY, 1, 0, NULL), CS_UNAVAILABLE, "Check: the address");
    assert_false(cs_file_exists(rig->socket));
}

static void health_is_answered_on_every_door_and_watched(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) remote = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_channel) local = connect_locally(rig);
    cs_rpc_channel *const channels[] = {remote, local};
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(16 * 1024);
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    const ProtobufCMessageDescriptor *type = &grpc__health__v1__health_check_response__descriptor;

    for (size_t i = 0; i < CS_COUNT(channels); i++) {
        must_be_ok(cs_rpc_unary(channels[i], "/grpc.health.v1.Health/Check", &request.base, type, 0, arena, &answer));
        assert_int_equal(((const Grpc__Health__V1__HealthCheckResponse *)answer)->status, 1);
    }
    request.service = "test.Rig";
    must_be_ok(cs_rpc_unary(local, "/grpc.health.v1.Health/Check", &request.base, type, 0, arena, &answer));
    request.service = "test.Ri";
    must_fail(cs_rpc_unary(local, "/grpc.health.v1.Health/Check", &request.base, type, 0, arena, &answer), CS_NOT_FOUND,
              "test.Ri");

    request.service = "test.Rig";
    CS_AUTO_PTR(cs_rpc_stream) watch = open_stream(local, "/grpc.health.v1.Health/Watch", type);
    must_be_ok(cs_rpc_stream_write(watch, &request.base));
    close_writes(watch);
    must_be_ok(cs_rpc_stream_read(watch, -1, arena, &answer));
    assert_int_equal(((const Grpc__Health__V1__HealthCheckResponse *)answer)->status, 1);
    cs_rpc_server_set_serving(rig->server, false);
    must_be_ok(cs_rpc_stream_read(watch, -1, arena, &answer));
    assert_int_equal(((const Grpc__Health__V1__HealthCheckResponse *)answer)->status, 2);

    cs_rpc_server_stop(rig->server, PATIENCE_MS); /* does not wait for the watch */
    rig->server = NULL;
    assert_int_equal(read_next(watch, -1), CS_UNAVAILABLE);
}

int main(void)
{
    cs_rpc_start();
#define rig_test(name) cmocka_unit_test_setup_teardown(name, rig_start, rig_stop)
    const struct CMUnitTest tests[] = {
        rig_test(a_unary_call_is_answered_over_both_doors),
        rig_test(a_server_s_error_arrives_with_its_sentence),
        rig_test(a_server_stream_comes_whole_and_in_order),
        rig_test(a_slow_reader_holds_the_source_back),
        rig_test(a_client_stream_is_summed_at_its_end),
        rig_test(a_ball_goes_back_and_forth),
        rig_test(one_thread_reads_while_another_writes),
        rig_test(a_request_put_off_is_given_again_after_resume),
        rig_test(resuming_or_ending_a_call_that_is_over_is_harmless),
        rig_test(a_cancel_by_the_client_is_heard),
        rig_test(a_client_that_vanishes_in_the_middle_has_not_ended_its_requests),
        rig_test(a_waiting_read_comes_back_when_another_thread_cancels),
        rig_test(a_read_that_ran_out_of_time_goes_on_with_the_next),
        rig_test(a_deadline_ends_the_call_on_both_sides),
        rig_test(end_calls_ends_those_that_match_and_no_others),
        rig_test(a_call_ends_when_it_would_not_be_admitted_any_more),
        rig_test(one_site_has_so_many_calls_and_no_more),
        rig_test(a_call_that_is_stuck_behind_a_reader_ends_too),
        rig_test(a_malformed_request_ends_the_call_unseen),
        rig_test(an_answer_that_makes_no_sense_is_refused_by_the_client),
        rig_test(an_oversized_message_is_sent_by_neither_side),
        rig_test(a_method_of_one_request_takes_no_second_and_not_none),
        rig_test(stop_ends_open_streams_after_the_grace),
        rig_test(health_is_answered_on_every_door_and_watched),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cs_rpc_stop();
    return failed;
}
