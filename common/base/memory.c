/* The one allocator, and the arena. Called by everything, on any thread; an arena belongs to one thread at a time. */
#include "common/base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_ALIGNMENT   16
#define ARENA_BLOCK_BYTES 4096
/* A reset lets a larger first block go: a thousand calls must not each keep the largest message they have seen. */
#define ARENA_KEPT_BYTES ((size_t)64 * 1024)

static CS_NORETURN void out_of_memory(size_t size)
{
    fprintf(stderr, "out of memory: %zu bytes could not be had; the process ends\n", size);
    abort();
}

void *cs_alloc(size_t size)
{
    return cs_alloc_array(1, size);
}

void *cs_alloc_array(size_t count, size_t item_size)
{
    void *memory = calloc(count > 0 ? count : 1, item_size > 0 ? item_size : 1);
    if (memory == NULL)
        out_of_memory(count * item_size);
    return memory;
}

void *cs_realloc(void *memory, size_t size)
{
    void *moved = realloc(memory, size > 0 ? size : 1);
    if (moved == NULL)
        out_of_memory(size);
    return moved;
}

char *cs_strdup(const char *text)
{
    return cs_strndup(text, strlen(text));
}

char *cs_strndup(const char *text, size_t size)
{
    size_t length = strnlen(text, size);
    char *copy = cs_alloc(length + 1);
    memcpy(copy, text, length);
    return copy;
}

char *cs_format(const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int size = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (size < 0)
        out_of_memory(strlen(format));
    return text;
}

void cs_free(void *memory)
{
    free(memory);
}

cs_status cs_alloc_peer(size_t count, size_t item_size, const char *what, void **ret)
{
    size_t size = 0;
    if (__builtin_mul_overflow(count, item_size, &size))
        return cs_fail(CS_EXHAUSTED, "%s: %zu items of %zu bytes are more than memory can hold", what, count,
                       item_size);
    void *memory = calloc(size > 0 ? size : 1, 1);
    if (memory == NULL)
        return cs_fail(CS_EXHAUSTED, "%s: no memory for %zu bytes", what, size);
    *ret = memory;
    return CS_OK;
}

struct block {
    struct block *next;
    size_t size;
    size_t used;
    _Alignas(ARENA_ALIGNMENT) uint8_t data[];
};

struct cs_arena {
    struct block *newest;
    struct block *first;
    size_t budget;
    size_t used;
};

cs_arena *cs_arena_new(size_t budget)
{
    cs_arena *arena = cs_alloc(sizeof(*arena));
    arena->budget = budget;
    return arena;
}

static struct block *add_block(cs_arena *arena, size_t at_least)
{
    size_t size = CS_MAX(at_least, (size_t)ARENA_BLOCK_BYTES);
    size_t total = 0;
    if (__builtin_add_overflow(size, sizeof(struct block), &total))
        return NULL;
    struct block *block = malloc(total);
    if (block == NULL)
        return NULL;
    *block = (struct block){.next = arena->newest, .size = size};
    arena->newest = block;
    if (arena->first == NULL)
        arena->first = block;
    return block;
}

void *cs_arena_alloc_unset(cs_arena *arena, size_t size)
{
    size_t padded = 0;
    if (__builtin_add_overflow(size > 0 ? size : 1, ARENA_ALIGNMENT - 1, &padded))
        return NULL;
    padded &= ~(size_t)(ARENA_ALIGNMENT - 1);
    if (arena->budget > 0 && padded > arena->budget - arena->used)
        return NULL;

    struct block *block = arena->newest;
    if (block == NULL || padded > block->size - block->used)
        block = add_block(arena, padded);
    if (block == NULL)
        return NULL;
    void *memory = block->data + block->used;
    block->used += padded;
    arena->used += padded;
    return memory;
}

void *cs_arena_alloc(cs_arena *arena, size_t size)
{
    void *memory = cs_arena_alloc_unset(arena, size);
    if (memory != NULL)
        memset(memory, 0, size);
    return memory;
}

char *cs_arena_strdup(cs_arena *arena, const char *text)
{
    return cs_arena_copy(arena, text, strlen(text) + 1);
}

char *cs_arena_format(cs_arena *arena, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    va_list again;
    va_copy(again, arguments);
    int size = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *text = size < 0 ? NULL : cs_arena_alloc(arena, (size_t)size + 1);
    if (text != NULL)
        vsnprintf(text, (size_t)size + 1, format, again);
    va_end(again);
    return text;
}

void *cs_arena_copy(cs_arena *arena, const void *data, size_t size)
{
    void *copy = cs_arena_alloc_unset(arena, size);
    if (copy != NULL && size > 0)
        memcpy(copy, data, size);
    return copy;
}

size_t cs_arena_used(const cs_arena *arena)
{
    return arena->used;
}

void cs_arena_reset(cs_arena *arena)
{
    while (arena->newest != arena->first) {
        struct block *block = arena->newest;
        arena->newest = block->next;
        free(block);
    }
    arena->used = 0;
    if (arena->first == NULL)
        return;
    arena->first->used = 0;
    if (arena->first->size <= ARENA_KEPT_BYTES)
        return;
    free(arena->first);
    arena->newest = arena->first = NULL;
}

void cs_arena_free(cs_arena *arena)
{
    if (arena == NULL)
        return;
    cs_arena_reset(arena);
    free(arena->first);
    cs_free(arena);
}
