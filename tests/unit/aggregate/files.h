/* Small safetensors files for the tests of this folder, in a folder of their own that goes with the test. */
#ifndef CS_TESTS_AGGREGATE_FILES_H
#define CS_TESTS_AGGREGATE_FILES_H

#include "common/base/file.h"
#include "common/tensors/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static char *folder;

static inline int make_folder(void **state)
{
    (void)state;
    const char *parent = getenv("TMPDIR");
    folder = cs_format("%s/consilium-aggregate-XXXXXX", parent != NULL ? parent : "/tmp");
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static inline int remove_folder(void **state)
{
    (void)state;
    cs_file_set_fault(NULL, NULL);
    const cs_status status = cs_folder_remove(folder);
    cs_free(folder);
    return status == CS_OK ? 0 : -1;
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

typedef struct test_tensor {
    cs_tensor_info info; /* size_bytes is computed */
    const void *data;
} test_tensor;

static inline test_tensor tensor_2d(const char *name, cs_dtype dtype, uint64_t rows, uint64_t columns, const void *data)
{
    return (test_tensor){{.name = name, .dtype = dtype, .rank = 2, .shape = {rows, columns}}, data};
}

/* The path belongs to the caller. */
static inline char *write_tensors(const char *name, const test_tensor *tensors, size_t count)
{
    char *path = cs_path_join(folder, name);
    cs_tensor_info infos[8];
    assert_true(count <= CS_COUNT(infos));
    for (size_t i = 0; i < count; i++)
        infos[i] = tensors[i].info;
    CS_AUTO_PTR(cs_tensor_writer) writer = NULL;
    assert_int_equal(cs_tensor_writer_open(path, infos, count, NULL, 0, &writer), CS_OK);
    for (size_t i = 0; i < count; i++) {
        size_t size = cs_dtype_size(infos[i].dtype);
        for (size_t d = 0; d < infos[i].rank; d++)
            size *= infos[i].shape[d];
        if (size > 0)
            assert_int_equal(cs_tensor_writer_put(writer, i, 0, tensors[i].data, size), CS_OK);
    }
    assert_int_equal(cs_tensor_writer_commit(writer), CS_OK);
    return path;
}

/* All of a tensor; belongs to the caller. */
static inline void *read_tensor(const char *path, const char *name)
{
    CS_AUTO_PTR(cs_tensor_file) file = NULL;
    assert_int_equal(cs_tensor_file_open(path, &file), CS_OK);
    const cs_tensor_info *info = cs_tensor_file_find(file, name);
    assert_non_null(info);
    void *data = cs_alloc(info->size_bytes);
    assert_int_equal(cs_tensor_file_read(file, info, 0, data, info->size_bytes), CS_OK);
    return data;
}

#endif
