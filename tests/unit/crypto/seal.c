/* Keys of a pair and sealed streams: what opens, and everything that must not. */
#include "common/crypto/seal.h"

#include "tests/unit/crypto/folder.h"

#include <jansson.h>

typedef struct pair {
    cs_hash session, roster;
    cs_seal_keys here, there;
} pair;

static pair pair_of(const char *job)
{
    pair made = {.roster = {{7}}};
    const cs_hash plan = {{1}};
    made.session = cs_session_hash(job, 1, &plan, &made.roster);
    uint8_t secret[CS_EXCHANGE_KEY_BYTES], key[CS_EXCHANGE_KEY_BYTES];
    uint8_t other_secret[CS_EXCHANGE_KEY_BYTES], other_key[CS_EXCHANGE_KEY_BYTES];
    cs_exchange_make(secret, key);
    cs_exchange_make(other_secret, other_key);
    must_be_ok(cs_seal_keys_make(secret, other_key, &made.session, &made.here));
    must_be_ok(cs_seal_keys_make(other_secret, key, &made.session, &made.there));
    return made;
}

static cs_seal_label label_of(const pair *pair)
{
    return (cs_seal_label){
        .session = &pair->session, .roster = &pair->roster, .phase = "mask", .from = "clinic", .to = "mercy"};
}

static void both_ends_come_to_the_same_keys_and_directions_differ(void **state)
{
    (void)state;
    const pair pair = pair_of("cohort");

    assert_memory_equal(pair.here.send, pair.there.receive, CS_SEAL_KEY_BYTES);
    assert_memory_equal(pair.here.receive, pair.there.send, CS_SEAL_KEY_BYTES);
    assert_memory_not_equal(pair.here.send, pair.here.receive, CS_SEAL_KEY_BYTES);
}

static void own_keys_and_points_of_small_order_are_refused(void **state)
{
    (void)state;
    const cs_hash session = {{1}};
    cs_seal_keys keys;
    uint8_t secret[CS_EXCHANGE_KEY_BYTES], key[CS_EXCHANGE_KEY_BYTES];
    const uint8_t zero[CS_EXCHANGE_KEY_BYTES] = {0}, one[CS_EXCHANGE_KEY_BYTES] = {1};
    cs_exchange_make(secret, key);

    must_fail(cs_seal_keys_make(secret, key, &session, &keys), CS_INVALID, "own");
    must_fail(cs_seal_keys_make(secret, zero, &session, &keys), CS_INVALID, "small order");
    must_fail(cs_seal_keys_make(secret, one, &session, &keys), CS_INVALID, "small order");
}

/* Four frames, "frame 0" to "frame 3", sealed; each of 7 bytes. */
#define FRAMES 4
#define PLAIN  7
#define SEALED (PLAIN + CS_SEAL_OVERHEAD_BYTES)
typedef struct stream {
    uint8_t header[CS_SEAL_HEADER_BYTES];
    uint8_t frames[FRAMES][SEALED];
} stream;

static stream sealed(const pair *pair, const cs_seal_label *label)
{
    stream made;
    CS_AUTO_PTR(cs_seal) seal = cs_seal_begin(pair->here.send, label, made.header);
    for (int i = 0; i < FRAMES; i++) {
        const uint8_t plain[PLAIN] = {'f', 'r', 'a', 'm', 'e', ' ', (uint8_t)('0' + i)};
        cs_seal_frame(seal, cs_bytes_of(plain, PLAIN), i == FRAMES - 1, made.frames[i]);
    }
    return made;
}

/* Opens the frames in this order with the far end's key; the number of those that opened. */
static int open_frames(const pair *pair, const cs_seal_label *label, const stream *stream, const int *order, int count)
{
    CS_AUTO_PTR(cs_seal) seal = NULL;
    if (cs_unseal_begin(pair->there.receive, label, stream->header, &seal) != CS_OK)
        return -1;
    for (int i = 0; i < count; i++) {
        uint8_t plain[PLAIN];
        if (cs_unseal_frame(seal, cs_bytes_of(stream->frames[order[i]], SEALED), i == count - 1, plain) != CS_OK)
            return i;
        assert_int_equal(plain[6], '0' + order[i]);
    }
    return count;
}

