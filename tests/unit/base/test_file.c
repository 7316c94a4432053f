/* The file layer: what it promises, and what it does when the disk says no. */
#include "common/base/file.h"

#include "tests/unit/base/cmocka_all.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *folder; /* of one test */

static int set_up(void **state)
{
    (void)state;
    const char *parent = getenv("TMPDIR");
    folder = cs_format("%s/consilium-file-XXXXXX", parent != NULL ? parent : "/tmp");
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    cs_file_set_fault(NULL, NULL);
    const cs_status status = cs_folder_remove(folder);
    cs_free(folder);
    return status == CS_OK ? 0 : -1;
}

static cs_status count_name(void *self, const char *name)
{
    (void)name;
    (*(int *)self)++;
    return CS_OK;
}

static int names_in_folder(void)
{
    int count = 0;
    assert_int_equal(cs_folder_list(folder, count_name, &count), CS_OK);
    return count;
}

static void write_text(const char *path, const char *text)
{
    assert_int_equal(cs_file_write_atomic(path, cs_bytes_of_text(text), 0600), CS_OK);
}

static void a_file_is_written_whole_and_read_back(void **state)
{
    (void)state;
    CS_AUTO(cs_string) path = cs_path_join(folder, "model");
    CS_AUTO(cs_buffer) content = CS_BUFFER_EMPTY;

    write_text(path, "old");
    write_text(path, "new");

    assert_int_equal(cs_file_read_all(path, 3, &content), CS_OK);
    assert_string_equal(cs_buffer_text(&content), "new");
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(names_in_folder(), 1);
}

static void a_file_above_the_limit_is_refused_by_name(void **state)
{
    (void)state;
    CS_AUTO(cs_string) path = cs_path_join(folder, "plan.yaml");
    CS_AUTO(cs_buffer) content = CS_BUFFER_EMPTY;
    write_text(path, "1234");

    assert_int_equal(cs_file_read_all(path, 3, &content), CS_EXHAUSTED);

    assert_non_null(strstr(cs_error_text(), "plan.yaml"));
    assert_non_null(strstr(cs_error_text(), "3 bytes"));
}

static void a_file_without_a_size_is_read_to_its_end(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) content = CS_BUFFER_EMPTY;

    assert_int_equal(cs_file_read_all("/proc/self/status", 1 << 20, &content), CS_OK);
    assert_true(content.size > 10);
    assert_int_equal(cs_file_read_all("/proc/self/status", 10, &content), CS_EXHAUSTED);
}

struct fault {
    const char *operation;
    int code;
    int after; /* passages that still succeed */
    int seen;
};

static int fail_operation(void *self, const char *operation, const char *path)
{
    struct fault *fault = self;
    (void)path;
    if (strcmp(operation, fault->operation) != 0)
        return 0;
    return fault->seen++ >= fault->after ? fault->code : 0;
}

static void a_failed_write_leaves_the_old_file_and_nothing_beside_it(void **state)
{
    (void)state;
    static const struct fault faults[] = {{"open", EACCES, 0, 0},
                                          {"write", ENOSPC, 0, 0},
                                          {"fsync", EIO, 0, 0},
                                          {"close", EIO, 0, 0},
                                          {"rename", EROFS, 0, 0}};
    CS_AUTO(cs_string) path = cs_path_join(folder, "state");
    write_text(path, "old");
    for (size_t i = 0; i < CS_COUNT(faults); i++) {
        struct fault fault = faults[i];
        cs_file_set_fault(fail_operation, &fault);
        assert_int_not_equal(cs_file_write_atomic(path, cs_bytes_of_text("new"), 0600), CS_OK);
        cs_file_set_fault(NULL, NULL);

        CS_AUTO(cs_buffer) content = CS_BUFFER_EMPTY;
        assert_int_equal(cs_file_read_all(path, 100, &content), CS_OK);
        assert_string_equal(cs_buffer_text(&content), "old");
        assert_int_equal(names_in_folder(), 1);
    }
}

