/* The door: every kind of bad update is refused with the tensor's name. */
#include "server/aggregate/aggregate.h"

#include "tests/unit/aggregate/files.h"

#include <math.h>

static const float weight[3] = {1, 2, 3};
static const float bias[1] = {0};

static char *write_model(void)
{
    const test_tensor tensors[] = {tensor_2d("linear.weight", CS_F32, 1, 3, weight),
                                   tensor_2d("linear.bias", CS_F32, 1, 1, bias)};
    return write_tensors("model", tensors, 2);
}

/* Writes an update of two tensors and expects this sentence; NULL: it is fine. */
static void expect(test_tensor first, test_tensor second, size_t count, const char *sentence)
{
    CS_AUTO(cs_string) model = write_model();
    const test_tensor tensors[] = {first, second};
    CS_AUTO(cs_string) update = write_tensors("update", tensors, count);

    const cs_status status = cs_update_check(model, update);

    assert_int_equal(status, sentence == NULL ? CS_OK : CS_INVALID);
    if (sentence != NULL)
        assert_string_equal(cs_error_text(), sentence);
}

static const test_tensor good_bias = {{.name = "linear.bias", .dtype = CS_F32, .rank = 2, .shape = {1, 1}}, bias};

static void an_update_like_the_model_is_taken_in_any_order(void **state)
{
    (void)state;

    expect(good_bias, tensor_2d("linear.weight", CS_F32, 1, 3, weight), 2, NULL);
}

static void another_shape_is_refused(void **state)
{
    (void)state;

    expect(tensor_2d("linear.weight", CS_F32, 1, 2, weight), good_bias, 2,
           "tensor 'linear.weight': shape [1, 2], the model has [1, 3]");
    expect(tensor_2d("linear.weight", CS_F32, 3, 1, weight), good_bias, 2,
           "tensor 'linear.weight': shape [3, 1], the model has [1, 3]");
    test_tensor flat = tensor_2d("linear.weight", CS_F32, 3, 0, weight);
    flat.info.rank = 1;
    expect(flat, good_bias, 2, "tensor 'linear.weight': shape [3], the model has [1, 3]");
}

static void another_dtype_is_refused(void **state)
{
    (void)state;
    static const double wide[3] = {1, 2, 3};

    expect(tensor_2d("linear.weight", CS_F64, 1, 3, wide), good_bias, 2,
           "tensor 'linear.weight': dtype F64, the model has F32");
}

static void a_missing_tensor_is_refused(void **state)
{
    (void)state;

    expect(good_bias, good_bias, 1, "tensor 'linear.weight' is missing: the model has it");
}

static void an_unknown_tensor_is_refused(void **state)
{
    (void)state;

    expect(good_bias, tensor_2d("linear.wait", CS_F32, 1, 3, weight), 2,
           "tensor 'linear.wait' is unknown: the model has none of that name");
}

static void a_file_that_is_no_safetensors_is_refused(void **state)
{
    (void)state;
    CS_AUTO(cs_string) model = write_model();
    CS_AUTO(cs_string) update = cs_path_join(folder, "update");
    assert_int_equal(cs_file_write_atomic(update, cs_bytes_of_text("not a file of tensors"), 0600), CS_OK);

    assert_int_not_equal(cs_update_check(model, update), CS_OK);
    assert_int_not_equal(cs_tensors_check_finite(update), CS_OK);
}

#define COUNT 200000 /* more than a chunk for every dtype */

