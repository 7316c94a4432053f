/* What a less trusted process wrote is copied out of its reach, checked, and only then taken. */
#include "client/agent/exchange.h"
#include "common/tensors/safetensors.h"
#include "tests/unit/crypto/folder.h"

#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct fixture {
    char *folder, *model, *staging;
    cs_blobs *blobs;
} fixture;

static void write_tensor(const char *path, const char *name, cs_dtype dtype, uint64_t size, double value)
{
    const cs_tensor_info info = {.name = name, .dtype = dtype, .rank = 1, .shape = {size}};
    CS_AUTO_PTR(cs_tensor_writer) writer = NULL;
    must_be_ok(cs_tensor_writer_open(path, &info, 1, NULL, 0, &writer));
    uint8_t *bytes = cs_alloc(size * cs_dtype_size(dtype));
    for (uint64_t i = 0; i < size; i++) {
        if (dtype == CS_F64)
            memcpy(bytes + i * 8, &value, 8);
        else if (dtype == CS_F32)
            memcpy(bytes + i * 4, &(float){(float)value}, 4);
    }
    must_be_ok(cs_tensor_writer_put(writer, 0, 0, bytes, size * cs_dtype_size(dtype)));
    must_be_ok(cs_tensor_writer_commit(writer));
    cs_free(bytes);
}

static fixture make_fixture(void **state)
{
    fixture f = {.folder = cs_path_join(*state, "task"),
                 .model = cs_path_join(*state, "model"),
                 .staging = cs_path_join(*state, "staging")};
    CS_AUTO(cs_string) blobs = cs_path_join(*state, "blobs");
    must_be_ok(cs_blobs_open(blobs, &f.blobs));
    must_be_ok(cs_folder_make(f.folder, 0700));
    write_tensor(f.model, "w", CS_F32, 4, 1);
    return f;
}

static void free_fixture(fixture *f)
{
    cs_blobs_free(f->blobs);
    cs_free(f->folder);
    cs_free(f->model);
    cs_free(f->staging);
}

static cs_status take_update(fixture *f, const char *file)
{
    cs_hash hash;
    uint64_t size = 0;
    const cs_status status =
        cs_exchange_take(f->blobs, cs_phase_rule_find("train"), f->folder, file, f->model, f->staging, &hash, &size);
    assert_false(cs_file_exists(f->staging));
    if (status == CS_OK)
        assert_true(cs_blobs_has(f->blobs, &hash, NULL));
    return status;
}

static void a_good_update_is_taken_and_what_the_worker_does_to_its_file_later_does_not_matter(void **state)
{
    fixture f = make_fixture(state);
    CS_AUTO(cs_string) path = cs_path_join(f.folder, "update");
    write_tensor(path, "w", CS_F32, 4, 0.25);
    CS_AUTO(cs_fd) still_open = -1;
    must_be_ok(cs_file_open(path, O_RDWR, 0, &still_open));
    cs_hash hash, again;
    uint64_t size = 0;

    must_be_ok(
        cs_exchange_take(f.blobs, cs_phase_rule_find("train"), f.folder, "update", f.model, f.staging, &hash, &size));
    must_be_ok(cs_file_pwrite(still_open, "patient 17", 10, 0));

    CS_AUTO(cs_string) blob = cs_blobs_path(f.blobs, &hash);
    must_be_ok(cs_sha256_file(blob, &again, &size));
    assert_true(cs_hash_equal(&hash, &again));
    free_fixture(&f);
}

static void updates_unlike_the_model_are_refused(void **state)
{
    fixture f = make_fixture(state);
    static const struct {
        const char *name;
        cs_dtype dtype;
        uint64_t size;
        double value;
        const char *says;
    } bad[] = {
        {"w", CS_F32, 5, 0, "shape"},    {"w", CS_F64, 4, 0, "type"},          {"other", CS_F32, 4, 0, "other"},
        {"w", CS_F32, 4, NAN, "finite"}, {"w", CS_F32, 4, INFINITY, "finite"}, {"w", CS_F32, 4, -INFINITY, "finite"},
    };
    CS_AUTO(cs_string) path = cs_path_join(f.folder, "update");
    for (size_t i = 0; i < CS_COUNT(bad); i++) {
        write_tensor(path, bad[i].name, bad[i].dtype, bad[i].size, bad[i].value);

        must_fail(take_update(&f, "update"), CS_INVALID, bad[i].says);
    }
    free_fixture(&f);
}