static void a_full_disk_is_named_with_the_file(void **state)
{
    (void)state;
    CS_AUTO(cs_string) path = cs_path_join(folder, "update");
    CS_AUTO(cs_fd) fd = -1;
    assert_int_equal(cs_file_open(path, O_RDWR | O_CREAT, 0600, &fd), CS_OK);
    struct fault fault = {"pwrite", ENOSPC, 0, 0};
    cs_file_set_fault(fail_operation, &fault);

    assert_int_equal(cs_file_pwrite(fd, "x", 1, 0), CS_EXHAUSTED);

    assert_non_null(strstr(cs_error_text(), path));
    assert_non_null(strstr(cs_error_text(), "No space left"));
}

static int interrupt_once(void *self, const char *operation, const char *path)
{
    int *calls = self;
    (void)operation;
    (void)path;
    return (*calls)++ % 2 == 0 ? EINTR : 0;
}

static void interrupted_calls_are_made_again(void **state)
{
    (void)state;
    CS_AUTO(cs_string) path = cs_path_join(folder, "f");
    CS_AUTO(cs_fd) fd = -1;
    assert_int_equal(cs_file_open(path, O_RDWR | O_CREAT, 0600, &fd), CS_OK);
    int calls = 0;
    char text[4] = "";
    uint64_t size = 0;
    cs_file_set_fault(interrupt_once, &calls);

    assert_int_equal(cs_file_write(fd, "abc", 3), CS_OK);
    assert_int_equal(cs_file_pwrite(fd, "B", 1, 1), CS_OK);
    assert_int_equal(cs_file_sync(fd), CS_OK);
    assert_int_equal(cs_file_sync_data(fd), CS_OK);
    assert_int_equal(cs_file_pread_exact(fd, text, 3, 0), CS_OK);
    assert_int_equal(cs_file_truncate(fd, 2), CS_OK);
    assert_int_equal(cs_file_size(fd, &size), CS_OK);

    assert_string_equal(text, "aBc");
    assert_int_equal(size, 2);
}

static void an_early_end_is_data_loss(void **state)
{
    (void)state;
    CS_AUTO(cs_string) path = cs_path_join(folder, "short");
    write_text(path, "abc");
    CS_AUTO(cs_fd) fd = -1;
    char text[8] = "";
    size_t size = 0;
    assert_int_equal(cs_file_open(path, O_RDONLY, 0, &fd), CS_OK);

    assert_int_equal(cs_file_pread_exact(fd, text, 4, 0), CS_DATA_LOSS);
    assert_int_equal(cs_file_read_exact(fd, text, 4), CS_DATA_LOSS);
    assert_int_equal(cs_file_read(fd, text, 4, &size), CS_OK);

    assert_int_equal(size, 0);
}

static void short_transfers_over_a_pipe_are_put_together(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    CS_AUTO(cs_fd) reader = ends[0];
    CS_AUTO(cs_fd) writer = ends[1];
    char text[6] = "";

    assert_int_equal(cs_file_write(writer, "ab", 2), CS_OK);
    assert_int_equal(cs_file_write(writer, "cde", 3), CS_OK);
    assert_int_equal(cs_file_close(&writer), CS_OK);

    assert_int_equal(cs_file_read_exact(reader, text, 5), CS_OK);
    assert_string_equal(text, "abcde");
    assert_int_equal(writer, -1);
}

static void folders_are_made_with_their_parents(void **state)
{
    (void)state;
    CS_AUTO(cs_string) deep = cs_path_join(folder, "a/b/c");
    CS_AUTO(cs_string) file = cs_path_join(folder, "f");
    CS_AUTO(cs_string) under_file = cs_path_join(folder, "f/g");
    write_text(file, "x");

    assert_int_equal(cs_folder_make(deep, 0700), CS_OK);
    assert_int_equal(cs_folder_make(deep, 0700), CS_OK);

    assert_true(cs_file_exists(deep));
    assert_int_not_equal(cs_folder_make(file, 0700), CS_OK);
    assert_int_not_equal(cs_folder_make(under_file, 0700), CS_OK);
}

