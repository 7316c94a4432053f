/* The transcript file: what is recorded stays, once, whatever the disk and the power do; what was changed is noticed.
 */
#include "common/audit/transcript.h"
#include "common/base/clock.h"
#include "tests/unit/place.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

static cs_bytes text(const char *content)
{
    return cs_bytes_of_text(content);
}

static cs_transcript *open_at(const place *here)
{
    cs_transcript *transcript = NULL;
    assert_ok(cs_transcript_open(here->path, &transcript));
    return transcript;
}

static uint64_t size_of(cs_transcript *transcript)
{
    uint64_t size = 0;
    cs_hash root;
    cs_transcript_head(transcript, &size, &root);
    return size;
}

static void read_file(const place *here, cs_buffer *content)
{
    CS_AUTO(cs_string) path = cs_path_join(here->path, "transcript.jsonl");
    assert_ok(cs_file_read_all(path, 1 << 20, content));
}

static void write_file(const place *here, cs_bytes content)
{
    CS_AUTO(cs_string) path = cs_path_join(here->path, "transcript.jsonl");
    assert_ok(cs_file_write_atomic(path, content, 0600));
}

static void records_are_lines_of_json_in_the_order_of_the_format(void **state)
{
    const place *here = *state;
    cs_clock_fake(0, 1772360551412);
    CS_AUTO_PTR(cs_transcript) transcript = open_at(here);
    uint64_t index = 99;

    assert_ok(cs_transcript_append(transcript, "started", text(""), &index));
    assert_int_equal(index, 0);
    assert_ok(cs_transcript_append(transcript, "stopped", text("{}"), NULL));
    assert_ok(
        cs_transcript_append_once(transcript, "update_sent", "heart/1/train", text("{\"job\":\"heart\",\"n\":[1]}")));

    CS_AUTO(cs_buffer) content = CS_BUFFER_EMPTY;
    read_file(here, &content);
    assert_string_equal(
        cs_buffer_text(&content),
        "{\"index\":0,\"time\":\"2026-03-01T10:22:31.412Z\",\"kind\":\"started\"}\n"
        "{\"index\":1,\"time\":\"2026-03-01T10:22:31.412Z\",\"kind\":\"stopped\"}\n"
        "{\"index\":2,\"time\":\"2026-03-01T10:22:31.412Z\",\"kind\":\"update_sent\",\"key\":\"heart/1/train\","
        "\"job\":\"heart\",\"n\":[1]}\n");
    CS_AUTO(cs_string) path = cs_transcript_path(transcript);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    cs_clock_real();
}

static void the_head_is_the_root_of_the_lines_and_the_same_after_reopening(void **state)
{
    const place *here = *state;
    cs_transcript *transcript = open_at(here);
    for (int i = 0; i < 300; i++)
        assert_ok(cs_transcript_append(transcript, "task_given", text("{\"note\":\"a \\\"quoted\\\" } text\"}"), NULL));
    uint64_t size = 0;
    cs_hash root;
    cs_transcript_head(transcript, &size, &root);
    cs_transcript_free(transcript);

    CS_AUTO_PTR(cs_merkle) tree = cs_merkle_new();
    CS_AUTO(cs_buffer) content = CS_BUFFER_EMPTY;
    read_file(here, &content);
    for (char *line = (char *)content.data, *end = NULL; *line; line = end + 1) {
        end = strchr(line, '\n');
        cs_merkle_add(tree, cs_bytes_of(line, (size_t)(end - line)));
    }
    cs_hash expected = cs_merkle_root(tree, 300);
    assert_int_equal(size, 300);
    assert_true(cs_hash_equal(&root, &expected));

    CS_AUTO_PTR(cs_transcript) again = open_at(here);
    cs_transcript_head(again, &size, &root);
    assert_int_equal(size, 300);
    assert_true(cs_hash_equal(&root, &expected));
}

/* The script stands in docs/transcript.md, and was written from that page. */
static void the_script_of_the_documentation_finds_the_same_head(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_transcript) transcript = open_at(here);
    for (int i = 0; i < 13; i++) {
        CS_AUTO(cs_string) key = cs_format("key %d \"\xc3\xa4\"", i);
        assert_ok(cs_transcript_append_once(transcript, "task_given", key, text("{\"sites\":[\"mercy\",\"nord\"]}")));
    }
    uint64_t size = 0;
    cs_hash root;
    char hex[CS_HASH_HEX_BYTES];
    cs_transcript_head(transcript, &size, &root);
    cs_hash_hex(&root, hex);
    CS_AUTO(cs_string) path = cs_transcript_path(transcript);
    CS_AUTO(cs_string) command = cs_format(
        "sed -n '/^```python/,/^```/p' " CS_SOURCE_DIR "/docs/transcript.md | grep -v '^```' | python3 - '%s'", path);

    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    char answer[256] = "";
    size_t answer_size = fread(answer, 1, sizeof answer - 1, pipe);
    answer[answer_size] = '\0';

    assert_int_equal(pclose(pipe), 0);
    CS_AUTO(cs_string) expected = cs_format("13 %s\n", hex);
    assert_string_equal(answer, expected);
}