/* One bad value among many, in and between the blocks that the check looks at; and the largest good ones. */
static void one_value_that_is_not_finite_is_found_wherever_it_stands(void **state)
{
    static const struct {
        cs_dtype dtype;
        uint64_t largest, infinite;
    } types[] = {{CS_F64, 0x7FEFFFFFFFFFFFFFULL, 0xFFF0000000000000ULL},
                 {CS_F32, 0x7F7FFFFFU, 0x7F800001U},
                 {CS_F16, 0x7BFFU, 0xFC00U},
                 {CS_BF16, 0x7F7FU, 0x7F80U}};
    static const size_t places[] = {0, 255, 256, 700, 767, 768, 769};
    enum { VALUES = 770 };
    CS_AUTO(cs_string) path = cs_path_join(*state, "update");
    for (size_t type = 0; type < CS_COUNT(types); type++) {
        const size_t size = cs_dtype_size(types[type].dtype);
        for (size_t at = 0; at <= CS_COUNT(places); at++) {
            uint8_t bytes[VALUES * 8];
            for (size_t i = 0; i < VALUES; i++)
                memcpy(bytes + i * size,
                       at < CS_COUNT(places) && i == places[at] ? &types[type].infinite : &types[type].largest, size);
            const cs_tensor_info info = {
                .name = "w", .dtype = types[type].dtype, .rank = 1, .shape = {VALUES}, .size_bytes = VALUES * size};
            cs_tensor_writer *writer = NULL;
            must_be_ok(cs_tensor_writer_open(path, &info, 1, NULL, 0, &writer));
            must_be_ok(cs_tensor_writer_put(writer, 0, 0, bytes, VALUES * size));
            must_be_ok(cs_tensor_writer_commit(writer));
            cs_tensor_writer_free(writer);

            const cs_status status = cs_exchange_check(path, NULL, "update");

            assert_int_equal(status, at < CS_COUNT(places) ? CS_INVALID : CS_OK);
        }
    }
}

static void a_file_that_is_no_safetensors_is_refused(void **state)
{
    fixture f = make_fixture(state);
    CS_AUTO(cs_string) path = cs_path_join(f.folder, "update");
    must_be_ok(cs_file_write_atomic(path, cs_bytes_of_text("age,pressure\n63,145\n"), 0600));

    assert_int_not_equal(take_update(&f, "update"), CS_OK);

    assert_null(strstr(cs_error_text(), "145"));
    free_fixture(&f);
}

static void links_folders_devices_and_ways_out_are_refused(void **state)
{
    fixture f = make_fixture(state);
    CS_AUTO(cs_string) link_path = cs_path_join(f.folder, "link");
    CS_AUTO(cs_string) pipe_path = cs_path_join(f.folder, "pipe");
    CS_AUTO(cs_string) folder_path = cs_path_join(f.folder, "folder");
    assert_int_equal(symlink(f.model, link_path), 0);
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    must_be_ok(cs_folder_make(folder_path, 0700));
    static const char *const names[] = {"link", "pipe", "folder", "../model", "/etc/passwd", "absent", ""};

    for (size_t i = 0; i < CS_COUNT(names); i++)
        assert_int_not_equal(take_update(&f, names[i]), CS_OK);
    free_fixture(&f);
}

static void an_update_just_above_the_size_limit_is_refused(void **state)
{
    fixture f = make_fixture(state);
    CS_AUTO(cs_string) path = cs_path_join(f.folder, "update");
    CS_AUTO(cs_fd) fd = -1;
    CS_AUTO(cs_fd) model = -1;
    uint64_t model_size = 0;
    must_be_ok(cs_file_open(f.model, O_RDONLY, 0, &model));
    must_be_ok(cs_file_size(model, &model_size));
    must_be_ok(cs_file_open(path, O_RDWR | O_CREAT, 0600, &fd));

    must_be_ok(cs_file_truncate(fd, model_size + CS_SAFETENSORS_HEADER_MAX_BYTES + 1));
    assert_int_equal(take_update(&f, "update"), CS_EXHAUSTED);
    must_be_ok(cs_file_truncate(fd, model_size + CS_SAFETENSORS_HEADER_MAX_BYTES));
    assert_int_not_equal(take_update(&f, "update"), CS_EXHAUSTED);
    free_fixture(&f);
}

