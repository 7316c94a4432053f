/* The safetensors writer: what it writes is read back, by our reader and by an independent one, byte for byte the same
 * every time; a failure anywhere leaves no file and can be repeated. */
#include "common/tensors/safetensors.h"
#include "tests/unit/place.h"

#include <errno.h>
#include <sys/stat.h>

static const cs_tensor_info infos[] = {
    {.name = "flag", .dtype = CS_BOOL, .rank = 1, .shape = {3}},
    {.name = "fc.weight", .dtype = CS_F32, .rank = 2, .shape = {2, 3}},
    {.name = "empty", .dtype = CS_F32, .rank = 2, .shape = {0, 5}},
    {.name = "steps", .dtype = CS_I64, .rank = 0},
    {.name = "half", .dtype = CS_F16, .rank = 1, .shape = {2}},
};
static const cs_metadata_item metadata[] = {{"format", "pt"}, {"note", "line\n\"quoted\" \xc3\xa4"}};

static const uint8_t flags[3] = {1, 0, 1};
static const float weights[6] = {0.5F, -1.25F, 3.0F, 4.0F, 5.5F, -0.0F};
static const int64_t steps = -7;
static const uint16_t halves[2] = {0x3c00, 0xc000}; /* 1, -2 */

static cs_status put_all(cs_tensor_writer *writer)
{
    CS_TRY(cs_tensor_writer_put(writer, 3, 0, &steps, sizeof steps));
    CS_TRY(cs_tensor_writer_put(writer, 1, 8, &weights[2], sizeof weights - 8));
    CS_TRY(cs_tensor_writer_put(writer, 1, 0, weights, 8));
    CS_TRY(cs_tensor_writer_put(writer, 0, 0, flags, sizeof flags));
    return cs_tensor_writer_put(writer, 4, 0, halves, sizeof halves);
}

static cs_status write_all(const char *path)
{
    CS_AUTO_PTR(cs_tensor_writer) writer = NULL;
    CS_TRY(cs_tensor_writer_open(path, infos, CS_COUNT(infos), metadata, CS_COUNT(metadata), &writer));
    CS_TRY(put_all(writer));
    return cs_tensor_writer_commit(writer);
}

static void what_was_written_is_read_back(void **state)
{
    const place *here = *state;

    assert_ok(write_all(here->path));

    CS_AUTO_PTR(cs_tensor_file) file = NULL;
    assert_ok(cs_tensor_file_open(here->path, &file));
    assert_int_equal(cs_tensor_file_count(file), CS_COUNT(infos));
    assert_string_equal(cs_tensor_file_metadata(file, "note"), metadata[1].value);
    float read[6];
    const cs_tensor_info *info = cs_tensor_file_find(file, "fc.weight");
    assert_int_equal(info->rank, 2);
    assert_ok(cs_tensor_file_read(file, info, 0, read, sizeof read));
    assert_memory_equal(read, weights, sizeof weights);
    for (size_t i = 0; i < cs_tensor_file_count(file); i++) {
        info = cs_tensor_file_info(file, i);
        assert_int_equal(info->offset % cs_dtype_size(info->dtype), 0);
    }
}

static void the_same_input_gives_the_same_bytes(void **state)
{
    const place *here = *state;
    static const char expected_header[] =
        "{\"__metadata__\":{\"format\":\"pt\",\"note\":\"line\\n\\\"quoted\\\" \xc3\xa4\"},"
        "\"steps\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
        "\"fc.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[8,32]},"
        "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[32,32]},"
        "\"half\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[32,36]},"
        "\"flag\":{\"dtype\":\"BOOL\",\"shape\":[3],\"data_offsets\":[36,39]}}";
    assert_ok(write_all(here->path));
    CS_AUTO(cs_buffer) first = CS_BUFFER_EMPTY;
    assert_ok(cs_file_read_all(here->path, 4096, &first));

    assert_ok(write_all(here->path));

    CS_AUTO(cs_buffer) second = CS_BUFFER_EMPTY;
    assert_ok(cs_file_read_all(here->path, 4096, &second));
    assert_true(cs_bytes_equal(cs_buffer_view(&first), cs_buffer_view(&second)));
    assert_int_equal(cs_load_le64(first.data) % 8, 0);
    assert_memory_equal(first.data + 8, expected_header, sizeof expected_header - 1);
}

