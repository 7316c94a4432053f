/* A writer of JSON. Called by commands, the transcript and safetensors; one writer belongs to one thread. */
#include "common/base/json.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cs_json cs_json_to(cs_buffer *out)
{
    return (cs_json){.out = out};
}

static void put_text(cs_buffer *out, const char *text)
{
    cs_buffer_append(out, "\"", 1);
    for (size_t left = strlen(text); left > 0;) {
        const size_t valid = cs_utf8_length(cs_bytes_of(text, left));
        const unsigned char first = (unsigned char)text[0];
        if (valid == 0)
            cs_buffer_append_text(out, "\\ufffd");
        else if (first == '"' || first == '\\')
            cs_buffer_printf(out, "\\%c", first);
        else if (first == '\n')
            cs_buffer_append_text(out, "\\n");
        else if (first == '\t')
            cs_buffer_append_text(out, "\\t");
        else if (first < ' ' || first == 0x7f)
            cs_buffer_printf(out, "\\u%04x", (unsigned)first);
        else
            cs_buffer_append(out, text, valid);
        const size_t taken = CS_MAX(valid, (size_t)1);
        text += taken;
        left -= taken;
    }
    cs_buffer_append(out, "\"", 1);
}

/* What stands before a value: a comma, a key. */
static void begin_value(cs_json *json, const char *key)
{
    if (json->has_item[json->depth])
        cs_buffer_append(json->out, ",", 1);
    json->has_item[json->depth] = true;
    if (key != NULL) {
        put_text(json->out, key);
        cs_buffer_append(json->out, ":", 1);
    }
}

static void open_nested(cs_json *json, const char *key, const char *bracket)
{
    assert(json->depth + 1 < CS_JSON_DEPTH);
    begin_value(json, key);
    cs_buffer_append(json->out, bracket, 1);
    json->depth++;
    json->has_item[json->depth] = false;
}

void cs_json_object(cs_json *json, const char *key)
{
    open_nested(json, key, "{");
}

void cs_json_list(cs_json *json, const char *key)
{
    open_nested(json, key, "[");
}

void cs_json_end(cs_json *json, char bracket)
{
    assert(json->depth > 0);
    json->depth--;
    cs_buffer_append(json->out, &bracket, 1);
}

void cs_json_text(cs_json *json, const char *key, const char *value)
{
    begin_value(json, key);
    if (value == NULL)
        cs_buffer_append_text(json->out, "null");
    else
        put_text(json->out, value);
}

void cs_json_hex(cs_json *json, const char *key, const void *data, size_t size)
{
    CS_AUTO(cs_string) text = cs_alloc(2 * size + 1);
    cs_hex_encode(text, data, size);
    cs_json_text(json, key, text);
}

void cs_json_int(cs_json *json, const char *key, int64_t value)
{
    begin_value(json, key);
    cs_buffer_printf(json->out, "%" PRId64, value);
}

void cs_json_uint(cs_json *json, const char *key, uint64_t value)
{
    begin_value(json, key);
    cs_buffer_printf(json->out, "%" PRIu64, value);
}

void cs_json_real(cs_json *json, const char *key, double value)
{
    begin_value(json, key);
    if (!isfinite(value)) {
        cs_buffer_append_text(json->out, "null");
        return;
    }
    char text[32];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, value);
        const double again = strtod(text, NULL);
        if (memcmp(&again, &value, sizeof(value)) == 0)
            break;
    }
    cs_buffer_append_text(json->out, text);
}

void cs_json_bool(cs_json *json, const char *key, bool value)
{
    begin_value(json, key);
    cs_buffer_append_text(json->out, value ? "true" : "false");
}

void cs_json_raw(cs_json *json, const char *key, cs_bytes value)
{
    begin_value(json, key);
    cs_buffer_append(json->out, value.data, value.size);
}