static void only_all_frames_in_order_open(void **state)
{
    (void)state;
    const pair pair = pair_of("cohort");
    const cs_seal_label label = label_of(&pair);
    const stream stream = sealed(&pair, &label);

    assert_int_equal(open_frames(&pair, &label, &stream, (int[]){0, 1, 2, 3}, 4), 4);
    assert_int_equal(open_frames(&pair, &label, &stream, (int[]){0, 2, 3}, 3), 1);       /* dropped */
    assert_int_equal(open_frames(&pair, &label, &stream, (int[]){0, 1, 1, 2, 3}, 5), 2); /* repeated */
    assert_int_equal(open_frames(&pair, &label, &stream, (int[]){0, 2, 1, 3}, 4), 1);    /* reordered */
    assert_int_equal(open_frames(&pair, &label, &stream, (int[]){1, 2, 3}, 3), 0);       /* without the first */
    assert_int_equal(open_frames(&pair, &label, &stream, (int[]){0, 1, 2}, 3), 2);       /* cut off at a frame */
    assert_int_equal(open_frames(&pair, &label, &stream, (int[]){0, 1, 2, 3, 3}, 5), 3); /* gone on after the last */
}

static void a_changed_bit_anywhere_is_found(void **state)
{
    (void)state;
    const pair pair = pair_of("cohort");
    const cs_seal_label label = label_of(&pair);
    const stream stream = sealed(&pair, &label);

    for (size_t byte = 0; byte < SEALED; byte++) {
        struct stream altered = stream;
        altered.frames[1][byte] ^= 1;
        assert_int_equal(open_frames(&pair, &label, &altered, (int[]){0, 1, 2, 3}, 4), 1);
    }
    for (size_t byte = 0; byte < CS_SEAL_HEADER_BYTES; byte++) {
        struct stream altered = stream;
        altered.header[byte] ^= 1;
        assert_true(open_frames(&pair, &label, &altered, (int[]){0, 1, 2, 3}, 4) <= 0);
    }
}

static void a_frame_of_another_session_roster_phase_pair_or_direction_does_not_open(void **state)
{
    (void)state;
    const pair pair = pair_of("cohort"), other = pair_of("cohort-2");
    const cs_seal_label label = label_of(&pair);
    const stream stream = sealed(&pair, &label);
    const cs_hash roster = {{8}};

    cs_seal_label wrong[6];
    for (size_t i = 0; i < CS_COUNT(wrong); i++)
        wrong[i] = label;
    wrong[0].session = &other.session;
    wrong[1].roster = &roster;
    wrong[2].phase = "hop1";
    wrong[3].from = "registry";
    wrong[4].to = "registry";
    wrong[5].from = "mercy";
    wrong[5].to = "clinic";
    for (size_t i = 0; i < CS_COUNT(wrong); i++)
        assert_int_equal(open_frames(&pair, &wrong[i], &stream, (int[]){0, 1, 2, 3}, 4), 0);
    assert_int_equal(open_frames(&other, &label, &stream, (int[]){0, 1, 2, 3}, 4), 0);

    /* What this site sent is not what it may be sent. */
    struct pair mirror = pair;
    mirror.there = pair.here;
    assert_int_equal(open_frames(&mirror, &label, &stream, (int[]){0, 1, 2, 3}, 4), 0);
}