static void an_independent_reader_agrees(void **state)
{
    const place *here = *state;
    assert_ok(write_all(here->path));
    CS_AUTO(cs_string) command =
        cs_format("python3 " CS_SOURCE_DIR "/tests/integration/read_safetensors.py '%s'", here->path);

    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    char text[1024] = "";
    size_t size = fread(text, 1, sizeof text - 1, pipe);
    text[size] = '\0';

    assert_int_equal(pclose(pipe), 0);
    assert_string_equal(text, "steps I64 [] -7\n"
                              "fc.weight F32 [2, 3] 11.75\n"
                              "empty F32 [0, 5] 0\n"
                              "half F16 [2] -1\n"
                              "flag BOOL [3] 2\n");
}

static void the_file_has_no_name_before_commit_and_no_rest_after_giving_up(void **state)
{
    const place *here = *state;
    CS_AUTO(cs_string) partial = cs_format("%s.partial", here->path);
    cs_tensor_writer *writer = NULL;

    assert_ok(cs_tensor_writer_open(here->path, infos, CS_COUNT(infos), NULL, 0, &writer));
    assert_ok(put_all(writer));
    assert_false(cs_file_exists(here->path));
    assert_true(cs_file_exists(partial));
    cs_tensor_writer_free(writer);

    assert_false(cs_file_exists(here->path));
    assert_false(cs_file_exists(partial));
}

static void a_commit_with_bytes_missing_is_refused_and_can_be_completed(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_tensor_writer) writer = NULL;
    assert_ok(cs_tensor_writer_open(here->path, infos, CS_COUNT(infos), NULL, 0, &writer));
    assert_ok(cs_tensor_writer_put(writer, 1, 0, weights, sizeof weights));

    assert_status(cs_tensor_writer_commit(writer), CS_STATE);
    assert_error_says("24 of 39 bytes");

    assert_ok(cs_tensor_writer_put(writer, 3, 0, &steps, sizeof steps));
    assert_ok(cs_tensor_writer_put(writer, 0, 0, flags, sizeof flags));
    assert_ok(cs_tensor_writer_put(writer, 4, 0, halves, sizeof halves));
    assert_ok(cs_tensor_writer_commit(writer));
    assert_status(cs_tensor_writer_commit(writer), CS_STATE);
}

static void bytes_outside_a_tensor_are_refused(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_tensor_writer) writer = NULL;
    assert_ok(cs_tensor_writer_open(here->path, infos, CS_COUNT(infos), NULL, 0, &writer));

    assert_status(cs_tensor_writer_put(writer, 0, 0, weights, 4), CS_RANGE);
    assert_status(cs_tensor_writer_put(writer, 0, 4, weights, 0), CS_RANGE);
    assert_status(cs_tensor_writer_put(writer, 0, UINT64_MAX, weights, 2), CS_RANGE);
    assert_status(cs_tensor_writer_put(writer, 5, 0, weights, 1), CS_RANGE);
}

