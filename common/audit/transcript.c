/* The transcript file: one durable line for each record, and the tree over the lines. The agent and the coordinator
 * append from any thread. docs/transcript.md describes the bytes. */
#include "common/audit/transcript.h"

#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define FILE_NAME  "transcript.jsonl"
#define READ_BYTES ((size_t)64 * 1024)

struct cs_transcript {
    char *path;
    pthread_mutex_t append_mutex; /* everything below */
    cs_fd fd;
    uint64_t file_size; /* whole, durable lines */
    bool is_broken;     /* what stands after file_size could not be taken back */
    cs_merkle *tree;
    cs_hash *keys; /* open addressing; a zero hash is a free place */
    size_t key_count;
    size_t key_capacity;
};

/* ---- the set of keys: SHA-256 of each as it stands in the file, between its quotes ---- */

static cs_hash *key_place(cs_hash *keys, size_t capacity, const cs_hash *key)
{
    size_t i = cs_load_le64(key->bytes) % capacity;
    while (!cs_hash_is_zero(&keys[i]) && !cs_hash_equal(&keys[i], key))
        i = (i + 1) % capacity;
    return &keys[i];
}

static bool has_key(const cs_transcript *transcript, const cs_hash *key)
{
    return transcript->key_count > 0 && cs_hash_equal(key_place(transcript->keys, transcript->key_capacity, key), key);
}

static void add_key(cs_transcript *transcript, const cs_hash *key)
{
    if (2 * (transcript->key_count + 1) > transcript->key_capacity) {
        size_t capacity = CS_MAX((size_t)64, 2 * transcript->key_capacity);
        cs_hash *keys = cs_alloc_array(capacity, sizeof *keys);
        for (size_t i = 0; i < transcript->key_capacity; i++) {
            if (!cs_hash_is_zero(&transcript->keys[i]))
                *key_place(keys, capacity, &transcript->keys[i]) = transcript->keys[i];
        }
        cs_free(transcript->keys);
        transcript->keys = keys;
        transcript->key_capacity = capacity;
    }
    cs_hash *place = key_place(transcript->keys, transcript->key_capacity, key);
    if (cs_hash_is_zero(place)) {
        *place = *key;
        transcript->key_count++;
    }
}

/* ---- the lines: our own output, so a few exact steps are enough to read them ---- */

/* Takes `text` off the front of a line. */
static bool take_text(cs_bytes *rest, const char *text)
{
    size_t size = strlen(text);
    if (rest->size < size || memcmp(rest->data, text, size) != 0)
        return false;
    *rest = cs_bytes_of(rest->data + size, rest->size - size);
    return true;
}

/* Takes what stands before the closing quote, and the quote. */
static bool take_quoted(cs_bytes *rest, cs_bytes *ret)
{
    for (size_t i = 0; i < rest->size; i++) {
        if (rest->data[i] == '\\') {
            i++;
        } else if (rest->data[i] == '"') {
            *ret = cs_bytes_of(rest->data, i);
            *rest = cs_bytes_of(rest->data + i + 1, rest->size - i - 1);
            return true;
        }
    }
    return false;
}

static bool has_control_character(cs_bytes text)
{
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < ' ')
            return true;
    }
    return false;
}

/* True for "{…}" whose brackets close in order and only at the very end, without control characters. */
static bool is_one_object(cs_bytes text)
{
    char open[CS_JSON_DEPTH];
    size_t depth = 0;
    if (text.size < 2 || text.data[0] != '{' || has_control_character(text))
        return false;
    for (size_t i = 0; i < text.size; i++) {
        char c = (char)text.data[i];
        if (c == '"') {
            cs_bytes rest = cs_bytes_of(text.data + i + 1, text.size - i - 1);
            cs_bytes quoted;
            if (!take_quoted(&rest, &quoted))
                return false;
            i += quoted.size + 1;
        } else if (c == '{' || c == '[') {
            if (depth == CS_JSON_DEPTH)
                return false;
            open[depth++] = c;
        } else if (c == '}' || c == ']') {
            if (depth == 0 || open[--depth] != (c == '}' ? '{' : '['))
                return false;
            if (depth == 0)
                return i == text.size - 1;
        }
    }
    return false;
}

