/* client/nn/parameters: names, files, differences. */
#include "client/nn/parameters.h"

#include "common/base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char root[] = "/tmp/parameters-XXXXXX";

/* A table with one F32 vector. */
static cs_parameters *table_of(const char *name, size_t count, const float *values)
{
    CS_SCOPE(scope);
    cs_parameters *parameters = cs_parameters_new();
    const uint64_t shape[] = {count};
    cs_tensor *value = cs_tensor_from(CS_F32, 1, shape, values, count * sizeof *values);
    assert_int_equal(cs_parameters_put(parameters, name, value), CS_OK);
    assert_int_equal(cs_scope_status(scope), CS_OK);
    return parameters;
}

static void a_table_gives_what_was_put_and_names_what_is_missing(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_parameters) parameters = table_of("w", 2, (const float[]){1, 2});
    CS_SCOPE(scope);
    assert_non_null(cs_parameter(parameters, "w"));
    assert_int_equal(cs_scope_status(scope), CS_OK);
    assert_null(cs_parameter(parameters, "head.bias"));
    assert_int_equal(cs_scope_status(scope), CS_NOT_FOUND);
    assert_string_equal(cs_error_text(), "the model has no parameter 'head.bias'");
    /* What could not be made is not put. */
    assert_int_equal(cs_parameters_put(parameters, "b", NULL), CS_NOT_FOUND);
    assert_int_equal(cs_parameters_count(parameters), 1);
}

static void putting_a_name_again_replaces_its_tensor(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_parameters) parameters = table_of("w", 2, (const float[]){1, 2});
    CS_SCOPE(scope);
    assert_int_equal(cs_parameters_put(parameters, "w", cs_tensor_zeros(CS_F32, 1, (const uint64_t[]){5})), CS_OK);
    assert_int_equal(cs_parameters_count(parameters), 1);
    assert_int_equal(cs_tensor_size(cs_parameter(parameters, "w"), 0), 5);
    assert_int_equal(cs_scope_status(scope), CS_OK);
}

static void a_file_gives_back_the_same_table_and_the_same_bytes(void **state)
{
    (void)state;
    CS_AUTO(cs_string) path = cs_path_join(root, "one.safetensors");
    CS_AUTO(cs_string) again = cs_path_join(root, "two.safetensors");
    CS_AUTO_PTR(cs_parameters) parameters = table_of("w", 3, (const float[]){1.5f, -2, 3e-7f});
    CS_AUTO_PTR(cs_parameters) read = NULL;
    CS_AUTO(cs_buffer) first = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) second = CS_BUFFER_EMPTY;

    assert_int_equal(cs_parameters_save(parameters, path, NULL, 0), CS_OK);
    assert_int_equal(cs_parameters_load(path, &read), CS_OK);
    assert_int_equal(cs_parameters_save(read, again, NULL, 0), CS_OK);

    assert_int_equal(cs_parameters_check_same(read, parameters, "the file"), CS_OK);
    assert_int_equal(cs_file_read_all(path, 4096, &first), CS_OK);
    assert_int_equal(cs_file_read_all(again, 4096, &second), CS_OK);
    assert_true(cs_bytes_equal(cs_buffer_view(&first), cs_buffer_view(&second)));
}

static void a_file_of_nothing_or_of_rubbish_is_refused(void **state)
{
    (void)state;
    CS_AUTO(cs_string) path = cs_path_join(root, "bad.safetensors");
    cs_parameters *read = NULL;
    static const char *const texts[] = {"", "12345678", "\xff\xff\xff\xff\xff\xff\xff\xff{}"};
    for (size_t i = 0; i < CS_COUNT(texts); i++) {
        assert_int_equal(cs_file_write_atomic(path, cs_bytes_of_text(texts[i]), 0600), CS_OK);
        assert_int_not_equal(cs_parameters_load(path, &read), CS_OK);
        assert_null(read);
    }
}

