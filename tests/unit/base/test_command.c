/* Command lines from a table. */
#include "common/base/command.h"

#include "common/base/file.h"
#include "tests/unit/base/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char seen[512];

static int show(const cs_arguments *arguments)
{
    int64_t rounds = -1;
    int64_t wait_ms = -1;
    if (cs_argument_int(arguments, "--rounds", 1, 100, &rounds) != CS_OK ||
        cs_argument_duration(arguments, "--wait", &wait_ms) != CS_OK)
        return cs_command_fail(arguments, CS_INVALID);
    const char *name = cs_argument(arguments, "NAME");
    const char *second_label = cs_argument_at(arguments, "--label", 1);
    snprintf(seen, sizeof(seen), "plan=%s name=%s json=%d rounds=%lld wait=%lld label2=%s",
             cs_argument(arguments, "PLAN"), name != NULL ? name : "-", cs_argument_flag(arguments, "--json"),
             (long long)rounds, (long long)wait_ms, second_label != NULL ? second_label : "-");
    return CS_EXIT_OK;
}

static int run_nothing(const cs_arguments *arguments)
{
    (void)arguments;
    snprintf(seen, sizeof(seen), "nothing");
    return CS_EXIT_PARTIAL;
}

static const cs_option submit_options[] = {{"PLAN", NULL, "the plan", true, false},
                                           {"[NAME]", NULL, "a name", false, false},
                                           {"--json", NULL, "print JSON", false, false},
                                           {"--rounds", "N", "how many", false, false},
                                           {"--wait", "DURATION", "how long", false, false},
                                           {"--label", "TEXT", "a label", false, true},
                                           {0}};
static const cs_option token_options[] = {{"--site", "NAME", "which", true, false}, {0}};
static const cs_command commands[] = {{"job submit", "submits a plan", submit_options, show},
                                      {"job list", "lists the jobs", NULL, run_nothing},
                                      {"token", "makes a token", token_options, run_nothing},
                                      {0}};

struct result {
    int code;
    char out[4096];
    char err[4096];
};

static void read_back(FILE *file, char *text, size_t size)
{
    rewind(file);
    const size_t got = fread(text, 1, size - 1, file);
    text[got] = '\0';
    fclose(file);
}

/* Runs a command line given as words split at spaces. */
static struct result run_table(const cs_command *table, const char *line)
{
    struct result result = {0};
    CS_AUTO(cs_string) words = cs_format("program %s", line);
    char *argv[16] = {0};
    int argc = 0;
    char *rest = NULL;
    for (char *word = strtok_r(words, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest))
        argv[argc++] = word;
    seen[0] = '\0';

    FILE *out = tmpfile();
    FILE *err = tmpfile();
    fflush(stdout);
    const int real_out = dup(STDOUT_FILENO);
    const int real_err = dup(STDERR_FILENO);
    dup2(fileno(out), STDOUT_FILENO);
    dup2(fileno(err), STDERR_FILENO);
    result.code = cs_command_main("program", "What it is for.", table, argc, argv);
    fflush(stdout);
    dup2(real_out, STDOUT_FILENO);
    dup2(real_err, STDERR_FILENO);
    close(real_out);
    close(real_err);
    read_back(out, result.out, sizeof(result.out));
    read_back(err, result.err, sizeof(result.err));
    return result;
}

static struct result run(const char *line)
{
    return run_table(commands, line);
}

static void options_and_words_reach_the_command(void **state)
{
    (void)state;

    assert_int_equal(run("job submit heart.yaml --rounds 5 --label=a --wait=2m --label b mine --json").code, 0);
    assert_string_equal(seen, "plan=heart.yaml name=mine json=1 rounds=5 wait=120000 label2=b");

    assert_int_equal(run("job submit --label -x -- --odd").code, 0);
    assert_string_equal(seen, "plan=--odd name=- json=0 rounds=-1 wait=-1 label2=-");

    assert_int_equal(run("job list").code, CS_EXIT_PARTIAL);
}

static void wrong_command_lines_are_explained_and_nothing_runs(void **state)
{
    (void)state;
    static const struct {
        const char *line, *sentence;
    } cases[] = {
        {"job sumbit x", "there is no command 'job sumbit'; did you mean 'job submit'?"},
        {"tokne", "did you mean 'token'?"},
        {"qqqqqqqqqq", "there is no command 'qqqqqqqqqq'\n"},
        {"--json", "'--json' is not an option before a command"},
        {"job submit", "PLAN is missing"},
        {"job submit x y z", "'z' is one word too many"},
        {"job submit x --jsno", "there is no option '--jsno'; did you mean '--json'?"},
        {"job submit x --json --json", "--json is given twice"},
        {"job submit x --json=yes", "--json takes no value"},
        {"job submit x --rounds", "--rounds needs a value: N"},
        {"token", "--site is missing"},
        {"", "Usage: program COMMAND"},
        {"job", "job submit"},
    };
    for (size_t i = 0; i < CS_COUNT(cases); i++) {
        struct result result = run(cases[i].line);
        assert_int_equal(result.code, CS_EXIT_USAGE);
        assert_non_null(strstr(result.err, cases[i].sentence));
        assert_string_equal(result.out, "");
        assert_string_equal(seen, "");
    }
}

