/* The safetensors reader: what it accepts, and every kind of lie in a header that it must not. */
#include "common/tensors/safetensors.h"
#include "tests/unit/place.h"

#include <fcntl.h>

/* A file of this header and `data_size` bytes after it; only the header is looked at. */
static cs_status parse(const char *header, uint64_t data_size, cs_tensor_file **ret)
{
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    uint8_t length[8];
    cs_store_le64(length, strlen(header));
    cs_buffer_append(&bytes, length, sizeof length);
    cs_buffer_append_text(&bytes, header);
    return cs_tensor_header_parse(cs_buffer_view(&bytes), bytes.size + data_size, "update.safetensors", ret);
}

static void assert_refused(const char *header, uint64_t data_size, const char *reason)
{
    cs_tensor_file *file = NULL;
    cs_status status = parse(header, data_size, &file);
    if (status != CS_INVALID || !strstr(cs_error_text(), reason) || !strstr(cs_error_text(), "update.safetensors"))
        fail_msg("%.80s: %s: %s, expected '%s'", header, cs_status_name(status), status ? cs_error_text() : "", reason);
    assert_null(file);
}

static void a_file_of_the_reference_is_read_whatever_the_order_of_its_header(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_tensor_file) file = NULL;

    assert_ok(parse("{\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[8,32]},"
                    "\"__metadata__\":{\"format\":\"pt\",\"plan\":\"h\\u00e4rz\"},"
                    "\"a\":{\"shape\":[],\"data_offsets\":[0,8],\"dtype\":\"I64\"}}   ",
                    24 + 8, &file));

    assert_int_equal(cs_tensor_file_count(file), 2);
    const cs_tensor_info *first = cs_tensor_file_info(file, 0);
    assert_string_equal(first->name, "a");
    assert_int_equal(first->dtype, CS_I64);
    assert_int_equal(first->rank, 0);
    assert_int_equal(first->size_bytes, 8);
    const cs_tensor_info *second = cs_tensor_file_find(file, "b");
    assert_ptr_equal(second, cs_tensor_file_info(file, 1));
    assert_int_equal(second->rank, 2);
    assert_int_equal(second->shape[1], 3);
    assert_int_equal(second->offset, first->offset + 8);
    assert_null(cs_tensor_file_find(file, "c"));
    assert_string_equal(cs_tensor_file_metadata(file, "plan"), "h\303\244rz");
    assert_null(cs_tensor_file_metadata(file, "absent"));
    assert_int_equal(cs_tensor_file_metadata_count(file), 2);
    const char *key = NULL;
    const char *value = NULL;
    cs_tensor_file_metadata_at(file, 0, &key, &value);
    assert_string_equal(key, "format");
    assert_string_equal(value, "pt");
}

static void a_file_without_tensors_and_empty_tensors_are_fine(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_tensor_file) none = NULL;
    CS_AUTO_PTR(cs_tensor_file) empty = NULL;

    assert_ok(parse("{}", 0, &none));
    assert_ok(parse("{\"z\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[4,4]},"
                    "\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]},"
                    "\"y\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},"
                    "\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
                    8, &empty));

    assert_int_equal(cs_tensor_file_count(none), 0);
    assert_null(cs_tensor_file_find(none, "x"));
    assert_int_equal(cs_tensor_file_count(empty), 4);
    assert_int_equal(cs_tensor_file_find(empty, "z")->size_bytes, 0);
}

static void every_dtype_has_the_width_of_the_format(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        cs_dtype dtype;
        size_t size;
    } expected[] = {{"F64", CS_F64, 8}, {"F32", CS_F32, 4},  {"F16", CS_F16, 2}, {"BF16", CS_BF16, 2},
                    {"I64", CS_I64, 8}, {"I32", CS_I32, 4},  {"I16", CS_I16, 2}, {"I8", CS_I8, 1},
                    {"U8", CS_U8, 1},   {"BOOL", CS_BOOL, 1}};
    for (size_t i = 0; i < CS_COUNT(expected); i++) {
        CS_AUTO(cs_string) header = cs_format("{\"x\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%zu]}}",
                                              expected[i].name, 3 * expected[i].size);
        CS_AUTO_PTR(cs_tensor_file) file = NULL;
        assert_ok(parse(header, 3 * expected[i].size, &file));
        assert_int_equal(cs_tensor_file_info(file, 0)->dtype, expected[i].dtype);
        assert_int_equal(cs_dtype_size(expected[i].dtype), expected[i].size);
        assert_string_equal(cs_dtype_name(expected[i].dtype), expected[i].name);
    }
}

