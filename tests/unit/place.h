/* A folder of its own for one test, in $TMPDIR or /tmp, removed afterwards. */
#ifndef TESTS_UNIT_PLACE_H
#define TESTS_UNIT_PLACE_H

#include "common/base/file.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct place {
    char *folder;
    char *path; /* a file in it, for tests that need one */
} place;

static inline int place_make(void **state)
{
    const char *base = getenv("TMPDIR");
    place *here = calloc(1, sizeof *here);
    here->folder = cs_format("%s/consilium-test-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(here->folder))
        return -1;
    here->path = cs_path_join(here->folder, "file");
    *state = here;
    return 0;
}

static inline int place_remove(void **state)
{
    place *here = *state;
    cs_status status = cs_folder_remove(here->folder);
    cs_free(here->folder);
    cs_free(here->path);
    free(here);
    return status == CS_OK ? 0 : -1;
}

/* A test that gets the place as its state. */
#define PLACE_TEST(function) cmocka_unit_test_setup_teardown(function, place_make, place_remove)

/* Says the sentence when a call that must work does not. */
#define assert_ok(expression)                                                                                          \
    do {                                                                                                               \
        cs_status assert_status_ = (expression);                                                                       \
        if (assert_status_ != CS_OK)                                                                                   \
            fail_msg("%s: %s: %s", #expression, cs_status_name(assert_status_), cs_error_text());                      \
    } while (0)

#define assert_status(expression, expected)                                                                            \
    do {                                                                                                               \
        cs_status assert_status_ = (expression);                                                                       \
        if (assert_status_ != (expected))                                                                              \
            fail_msg("%s: %s (%s), expected %s", #expression, cs_status_name(assert_status_), cs_error_text(),         \
                     cs_status_name(expected));                                                                        \
    } while (0)

#define assert_error_says(text) assert_non_null(strstr(cs_error_text(), text))

#endif