static bool is_kind(cs_bytes kind)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789_";
    bool is_short = kind.size >= 1 && kind.size <= CS_RECORD_KIND_MAX;
    for (size_t i = 0; is_short && i < kind.size; i++) {
        if (!memchr(allowed, kind.data[i], sizeof allowed - 1))
            return false;
    }
    return is_short;
}

/* Checks a line as far as this program wrote it; *ret_key is empty where the record has none. */
static bool scan_line(cs_bytes line, uint64_t index, cs_bytes *ret_key)
{
    char head[64];
    snprintf(head, sizeof head, "{\"index\":%" PRIu64 ",\"time\":\"", index);
    cs_bytes rest = line;
    cs_bytes time;
    cs_bytes kind;
    *ret_key = (cs_bytes){NULL, 0};
    if (!is_one_object(line) || !take_text(&rest, head) || !take_quoted(&rest, &time))
        return false;
    if (!take_text(&rest, ",\"kind\":\"") || !take_quoted(&rest, &kind) || !is_kind(kind))
        return false;
    return !take_text(&rest, ",\"key\":\"") || (take_quoted(&rest, ret_key) && ret_key->size > 0);
}

/* ---- open ---- */

static cs_status load_line(cs_transcript *transcript, cs_bytes line)
{
    uint64_t index = cs_merkle_size(transcript->tree);
    cs_bytes key;
    if (line.size > CS_RECORD_MAX_BYTES || !scan_line(line, index, &key))
        return cs_fail(CS_DATA_LOSS, "%s: line %" PRIu64 " is damaged", transcript->path, index + 1);
    cs_merkle_add(transcript->tree, line);
    if (key.size > 0) {
        cs_hash hash = cs_sha256(key);
        add_key(transcript, &hash);
    }
    transcript->file_size += line.size + 1;
    return CS_OK;
}

/* A power cut can leave the length of a line without its bytes: zeros, which no record has. */
static bool is_torn(cs_bytes line)
{
    return line.size <= CS_RECORD_MAX_BYTES && memchr(line.data, '\0', line.size) != NULL;
}

/* Loads the whole lines at the front of `window`; *ret_used is how many bytes they have. */
static cs_status load_lines(cs_transcript *transcript, cs_bytes window, bool is_last, size_t *ret_used)
{
    *ret_used = 0;
    while (*ret_used < window.size) {
        const uint8_t *begin = window.data + *ret_used;
        size_t left = window.size - *ret_used;
        const uint8_t *end = memchr(begin, '\n', left);
        if (!end)
            return CS_OK;
        cs_bytes line = cs_bytes_of(begin, (size_t)(end - begin));
        if (is_last && line.size + 1 == left && is_torn(line))
            return CS_OK;
        CS_TRY(load_line(transcript, line));
        *ret_used += line.size + 1;
    }
    return CS_OK;
}

static cs_status load(cs_transcript *transcript)
{
    uint64_t size = 0;
    CS_TRY(cs_file_size(transcript->fd, &size));
    CS_AUTO(cs_buffer) window = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&window, READ_BYTES);
    while (transcript->file_size < size) {
        size_t part = (size_t)CS_MIN(size - transcript->file_size, (uint64_t)READ_BYTES);
        size_t used = 0;
        CS_TRY(cs_file_pread_exact(transcript->fd, window.data, part, transcript->file_size));
        bool is_last = transcript->file_size + part == size;
        CS_TRY(load_lines(transcript, cs_bytes_of(window.data, part), is_last, &used));
        if (used > 0)
            continue;
        if (part > CS_RECORD_MAX_BYTES + 1)
            return cs_fail(CS_DATA_LOSS, "%s: line %" PRIu64 " is longer than a record may be", transcript->path,
                           cs_merkle_size(transcript->tree) + 1);
        /* Never acknowledged: an append returns only once its line feed is durable. */
        CS_TRY(cs_file_truncate(transcript->fd, transcript->file_size));
        return cs_file_sync(transcript->fd);
    }
    return CS_OK;
}