#define TENSOR(name, dtype, shape, from, to)                                                                           \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]}"

static void tensors_must_cover_the_data_without_gap_and_overlap(void **state)
{
    (void)state;
    assert_refused("{" TENSOR("a", "U8", "[4]", "0", "4") "," TENSOR("b", "U8", "[4]", "2", "6") "}", 6,
                   "'b' begins at 2 of the data, inside");
    assert_refused("{" TENSOR("a", "U8", "[4]", "0", "4") "," TENSOR("b", "U8", "[4]", "0", "4") "}", 4, "inside");
    assert_refused("{" TENSOR("a", "U8", "[4]", "0", "4") "," TENSOR("b", "U8", "[4]", "5", "9") "}", 9,
                   "'b' begins at 5 of the data, with a gap");
    assert_refused("{" TENSOR("a", "U8", "[4]", "1", "5") "}", 5, "gap");
    assert_refused("{" TENSOR("a", "U8", "[4]", "0", "4") "}", 5, "1 bytes of data belong to no tensor");
    assert_refused("{}", 1, "1 bytes of data belong to no tensor");
    assert_refused("{" TENSOR("a", "U8", "[4]", "0", "4") "}", 3, "outside the data of 3 bytes");
    assert_refused("{" TENSOR("a", "U8", "[4]", "4", "0") "}", 4, "outside");
    assert_refused("{" TENSOR("a", "U8", "[5]", "0", "4") "}", 4, "hold 4 bytes, its shape needs 5");
    /* An empty tensor may not lie inside another. */
    assert_refused("{" TENSOR("a", "U8", "[4]", "0", "4") "," TENSOR("b", "U8", "[0]", "2", "2") "}", 4, "inside");
    assert_refused("{" TENSOR("a", "U8", "[4]", "0", "4") "," TENSOR("b", "U8", "[0]", "9", "9") "}", 4, "outside");
}

static void shapes_that_lie_are_refused(void **state)
{
    (void)state;
    assert_refused("{" TENSOR("a", "U8", "[-1]", "0", "4") "}", 4, "'shape' has an entry that is not a whole number");
    assert_refused("{" TENSOR("a", "U8", "[1.0]", "0", "1") "}", 1, "not a whole number");
    assert_refused("{" TENSOR("a", "U8", "[\"1\"]", "0", "1") "}", 1, "not a whole number");
    assert_refused("{" TENSOR("a", "U8", "[[1]]", "0", "1") "}", 1, "not a whole number");
    assert_refused("{" TENSOR("a", "U8", "7", "0", "7") "}", 7, "'shape' is not a list");
    assert_refused("{" TENSOR("a", "F32", "[4294967296,4294967296]", "0", "0") "}", 0, "larger than 64 bits");
    assert_refused("{" TENSOR("a", "F64", "[2305843009213693952]", "0", "0") "}", 0, "larger than 64 bits");
    assert_refused("{" TENSOR("a", "U8", "[9223372036854775807,4,0]", "0", "0") "}", 0, "larger than 64 bits");
    assert_refused("{" TENSOR("a", "U8", "[99999999999999999999]", "0", "0") "}", 0, "not valid JSON");
    assert_refused("{" TENSOR("a", "U8", "[1]", "-1", "0") "}", 1, "not a whole number");
    assert_refused("{" TENSOR("a", "U8", "[1]", "0", "18446744073709551616") "}", 1, "not valid JSON");

    CS_AUTO_PTR(cs_tensor_file) highest = NULL;
    assert_ok(parse("{" TENSOR("a", "U8", "[1,1,1,1,1,1,1,1]", "0", "1") "}", 1, &highest));
    assert_refused("{" TENSOR("a", "U8", "[1,1,1,1,1,1,1,1,1]", "0", "1") "}", 1, "9 dimensions, at most 8");
}

