/* The one allocator. Small fixed needs abort with a sentence when memory is out; anything whose size a peer chose fails
 * with a status. The arena serves one message or one document and dies with it. Any thread; an arena belongs to one
 * thread at a time. */
#ifndef CS_BASE_MEMORY_H
#define CS_BASE_MEMORY_H

#include "common/base/status.h"

/* Zeroed. Aborts the process with a sentence when memory is out: only for sizes this program chose. Free with cs_free.
 */
void *cs_alloc(size_t size) __attribute__((malloc, returns_nonnull));
void *cs_alloc_array(size_t count, size_t item_size) __attribute__((malloc, returns_nonnull));
void *cs_realloc(void *memory, size_t size) __attribute__((returns_nonnull));
char *cs_strdup(const char *text) __attribute__((malloc, returns_nonnull));
char *cs_strndup(const char *text, size_t size) __attribute__((malloc, returns_nonnull));
char *cs_format(const char *format, ...) CS_PRINTF(1, 2) __attribute__((malloc, returns_nonnull));
void cs_free(void *memory);

/* For sizes that a peer or a file chose. CS_EXHAUSTED, with `what` in the sentence. The overflow of count × item_size
 * is checked. */
CS_MUST_CHECK cs_status cs_alloc_peer(size_t count, size_t item_size, const char *what, void **ret);

/* CS_AUTO(cs_string) s = cs_strdup(…); */
typedef char *cs_string;
static inline void cs_string_clear(cs_string *owner)
{
    cs_free(*owner);
    *owner = NULL;
}

typedef struct cs_arena cs_arena;
/* `budget`: the most bytes it may ever give; 0 = no limit (only for input of this program's own). */
cs_arena *cs_arena_new(size_t budget);
/* Zeroed, aligned to 16. NULL once the budget is spent or memory is out. */
void *cs_arena_alloc(cs_arena *arena, size_t size);
/* The same for who writes every byte: clearing a megabyte first would cost as much as filling it. */
void *cs_arena_alloc_unset(cs_arena *arena, size_t size);
char *cs_arena_strdup(cs_arena *arena, const char *text);
char *cs_arena_format(cs_arena *arena, const char *format, ...) CS_PRINTF(2, 3);
void *cs_arena_copy(cs_arena *arena, const void *data, size_t size);
size_t cs_arena_used(const cs_arena *arena);
/* Forgets everything given so far; keeps the first block unless it is large. */
void cs_arena_reset(cs_arena *arena);
void cs_arena_free(cs_arena *arena);
CS_DEFINE_AUTO_PTR(cs_arena)

#endif