static void help_is_printed_wherever_it_is_asked_for(void **state)
{
    (void)state;
    static const struct {
        const char *line, *text;
    } cases[] = {
        {"--help", "job submit           submits a plan"},
        {"help", "Exit codes: 0 done"},
        {"help job submit", "--rounds N                   how many"},
        {"job submit x --help", "Usage: program job submit PLAN [NAME] [--json]"},
        {"job --help", "job list"},
        {"token -h", "Usage: program token --site NAME\n"},
        {"--version", "program " CS_VERSION "\n"},
    };
    for (size_t i = 0; i < CS_COUNT(cases); i++) {
        struct result result = run(cases[i].line);
        assert_int_equal(result.code, CS_EXIT_OK);
        assert_non_null(strstr(result.out, cases[i].text));
        assert_string_equal(seen, "");
    }
    assert_int_equal(run("help nonsense").code, CS_EXIT_USAGE);
    assert_null(strstr(run("job --help").out, "makes a token"));
}

static void a_program_without_commands_has_one_with_no_name(void **state)
{
    (void)state;
    static const cs_command worker[] = {{"", "trains", token_options, run_nothing}, {0}};

    assert_int_equal(run_table(worker, "--site a").code, CS_EXIT_PARTIAL);
    assert_string_equal(seen, "nothing");
    assert_int_equal(run_table(worker, "").code, CS_EXIT_USAGE);
    assert_non_null(strstr(run_table(worker, "--help").out, "Usage: program --site NAME\n"));
    assert_non_null(strstr(run_table(worker, "--sote a").err, "program: there is no option '--sote'"));
}

static void a_failure_is_a_sentence_or_json(void **state)
{
    (void)state;

    struct result plain = run("job submit x --rounds 0");
    assert_int_equal(plain.code, CS_EXIT_ERROR);
    assert_string_equal(plain.err, "program: --rounds: 0 is not between 1 and 100\n");

    struct result json = run("job submit x --rounds 1x --json");
    assert_string_equal(json.out, "{\"error\":\"--rounds: '1x' is not a whole number\",\"code\":\"invalid\"}\n");
    assert_string_equal(json.err, "");
}

static void durations_have_a_unit(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        cs_status status;
        int64_t ms;
    } cases[] = {{"250ms", CS_OK, 250},
                 {"90s", CS_OK, 90000},
                 {"10m", CS_OK, 600000},
                 {"24h", CS_OK, 86400000},
                 {"7d", CS_OK, 604800000},
                 {"7", CS_INVALID, -1},
                 {"-7d", CS_INVALID, -1},
                 {"d", CS_INVALID, -1},
                 {"", CS_INVALID, -1},
                 {"7 d", CS_INVALID, -1},
                 {"7days", CS_INVALID, -1},
                 {" 7d", CS_INVALID, -1},
                 {"106751991168d", CS_RANGE, -1},
                 {"99999999999999999999s", CS_RANGE, -1}};
    for (size_t i = 0; i < CS_COUNT(cases); i++) {
        int64_t ms = -1;
        assert_int_equal(cs_duration_parse(cases[i].text, "deadline", &ms), cases[i].status);
        assert_int_equal(ms, cases[i].ms);
    }
}

static void every_command_has_a_manual_page_in_which_its_text_stays_text(void **state)
{
    (void)state;
    static const cs_option options[] = {{"FILE", NULL, ".starts with a dot", true, false},
                                        {"--path", "DIR", "a back\\slash and a-dash", false, false},
                                        {.name = NULL}};
    static const cs_command table[] = {{"job submit", "offer a plan", options, NULL}, {.name = NULL}};
    char folder[] = "/tmp/manual-XXXXXX";
    assert_non_null(mkdtemp(folder));
    CS_AUTO(cs_string) path = cs_path_join(folder, "prog-job-submit.1");
    CS_AUTO(cs_string) overview = cs_path_join(folder, "prog.1");
    CS_AUTO(cs_buffer) page = CS_BUFFER_EMPTY;

    assert_int_equal(cs_command_manual("prog", "does things", table, folder), CS_OK);

    assert_true(cs_file_exists(overview));
    assert_int_equal(cs_file_read_all(path, 10000, &page), CS_OK);
    const char *text = cs_buffer_text(&page);
    assert_ptr_equal(strstr(text, ".TH PROG-JOB-SUBMIT 1 "), text);
    assert_non_null(strstr(text, "\nprog\\-job\\-submit \\- offer a plan\n"));
    assert_non_null(strstr(text, "\n\\&.starts with a dot\n"));
    assert_non_null(strstr(text, "\na back\\eslash and a\\-dash\n"));
    assert_non_null(strstr(text, "\nthe daemon does not run\n"));
    assert_int_equal(cs_folder_remove(folder), CS_OK);
    assert_int_equal(cs_command_manual("prog", "does things", table, folder), CS_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_and_words_reach_the_command),
        cmocka_unit_test(wrong_command_lines_are_explained_and_nothing_runs),
        cmocka_unit_test(help_is_printed_wherever_it_is_asked_for),
        cmocka_unit_test(a_program_without_commands_has_one_with_no_name),
        cmocka_unit_test(a_failure_is_a_sentence_or_json),
        cmocka_unit_test(durations_have_a_unit),
        cmocka_unit_test(every_command_has_a_manual_page_in_which_its_text_stays_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
