/* Status codes and the sentence that goes with them. Everything includes this.
 * A function that can fail returns cs_status; the sentence for the operator stays in a thread-local buffer. */
#ifndef CS_BASE_STATUS_H
#define CS_BASE_STATUS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Values up to 16 are gRPC's status codes, so that one vocabulary goes from the wire to the core.
 * CS_LATER and CS_DONE never leave the process. */
#define CS_STATUS_MAP(X)                                                                                               \
    X(CS_OK, 0, "ok")                                                                                                  \
    X(CS_CANCELLED, 1, "cancelled")                                                                                    \
    X(CS_UNKNOWN, 2, "unknown")                                                                                        \
    X(CS_INVALID, 3, "invalid")                                                                                        \
    X(CS_DEADLINE, 4, "deadline exceeded")                                                                             \
    X(CS_NOT_FOUND, 5, "not found")                                                                                    \
    X(CS_EXISTS, 6, "already exists")                                                                                  \
    X(CS_DENIED, 7, "denied")                                                                                          \
    X(CS_EXHAUSTED, 8, "exhausted")                                                                                    \
    X(CS_STATE, 9, "not possible in this state")                                                                       \
    X(CS_ABORTED, 10, "aborted")                                                                                       \
    X(CS_RANGE, 11, "out of range")                                                                                    \
    X(CS_UNIMPLEMENTED, 12, "not supported")                                                                           \
    X(CS_INTERNAL, 13, "internal error")                                                                               \
    X(CS_UNAVAILABLE, 14, "unavailable")                                                                               \
    X(CS_DATA_LOSS, 15, "data loss")                                                                                   \
    X(CS_UNAUTHENTICATED, 16, "unauthenticated")                                                                       \
    X(CS_LATER, 100, "later")                                                                                          \
    X(CS_DONE, 101, "done")

typedef enum cs_status {
#define CS_STATUS_ENUM(name, value, text) name = value,
    CS_STATUS_MAP(CS_STATUS_ENUM)
#undef CS_STATUS_ENUM
} cs_status;

#define CS_MUST_CHECK                      __attribute__((warn_unused_result))
#define CS_PRINTF(format_at, arguments_at) __attribute__((format(printf, format_at, arguments_at)))
#define CS_NORETURN                        __attribute__((noreturn))
#define CS_UNUSED                          __attribute__((unused))

#define CS_ERROR_TEXT_BYTES 1024

/* Leaves the sentence and returns `status`. Sentences name the thing, what was found and what was expected. */
cs_status cs_fail(cs_status status, const char *format, ...) CS_PRINTF(2, 3);
/* The same with ": strerror(errno)" at the end; the status follows from errno (ENOENT: CS_NOT_FOUND, ENOSPC:
 * CS_EXHAUSTED …). */
cs_status cs_fail_errno(const char *format, ...) CS_PRINTF(1, 2);
/* Puts "context: " before the sentence that is there and returns `status`. */
cs_status cs_wrap(cs_status status, const char *format, ...) CS_PRINTF(2, 3);

/* The last sentence left on this thread; never NULL. Valid until the next cs_fail on this thread. */
const char *cs_error_text(void);
const char *cs_status_name(cs_status status);
cs_status cs_status_from_code(uint32_t grpc_code);

#define CS_TRY(expression)                                                                                             \
    do {                                                                                                               \
        cs_status cs_try_status_ = (expression);                                                                       \
        if (cs_try_status_ != CS_OK)                                                                                   \
            return cs_try_status_;                                                                                     \
    } while (0)

/* A call whose failure changes nothing here; `why` says so to the reader. */
#define CS_IGNORE(expression, why)                                                                                     \
    do {                                                                                                               \
        if ((expression) != CS_OK) {                                                                                   \
            /* ignored on purpose */                                                                                   \
        }                                                                                                              \
    } while (0)

/* CS_AUTO(cs_buffer) b = …;  calls cs_buffer_clear(&b) at the end of the block. The type's module defines
 * <type>_clear(type *). CS_AUTO_PTR(cs_blobs) p = NULL; calls cs_blobs_free(p); the module says
 * CS_DEFINE_AUTO_PTR(cs_blobs) after the prototype. */
#define CS_AUTO(type)     __attribute__((cleanup(type##_clear))) type
#define CS_AUTO_PTR(type) __attribute__((cleanup(type##_auto_free))) type *
#define CS_DEFINE_AUTO_PTR(type)                                                                                       \
    static inline CS_UNUSED void type##_auto_free(type **owner)                                                        \
    {                                                                                                                  \
        type##_free(*owner);                                                                                           \
        *owner = NULL;                                                                                                 \
    }
/* Hands ownership out of a CS_AUTO_PTR variable. */
#define CS_TAKE(pointer)                                                                                               \
    __extension__({                                                                                                    \
        __typeof__(pointer) cs_taken_ = (pointer);                                                                     \
        (pointer) = NULL;                                                                                              \
        cs_taken_;                                                                                                     \
    })

#define CS_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define CS_MIN(a, b)    ((a) < (b) ? (a) : (b))
#define CS_MAX(a, b)    ((a) > (b) ? (a) : (b))

#endif
