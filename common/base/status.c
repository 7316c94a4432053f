/* The thread-local sentence behind cs_status. Called by everything, on any thread. */
#include "common/base/status.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char sentence[CS_ERROR_TEXT_BYTES];

/* Arguments may point into the old sentence, so the new one is made beside it. */
static void leave(const char *new_sentence)
{
    size_t size = strnlen(new_sentence, CS_ERROR_TEXT_BYTES - 1);
    memcpy(sentence, new_sentence, size);
    sentence[size] = '\0';
}

cs_status cs_fail(cs_status status, const char *format, ...)
{
    char text[CS_ERROR_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    leave(text);
    return status;
}

static cs_status status_from_errno(int code)
{
    switch (code) {
    case ENOENT:
        return CS_NOT_FOUND;
    case EEXIST:
        return CS_EXISTS;
    case EACCES:
    case EPERM:
    case EROFS:
    case EXDEV:
        return CS_DENIED;
    case ENOSPC:
    case EDQUOT:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case EFBIG:
        return CS_EXHAUSTED;
    case EINVAL:
    case ENAMETOOLONG:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
        return CS_INVALID;
    case ETIMEDOUT:
        return CS_DEADLINE;
    case EAGAIN:
    case EPIPE:
    case ECONNREFUSED:
    case ECONNRESET:
    case ENETUNREACH:
    case EHOSTUNREACH:
        return CS_UNAVAILABLE;
    case ENOTEMPTY:
    case EBUSY:
        return CS_STATE;
    case ENOSYS:
    case EOPNOTSUPP:
        return CS_UNIMPLEMENTED;
    case ECANCELED:
        return CS_CANCELLED;
    case EIO:
        return CS_DATA_LOSS;
    default:
        return CS_INTERNAL;
    }
}

cs_status cs_fail_errno(const char *format, ...)
{
    const int code = errno;
    char context[CS_ERROR_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(context, sizeof(context), format, arguments);
    va_end(arguments);

    char reason_space[128];
    const char *reason = strerror_r(code, reason_space, sizeof(reason_space));
    char text[CS_ERROR_TEXT_BYTES + sizeof(reason_space) + 2];
    snprintf(text, sizeof(text), "%s: %s", context, reason);
    leave(text);
    return status_from_errno(code);
}

cs_status cs_wrap(cs_status status, const char *format, ...)
{
    char context[CS_ERROR_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(context, sizeof(context), format, arguments);
    va_end(arguments);

    char text[2 * CS_ERROR_TEXT_BYTES + 2];
    snprintf(text, sizeof(text), "%s: %s", context, sentence);
    leave(text);
    return status;
}

const char *cs_error_text(void)
{
    return sentence;
}

const char *cs_status_name(cs_status status)
{
    switch (status) {
#define CASE(name, value, text)                                                                                        \
    case name:                                                                                                         \
        return text;
        CS_STATUS_MAP(CASE)
#undef CASE
    }
    return "unknown status";
}

cs_status cs_status_from_code(uint32_t grpc_code)
{
    return grpc_code <= (uint32_t)CS_UNAUTHENTICATED ? (cs_status)grpc_code : CS_UNKNOWN;
}