static void sizes_of_streams_go_there_and_back(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {0,
                                     1,
                                     32,
                                     CS_SEAL_FRAME_BYTES - 1,
                                     CS_SEAL_FRAME_BYTES,
                                     CS_SEAL_FRAME_BYTES + 1,
                                     2 * CS_SEAL_FRAME_BYTES,
                                     1ULL << 40};
    for (size_t i = 0; i < CS_COUNT(sizes); i++) {
        uint64_t size = 0;
        must_be_ok(cs_unsealed_size(cs_sealed_size(sizes[i]), &size));
        assert_true(size == sizes[i]);
    }
    uint64_t size = 0;
    must_fail(cs_unsealed_size(0, &size), CS_INVALID, "sealed");
    must_fail(cs_unsealed_size(CS_SEAL_HEADER_BYTES, &size), CS_INVALID, "sealed");
    must_fail(cs_unsealed_size(CS_SEAL_HEADER_BYTES + CS_SEAL_OVERHEAD_BYTES - 1, &size), CS_INVALID, "sealed");
    must_fail(cs_unsealed_size(cs_sealed_size(CS_SEAL_FRAME_BYTES) + CS_SEAL_OVERHEAD_BYTES, &size), CS_INVALID,
              "sealed");
}

static void a_message_opens_once_unaltered_and_not_cut(void **state)
{
    (void)state;
    const pair pair = pair_of("cohort");
    const cs_seal_label label = label_of(&pair);
    CS_AUTO(cs_buffer) sealed_message = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) plain = CS_BUFFER_EMPTY;
    cs_seal_message(pair.here.send, &label, cs_bytes_of_text("contribution"), &sealed_message);

    must_be_ok(cs_unseal_message(pair.there.receive, &label, cs_buffer_view(&sealed_message), &plain));
    assert_string_equal(cs_buffer_text(&plain), "contribution");

    sealed_message.size--;
    must_fail(cs_unseal_message(pair.there.receive, &label, cs_buffer_view(&sealed_message), &plain),
              CS_UNAUTHENTICATED, "frame 0");
    sealed_message.size = CS_SEAL_HEADER_BYTES;
    must_fail(cs_unseal_message(pair.there.receive, &label, cs_buffer_view(&sealed_message), &plain), CS_INVALID,
              "mask", "clinic");
}

/* ---- tests/vectors/seal.json, which another program made ---- */

static json_t *vectors(void)
{
    json_error_t error;
    json_t *file = json_load_file(CS_SOURCE_DIR "/tests/vectors/seal.json", 0, &error);
    if (file == NULL)
        fail_msg("seal.json:%d: %s", error.line, error.text);
    return file;
}

static cs_buffer bytes_of(const json_t *object, const char *name)
{
    const char *hex =
        json_is_string(object) ? json_string_value(object) : json_string_value(json_object_get(object, name));
    assert_non_null(hex);
    cs_buffer bytes = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&bytes, strlen(hex) / 2 + 1);
    bytes.size = strlen(hex) / 2;
    must_be_ok(cs_hex_decode(hex, strlen(hex), name, bytes.data, bytes.size));
    return bytes;
}

static cs_hash hash_in(const json_t *object, const char *name)
{
    CS_AUTO(cs_buffer) bytes = bytes_of(object, name);
    cs_hash hash;
    must_be_ok(cs_hash_from(cs_buffer_view(&bytes), name, &hash));
    return hash;
}

