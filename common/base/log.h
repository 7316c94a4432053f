/* logfmt lines on stderr: time=… level=info module=engine msg="round closed" job=… round=12. Any thread, one write a
 * line. Never keys, weights or rows of data. Library functions return errors and do not log; the owner of the event
 * logs once. */
#ifndef CS_BASE_LOG_H
#define CS_BASE_LOG_H

#include "common/base/status.h"

typedef enum cs_log_level {
    CS_LOG_ERROR = 0, /* someone must act */
    CS_LOG_WARN = 1,  /* went on anyway; says what was ignored */
    CS_LOG_INFO = 2,  /* a person would want to know */
    CS_LOG_DEBUG = 3
} cs_log_level;

typedef struct cs_log_field {
    const char *key; /* NULL ends the list */
    enum { CS_FIELD_TEXT, CS_FIELD_INT, CS_FIELD_REAL } kind;
    const char *text;
    int64_t integer;
    double real;
} cs_log_field;

#define CS_S(key_, value_) ((cs_log_field){.key = (key_), .kind = CS_FIELD_TEXT, .text = (value_)})
#define CS_I(key_, value_) ((cs_log_field){.key = (key_), .kind = CS_FIELD_INT, .integer = (int64_t)(value_)})
#define CS_D(key_, value_) ((cs_log_field){.key = (key_), .kind = CS_FIELD_REAL, .real = (double)(value_)})

/* cs_log(CS_LOG_INFO, "engine", "round closed", CS_S("job", job), CS_I("round", round)); */
#define cs_log(level, module, message, ...)                                                                            \
    cs_log_write(level, module, message, (const cs_log_field[]){__VA_ARGS__ __VA_OPT__(, )(cs_log_field){.key = NULL}})

/* Values are quoted and escaped where logfmt needs it; bytes that would break the line are replaced. */
void cs_log_write(cs_log_level level, const char *module, const char *message, const cs_log_field *fields);
void cs_log_set_level(cs_log_level level);
/* "error" | "warn" | "info" | "debug" */
CS_MUST_CHECK cs_status cs_log_level_parse(const char *text, cs_log_level *ret);

#endif
