/* Named places where tests kill, fail or delay the process. Called wherever state or files change, on any thread. */
#include "common/base/failpoint.h"

#include "common/base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef CS_WITH_FAILPOINTS

#define FAILPOINTS_MAX 32

enum action { ACTION_ERROR, ACTION_KILL, ACTION_SLEEP };

struct failpoint {
    char name[64];
    enum action action;
    int64_t sleep_ms;
    uint64_t at_passage; /* 0: at every one */
    uint64_t passages;
};

static pthread_once_t environment_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t table_mutex = PTHREAD_MUTEX_INITIALIZER; /* guards the two below */
static struct failpoint table[FAILPOINTS_MAX];
static size_t table_count;

static pthread_once_t pace_once = PTHREAD_ONCE_INIT;
static uint64_t pace = 1; /* set once */

static cs_status parse_number(const char *text, const char *item, uint64_t *ret)
{
    char *end = NULL;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value > INT32_MAX)
        return cs_fail(CS_INVALID, "failpoint '%s': '%s' is not a number", item, text);
    *ret = value;
    return CS_OK;
}

/* "name=action" or "name=action@n"; `text` may be changed. */
static cs_status parse_item(char *text, struct failpoint *ret)
{
    char *action = strchr(text, '=');
    if (action == NULL || action == text || (size_t)(action - text) >= sizeof(ret->name))
        return cs_fail(CS_INVALID, "failpoint '%s' is not name=action", text);
    *action++ = '\0';
    memcpy(ret->name, text, strlen(text) + 1);

    char *passage = strchr(action, '@');
    if (passage != NULL) {
        *passage++ = '\0';
        CS_TRY(parse_number(passage, text, &ret->at_passage));
    }
    uint64_t milliseconds = 0;
    if (strcmp(action, "error") == 0) {
        ret->action = ACTION_ERROR;
    } else if (strcmp(action, "kill") == 0) {
        ret->action = ACTION_KILL;
    } else if (strncmp(action, "sleep:", 6) == 0) {
        ret->action = ACTION_SLEEP;
        CS_TRY(parse_number(action + 6, text, &milliseconds));
        ret->sleep_ms = (int64_t)milliseconds;
    } else {
        return cs_fail(CS_INVALID, "failpoint '%s': '%s' is not one of error, kill, sleep:MILLISECONDS", text, action);
    }
    return CS_OK;
}

static cs_status configure(const char *text)
{
    struct failpoint parsed[FAILPOINTS_MAX] = {0};
    size_t count = 0;
    CS_AUTO(cs_string) copy = cs_strdup(text != NULL ? text : "");
    char *rest = NULL;
    for (char *item = strtok_r(copy, ";", &rest); item != NULL; item = strtok_r(NULL, ";", &rest)) {
        if (count == FAILPOINTS_MAX)
            return cs_fail(CS_INVALID, "more than %d failpoints", FAILPOINTS_MAX);
        CS_TRY(parse_item(item, &parsed[count]));
        count++;
    }
    pthread_mutex_lock(&table_mutex);
    memcpy(table, parsed, sizeof(table));
    table_count = count;
    pthread_mutex_unlock(&table_mutex);
    return CS_OK;
}

/* A mistyped failpoint would make a test pass for nothing, so it ends the process. */
static void read_environment(void)
{
    const char *text = getenv("CONSILIUM_FAILPOINTS");
    if (text != NULL && configure(text) != CS_OK) {
        fprintf(stderr, "CONSILIUM_FAILPOINTS: %s\n", cs_error_text());
        abort();
    }
}

/* As with failpoints: a mistyped number would make a test pass for nothing. */
static void read_pace(void)
{
    const char *text = getenv("CONSILIUM_NETWORK_PACE");
    if (text == NULL)
        return;
    if (parse_number(text, "CONSILIUM_NETWORK_PACE", &pace) != CS_OK || pace == 0) {
        fprintf(stderr, "CONSILIUM_NETWORK_PACE: found '%s', expected a whole number from 1 on\n", text);
        abort();
    }
}

int64_t cs_network_ms(int64_t milliseconds)
{
    pthread_once(&pace_once, read_pace);
    return CS_MAX(milliseconds / (int64_t)pace, (int64_t)1);
}

cs_status cs_failpoint(const char *name)
{
    pthread_once(&environment_once, read_environment);
    struct failpoint hit = {0};
    bool is_hit = false;
    pthread_mutex_lock(&table_mutex);
    for (size_t i = 0; i < table_count; i++) {
        struct failpoint *failpoint = &table[i];
        if (strcmp(failpoint->name, name) != 0)
            continue;
        failpoint->passages++;
        if (failpoint->at_passage == 0 || failpoint->at_passage == failpoint->passages) {
            hit = *failpoint;
            is_hit = true;
        }
    }
    pthread_mutex_unlock(&table_mutex);
    if (!is_hit)
        return CS_OK;
    if (hit.action == ACTION_KILL)
        raise(SIGKILL);
    if (hit.action == ACTION_SLEEP) {
        cs_sleep_ms(hit.sleep_ms);
        return CS_OK;
    }
    return cs_fail(CS_INTERNAL, "failpoint %s", name);
}

cs_status cs_failpoint_configure(const char *text)
{
    pthread_once(&environment_once, read_environment);
    return configure(text);
}

#else

cs_status cs_failpoint_configure(const char *text)
{
    (void)text;
    return cs_fail(CS_INVALID, "failpoints are not compiled in");
}

#endif