static void descriptions_with_missing_wrong_or_more_keys_are_refused(void **state)
{
    (void)state;
    assert_refused("{\"a\":7}", 0, "not an object");
    assert_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[0]}}", 0, "'data_offsets' is missing");
    assert_refused("{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,0]}}", 0, "'shape' is missing");
    assert_refused("{\"a\":{\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "'dtype' is missing");
    assert_refused("{\"a\":{\"dtype\":7,\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "'dtype' is not a text");
    assert_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0,0]}}", 0, "has 3 entries, not 2");
    assert_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0],\"x\":1}}", 0, "other keys");
    assert_refused("{" TENSOR("a", "F8_E4M3", "[1]", "0", "1") "}", 1, "dtype 'F8_E4M3' is not supported");
    assert_refused("{" TENSOR("a", "f32", "[1]", "0", "4") "}", 4, "dtype 'f32' is not supported");
}

static void names_twice_empty_too_long_or_unprintable_are_refused(void **state)
{
    (void)state;
    assert_refused("{" TENSOR("a", "U8", "[1]", "0", "1") "," TENSOR("a", "U8", "[1]", "1", "2") "}", 2, "duplicate");
    assert_refused("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "duplicate");
    assert_refused("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, "duplicate");
    assert_refused("{" TENSOR("", "U8", "[1]", "0", "1") "}", 1, "has 0 bytes");
    assert_refused("{" TENSOR("a\\u0000b", "U8", "[1]", "0", "1") "}", 1, "not valid JSON");
    assert_refused("{" TENSOR("a\\nb", "U8", "[1]", "0", "1") "}", 1, "control character");
    assert_refused("{" TENSOR("a\xff", "U8", "[1]", "0", "1") "}", 1, "not valid JSON");

    char name[CS_TENSOR_NAME_MAX + 2];
    memset(name, 'n', sizeof name);
    name[CS_TENSOR_NAME_MAX] = '\0';
    CS_AUTO(cs_string) longest = cs_format("{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", name);
    CS_AUTO_PTR(cs_tensor_file) file = NULL;
    assert_ok(parse(longest, 1, &file));
    name[CS_TENSOR_NAME_MAX] = 'n';
    name[CS_TENSOR_NAME_MAX + 1] = '\0';
    CS_AUTO(cs_string) longer = cs_format("{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", name);
    assert_refused(longer, 1, "has 256 bytes");
}

static void metadata_is_texts_and_nothing_else(void **state)
{
    (void)state;
    assert_refused("{\"__metadata__\":[]}", 0, "not an object");
    assert_refused("{\"__metadata__\":{\"k\":1}}", 0, "not a text");
    assert_refused("{\"__metadata__\":{\"k\":{\"l\":\"m\"}}}", 0, "not a text");
    assert_refused("{\"__metadata__\":{\"k\":null}}", 0, "not a text");
}

static void a_header_that_is_no_object_is_refused(void **state)
{
    (void)state;
    assert_refused("", 0, "does not begin with '{'");
    assert_refused("[]", 0, "does not begin with '{'");
    assert_refused(" {}", 0, "does not begin with '{'");
    assert_refused("{", 0, "does not begin with '{'");
    assert_refused("{]", 0, "not valid JSON");
    assert_refused("{}{}", 0, "not valid JSON");
    assert_refused("{\"a\":", 0, "not valid JSON");
}

static void deep_nesting_costs_neither_stack_nor_time(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) header = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&header, "{\"a\":");
    for (size_t i = 0; i < CS_SAFETENSORS_HEADER_MAX_BYTES - 100; i++)
        cs_buffer_append(&header, "[", 1);
    assert_refused(cs_buffer_text(&header), 0, "not valid JSON");
}

static void a_header_may_have_one_mebibyte_and_not_one_byte_more(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) header = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&header, "{}");
    while (header.size < CS_SAFETENSORS_HEADER_MAX_BYTES)
        cs_buffer_append(&header, " ", 1);
    CS_AUTO_PTR(cs_tensor_file) file = NULL;

    assert_ok(parse(cs_buffer_text(&header), 0, &file));

    cs_buffer_append(&header, " ", 1);
    assert_refused(cs_buffer_text(&header), 0, "1048577 bytes, at most 1048576");
}