static void a_tree_of_any_depth_is_removed_without_following_links(void **state)
{
    (void)state;
    CS_AUTO(cs_string) tree = cs_path_join(folder, "task");
    CS_AUTO(cs_string) kept = cs_path_join(folder, "kept");
    write_text(kept, "x");
    assert_int_equal(cs_folder_make(tree, 0700), CS_OK);
    CS_AUTO(cs_fd) at = -1;
    assert_int_equal(cs_file_open(tree, O_RDONLY | O_DIRECTORY, 0, &at), CS_OK);
    /* Deeper than any path or descriptor table allows. */
    for (int depth = 0; depth < 3000; depth++) {
        assert_int_equal(mkdirat(at, "d", 0700), 0);
        assert_int_equal(symlinkat(folder, at, "link"), 0);
        const int next = openat(at, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(next >= 0);
        cs_fd_clear(&at);
        at = next;
    }

    assert_int_equal(cs_folder_remove(tree), CS_OK);

    assert_false(cs_file_exists(tree));
    assert_true(cs_file_exists(kept));
    assert_int_equal(cs_folder_remove(tree), CS_OK);
}

static void a_link_in_a_folders_place_is_not_followed(void **state)
{
    (void)state;
    CS_AUTO(cs_string) victim = cs_path_join(folder, "victim");
    CS_AUTO(cs_string) victim_file = cs_path_join(victim, "f");
    CS_AUTO(cs_string) link = cs_path_join(folder, "link");
    assert_int_equal(cs_folder_make(victim, 0700), CS_OK);
    write_text(victim_file, "x");
    assert_int_equal(symlink(victim, link), 0);

    assert_int_not_equal(cs_folder_remove(link), CS_OK);

    assert_true(cs_file_exists(victim_file));
}

static cs_status append_name(void *self, const char *name)
{
    cs_buffer_append_text(self, name);
    return strcmp(name, "c") == 0 ? CS_DONE : CS_OK;
}

static void names_are_listed_in_byte_order_until_told_to_stop(void **state)
{
    (void)state;
    static const char *const names[] = {"c", "B", "a", "d", ".hidden"};
    for (size_t i = 0; i < CS_COUNT(names); i++) {
        CS_AUTO(cs_string) path = cs_path_join(folder, names[i]);
        write_text(path, "");
    }
    CS_AUTO(cs_buffer) seen = CS_BUFFER_EMPTY;

    assert_int_equal(cs_folder_list(folder, append_name, &seen), CS_DONE);

    assert_string_equal(cs_buffer_text(&seen), ".hiddenBac");
}

static void what_a_less_trusted_process_left_is_opened_only_when_plain(void **state)
{
    (void)state;
    CS_AUTO(cs_string) good = cs_path_join(folder, "good");
    CS_AUTO(cs_string) pipe_path = cs_path_join(folder, "pipe");
    CS_AUTO(cs_string) link = cs_path_join(folder, "link");
    CS_AUTO(cs_string) sub = cs_path_join(folder, "sub");
    CS_AUTO(cs_string) sub_link = cs_path_join(folder, "sublink");
    write_text(good, "1234");
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    assert_int_equal(symlink("good", link), 0);
    assert_int_equal(mkdir(sub, 0700), 0);
    assert_int_equal(symlink(".", sub_link), 0);
    CS_AUTO(cs_fd) at = -1;
    CS_AUTO(cs_fd) fd = -1;
    uint64_t size = 0;
    assert_int_equal(cs_file_open(folder, O_RDONLY | O_DIRECTORY, 0, &at), CS_OK);

    assert_int_equal(cs_file_open_beneath(at, "pipe", 100, &fd, &size), CS_DENIED);
    assert_int_equal(cs_file_open_beneath(at, "link", 100, &fd, &size), CS_DENIED);
    assert_int_equal(cs_file_open_beneath(at, "sublink/good", 100, &fd, &size), CS_DENIED);
    assert_int_equal(cs_file_open_beneath(at, "sub", 100, &fd, &size), CS_DENIED);
    assert_int_equal(cs_file_open_beneath(at, "../etc/passwd", 100, &fd, &size), CS_DENIED);
    assert_int_equal(cs_file_open_beneath(at, "/etc/passwd", 100000, &fd, &size), CS_DENIED);
    assert_int_equal(cs_file_open_beneath(at, "absent", 100, &fd, &size), CS_NOT_FOUND);
    assert_int_equal(cs_file_open_beneath(at, "good", 3, &fd, &size), CS_EXHAUSTED);
    assert_int_equal(fd, -1);

    assert_int_equal(cs_file_open_beneath(at, "good", 4, &fd, &size), CS_OK);
    assert_int_equal(size, 4);
}

static void removing_what_is_not_there_is_fine(void **state)
{
    (void)state;
    CS_AUTO(cs_string) path = cs_path_join(folder, "absent");
    uint64_t bytes = 0;

    assert_int_equal(cs_file_remove(path), CS_OK);
    assert_int_equal(cs_disk_free(folder, &bytes), CS_OK);
    assert_true(bytes > 0);
    assert_int_equal(cs_disk_free(path, &bytes), CS_NOT_FOUND);
}

static void the_size_of_a_folder_counts_files_but_not_what_links_lead_to(void **state)
{
    (void)state;
    CS_AUTO(cs_string) root = cs_path_join(folder, "sized");
    CS_AUTO(cs_string) inner = cs_path_join(root, "a/b");
    CS_AUTO(cs_string) first = cs_path_join(root, "first");
    CS_AUTO(cs_string) second = cs_path_join(inner, "second");
    CS_AUTO(cs_string) link = cs_path_join(root, "link");
    uint64_t bytes = 0;
    assert_int_equal(cs_folder_make(inner, 0700), CS_OK);
    assert_int_equal(cs_file_write_atomic(first, cs_bytes_of("12345", 5), 0600), CS_OK);
    assert_int_equal(cs_file_write_atomic(second, cs_bytes_of("123", 3), 0600), CS_OK);
    assert_int_equal(symlink("/", link), 0);

    assert_int_equal(cs_folder_size(root, &bytes), CS_OK);

    assert_int_equal(bytes, 8);
    assert_int_equal(cs_folder_remove(root), CS_OK);
    assert_int_equal(cs_folder_size(root, &bytes), CS_NOT_FOUND);
}

static void paths_are_joined_and_parted(void **state)
{
    (void)state;
    static const struct {
        const char *path, *folder;
    } cases[] = {{"a", "."}, {"/a", "/"}, {"a/b", "a"}, {"a/b/", "a"}, {"/a//b", "/a"}, {"/", "/"}, {"//", "/"}};
    for (size_t i = 0; i < CS_COUNT(cases); i++) {
        CS_AUTO(cs_string) parent = cs_path_folder(cases[i].path);
        assert_string_equal(parent, cases[i].folder);
    }
    CS_AUTO(cs_string) joined = cs_path_join("a/", "b");
    CS_AUTO(cs_string) absolute = cs_path_join("a", "/b");
    CS_AUTO(cs_string) bare = cs_path_join("", "b");
    assert_string_equal(joined, "a/b");
    assert_string_equal(absolute, "/b");
    assert_string_equal(bare, "b");
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_file_is_written_whole_and_read_back),
        T(a_file_above_the_limit_is_refused_by_name),
        T(a_file_without_a_size_is_read_to_its_end),
        T(a_failed_write_leaves_the_old_file_and_nothing_beside_it),
        T(a_full_disk_is_named_with_the_file),
        T(the_size_of_a_folder_counts_files_but_not_what_links_lead_to),
        T(interrupted_calls_are_made_again),
        T(an_early_end_is_data_loss),
        T(short_transfers_over_a_pipe_are_put_together),
        T(folders_are_made_with_their_parents),
        T(a_tree_of_any_depth_is_removed_without_following_links),
        T(a_link_in_a_folders_place_is_not_followed),
        T(names_are_listed_in_byte_order_until_told_to_stop),
        T(what_a_less_trusted_process_left_is_opened_only_when_plain),
        T(removing_what_is_not_there_is_fine),
        T(paths_are_joined_and_parted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
