/* Writes JSON into a buffer: output of the commands, transcript records, safetensors headers. Keys in the order given,
 * no white space, UTF-8 kept, control characters escaped. One writer belongs to one thread. */
#ifndef CS_BASE_JSON_H
#define CS_BASE_JSON_H

#include "common/base/bytes.h"

#define CS_JSON_DEPTH 16

typedef struct cs_json {
    cs_buffer *out;
    bool has_item[CS_JSON_DEPTH];
    int depth;
} cs_json;

/* Appends to `out`, which must outlive the writer. */
cs_json cs_json_to(cs_buffer *out);
/* `key` is NULL inside lists and at the top. */
void cs_json_object(cs_json *json, const char *key);
void cs_json_list(cs_json *json, const char *key);
void cs_json_end(cs_json *json, char bracket);                        /* '}' or ']' */
void cs_json_text(cs_json *json, const char *key, const char *value); /* NULL: null */
void cs_json_hex(cs_json *json, const char *key, const void *data, size_t size);
void cs_json_int(cs_json *json, const char *key, int64_t value);
void cs_json_uint(cs_json *json, const char *key, uint64_t value);
/* Shortest text that reads back as the same double; null where not finite. */
void cs_json_real(cs_json *json, const char *key, double value);
void cs_json_bool(cs_json *json, const char *key, bool value);
/* Bytes that are JSON already. */
void cs_json_raw(cs_json *json, const char *key, cs_bytes value);

#endif