static void a_value_that_is_not_finite_is_found_in_any_chunk_of_any_dtype(void **state)
{
    (void)state;
    static const struct {
        cs_dtype dtype;
        uint8_t nan[8], infinity[8];
    } cases[] = {
        {CS_F64, {1, 0, 0, 0, 0, 0, 0xf0, 0x7f}, {0, 0, 0, 0, 0, 0, 0xf0, 0xff}},
        {CS_F32, {0, 0, 0xc0, 0x7f}, {0, 0, 0x80, 0xff}},
        {CS_F16, {1, 0x7c}, {0, 0xfc}},
        {CS_BF16, {0x81, 0x7f}, {0x80, 0xff}},
    };
    static const size_t places[] = {0, 7, 32768, 131071, COUNT - 1};
    uint8_t *data = cs_alloc_array(COUNT, 8);
    for (size_t i = 0; i < CS_COUNT(cases); i++) {
        const size_t size = cs_dtype_size(cases[i].dtype);
        const test_tensor tensor = tensor_2d("w", cases[i].dtype, 2, COUNT / 2, data);
        CS_AUTO(cs_string) model = write_tensors("model", &tensor, 1);
        assert_int_equal(cs_tensors_check_finite(model), CS_OK);
        for (size_t p = 0; p < CS_COUNT(places); p++) {
            for (int kind = 0; kind < 2; kind++) {
                memcpy(data + places[p] * size, kind ? cases[i].nan : cases[i].infinity, size);
                CS_AUTO(cs_string) update = write_tensors("update", &tensor, 1);
                memset(data + places[p] * size, 0, size);
                CS_AUTO(cs_string) sentence = cs_format("tensor 'w': element %zu is not finite", places[p]);

                assert_int_equal(cs_update_check(model, update), CS_INVALID);
                assert_string_equal(cs_error_text(), sentence);
                assert_int_equal(cs_tensors_check_finite(update), CS_INVALID);
                assert_string_equal(cs_error_text(), sentence);
            }
        }
    }
    cs_free(data);
}

static void a_truth_value_that_is_neither_is_refused(void **state)
{
    (void)state;
    static const uint8_t flags[3] = {0, 1, 2};
    const test_tensor tensor = tensor_2d("mask", CS_BOOL, 1, 3, flags);
    CS_AUTO(cs_string) path = write_tensors("update", &tensor, 1);

    assert_int_equal(cs_tensors_check_finite(path), CS_INVALID);
    assert_string_equal(cs_error_text(), "tensor 'mask': element 2 is neither true nor false");
}

static void empty_and_whole_number_tensors_are_fine(void **state)
{
    (void)state;
    static const int64_t steps[1] = {7};
    const test_tensor tensors[] = {tensor_2d("empty", CS_F32, 0, 5, NULL), tensor_2d("steps", CS_I64, 1, 1, steps)};
    CS_AUTO(cs_string) path = write_tensors("model", tensors, 2);

    assert_int_equal(cs_update_check(path, path), CS_OK);
}

static int fail_second_read(void *self, const char *operation, const char *path)
{
    (void)path;
    return strcmp(operation, "pread") == 0 && (*(int *)self)++ == 5 ? 5 /* EIO */ : 0;
}

static void a_disk_that_fails_is_not_called_a_bad_update(void **state)
{
    (void)state;
    float *data = cs_alloc_array(COUNT, sizeof(float));
    const test_tensor tensor = tensor_2d("w", CS_F32, 2, COUNT / 2, data);
    CS_AUTO(cs_string) path = write_tensors("model", &tensor, 1);
    int reads = 0;
    cs_file_set_fault(fail_second_read, &reads);

    assert_int_equal(cs_update_check(path, path), CS_DATA_LOSS);

    cs_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(an_update_like_the_model_is_taken_in_any_order),
        IN_FOLDER(another_shape_is_refused),
        IN_FOLDER(another_dtype_is_refused),
        IN_FOLDER(a_missing_tensor_is_refused),
        IN_FOLDER(an_unknown_tensor_is_refused),
        IN_FOLDER(a_file_that_is_no_safetensors_is_refused),
        IN_FOLDER(a_value_that_is_not_finite_is_found_in_any_chunk_of_any_dtype),
        IN_FOLDER(a_truth_value_that_is_neither_is_refused),
        IN_FOLDER(empty_and_whole_number_tensors_are_fine),
        IN_FOLDER(a_disk_that_fails_is_not_called_a_bad_update),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
