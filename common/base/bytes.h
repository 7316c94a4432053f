/* Views and owned, growing buffers of bytes; hex and base64. Used by everything. No thread rules: values belong to the
 * caller. */
#ifndef CS_BASE_BYTES_H
#define CS_BASE_BYTES_H

#include "common/base/memory.h"

/* Somebody else's bytes. */
typedef struct cs_bytes {
    const uint8_t *data;
    size_t size;
} cs_bytes;

/* Owned bytes. A zero byte always stands after the end, so that `(char *)data` is text; `data` is NULL only while
 * empty. */
typedef struct cs_buffer {
    uint8_t *data;
    size_t size;
    size_t capacity;
} cs_buffer;

#define CS_BUFFER_EMPTY ((cs_buffer){0})

static inline cs_bytes cs_bytes_of(const void *data, size_t size)
{
    return (cs_bytes){(const uint8_t *)data, size};
}
cs_bytes cs_bytes_of_text(const char *text);
static inline cs_bytes cs_buffer_view(const cs_buffer *buffer)
{
    return (cs_bytes){buffer->data, buffer->size};
}
bool cs_bytes_equal(cs_bytes a, cs_bytes b);

void cs_buffer_clear(cs_buffer *buffer);
/* Keeps the memory, forgets the bytes. */
void cs_buffer_reset(cs_buffer *buffer);
void cs_buffer_reserve(cs_buffer *buffer, size_t capacity);
/* For sizes that a peer chose. */
CS_MUST_CHECK cs_status cs_buffer_reserve_peer(cs_buffer *buffer, size_t capacity, const char *what);
void cs_buffer_append(cs_buffer *buffer, const void *data, size_t size);
void cs_buffer_append_text(cs_buffer *buffer, const char *text);
void cs_buffer_printf(cs_buffer *buffer, const char *format, ...) CS_PRINTF(2, 3);
/* Never NULL. */
const char *cs_buffer_text(const cs_buffer *buffer);
/* Overwrites, then clears: for secrets. */
void cs_buffer_wipe(cs_buffer *buffer);
/* The caller owns the text now. */
char *cs_buffer_take_text(cs_buffer *buffer);

void cs_store_be32(uint8_t out[4], uint32_t value);
uint32_t cs_load_be32(const uint8_t in[4]);
void cs_store_le64(uint8_t out[8], uint64_t value);
uint64_t cs_load_le64(const uint8_t in[8]);

/* Bytes of the UTF-8 character that `text` begins with; 0 where it is not valid UTF-8 or empty. */
size_t cs_utf8_length(cs_bytes text);

/* `out` holds 2 × size + 1 characters. */
void cs_hex_encode(char *out, const void *data, size_t size);
/* Exactly size bytes from 2 × size digits, else CS_INVALID naming `what`. */
CS_MUST_CHECK cs_status cs_hex_decode(const char *text, size_t text_size, const char *what, uint8_t *out, size_t size);
/* Standard alphabet with padding, no white space; one spelling for one value. Decoding appends. */
void cs_base64_encode(cs_buffer *out, cs_bytes in);
CS_MUST_CHECK cs_status cs_base64_decode(const char *text, size_t text_size, const char *what, cs_buffer *out);

#endif