static void a_record_with_a_key_is_appended_once_also_after_a_restart(void **state)
{
    const place *here = *state;
    static const char *const keys[] = {"heart/1", "heart/2", "a \"quoted\\\" key\nwith lines", "h\xc3\xa4rz"};
    cs_transcript *transcript = open_at(here);
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < CS_COUNT(keys); i++)
            assert_ok(cs_transcript_append_once(transcript, "folded", keys[i], text("{\"key\\u0020\":1}")));
    }
    assert_int_equal(size_of(transcript), CS_COUNT(keys));
    cs_transcript_free(transcript);

    CS_AUTO_PTR(cs_transcript) again = open_at(here);
    for (size_t i = 0; i < CS_COUNT(keys); i++)
        assert_ok(cs_transcript_append_once(again, "folded", keys[i], text("{}")));
    assert_int_equal(size_of(again), CS_COUNT(keys));
    assert_ok(cs_transcript_append_once(again, "folded", "heart/3", text("{}")));
    assert_int_equal(size_of(again), CS_COUNT(keys) + 1);
}

static void many_keys_are_all_remembered(void **state)
{
    const place *here = *state;
    CS_AUTO(cs_buffer) content = CS_BUFFER_EMPTY;
    for (int i = 0; i < 3000; i++)
        cs_buffer_printf(&content, "{\"index\":%d,\"time\":\"t\",\"kind\":\"k\",\"key\":\"%d\"}\n", i, i);
    CS_IGNORE(cs_folder_make(here->path, 0700), "the write says it");
    write_file(here, cs_buffer_view(&content));
    CS_AUTO_PTR(cs_transcript) transcript = open_at(here);

    for (int i = 0; i < 3000; i++) {
        CS_AUTO(cs_string) key = cs_format("%d", i);
        assert_ok(cs_transcript_append_once(transcript, "k", key, text("")));
    }

    assert_int_equal(size_of(transcript), 3000);
}

static void a_record_may_have_16_kib_and_not_a_byte_more(void **state)
{
    const place *here = *state;
    cs_clock_fake(0, 1772360551412);
    CS_AUTO_PTR(cs_transcript) transcript = open_at(here);
    size_t frame = strlen("{\"index\":0,\"time\":\"2026-03-01T10:22:31.412Z\",\"kind\":\"k\",\"t\":\"\"}");
    CS_AUTO(cs_string) filling = cs_alloc(CS_RECORD_MAX_BYTES);
    memset(filling, 'x', CS_RECORD_MAX_BYTES - frame + 1);
    CS_AUTO(cs_string) too_long = cs_format("{\"t\":\"%s\"}", filling);
    filling[CS_RECORD_MAX_BYTES - frame] = '\0';
    CS_AUTO(cs_string) longest = cs_format("{\"t\":\"%s\"}", filling);

    assert_status(cs_transcript_append(transcript, "k", text(too_long), NULL), CS_INVALID);
    assert_error_says("16385 bytes, at most 16384");
    assert_ok(cs_transcript_append(transcript, "k", text(longest), NULL));

    cs_transcript_free(CS_TAKE(transcript));
    transcript = open_at(here);
    assert_int_equal(size_of(transcript), 1);
    cs_clock_real();
}