static void lengths_that_lie_about_the_header_are_refused(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {3, 100, UINT32_MAX, INT64_MAX, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < CS_COUNT(lengths); i++) {
        uint8_t bytes[10] = {0, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
        cs_store_le64(bytes, lengths[i]);
        cs_tensor_file *file = NULL;
        assert_status(cs_tensor_header_parse(cs_bytes_of(bytes, sizeof bytes), sizeof bytes, "u", &file), CS_INVALID);
        assert_null(file);
    }
    for (size_t size = 0; size < 8; size++) {
        cs_tensor_file *file = NULL;
        assert_status(cs_tensor_header_parse(cs_bytes_of("\2\0\0\0\0\0\0\0", size), size, "u", &file), CS_INVALID);
    }
}

static void a_file_cut_anywhere_is_refused_by_name(void **state)
{
    const place *here = *state;
    const char *header = "{" TENSOR("a", "F32", "[2]", "0", "8") "}";
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    uint8_t length[8];
    cs_store_le64(length, strlen(header));
    cs_buffer_append(&bytes, length, sizeof length);
    cs_buffer_append_text(&bytes, header);
    cs_buffer_append(&bytes, "01234567", 8);

    for (size_t size = 0; size < bytes.size; size++) {
        cs_tensor_file *file = NULL;
        assert_ok(cs_file_write_atomic(here->path, cs_bytes_of(bytes.data, size), 0600));
        assert_status(cs_tensor_file_open(here->path, &file), CS_INVALID);
        assert_error_says(here->path);
    }
    cs_buffer_append(&bytes, "8", 1);
    cs_tensor_file *file = NULL;
    assert_ok(cs_file_write_atomic(here->path, cs_buffer_view(&bytes), 0600));
    assert_status(cs_tensor_file_open(here->path, &file), CS_INVALID);
    assert_error_says("belong to no tensor");
}

static void reading_stays_inside_the_tensor_and_notices_a_file_that_shrank(void **state)
{
    const place *here = *state;
    const char *header = "{" TENSOR("a", "U8", "[4]", "0", "4") "," TENSOR("b", "U8", "[4]", "4", "8") "}";
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    uint8_t length[8];
    cs_store_le64(length, strlen(header));
    cs_buffer_append(&bytes, length, sizeof length);
    cs_buffer_append_text(&bytes, header);
    cs_buffer_append(&bytes, "abcdefgh", 8);
    assert_ok(cs_file_write_atomic(here->path, cs_buffer_view(&bytes), 0600));
    CS_AUTO(cs_fd) fd = -1;
    assert_ok(cs_file_open(here->path, O_RDWR, 0, &fd));
    CS_AUTO_PTR(cs_tensor_file) file = NULL;
    assert_ok(cs_tensor_file_open_fd(fd, "the worker's update", &file));
    const cs_tensor_info *b = cs_tensor_file_find(file, "b");
    char data[8] = "";

    assert_ok(cs_tensor_file_read(file, b, 1, data, 3));
    assert_string_equal(data, "fgh");
    assert_ok(cs_tensor_file_read(file, b, 4, data, 0));
    assert_status(cs_tensor_file_read(file, b, 0, data, 5), CS_RANGE);
    assert_status(cs_tensor_file_read(file, b, 5, data, 0), CS_RANGE);
    assert_status(cs_tensor_file_read(file, b, UINT64_MAX, data, 2), CS_RANGE);
    assert_ok(cs_file_truncate(fd, bytes.size - 1));
    assert_status(cs_tensor_file_read(file, b, 0, data, 4), CS_DATA_LOSS);
    assert_error_says("the worker's update");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_of_the_reference_is_read_whatever_the_order_of_its_header),
        cmocka_unit_test(a_file_without_tensors_and_empty_tensors_are_fine),
        cmocka_unit_test(every_dtype_has_the_width_of_the_format),
        cmocka_unit_test(tensors_must_cover_the_data_without_gap_and_overlap),
        cmocka_unit_test(shapes_that_lie_are_refused),
        cmocka_unit_test(descriptions_with_missing_wrong_or_more_keys_are_refused),
        cmocka_unit_test(names_twice_empty_too_long_or_unprintable_are_refused),
        cmocka_unit_test(metadata_is_texts_and_nothing_else),
        cmocka_unit_test(a_header_that_is_no_object_is_refused),
        cmocka_unit_test(deep_nesting_costs_neither_stack_nor_time),
        cmocka_unit_test(a_header_may_have_one_mebibyte_and_not_one_byte_more),
        cmocka_unit_test(lengths_that_lie_about_the_header_are_refused),
        PLACE_TEST(a_file_cut_anywhere_is_refused_by_name),
        PLACE_TEST(reading_stays_inside_the_tensor_and_notices_a_file_that_shrank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
