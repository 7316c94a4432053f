/* Table-driven command lines: `consilium-server job submit PLAN --json`. Usage and errors are made from the table. Main
 * thread. */
#ifndef CS_BASE_COMMAND_H
#define CS_BASE_COMMAND_H

#include "common/base/status.h"

/* Exit codes of every command; `help` prints them. */
enum cs_exit {
    CS_EXIT_OK = 0,
    CS_EXIT_ERROR = 1,       /* the command failed; the sentence says why */
    CS_EXIT_USAGE = 2,       /* the command line is wrong */
    CS_EXIT_NOT_RUNNING = 3, /* the daemon it talks to does not run */
    CS_EXIT_PARTIAL = 4,     /* the job finished without some site */
    CS_EXIT_JOB_FAILED = 5,  /* the job failed or was cancelled */
    CS_EXIT_FINDINGS = 6     /* doctor or a verifier found something wrong */
};

typedef struct cs_option {
    const char
        *name; /* "--json"; NULL ends the list. A positional has its upper-case name: "PLAN"; "[NAME]" is optional */
    const char *argument; /* what the help shows: "FILE"; NULL for a flag and for positionals */
    const char *help;
    bool is_required;
    bool repeats;
} cs_option;

typedef struct cs_arguments cs_arguments;
/* Text of an option or positional, NULL when absent. `index` counts repeated ones. */
const char *cs_argument(const cs_arguments *arguments, const char *name);
const char *cs_argument_at(const cs_arguments *arguments, const char *name, size_t index);
bool cs_argument_flag(const cs_arguments *arguments, const char *name);
/* Decimal in [low, high]; `ret` is left alone when absent. */
CS_MUST_CHECK cs_status cs_argument_int(const cs_arguments *arguments, const char *name, int64_t low, int64_t high,
                                        int64_t *ret);
/* "500ms", "90s", "10m", "24h", "7d" */
CS_MUST_CHECK cs_status cs_argument_duration(const cs_arguments *arguments, const char *name, int64_t *ret_ms);
CS_MUST_CHECK cs_status cs_duration_parse(const char *text, const char *what, int64_t *ret_ms);

typedef struct cs_command {
    const char *name; /* "job submit"; "" for a program without commands; NULL ends the list */
    const char *help; /* one line */
    const cs_option *options;
    int (*run)(const cs_arguments *arguments);
} cs_command;

/* Finds the command, checks its options and runs it. `--help` at any place prints; unknown words name the nearest
 * command. */
int cs_command_main(const char *program, const char *about, const cs_command *commands, int argc, char **argv);
/* What an exit code means; NULL for one that there is not. */
const char *cs_exit_meaning(int code);
/* Writes manual pages into the folder: FOLDER/program.1, FOLDER/program-job-submit.1 … For `help --manual FOLDER`, with
 * which packages are made. */
CS_MUST_CHECK cs_status cs_command_manual(const char *program, const char *about, const cs_command *commands,
                                          const char *folder);
/* "program: sentence" on stderr, or {"error": …, "code": …} on stdout with --json; returns CS_EXIT_ERROR. */
int cs_command_fail(const cs_arguments *arguments, cs_status status);

#endif
