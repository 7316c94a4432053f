/* Growing buffers, hex and base64. Used by everything; values belong to the caller. */
#include "common/base/bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SMALLEST_BUFFER 64

cs_bytes cs_bytes_of_text(const char *text)
{
    return cs_bytes_of(text, strlen(text));
}

bool cs_bytes_equal(cs_bytes a, cs_bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

void cs_buffer_clear(cs_buffer *buffer)
{
    cs_free(buffer->data);
    *buffer = CS_BUFFER_EMPTY;
}

void cs_buffer_reset(cs_buffer *buffer)
{
    buffer->size = 0;
    if (buffer->data != NULL)
        buffer->data[0] = 0;
}

void cs_buffer_reserve(cs_buffer *buffer, size_t capacity)
{
    if (buffer->data != NULL && capacity <= buffer->capacity)
        return;
    buffer->data = cs_realloc(buffer->data, capacity + 1); /* + 1: the zero byte after the end */
    buffer->data[buffer->size] = 0;
    buffer->capacity = capacity;
}

cs_status cs_buffer_reserve_peer(cs_buffer *buffer, size_t capacity, const char *what)
{
    if (buffer->data != NULL && capacity <= buffer->capacity)
        return CS_OK;
    uint8_t *moved = capacity < SIZE_MAX ? realloc(buffer->data, capacity + 1) : NULL;
    if (moved == NULL)
        return cs_fail(CS_EXHAUSTED, "%s: no memory for %zu bytes", what, capacity);
    buffer->data = moved;
    buffer->data[buffer->size] = 0;
    buffer->capacity = capacity;
    return CS_OK;
}

/* Room for `more` bytes; doubling keeps appending linear. */
static void grow(cs_buffer *buffer, size_t more)
{
    size_t needed = 0;
    if (__builtin_add_overflow(buffer->size, more, &needed) || needed > SIZE_MAX / 2 - 1)
        abort();
    if (buffer->data == NULL || needed > buffer->capacity)
        cs_buffer_reserve(buffer, CS_MAX(CS_MAX(needed, 2 * buffer->capacity), (size_t)SMALLEST_BUFFER));
}

void cs_buffer_append(cs_buffer *buffer, const void *data, size_t size)
{
    grow(buffer, size);
    if (size > 0)
        memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
    buffer->data[buffer->size] = 0;
}

void cs_buffer_append_text(cs_buffer *buffer, const char *text)
{
    cs_buffer_append(buffer, text, strlen(text));
}

void cs_buffer_printf(cs_buffer *buffer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    va_list again;
    va_copy(again, arguments);
    int size = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (size > 0) {
        grow(buffer, (size_t)size);
        vsnprintf((char *)buffer->data + buffer->size, (size_t)size + 1, format, again);
        buffer->size += (size_t)size;
    }
    va_end(again);
}

const char *cs_buffer_text(const cs_buffer *buffer)
{
    return buffer->data == NULL ? "" : (const char *)buffer->data;
}

void cs_buffer_wipe(cs_buffer *buffer)
{
    if (buffer->data != NULL)
        explicit_bzero(buffer->data, buffer->capacity);
    cs_buffer_clear(buffer);
}

char *cs_buffer_take_text(cs_buffer *buffer)
{
    cs_buffer_reserve(buffer, 0);
    char *text = (char *)buffer->data;
    *buffer = CS_BUFFER_EMPTY;
    return text;
}

void cs_store_be32(uint8_t out[4], uint32_t value)
{
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (24 - 8 * i));
}

uint32_t cs_load_be32(const uint8_t in[4])
{
    return (uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 | (uint32_t)in[2] << 8 | in[3];
}

void cs_store_le64(uint8_t out[8], uint64_t value)
{
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

uint64_t cs_load_le64(const uint8_t in[8])
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value |= (uint64_t)in[i] << (8 * i);
    return value;
}

size_t cs_utf8_length(cs_bytes text)
{
    if (text.size == 0)
        return 0;
    const uint8_t first = text.data[0];
    if (first < 0x80)
        return 1;
    const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || text.size < length)
        return 0;
    uint32_t value = first & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((text.data[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (text.data[i] & 0x3fu);
    }
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const bool is_surrogate = value >= 0xd800 && value <= 0xdfff;
    return value < smallest[length] || value > 0x10ffff || is_surrogate ? 0 : length;
}

void cs_hex_encode(char *out, const void *data, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * size] = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

cs_status cs_hex_decode(const char *text, size_t text_size, const char *what, uint8_t *out, size_t size)
{
    if (text_size != 2 * size)
        return cs_fail(CS_INVALID, "%s: %zu characters, expected %zu hexadecimal digits", what, text_size, 2 * size);
    for (size_t i = 0; i < size; i++) {
        int high = hex_digit(text[2 * i]);
        int low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return cs_fail(CS_INVALID, "%s: character %zu is not a hexadecimal digit", what,
                           2 * i + (high < 0 ? 1 : 2));
        out[i] = (uint8_t)(high << 4 | low);
    }
    return CS_OK;
}

void cs_base64_encode(cs_buffer *out, cs_bytes in)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < in.size; i += 3) {
        const size_t left = in.size - i;
        const uint32_t group = (uint32_t)in.data[i] << 16 | (left > 1 ? (uint32_t)in.data[i + 1] << 8 : 0) |
                               (left > 2 ? in.data[i + 2] : 0);
        const char four[4] = {digits[group >> 18], digits[group >> 12 & 63], left > 1 ? digits[group >> 6 & 63] : '=',
                              left > 2 ? digits[group & 63] : '='};
        cs_buffer_append(out, four, sizeof(four));
    }
}

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

cs_status cs_base64_decode(const char *text, size_t text_size, const char *what, cs_buffer *out)
{
    if (text_size % 4 != 0)
        return cs_fail(CS_INVALID, "%s: %zu characters, base64 comes in groups of four", what, text_size);
    CS_TRY(cs_buffer_reserve_peer(out, out->size + text_size / 4 * 3, what));
    for (size_t i = 0; i < text_size; i += 4) {
        const bool is_last = i + 4 == text_size;
        const size_t padding = !is_last || text[i + 3] != '=' ? 0 : text[i + 2] != '=' ? 1 : 2;
        uint32_t group = 0;
        for (size_t k = 0; k < 4; k++) {
            int digit = k >= 4 - padding ? 0 : base64_digit(text[i + k]);
            if (digit < 0)
                return cs_fail(CS_INVALID, "%s: character %zu is not base64", what, i + k + 1);
            group = group << 6 | (uint32_t)digit;
        }
        const uint8_t three[3] = {(uint8_t)(group >> 16), (uint8_t)(group >> 8), (uint8_t)group};
        /* One spelling for one value: bits under the padding must be zero. */
        if ((padding > 0 && three[2] != 0) || (padding > 1 && three[1] != 0))
            return cs_fail(CS_INVALID, "%s: base64 with stray bits at its end", what);
        cs_buffer_append(out, three, 3 - padding);
    }
    return CS_OK;
}