static void what_would_not_be_one_line_of_json_is_refused(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_transcript) transcript = open_at(here);
    static const char *const fields[] = {"x",
                                         "{",
                                         "}",
                                         "[1]",
                                         "{\"a\":1}}",
                                         "{\"a\":1},{\"b\":2}",
                                         "{\"a\":\"}",
                                         "{\"a\":[1}]",
                                         "{\"a\":\"\n\"}",
                                         "{\"a\":1}\n",
                                         "{\"key\":\"x\"}",
                                         "{\"a\":[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]}"};
    static const char *const kinds[] = {"", "Update", "a b", "a\"b",
                                        "0123456789012345678901234567890123456789012345678901234567890123"};
    char key[CS_RECORD_KEY_MAX_BYTES + 2];
    memset(key, 'k', sizeof key);
    key[CS_RECORD_KEY_MAX_BYTES + 1] = '\0';

    for (size_t i = 0; i < CS_COUNT(fields); i++)
        assert_status(cs_transcript_append(transcript, "kind", text(fields[i]), NULL), CS_INVALID);
    for (size_t i = 0; i < CS_COUNT(kinds); i++)
        assert_status(cs_transcript_append(transcript, kinds[i], text(""), NULL), CS_INVALID);
    assert_status(cs_transcript_append_once(transcript, "kind", "", text("")), CS_INVALID);
    assert_status(cs_transcript_append_once(transcript, "kind", key, text("")), CS_INVALID);
    assert_int_equal(size_of(transcript), 0);
    assert_ok(cs_transcript_append_once(transcript, "kind", key + 1, text("{\"a\":[{\"b\":\"\\\\\"}]}")));
}

static void a_torn_last_line_is_cut_off_wherever_it_was_torn(void **state)
{
    const place *here = *state;
    cs_transcript *transcript = open_at(here);
    assert_ok(cs_transcript_append_once(transcript, "first", "a", text("")));
    assert_ok(cs_transcript_append_once(transcript, "second", "b", text("{\"n\":7}")));
    cs_transcript_free(transcript);
    CS_AUTO(cs_buffer) whole = CS_BUFFER_EMPTY;
    read_file(here, &whole);
    size_t first_size = (size_t)(strchr(cs_buffer_text(&whole), '\n') - cs_buffer_text(&whole)) + 1;

    for (size_t size = first_size; size < whole.size; size++) {
        write_file(here, cs_bytes_of(whole.data, size));
        CS_AUTO_PTR(cs_transcript) again = open_at(here);
        assert_int_equal(size_of(again), 1);
        assert_ok(cs_transcript_append_once(again, "second", "b", text("")));
        assert_int_equal(size_of(again), 2);
    }
}

static void a_last_line_whose_bytes_never_reached_the_disk_is_cut_off(void **state)
{
    const place *here = *state;
    cs_transcript *transcript = open_at(here);
    assert_ok(cs_transcript_append(transcript, "first", text(""), NULL));
    cs_transcript_free(transcript);
    CS_AUTO(cs_buffer) content = CS_BUFFER_EMPTY;
    read_file(here, &content);
    size_t size = content.size;
    for (int i = 0; i < 200; i++)
        cs_buffer_append(&content, "\0", 1);

    for (int attempt = 0; attempt < 2; attempt++) {
        write_file(here, cs_buffer_view(&content));
        CS_AUTO_PTR(cs_transcript) again = open_at(here);
        assert_int_equal(size_of(again), 1);
        CS_AUTO(cs_buffer) found = CS_BUFFER_EMPTY;
        read_file(here, &found);
        assert_int_equal(found.size, size);
        cs_buffer_append(&content, "}\n", 2);
    }
}

static void assert_damaged(const place *here, cs_bytes content, const char *what)
{
    cs_transcript *transcript = NULL;
    write_file(here, content);
    assert_status(cs_transcript_open(here->path, &transcript), CS_DATA_LOSS);
    assert_error_says(what);
}

static void a_damaged_line_is_data_loss_and_named(void **state)
{
    const place *here = *state;
    cs_transcript *transcript = open_at(here);
    for (int i = 0; i < 3; i++)
        assert_ok(cs_transcript_append_once(transcript, "kind", i == 0 ? "a" : i == 1 ? "b" : "c", text("{\"n\":7}")));
    cs_transcript_free(transcript);
    CS_AUTO(cs_buffer) good = CS_BUFFER_EMPTY;
    read_file(here, &good);
    size_t line = good.size / 3;
    CS_AUTO(cs_buffer) bad = CS_BUFFER_EMPTY;

    /* A line missing, lines in another order, a line twice, and every byte of the frame of line 2 changed. */
    cs_buffer_append(&bad, good.data, line);
    cs_buffer_append(&bad, good.data + 2 * line, line);
    assert_damaged(here, cs_buffer_view(&bad), "line 2 is damaged");
    cs_buffer_append(&bad, good.data + line, line);
    assert_damaged(here, cs_buffer_view(&bad), "line 2 is damaged");
    cs_buffer_reset(&bad);
    cs_buffer_append(&bad, good.data, line);
    cs_buffer_append(&bad, good.data, good.size);
    assert_damaged(here, cs_buffer_view(&bad), "line 2 is damaged");
    for (size_t i = 0; i < strlen("{\"index\":1,\"time\":\""); i++) {
        cs_buffer_reset(&bad);
        cs_buffer_append(&bad, good.data, good.size);
        bad.data[line + i] ^= 0x10;
        assert_damaged(here, cs_buffer_view(&bad), "line 2 is damaged");
    }
    cs_buffer_reset(&bad);
    cs_buffer_append(&bad, good.data, good.size);
    bad.data[2 * line - 2] = '\0'; /* zeros in the middle are no torn end */
    assert_damaged(here, cs_buffer_view(&bad), "line 2 is damaged");
    bad.data[2 * line - 2] = '}';
    bad.data[3 * line - 2] = 'x'; /* the last line, whole and wrong */
    assert_damaged(here, cs_buffer_view(&bad), "line 3 is damaged");
}