static void what_the_reader_would_refuse_is_not_written(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_tensor_writer) writer = NULL;
    const cs_tensor_info twice[] = {infos[0], infos[0]};
    const cs_tensor_info reserved = {.name = "__metadata__", .dtype = CS_U8, .rank = 1, .shape = {1}};
    const cs_tensor_info nameless = {.name = "", .dtype = CS_U8};
    const cs_tensor_info no_text = {.name = "\xff", .dtype = CS_U8};
    const cs_tensor_info huge = {.name = "huge", .dtype = CS_F64, .rank = 2, .shape = {UINT64_MAX / 8, 2}};
    const cs_tensor_info large = {.name = "large", .dtype = CS_U8, .rank = 1, .shape = {UINT64_MAX - 1}};
    const cs_tensor_info deep = {.name = "deep", .dtype = CS_U8, .rank = CS_TENSOR_RANK_MAX + 1};
    CS_AUTO(cs_string) text = cs_alloc(CS_SAFETENSORS_HEADER_MAX_BYTES + 1);
    memset(text, 'x', CS_SAFETENSORS_HEADER_MAX_BYTES);
    const cs_metadata_item long_metadata = {"k", text};

    assert_status(cs_tensor_writer_open(here->path, twice, 2, NULL, 0, &writer), CS_INVALID);
    assert_status(cs_tensor_writer_open(here->path, &reserved, 1, NULL, 0, &writer), CS_INVALID);
    assert_status(cs_tensor_writer_open(here->path, &nameless, 1, NULL, 0, &writer), CS_INVALID);
    assert_status(cs_tensor_writer_open(here->path, &no_text, 1, NULL, 0, &writer), CS_INVALID);
    assert_status(cs_tensor_writer_open(here->path, &huge, 1, NULL, 0, &writer), CS_INVALID);
    assert_status(cs_tensor_writer_open(here->path, &large, 1, NULL, 0, &writer), CS_INVALID);
    assert_status(cs_tensor_writer_open(here->path, &deep, 1, NULL, 0, &writer), CS_INVALID);
    assert_status(cs_tensor_writer_open(here->path, infos, 1, &long_metadata, 1, &writer), CS_INVALID);
    assert_null(writer);
}

static void a_file_without_tensors_can_be_written(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_tensor_writer) writer = NULL;
    CS_AUTO_PTR(cs_tensor_file) file = NULL;

    assert_ok(cs_tensor_writer_open(here->path, NULL, 0, NULL, 0, &writer));
    assert_ok(cs_tensor_writer_commit(writer));

    assert_ok(cs_tensor_file_open(here->path, &file));
    assert_int_equal(cs_tensor_file_count(file), 0);
}

struct countdown {
    int left; /* the call that makes it 0 fails */
    int number;
};

static int fail_at_zero(void *self, const char *operation, const char *path)
{
    (void)operation;
    (void)path;
    struct countdown *countdown = self;
    return --countdown->left == 0 ? countdown->number : 0;
}

static void whichever_call_fails_the_error_is_clean_and_a_second_attempt_works(void **state)
{
    const place *here = *state;
    CS_AUTO(cs_string) partial = cs_format("%s.partial", here->path);
    int failed = 0;
    for (int k = 1;; k++) {
        struct countdown countdown = {k, k % 2 ? ENOSPC : EIO};
        assert_ok(cs_file_remove(here->path));
        cs_file_set_fault(fail_at_zero, &countdown);
        cs_status status = write_all(here->path);
        cs_file_set_fault(NULL, NULL);

        assert_false(cs_file_exists(partial));
        if (countdown.left > 0) {
            assert_ok(status);
            break;
        }
        assert_int_not_equal(status, CS_OK);
        failed++;
        assert_ok(write_all(here->path));
    }
    assert_true(failed >= 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLACE_TEST(what_was_written_is_read_back),
        PLACE_TEST(the_same_input_gives_the_same_bytes),
        PLACE_TEST(an_independent_reader_agrees),
        PLACE_TEST(the_file_has_no_name_before_commit_and_no_rest_after_giving_up),
        PLACE_TEST(a_commit_with_bytes_missing_is_refused_and_can_be_completed),
        PLACE_TEST(bytes_outside_a_tensor_are_refused),
        PLACE_TEST(what_the_reader_would_refuse_is_not_written),
        PLACE_TEST(a_file_without_tensors_can_be_written),
        PLACE_TEST(whichever_call_fails_the_error_is_clean_and_a_second_attempt_works),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
