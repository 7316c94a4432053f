/* Frames on descriptors: slow, silent, dying and lying peers. */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/wire/wire.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

struct pair {
    cs_fd ours, theirs;
};

static struct pair make_pair(void)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    return (struct pair){ends[0], ends[1]};
}

static void pair_clear(struct pair *pair)
{
    cs_fd_clear(&pair->ours);
    cs_fd_clear(&pair->theirs);
}

#define PAIR(name) __attribute__((cleanup(pair_clear))) struct pair name = make_pair()

static void a_message_goes_through_whole(void **state)
{
    (void)state;
    PAIR(pair);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(4096);
    ProtobufCMessage *read = NULL;

    assert_int_equal(cs_frame_write_message(pair.ours, &cs_wire_hello()->base), CS_OK);
    assert_int_equal(cs_frame_read_message(pair.theirs, &consilium__v1__hello__descriptor, -1, arena, &read), CS_OK);

    assert_int_equal(((const Consilium__V1__Hello *)read)->major, CS_PROTOCOL_MAJOR);
}

static void an_empty_frame_is_a_frame(void **state)
{
    (void)state;
    PAIR(pair);
    CS_AUTO(cs_buffer) frame = CS_BUFFER_EMPTY;

    assert_int_equal(cs_frame_write(pair.ours, (cs_bytes){0}), CS_OK);
    assert_int_equal(cs_frame_read(pair.theirs, 16, -1, &frame), CS_OK);

    assert_int_equal(frame.size, 0);
}

static void a_close_between_frames_is_a_clean_end(void **state)
{
    (void)state;
    PAIR(pair);
    CS_AUTO(cs_buffer) frame = CS_BUFFER_EMPTY;
    cs_fd_clear(&pair.ours);

    assert_int_equal(cs_frame_read(pair.theirs, 16, -1, &frame), CS_DONE);
}

static void a_close_inside_a_frame_is_data_loss(void **state)
{
    (void)state;
    const char *const cut[] = {"\0\0", "\0\0\0\3", "\0\0\0\3ab"};
    const size_t sizes[] = {2, 4, 6};
    for (size_t i = 0; i < CS_COUNT(cut); i++) {
        PAIR(pair);
        CS_AUTO(cs_buffer) frame = CS_BUFFER_EMPTY;
        assert_int_equal(cs_file_write(pair.ours, cut[i], sizes[i]), CS_OK);
        cs_fd_clear(&pair.ours);

        assert_int_equal(cs_frame_read(pair.theirs, 16, -1, &frame), CS_DATA_LOSS);
    }
}

static void a_frame_over_the_limit_is_refused_before_memory_is_taken(void **state)
{
    (void)state;
    PAIR(pair);
    CS_AUTO(cs_buffer) frame = CS_BUFFER_EMPTY;
    assert_int_equal(cs_file_write(pair.ours, "\0\0\0\x11", 4), CS_OK);

    assert_int_equal(cs_frame_read(pair.theirs, 16, -1, &frame), CS_INVALID);
    assert_int_equal(frame.capacity, 0);

    assert_int_equal(cs_file_write(pair.ours, "\xff\xff\xff\xff", 4), CS_OK);
    assert_int_equal(cs_frame_read(pair.theirs, CS_WIRE_MESSAGE_MAX_BYTES, -1, &frame), CS_INVALID);
}

static void a_silent_peer_meets_the_deadline(void **state)
{
    (void)state;
    PAIR(pair);
    CS_AUTO(cs_buffer) frame = CS_BUFFER_EMPTY;
    cs_clock_fake(1000, 1000);

    assert_int_equal(cs_frame_read(pair.theirs, 16, 1000, &frame), CS_DEADLINE);
    assert_int_equal(cs_file_write(pair.ours, "\0\0\0\3ab", 6), CS_OK);
    assert_int_equal(cs_frame_read(pair.theirs, 16, 1000, &frame), CS_DEADLINE);

    cs_clock_real();
}

static void writing_to_a_dead_peer_fails_and_kills_nobody(void **state)
{
    (void)state;
    PAIR(pair);
    cs_fd_clear(&pair.theirs);

    assert_int_not_equal(cs_frame_write(pair.ours, cs_bytes_of_text("hello")), CS_OK);
}

static void frames_go_through_pipes_too(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    struct pair pair = {ends[0], ends[1]};
    CS_AUTO(cs_buffer) frame = CS_BUFFER_EMPTY;

    assert_int_equal(cs_frame_write(pair.theirs, cs_bytes_of_text("hello")), CS_OK);
    assert_int_equal(cs_frame_read(pair.ours, 16, -1, &frame), CS_OK);

    assert_string_equal(cs_buffer_text(&frame), "hello");
    pair_clear(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_goes_through_whole),
        cmocka_unit_test(an_empty_frame_is_a_frame),
        cmocka_unit_test(a_close_between_frames_is_a_clean_end),
        cmocka_unit_test(a_close_inside_a_frame_is_data_loss),
        cmocka_unit_test(a_frame_over_the_limit_is_refused_before_memory_is_taken),
        cmocka_unit_test(a_silent_peer_meets_the_deadline),
        cmocka_unit_test(writing_to_a_dead_peer_fails_and_kills_nobody),
        cmocka_unit_test(frames_go_through_pipes_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