static void models_of_another_shape_are_told_apart(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_parameters) two = table_of("w", 2, (const float[]){1, 2});
    CS_AUTO_PTR(cs_parameters) three = table_of("w", 3, (const float[]){1, 2, 3});
    CS_AUTO_PTR(cs_parameters) other = table_of("v", 2, (const float[]){1, 2});
    CS_AUTO_PTR(cs_parameters) wide = cs_parameters_new();
    {
        CS_SCOPE(scope);
        assert_int_equal(cs_parameters_put(wide, "w", cs_tensor_zeros(CS_F64, 1, (const uint64_t[]){2})), CS_OK);
        assert_int_equal(cs_scope_status(scope), CS_OK);
    }
    assert_int_equal(cs_parameters_check_same(three, two, "the model"), CS_INVALID);
    assert_string_equal(cs_error_text(), "the model: tensor 'w' has shape [3], expected [2]");
    assert_int_equal(cs_parameters_check_same(other, two, "the model"), CS_INVALID);
    assert_string_equal(cs_error_text(), "the model: no tensor 'w'");
    assert_int_equal(cs_parameters_check_same(wide, two, "the model"), CS_INVALID);
    assert_string_equal(cs_error_text(), "the model: tensor 'w' is F64, expected F32");
    CS_SCOPE(scope);
    assert_int_equal(cs_parameters_put(two, "more", cs_parameter(three, "w")), CS_OK);
    CS_AUTO_PTR(cs_parameters) plain = table_of("w", 2, (const float[]){1, 2});
    assert_int_equal(cs_parameters_check_same(two, plain, "the model"), CS_INVALID);
    assert_string_equal(cs_error_text(), "the model: unknown tensor 'more'");
    assert_int_equal(cs_scope_status(scope), CS_OK);
}

static void a_difference_is_what_travels_and_a_clone_stays_apart(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_parameters) base = table_of("w", 2, (const float[]){1, 2});
    CS_AUTO_PTR(cs_parameters) trained = NULL;
    CS_AUTO_PTR(cs_parameters) delta = NULL;
    float values[2];
    assert_int_equal(cs_parameters_clone(base, &trained), CS_OK);
    CS_SCOPE(scope);
    assert_int_equal(cs_parameters_require_gradients(trained), CS_OK);
    cs_tensor *ones = cs_tensor_full(CS_F32, 1, (const uint64_t[]){2}, 1);
    assert_int_equal(cs_add_into(cs_parameters_at(trained, 0), ones, 0.5), CS_OK);

    assert_int_equal(cs_parameters_subtract(trained, base, &delta), CS_OK);

    assert_int_equal(cs_tensor_copy_out(cs_parameter(delta, "w"), values, sizeof values), CS_OK);
    assert_true(values[0] == 0.5f && values[1] == 0.5f);
    assert_int_equal(cs_tensor_copy_out(cs_parameter(base, "w"), values, sizeof values), CS_OK);
    assert_true(values[0] == 1 && values[1] == 2);
    assert_int_equal(cs_scope_status(scope), CS_OK);
}

static void a_value_that_is_not_finite_names_its_tensor(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_parameters) parameters = table_of("w", 2, (const float[]){1, 1.0f / 0.0f});
    assert_int_equal(cs_parameters_check_finite(parameters, "the model"), CS_INVALID);
    assert_string_equal(cs_error_text(), "the model: tensor 'w': not every value is finite");
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(root) != NULL && cs_tensor_start(1) == CS_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return cs_folder_remove(root) == CS_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_gives_what_was_put_and_names_what_is_missing),
        cmocka_unit_test(putting_a_name_again_replaces_its_tensor),
        cmocka_unit_test(a_file_gives_back_the_same_table_and_the_same_bytes),
        cmocka_unit_test(a_file_of_nothing_or_of_rubbish_is_refused),
        cmocka_unit_test(models_of_another_shape_are_told_apart),
        cmocka_unit_test(a_difference_is_what_travels_and_a_clone_stays_apart),
        cmocka_unit_test(a_value_that_is_not_finite_names_its_tensor),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
