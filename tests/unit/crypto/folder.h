/* What tests of keys and certificates share: a folder of their own as the cmocka state, and readable failures. */
#ifndef CS_TESTS_UNIT_CRYPTO_FOLDER_H
#define CS_TESTS_UNIT_CRYPTO_FOLDER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/crypto/sign.h"

#define must_be_ok(expression)                                                                                         \
    do {                                                                                                               \
        cs_status must_be_ok_status_ = (expression);                                                                   \
        if (must_be_ok_status_ != CS_OK)                                                                               \
            fail_msg("%s: %s: %s", #expression, cs_status_name(must_be_ok_status_), cs_error_text());                  \
    } while (0)

/* The status, and every one of the given words in the sentence. */
#define must_fail(expression, status, ...)                                                                             \
    do {                                                                                                               \
        cs_status must_fail_status_ = (expression);                                                                    \
        if (must_fail_status_ != (status))                                                                             \
            fail_msg("%s gave %s (%s), expected %s", #expression, cs_status_name(must_fail_status_),                   \
                     must_fail_status_ == CS_OK ? "" : cs_error_text(), cs_status_name(status));                       \
        const char *const must_fail_words_[] = {__VA_ARGS__};                                                          \
        for (size_t must_fail_i_ = 0; must_fail_i_ < CS_COUNT(must_fail_words_); must_fail_i_++)                       \
            if (strstr(cs_error_text(), must_fail_words_[must_fail_i_]) == NULL)                                       \
                fail_msg("'%s' does not say '%s'", cs_error_text(), must_fail_words_[must_fail_i_]);                   \
    } while (0)

static CS_UNUSED int folder_make(void **state)
{
    const char *base = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
    char *folder = cs_format("%s/consilium-test-XXXXXX", base);
    if (mkdtemp(folder) == NULL || cs_crypto_start() != CS_OK)
        return -1;
    *state = folder;
    return 0;
}

static CS_UNUSED int folder_remove(void **state)
{
    cs_clock_real();
    cs_status status = cs_folder_remove(*state);
    cs_free(*state);
    return status == CS_OK ? 0 : -1;
}

#endif