static void a_line_longer_than_a_record_is_data_loss(void **state)
{
    const place *here = *state;
    CS_AUTO(cs_buffer) content = CS_BUFFER_EMPTY;
    CS_IGNORE(cs_folder_make(here->path, 0700), "the write says it");
    cs_buffer_append_text(&content, "{\"index\":0,\"time\":\"t\",\"kind\":\"k\",\"x\":\"");
    while (content.size < 5 * CS_RECORD_MAX_BYTES)
        cs_buffer_append(&content, "x", 1);

    assert_damaged(here, cs_buffer_view(&content), "line 1 is longer");
    cs_buffer_append_text(&content, "\"}\n");
    assert_damaged(here, cs_buffer_view(&content), "line 1 is longer");
    assert_damaged(here, cs_bytes_of(content.data, CS_RECORD_MAX_BYTES + 2), "line 1 is longer");
}

#define THREADS     4
#define EACH_THREAD 25

static void *append_many(void *argument)
{
    for (int i = 0; i < EACH_THREAD; i++) {
        CS_AUTO(cs_string) key = cs_format("shared %d", i);
        if (cs_transcript_append(argument, "own", text("{\"a\":1}"), NULL) != CS_OK ||
            cs_transcript_append_once(argument, "shared", key, text("")) != CS_OK)
            return argument;
    }
    return NULL;
}

static void many_threads_append_whole_lines_and_each_key_once(void **state)
{
    const place *here = *state;
    cs_transcript *transcript = open_at(here);
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, append_many, transcript), 0);
    for (size_t i = 0; i < THREADS; i++) {
        void *failure = NULL;
        pthread_join(threads[i], &failure);
        assert_null(failure);
    }
    assert_int_equal(size_of(transcript), THREADS * EACH_THREAD + EACH_THREAD);
    cs_transcript_free(transcript);

    CS_AUTO_PTR(cs_transcript) again = open_at(here);
    assert_int_equal(size_of(again), THREADS * EACH_THREAD + EACH_THREAD);
}

/* ---- a disk that fails ---- */

struct faults {
    int left;  /* the call that makes it 0 fails */
    int count; /* how many calls fail from there on */
    int number;
};

static int fail_some(void *self, const char *operation, const char *path)
{
    (void)operation;
    (void)path;
    struct faults *faults = self;
    faults->left--;
    return faults->left <= 0 && faults->left > -faults->count ? faults->number : 0;
}

static cs_status append_two(const place *here, int *acknowledged)
{
    CS_AUTO_PTR(cs_transcript) transcript = NULL;
    CS_TRY(cs_transcript_open(here->path, &transcript));
    CS_TRY(cs_transcript_append_once(transcript, "first", "a", text("")));
    *acknowledged = 1;
    CS_TRY(cs_transcript_append_once(transcript, "second", "b", text("")));
    *acknowledged = 2;
    return CS_OK;
}

static void whichever_calls_fail_no_acknowledged_record_is_lost_and_none_stands_twice(void **state)
{
    const place *here = *state;
    for (int count = 1; count <= 3; count++) {
        int failed = 0;
        for (int k = 1;; k++) {
            struct faults faults = {k, count, k % 2 ? ENOSPC : EIO};
            int acknowledged = 0;
            assert_ok(cs_folder_remove(here->path));

            cs_file_set_fault(fail_some, &faults);
            cs_status status = append_two(here, &acknowledged);
            cs_file_set_fault(NULL, NULL);
            if (faults.left > 0) {
                assert_ok(status);
                break;
            }
            failed++;

            if (cs_file_exists(here->path)) {
                CS_AUTO_PTR(cs_transcript) transcript = open_at(here);
                assert_true(size_of(transcript) >= (uint64_t)acknowledged);
            }
            assert_ok(append_two(here, &acknowledged));
            CS_AUTO_PTR(cs_transcript) transcript = open_at(here);
            assert_int_equal(size_of(transcript), 2);
        }
        assert_true(failed >= 8);
    }
}