cs_status cs_transcript_open(const char *folder, cs_transcript **ret)
{
    CS_TRY(cs_folder_make(folder, 0700));
    CS_AUTO_PTR(cs_transcript) transcript = cs_alloc(sizeof *transcript);
    transcript->fd = -1;
    pthread_mutex_init(&transcript->append_mutex, NULL);
    transcript->tree = cs_merkle_new();
    transcript->path = cs_path_join(folder, FILE_NAME);
    CS_TRY(cs_file_open(transcript->path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600, &transcript->fd));
    CS_TRY(cs_file_sync_folder(folder));
    CS_TRY(load(transcript));
    *ret = CS_TAKE(transcript);
    return CS_OK;
}

void cs_transcript_free(cs_transcript *transcript)
{
    if (!transcript)
        return;
    pthread_mutex_destroy(&transcript->append_mutex);
    cs_fd_clear(&transcript->fd);
    cs_merkle_free(transcript->tree);
    cs_free(transcript->keys);
    cs_free(transcript->path);
    cs_free(transcript);
}

/* ---- append ---- */

static cs_status build_line(uint64_t index, const char *kind, const char *key, cs_bytes fields, cs_buffer *line)
{
    if (!is_kind(cs_bytes_of_text(kind)))
        return cs_fail(CS_INVALID, "a record's kind has 1 to %d characters a-z, 0-9 and _, not '%.80s'",
                       CS_RECORD_KIND_MAX, kind);
    if (fields.size > 0 && !is_one_object(fields))
        return cs_fail(CS_INVALID, "the fields of the record '%s' are not one JSON object on one line", kind);
    static const char reserved[] = "{\"key\":";
    if (fields.size >= sizeof reserved - 1 && memcmp(fields.data, reserved, sizeof reserved - 1) == 0)
        return cs_fail(CS_INVALID, "the fields of the record '%s' begin with \"key\", which is not theirs", kind);

    char time[CS_TIME_TEXT_BYTES];
    cs_clock_format(cs_clock_wall_ms(), time);
    cs_json json = cs_json_to(line);
    cs_json_object(&json, NULL);
    cs_json_uint(&json, "index", index);
    cs_json_text(&json, "time", time);
    cs_json_text(&json, "kind", kind);
    if (key)
        cs_json_text(&json, "key", key);
    if (fields.size > 2) {
        cs_buffer_append(line, ",", 1);
        cs_buffer_append(line, fields.data + 1, fields.size - 2);
    }
    cs_json_end(&json, '}');
    if (line->size > CS_RECORD_MAX_BYTES)
        return cs_fail(CS_INVALID, "the record '%s' has %zu bytes, at most %d are allowed", kind, line->size,
                       CS_RECORD_MAX_BYTES);
    return CS_OK;
}

static cs_status write_durably(const cs_transcript *transcript, const cs_buffer *lines)
{
    CS_FAILPOINT("transcript.write");
    CS_TRY(cs_file_pwrite(transcript->fd, lines->data, lines->size, transcript->file_size));
    CS_FAILPOINT("transcript.sync");
    return cs_file_sync_data(transcript->fd);
}

/* With the mutex held. `lines`: whole ones, each with its line feed. */
static cs_status append_lines(cs_transcript *transcript, const cs_buffer *lines)
{
    if (transcript->is_broken)
        return cs_fail(CS_DATA_LOSS, "%s: an earlier write failed and could not be taken back; start again",
                       transcript->path);
    cs_status status = write_durably(transcript, lines);
    if (status != CS_OK) {
        status = cs_wrap(status, "%s", transcript->path);
        /* Only whole lines may stand before the next one. */
        if (cs_file_truncate(transcript->fd, transcript->file_size) != CS_OK) {
            transcript->is_broken = true;
            return cs_wrap(status, "a record that failed was not taken back");
        }
        return status;
    }
    CS_IGNORE(cs_failpoint("transcript.written"),
              "what is durable cannot fail any more; only killing makes sense here");
    const uint8_t *line = lines->data, *end = lines->data + lines->size;
    while (line < end) {
        const uint8_t *line_feed = memchr(line, '\n', (size_t)(end - line));
        cs_merkle_add(transcript->tree, cs_bytes_of(line, (size_t)(line_feed - line)));
        line = line_feed + 1;
    }
    transcript->file_size += lines->size;
    return CS_OK;
}