static const char *text_in(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

static void keys_and_signed_texts_are_those_of_the_vectors(void **state)
{
    (void)state;
    json_t *file = vectors();
    const json_t *session = json_object_get(file, "session");
    const cs_hash plan = hash_in(session, "plan"), roster = hash_in(session, "roster");
    const cs_hash expected = hash_in(session, "hash");
    const cs_hash made = cs_session_hash(
        text_in(session, "job"), (uint32_t)json_integer_value(json_object_get(session, "round")), &plan, &roster);
    assert_true(cs_hash_equal(&made, &expected));

    uint8_t contributions[3][CS_CONTRIBUTION_BYTES], seed[CS_CONTRIBUTION_BYTES];
    for (size_t n = 0; n < CS_COUNT(contributions); n++) {
        CS_AUTO(cs_buffer) bytes =
            bytes_of(json_array_get(json_object_get(session, "contributions"), n), "contribution");
        memcpy(contributions[n], bytes.data, sizeof(contributions[n]));
    }
    CS_AUTO(cs_buffer) expected_seed = bytes_of(session, "seed");
    cs_session_seed(&made, (const uint8_t(*)[CS_CONTRIBUTION_BYTES])contributions, CS_COUNT(contributions), seed);
    assert_memory_equal(seed, expected_seed.data, sizeof(seed));

    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(file, "pairs"), i, item)
    {
        CS_AUTO(cs_buffer) secret = bytes_of(item, "secret");
        CS_AUTO(cs_buffer) peer = bytes_of(item, "peer");
        CS_AUTO(cs_buffer) send = bytes_of(item, "send");
        CS_AUTO(cs_buffer) receive = bytes_of(item, "receive");
        CS_AUTO(cs_buffer) handshake = bytes_of(item, "handshake");
        CS_AUTO(cs_buffer) confirm = bytes_of(item, "confirm");
        uint8_t key[CS_EXCHANGE_KEY_BYTES];
        cs_seal_keys keys;
        CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;

        cs_exchange_public(secret.data, key);
        must_be_ok(cs_seal_keys_make(secret.data, peer.data, &made, &keys));

        assert_memory_equal(keys.send, send.data, CS_SEAL_KEY_BYTES);
        assert_memory_equal(keys.receive, receive.data, CS_SEAL_KEY_BYTES);
        cs_handshake_text(&made, text_in(item, "from"), text_in(item, "to"), key, NULL, &text);
        assert_true(cs_bytes_equal(cs_buffer_view(&text), cs_buffer_view(&handshake)));
        cs_buffer_reset(&text);
        cs_handshake_text(&made, text_in(item, "from"), text_in(item, "to"), key, peer.data, &text);
        assert_true(cs_bytes_equal(cs_buffer_view(&text), cs_buffer_view(&confirm)));
    }
    json_decref(file);
}

static void streams_of_the_vectors_open(void **state)
{
    (void)state;
    json_t *file = vectors();
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(file, "streams"), i, item)
    {
        CS_AUTO(cs_buffer) key = bytes_of(item, "key");
        CS_AUTO(cs_buffer) rest = bytes_of(item, "header");
        const cs_hash session = hash_in(item, "session"), roster = hash_in(item, "roster");
        const cs_seal_label label = {.session = &session,
                                     .roster = &roster,
                                     .phase = text_in(item, "phase"),
                                     .from = text_in(item, "from"),
                                     .to = text_in(item, "to")};
        uint8_t header[CS_SEAL_HEADER_BYTES];
        memcpy(header, "csseal1\n", 8);
        memcpy(header + 8, rest.data, sizeof(header) - 8);
        CS_AUTO_PTR(cs_seal) seal = NULL;
        must_be_ok(cs_unseal_begin(key.data, &label, header, &seal));
        const json_t *frames = json_object_get(item, "frames"), *sealed_frames = json_object_get(item, "sealed");
        for (size_t n = 0; n < json_array_size(frames); n++) {
            CS_AUTO(cs_buffer) plain = bytes_of(json_array_get(frames, n), "frame");
            CS_AUTO(cs_buffer) frame = bytes_of(json_array_get(sealed_frames, n), "sealed");
            uint8_t opened[1024];
            must_be_ok(cs_unseal_frame(seal, cs_buffer_view(&frame), n + 1 == json_array_size(frames), opened));
            assert_memory_equal(opened, plain.data, plain.size);
        }
    }
    json_decref(file);
}

static int start(void **state)
{
    (void)state;
    return cs_crypto_start() == CS_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ends_come_to_the_same_keys_and_directions_differ),
        cmocka_unit_test(own_keys_and_points_of_small_order_are_refused),
        cmocka_unit_test(only_all_frames_in_order_open),
        cmocka_unit_test(a_changed_bit_anywhere_is_found),
        cmocka_unit_test(a_frame_of_another_session_roster_phase_pair_or_direction_does_not_open),
        cmocka_unit_test(sizes_of_streams_go_there_and_back),
        cmocka_unit_test(a_message_opens_once_unaltered_and_not_cut),
        cmocka_unit_test(keys_and_signed_texts_are_those_of_the_vectors),
        cmocka_unit_test(streams_of_the_vectors_open),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