static void an_append_that_failed_can_be_repeated_on_the_same_transcript(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_transcript) transcript = open_at(here);
    for (int k = 1; k <= 2; k++) { /* the write, the fsync */
        struct faults faults = {k, 1, ENOSPC};
        cs_file_set_fault(fail_some, &faults);
        assert_status(cs_transcript_append(transcript, "kind", text(""), NULL), CS_EXHAUSTED);
        cs_file_set_fault(NULL, NULL);
        assert_error_says("transcript.jsonl");
        assert_ok(cs_transcript_append(transcript, "kind", text(""), NULL));
        assert_int_equal(size_of(transcript), (uint64_t)k);
    }

    struct faults faults = {1, 2, EIO}; /* the write, and taking it back */
    cs_file_set_fault(fail_some, &faults);
    assert_true(cs_transcript_append(transcript, "kind", text(""), NULL) != CS_OK);
    cs_file_set_fault(NULL, NULL);
    assert_status(cs_transcript_append(transcript, "kind", text(""), NULL), CS_DATA_LOSS);
    cs_transcript_free(CS_TAKE(transcript));
    transcript = open_at(here);
    assert_ok(cs_transcript_append(transcript, "kind", text(""), NULL));
    assert_int_equal(size_of(transcript), 3);
}

static void several_records_are_all_appended_in_order_or_none(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_transcript) transcript = open_at(here);
    assert_ok(cs_transcript_append_once(transcript, "kind", "b", text("")));
    const cs_record records[] = {{"kind", "a", text("{\"n\":1}")},
                                 {"kind", "b", text("{\"n\":2}")}, /* stands there already */
                                 {"kind", "a", text("{\"n\":3}")}, /* stands in this list already */
                                 {"kind", "c", text("{\"n\":4}")}};

    for (int k = 1; k <= 2; k++) { /* the write, the fsync */
        struct faults faults = {k, 1, ENOSPC};
        cs_file_set_fault(fail_some, &faults);
        assert_status(cs_transcript_append_all(transcript, records, CS_COUNT(records)), CS_EXHAUSTED);
        cs_file_set_fault(NULL, NULL);
        assert_int_equal(size_of(transcript), 1);
    }
    assert_ok(cs_transcript_append_all(transcript, records, CS_COUNT(records)));
    assert_ok(cs_transcript_append_all(transcript, records, CS_COUNT(records)));

    assert_int_equal(size_of(transcript), 3);
    cs_transcript_free(CS_TAKE(transcript));
    transcript = open_at(here);
    assert_int_equal(size_of(transcript), 3);
    const cs_record bad[] = {{"kind", "d", text("")}, {"Not a kind", "e", text("")}};
    assert_status(cs_transcript_append_all(transcript, bad, CS_COUNT(bad)), CS_INVALID);
    assert_int_equal(size_of(transcript), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLACE_TEST(records_are_lines_of_json_in_the_order_of_the_format),
        PLACE_TEST(the_head_is_the_root_of_the_lines_and_the_same_after_reopening),
        PLACE_TEST(the_script_of_the_documentation_finds_the_same_head),
        PLACE_TEST(a_record_with_a_key_is_appended_once_also_after_a_restart),
        PLACE_TEST(many_keys_are_all_remembered),
        PLACE_TEST(a_record_may_have_16_kib_and_not_a_byte_more),
        PLACE_TEST(what_would_not_be_one_line_of_json_is_refused),
        PLACE_TEST(a_torn_last_line_is_cut_off_wherever_it_was_torn),
        PLACE_TEST(a_last_line_whose_bytes_never_reached_the_disk_is_cut_off),
        PLACE_TEST(a_damaged_line_is_data_loss_and_named),
        PLACE_TEST(a_line_longer_than_a_record_is_data_loss),
        PLACE_TEST(many_threads_append_whole_lines_and_each_key_once),
        PLACE_TEST(whichever_calls_fail_no_acknowledged_record_is_lost_and_none_stands_twice),
        PLACE_TEST(an_append_that_failed_can_be_repeated_on_the_same_transcript),
        PLACE_TEST(several_records_are_all_appended_in_order_or_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