cs_status cs_transcript_append(cs_transcript *transcript, const char *kind, cs_bytes fields, uint64_t *ret_index)
{
    CS_AUTO(cs_buffer) line = CS_BUFFER_EMPTY;
    pthread_mutex_lock(&transcript->append_mutex);
    uint64_t index = cs_merkle_size(transcript->tree);
    cs_status status = build_line(index, kind, NULL, fields, &line);
    if (status == CS_OK) {
        cs_buffer_append(&line, "\n", 1);
        status = append_lines(transcript, &line);
    }
    pthread_mutex_unlock(&transcript->append_mutex);
    if (status == CS_OK && ret_index)
        *ret_index = index;
    return status;
}

/* The key as it will stand in the line. */
static cs_hash key_hash(const char *key)
{
    CS_AUTO(cs_buffer) quoted = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&quoted);
    cs_json_text(&json, NULL, key);
    return cs_sha256(cs_bytes_of(quoted.data + 1, quoted.size - 2));
}

static cs_status check_key(const cs_record *record)
{
    size_t key_size = strlen(record->key);
    if (key_size == 0 || key_size > CS_RECORD_KEY_MAX_BYTES)
        return cs_fail(CS_INVALID, "the key of the record '%s' has %zu bytes, 1 to %d are allowed", record->kind,
                       key_size, CS_RECORD_KEY_MAX_BYTES);
    return CS_OK;
}

static bool stands_among(const cs_hash *hashes, size_t count, const cs_hash *hash)
{
    for (size_t i = 0; i < count; i++) {
        if (cs_hash_equal(&hashes[i], hash))
            return true;
    }
    return false;
}

/* With the mutex held. The lines of the records that are not there yet, and the hashes of their keys. */
static cs_status build_new_lines(const cs_transcript *transcript, const cs_record *records, size_t count,
                                 cs_buffer *lines, cs_hash *new_keys, size_t *ret_new_count)
{
    CS_AUTO(cs_buffer) line = CS_BUFFER_EMPTY;
    size_t new_count = 0;
    for (size_t i = 0; i < count; i++) {
        CS_TRY(check_key(&records[i]));
        cs_hash hash = key_hash(records[i].key);
        if (has_key(transcript, &hash) || stands_among(new_keys, new_count, &hash))
            continue;
        cs_buffer_reset(&line);
        CS_TRY(build_line(cs_merkle_size(transcript->tree) + new_count, records[i].kind, records[i].key,
                          records[i].fields, &line));
        cs_buffer_append(lines, line.data, line.size);
        cs_buffer_append(lines, "\n", 1);
        new_keys[new_count++] = hash;
    }
    *ret_new_count = new_count;
    return CS_OK;
}

cs_status cs_transcript_append_all(cs_transcript *transcript, const cs_record *records, size_t count)
{
    CS_AUTO(cs_buffer) lines = CS_BUFFER_EMPTY;
    cs_hash *new_keys = cs_alloc_array(count + 1, sizeof *new_keys);
    size_t new_count = 0;
    pthread_mutex_lock(&transcript->append_mutex);
    cs_status status = build_new_lines(transcript, records, count, &lines, new_keys, &new_count);
    if (status == CS_OK && new_count > 0)
        status = append_lines(transcript, &lines);
    for (size_t i = 0; status == CS_OK && i < new_count; i++)
        add_key(transcript, &new_keys[i]);
    pthread_mutex_unlock(&transcript->append_mutex);
    cs_free(new_keys);
    return status;
}

cs_status cs_transcript_append_once(cs_transcript *transcript, const char *kind, const char *key, cs_bytes fields)
{
    return cs_transcript_append_all(transcript, &(cs_record){.kind = kind, .key = key, .fields = fields}, 1);
}

void cs_transcript_head(cs_transcript *transcript, uint64_t *ret_size, cs_hash *ret_root)
{
    pthread_mutex_lock(&transcript->append_mutex);
    *ret_size = cs_merkle_size(transcript->tree);
    *ret_root = cs_merkle_root(transcript->tree, *ret_size);
    pthread_mutex_unlock(&transcript->append_mutex);
}

char *cs_transcript_path(const cs_transcript *transcript)
{
    return cs_strdup(transcript->path);
}