static void a_phase_that_sends_nothing_has_no_output_and_an_unknown_one_no_rule(void **state)
{
    (void)state;
    assert_null(cs_phase_rule_find("evaluate")->output);
    assert_null(cs_phase_rule_find("exfiltrate"));
    assert_null(cs_phase_rule_find(""));
}

static cs_status take_kept(fixture *f, const char *file)
{
    cs_hash hash;
    const cs_status status =
        cs_exchange_take_kept(f->blobs, cs_phase_rule_find("train"), f->folder, file, f->model, f->staging, &hash);
    if (status == CS_OK)
        assert_true(cs_blobs_has(f->blobs, &hash, NULL));
    return status;
}

static void what_a_site_keeps_has_its_own_shape_and_still_its_limits(void **state)
{
    fixture f = make_fixture(state);
    CS_AUTO(cs_string) path = cs_path_join(f.folder, "optimizer");
    CS_AUTO(cs_fd) fd = -1;
    CS_AUTO(cs_fd) model = -1;
    uint64_t model_size = 0;
    must_be_ok(cs_file_open(f.model, O_RDONLY, 0, &model));
    must_be_ok(cs_file_size(model, &model_size));

    write_tensor(path, "exp_avg.w", CS_F32, 9, 0.5);
    must_be_ok(take_kept(&f, "optimizer"));
    write_tensor(path, "exp_avg.w", CS_F32, 9, NAN);
    must_fail(take_kept(&f, "optimizer"), CS_INVALID, "optimizer: tensor 'exp_avg.w' has a value that is not finite");
    must_be_ok(cs_file_open(path, O_RDWR, 0, &fd));
    must_be_ok(cs_file_truncate(fd, CS_KEPT_MODELS * model_size + CS_SAFETENSORS_HEADER_MAX_BYTES + 1));
    assert_int_equal(take_kept(&f, "optimizer"), CS_EXHAUSTED);
    assert_int_not_equal(take_kept(&f, "../model"), CS_OK);
    assert_null(cs_phase_rule_find("evaluate")->kept);
    free_fixture(&f);
}

static void an_input_is_a_copy(void **state)
{
    fixture f = make_fixture(state);
    cs_hash hash;
    must_be_ok(cs_blobs_put(f.blobs, cs_bytes_of_text("model"), &hash));

    must_be_ok(cs_exchange_give(f.blobs, &hash, f.folder, "model"));
    CS_AUTO(cs_string) path = cs_path_join(f.folder, "model");
    CS_AUTO(cs_fd) fd = -1;
    must_be_ok(cs_file_open(path, O_RDWR, 0, &fd));
    must_be_ok(cs_file_pwrite(fd, "other", 5, 0));

    CS_AUTO(cs_string) blob = cs_blobs_path(f.blobs, &hash);
    CS_AUTO(cs_buffer) kept = CS_BUFFER_EMPTY;
    must_be_ok(cs_file_read_all(blob, 100, &kept));
    assert_string_equal(cs_buffer_text(&kept), "model");
    free_fixture(&f);
}

#define FOLDER_TEST(function) cmocka_unit_test_setup_teardown(function, folder_make, folder_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(a_good_update_is_taken_and_what_the_worker_does_to_its_file_later_does_not_matter),
        FOLDER_TEST(updates_unlike_the_model_are_refused),
        FOLDER_TEST(one_value_that_is_not_finite_is_found_wherever_it_stands),
        FOLDER_TEST(a_file_that_is_no_safetensors_is_refused),
        FOLDER_TEST(links_folders_devices_and_ways_out_are_refused),
        FOLDER_TEST(an_update_just_above_the_size_limit_is_refused),
        cmocka_unit_test(a_phase_that_sends_nothing_has_no_output_and_an_unknown_one_no_rule),
        FOLDER_TEST(what_a_site_keeps_has_its_own_shape_and_still_its_limits),
        FOLDER_TEST(an_input_is_a_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
