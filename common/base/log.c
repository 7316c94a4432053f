/* logfmt lines on stderr. Called by the owners of events, on any thread. */
#include "common/base/log.h"

#include "common/base/bytes.h"
#include "common/base/clock.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static atomic_int current_level = CS_LOG_INFO;
static const char *const level_names[] = {"error", "warn", "info", "debug"};

/* A pipe takes PIPE_BUF bytes in one piece, so no line is longer and lines of several threads never mix. */
typedef struct line {
    char text[PIPE_BUF];
    size_t size;
} line;

/* Two bytes stay free for a closing quote and the end of the line. */
static bool put(line *line, const char *text, size_t size)
{
    if (size > sizeof(line->text) - 2 - line->size)
        return false;
    memcpy(line->text + line->size, text, size);
    line->size += size;
    return true;
}

static bool needs_quotes(const char *text)
{
    if (*text == '\0')
        return true;
    for (const unsigned char *c = (const unsigned char *)text; *c != 0; c++)
        if (*c <= ' ' || *c == '"' || *c == '=' || *c == '\\' || *c >= 0x7f)
            return true;
    return false;
}

/* One character of a quoted value: terminals and parsers must not be led astray by what a peer wrote. */
static bool put_character(line *line, const char *character, size_t size)
{
    const unsigned char first = (unsigned char)character[0];
    if (first == '"' || first == '\\')
        return put(line, (const char[]){'\\', (char)first}, 2);
    if (first == '\n')
        return put(line, "\\n", 2);
    if (first == '\t')
        return put(line, "\\t", 2);
    const bool is_second_control_range = size == 2 && first == 0xc2 && (unsigned char)character[1] < 0xa0;
    if (size == 0 || first < ' ' || first == 0x7f || is_second_control_range)
        return put(line, "?", 1);
    return put(line, character, size);
}

static void put_value(line *line, const char *text)
{
    if (!needs_quotes(text)) {
        size_t left = sizeof(line->text) - 2 - line->size;
        put(line, text, CS_MIN(strlen(text), left));
        return;
    }
    if (!put(line, "\"", 1))
        return;
    for (size_t left = strlen(text); left > 0;) {
        const size_t size = cs_utf8_length(cs_bytes_of(text, left));
        if (!put_character(line, text, size))
            break;
        text += CS_MAX(size, (size_t)1);
        left -= CS_MAX(size, (size_t)1);
    }
    line->text[line->size++] = '"'; /* into the bytes that put() leaves free */
}

static void put_field(line *line, const char *key, const char *value)
{
    /* A pair whose beginning does not fit is left out whole. */
    if (strlen(key) + 5 > sizeof(line->text) - 2 - CS_MIN(line->size, sizeof(line->text) - 2))
        return;
    if (line->size > 0)
        put(line, " ", 1);
    put(line, key, strlen(key));
    put(line, "=", 1);
    put_value(line, value);
}

void cs_log_write(cs_log_level level, const char *module, const char *message, const cs_log_field *fields)
{
    if ((int)level > atomic_load_explicit(&current_level, memory_order_relaxed))
        return;
    const int saved_errno = errno;
    line line = {.size = 0};
    char time[CS_TIME_TEXT_BYTES];
    cs_clock_format(cs_clock_wall_ms(), time);
    put_field(&line, "time", time);
    put_field(&line, "level", level_names[level]);
    put_field(&line, "module", module);
    put_field(&line, "msg", message);
    for (const cs_log_field *field = fields; field->key != NULL; field++) {
        char number[40];
        const char *value = number;
        if (field->kind == CS_FIELD_INT)
            snprintf(number, sizeof(number), "%lld", (long long)field->integer);
        else if (field->kind == CS_FIELD_REAL)
            snprintf(number, sizeof(number), "%.6g", field->real);
        else
            value = field->text != NULL ? field->text : "";
        put_field(&line, field->key, value);
    }
    line.text[line.size++] = '\n';
    while (write(STDERR_FILENO, line.text, line.size) < 0 && errno == EINTR)
        ; /* Nowhere else to complain when stderr is gone. */
    errno = saved_errno;
}

void cs_log_set_level(cs_log_level level)
{
    atomic_store(&current_level, (int)level);
}

cs_status cs_log_level_parse(const char *text, cs_log_level *ret)
{
    for (size_t i = 0; i < CS_COUNT(level_names); i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *ret = (cs_log_level)i;
            return CS_OK;
        }
    }
    return cs_fail(CS_INVALID, "log level '%.32s' is not one of error, warn, info, debug", text);
}
