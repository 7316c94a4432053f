/* The allocator and the arena. */
#include "common/base/memory.h"

#include "tests/unit/base/cmocka_all.h"

#include <string.h>

static void memory_comes_zeroed(void **state)
{
    (void)state;

    uint8_t *memory = cs_alloc(100);

    for (size_t i = 0; i < 100; i++)
        assert_int_equal(memory[i], 0);
    cs_free(memory);
}

static void a_size_of_a_peer_that_overflows_is_refused_by_name(void **state)
{
    (void)state;
    void *memory = NULL;

    assert_int_equal(cs_alloc_peer(SIZE_MAX / 2, 3, "rows of the table", &memory), CS_EXHAUSTED);

    assert_null(memory);
    assert_non_null(strstr(cs_error_text(), "rows of the table"));
}

static void a_size_of_a_peer_that_nobody_has_is_refused(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* its allocator ends the process instead */
#endif
    void *memory = NULL;

    assert_int_equal(cs_alloc_peer(1, SIZE_MAX / 2, "tensor", &memory), CS_EXHAUSTED);

    assert_null(memory);
}

static void an_arena_gives_aligned_zeroed_memory(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);

    for (size_t size = 0; size < 10000; size += 777) {
        uint8_t *memory = cs_arena_alloc(arena, size);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % 16, 0);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(memory[i], 0);
        memset(memory, 0xff, size);
    }
}

static void an_arena_stops_at_its_budget(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(64);

    assert_non_null(cs_arena_alloc(arena, 48));
    assert_null(cs_arena_alloc(arena, 17));
    assert_non_null(cs_arena_alloc(arena, 16));
    assert_null(cs_arena_alloc(arena, 1));
    assert_null(cs_arena_alloc(arena, SIZE_MAX));

    assert_int_equal(cs_arena_used(arena), 64);
}

static void a_reset_arena_whose_first_block_was_large_can_be_used_again(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(4 * 1024 * 1024);
    for (int i = 0; i < 3; i++) {
        assert_non_null(cs_arena_alloc_unset(arena, 1024 * 1024));
        assert_non_null(cs_arena_strdup(arena, "behind it"));
        cs_arena_reset(arena);
        assert_int_equal(cs_arena_used(arena), 0);
        assert_string_equal(cs_arena_strdup(arena, "again"), "again");
        cs_arena_reset(arena);
    }
}

static void a_reset_arena_can_be_used_again(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(100000);
    assert_non_null(cs_arena_alloc(arena, 90000));
    memset(cs_arena_alloc(arena, 64), 0xff, 64);

    cs_arena_reset(arena);

    assert_int_equal(cs_arena_used(arena), 0);
    uint8_t *memory = cs_arena_alloc(arena, 90000);
    assert_non_null(memory);
    for (size_t i = 0; i < 90000; i++)
        assert_int_equal(memory[i], 0);
}

static void texts_are_copied_and_formatted(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    CS_AUTO(cs_string) cut = cs_strndup("hospital", 4);
    CS_AUTO(cs_string) formatted = cs_format("%s-%d", "site", 7);

    assert_string_equal(cut, "hosp");
    assert_string_equal(formatted, "site-7");
    assert_string_equal(cs_arena_strdup(arena, "mercy"), "mercy");
    assert_string_equal(cs_arena_format(arena, "%05d", 42), "00042");
    assert_memory_equal(cs_arena_copy(arena, "ab\0c", 4), "ab\0c", 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_comes_zeroed),
        cmocka_unit_test(a_size_of_a_peer_that_overflows_is_refused_by_name),
        cmocka_unit_test(a_size_of_a_peer_that_nobody_has_is_refused),
        cmocka_unit_test(an_arena_gives_aligned_zeroed_memory),
        cmocka_unit_test(an_arena_stops_at_its_budget),
        cmocka_unit_test(a_reset_arena_can_be_used_again),
        cmocka_unit_test(a_reset_arena_whose_first_block_was_large_can_be_used_again),
        cmocka_unit_test(texts_are_copied_and_formatted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
