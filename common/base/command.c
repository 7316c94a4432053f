/* Command lines from a table: finds the command, checks its options, prints the help. Called by the mains. */
#include "common/base/command.h"

#include "common/base/bytes.h"
#include "common/base/json.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef CS_VERSION
#define CS_VERSION "unknown"
#endif

struct cs_arguments {
    const char *program;
    const cs_command *command;
    struct argument {
        const cs_option *option;
        const char *value; /* NULL for a flag */
    } * items;
    size_t count;
};

static bool is_positional(const cs_option *option)
{
    return option->name[0] != '-';
}

/* "[NAME]" and "NAME" are the same positional. */
static bool is_named(const cs_option *option, const char *name)
{
    if (strcmp(option->name, name) == 0)
        return true;
    const size_t size = strlen(name);
    return option->name[0] == '[' && strncmp(option->name + 1, name, size) == 0 &&
           strcmp(option->name + 1 + size, "]") == 0;
}

static const char *find(const cs_arguments *arguments, const char *name, size_t index, bool *ret_is_there)
{
    for (size_t i = 0; i < arguments->count; i++) {
        if (is_named(arguments->items[i].option, name) && index-- == 0) {
            *ret_is_there = true;
            return arguments->items[i].value;
        }
    }
    *ret_is_there = false;
    return NULL;
}

const char *cs_argument(const cs_arguments *arguments, const char *name)
{
    return cs_argument_at(arguments, name, 0);
}

const char *cs_argument_at(const cs_arguments *arguments, const char *name, size_t index)
{
    bool is_there = false;
    return find(arguments, name, index, &is_there);
}

bool cs_argument_flag(const cs_arguments *arguments, const char *name)
{
    bool is_there = false;
    find(arguments, name, 0, &is_there);
    return is_there;
}

cs_status cs_argument_int(const cs_arguments *arguments, const char *name, int64_t low, int64_t high, int64_t *ret)
{
    const char *text = cs_argument(arguments, name);
    if (text == NULL)
        return CS_OK;
    char *end = NULL;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0')
        return cs_fail(CS_INVALID, "%s: '%s' is not a whole number", name, text);
    if (errno != 0 || value < low || value > high)
        return cs_fail(CS_RANGE, "%s: %s is not between %lld and %lld", name, text, (long long)low, (long long)high);
    *ret = value;
    return CS_OK;
}

cs_status cs_duration_parse(const char *text, const char *what, int64_t *ret_ms)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}, {"d", 24 * 3600 * 1000}};
    char *unit = NULL;
    errno = 0;
    const long long count = text[0] >= '0' && text[0] <= '9' ? strtoll(text, &unit, 10) : -1;
    for (size_t i = 0; i < CS_COUNT(units) && count >= 0; i++) {
        if (strcmp(unit, units[i].unit) != 0)
            continue;
        int64_t ms = 0;
        if (errno != 0 || __builtin_mul_overflow(count, units[i].ms, &ms))
            return cs_fail(CS_RANGE, "%s: '%s' is too long", what, text);
        *ret_ms = ms;
        return CS_OK;
    }
    return cs_fail(CS_INVALID, "%s: '%s' is not a duration like 500ms, 90s, 10m, 24h or 7d", what, text);
}

cs_status cs_argument_duration(const cs_arguments *arguments, const char *name, int64_t *ret_ms)
{
    const char *text = cs_argument(arguments, name);
    return text == NULL ? CS_OK : cs_duration_parse(text, name, ret_ms);
}

/* ---- help ---- */

const char *cs_exit_meaning(int code)
{
    static const char *const meanings[] = {
        [CS_EXIT_OK] = "done",
        [CS_EXIT_ERROR] = "failed (the sentence says why)",
        [CS_EXIT_USAGE] = "wrong command line",
        [CS_EXIT_NOT_RUNNING] = "the daemon does not run",
        [CS_EXIT_PARTIAL] = "finished without some site",
        [CS_EXIT_JOB_FAILED] = "the job failed or was cancelled",
        [CS_EXIT_FINDINGS] = "something was found wrong",
    };
    return code >= 0 && (size_t)code < CS_COUNT(meanings) ? meanings[code] : NULL;
}

static void put_exit_codes(cs_buffer *out)
{
    cs_buffer_append_text(out, "Exit codes:");
    for (int code = 0; cs_exit_meaning(code) != NULL; code++)
        cs_buffer_printf(out, "%s %d %s",
                         code == 0                 ? ""
                         : code == CS_EXIT_PARTIAL ? ",\n           "
                                                   : ",",
                         code, cs_exit_meaning(code));
    cs_buffer_append_text(out, "\n");
}

static void put_synopsis(cs_buffer *out, const char *program, const cs_command *command)
{
    cs_buffer_printf(out, "%s%s%s", program, command->name[0] != '\0' ? " " : "", command->name);
    for (const cs_option *option = command->options; option != NULL && option->name != NULL; option++) {
        const bool is_optional = !is_positional(option) && !option->is_required;
        cs_buffer_printf(out, " %s%s%s%s%s%s", is_optional ? "[" : "", option->name,
                         option->argument != NULL ? " " : "", option->argument != NULL ? option->argument : "",
                         is_optional ? "]" : "", option->repeats ? "..." : "");
    }
    cs_buffer_append_text(out, "\n");
}

static void print_command_help(FILE *to, const char *program, const cs_command *command)
{
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&out, "Usage: ");
    put_synopsis(&out, program, command);
    cs_buffer_printf(&out, "\n%s\n\n", command->help);
    for (const cs_option *option = command->options; option != NULL && option->name != NULL; option++) {
        CS_AUTO(cs_string)
        left = cs_format("%s%s%s", option->name, option->argument != NULL ? " " : "",
                         option->argument != NULL ? option->argument : "");
        cs_buffer_printf(&out, "  %-28s %s\n", left, option->help != NULL ? option->help : "");
    }
    cs_buffer_printf(&out, "  %-28s %s\n\n", "--help", "print this");
    put_exit_codes(&out);
    fputs(cs_buffer_text(&out), to);
}

/* The commands whose name begins with the words of `prefix`; all with "". */
static bool begins_with_words(const char *name, const char *prefix)
{
    const size_t size = strlen(prefix);
    return size == 0 || (strncmp(name, prefix, size) == 0 && (name[size] == ' ' || name[size] == '\0'));
}

static bool has_group(const cs_command *commands, const char *prefix)
{
    for (; commands->name != NULL; commands++)
        if (begins_with_words(commands->name, prefix))
            return true;
    return false;
}

static void print_overview(FILE *to, const char *program, const char *about, const cs_command *commands,
                           const char *prefix)
{
    fprintf(to, "%s\n\nUsage: %s %s%sCOMMAND ...\n\n", about, program, prefix, prefix[0] != '\0' ? " " : "");
    for (; commands->name != NULL; commands++)
        if (begins_with_words(commands->name, prefix))
            fprintf(to, "  %-20s %s\n", commands->name, commands->help);
    CS_AUTO(cs_buffer) codes = CS_BUFFER_EMPTY;
    put_exit_codes(&codes);
    fprintf(to, "\n'%s COMMAND --help' explains one command; '%s --version' prints the version.\n%s", program, program,
            cs_buffer_text(&codes));
}

/* ---- nearest name ---- */

#define DISTANCE_MAX_SIZE 63

/* Insertions, deletions and changes between two short words. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[DISTANCE_MAX_SIZE + 1];
    const size_t a_size = strnlen(a, DISTANCE_MAX_SIZE);
    const size_t b_size = strnlen(b, DISTANCE_MAX_SIZE);
    for (size_t j = 0; j <= b_size; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_size; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_size; j++) {
            const size_t changed = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = CS_MIN(changed, CS_MIN(row[j], row[j - 1]) + 1);
        }
    }
    return row[b_size];
}

typedef struct nearest {
    const char *name;
    size_t distance;
} nearest;

static void offer(nearest *nearest, const char *typed, const char *name)
{
    const size_t distance = edit_distance(typed, name);
    if (nearest->name == NULL || distance < nearest->distance) {
        nearest->name = name;
        nearest->distance = distance;
    }
}

/* A name that shares hardly a letter with what was typed helps nobody. */
static bool is_near(const nearest *nearest, const char *typed)
{
    return nearest->name != NULL && nearest->distance <= 1 + strlen(typed) / 3;
}

/* ---- parsing ---- */

static CS_PRINTF(3, 4) int usage_error(const char *program, const cs_command *command, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s%s%s: ", program, command != NULL && command->name[0] != '\0' ? " " : "",
            command != NULL ? command->name : "");
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    if (command != NULL) {
        CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
        put_synopsis(&out, program, command);
        fprintf(stderr, "\nUsage: %s", cs_buffer_text(&out));
    } else {
        fprintf(stderr, "\n'%s --help' lists the commands\n", program);
    }
    return CS_EXIT_USAGE;
}

static bool is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (is_help(argv[i]))
            return true;
    return false;
}

static size_t word_count(const char *name)
{
    size_t count = name[0] != '\0';
    for (; *name != '\0'; name++)
        count += *name == ' ';
    return count;
}

/* The first words of argv up to an option, joined by spaces; at most `most`. */
static char *join_words(int argc, char **argv, size_t most)
{
    cs_buffer joined = CS_BUFFER_EMPTY;
    for (int i = 0; i < argc && (size_t)i < most && argv[i][0] != '-'; i++)
        cs_buffer_printf(&joined, "%s%s", i > 0 ? " " : "", argv[i]);
    return cs_buffer_take_text(&joined);
}

/* The command with the most words that argv begins with. */
static const cs_command *find_command(const cs_command *commands, int argc, char **argv)
{
    const cs_command *best = NULL;
    for (; commands->name != NULL; commands++) {
        CS_AUTO(cs_string) typed = join_words(argc, argv, word_count(commands->name));
        if (strcmp(typed, commands->name) == 0 && (best == NULL || strlen(best->name) < strlen(commands->name)))
            best = commands;
    }
    return best;
}

static int unknown_command(const char *program, const cs_command *commands, int argc, char **argv)
{
    nearest nearest = {0};
    for (const cs_command *command = commands; command->name != NULL; command++) {
        CS_AUTO(cs_string) typed = join_words(argc, argv, word_count(command->name));
        offer(&nearest, typed, command->name);
    }
    CS_AUTO(cs_string) shown = join_words(argc, argv, nearest.name != NULL ? word_count(nearest.name) : 1);
    if (shown[0] == '\0')
        return usage_error(program, NULL, "'%s' is not an option before a command", argv[0]);
    if (is_near(&nearest, shown))
        return usage_error(program, NULL, "there is no command '%s'; did you mean '%s'?", shown, nearest.name);
    return usage_error(program, NULL, "there is no command '%s'", shown);
}

static const cs_option *find_option(const cs_command *command, const char *name, size_t size)
{
    for (const cs_option *option = command->options; option != NULL && option->name != NULL; option++)
        if (!is_positional(option) && strlen(option->name) == size && strncmp(option->name, name, size) == 0)
            return option;
    return NULL;
}

static int unknown_option(const char *program, const cs_command *command, const char *name)
{
    nearest nearest = {0};
    offer(&nearest, name, "--help");
    for (const cs_option *option = command->options; option != NULL && option->name != NULL; option++)
        if (!is_positional(option))
            offer(&nearest, name, option->name);
    if (is_near(&nearest, name))
        return usage_error(program, command, "there is no option '%s'; did you mean '%s'?", name, nearest.name);
    return usage_error(program, command, "there is no option '%s'", name);
}

static size_t count_of(const cs_arguments *arguments, const cs_option *option)
{
    size_t count = 0;
    for (size_t i = 0; i < arguments->count; i++)
        count += arguments->items[i].option == option;
    return count;
}

/* The positional that the next bare word belongs to; NULL when all have theirs. */
static const cs_option *next_positional(const cs_arguments *arguments)
{
    for (const cs_option *option = arguments->command->options; option != NULL && option->name != NULL; option++)
        if (is_positional(option) && (option->repeats || count_of(arguments, option) == 0))
            return option;
    return NULL;
}

static void add(cs_arguments *arguments, const cs_option *option, const char *value)
{
    arguments->items[arguments->count++] = (struct argument){option, value};
}

static int parse_option(cs_arguments *arguments, int argc, char **argv, int *at)
{
    const char *program = arguments->program;
    const cs_command *command = arguments->command;
    char *word = argv[*at];
    char *equals = strchr(word, '=');
    const size_t name_size = equals != NULL ? (size_t)(equals - word) : strlen(word);
    CS_AUTO(cs_string) name = cs_strndup(word, name_size);
    const cs_option *option = find_option(command, name, name_size);
    if (option == NULL)
        return unknown_option(program, command, name);
    if (!option->repeats && count_of(arguments, option) > 0)
        return usage_error(program, command, "%s is given twice", name);
    if (option->argument == NULL) {
        if (equals != NULL)
            return usage_error(program, command, "%s takes no value", name);
        add(arguments, option, NULL);
        return CS_EXIT_OK;
    }
    if (equals == NULL && *at + 1 >= argc)
        return usage_error(program, command, "%s needs a value: %s", name, option->argument);
    add(arguments, option, equals != NULL ? equals + 1 : argv[++*at]);
    return CS_EXIT_OK;
}

static int parse(cs_arguments *arguments, int argc, char **argv)
{
    bool may_be_option = true;
    for (int i = 0; i < argc; i++) {
        if (may_be_option && strcmp(argv[i], "--") == 0) {
            may_be_option = false;
        } else if (may_be_option && argv[i][0] == '-' && argv[i][1] != '\0') {
            const int result = parse_option(arguments, argc, argv, &i);
            if (result != CS_EXIT_OK)
                return result;
        } else {
            const cs_option *positional = next_positional(arguments);
            if (positional == NULL)
                return usage_error(arguments->program, arguments->command, "'%s' is one word too many", argv[i]);
            add(arguments, positional, argv[i]);
        }
    }
    for (const cs_option *option = arguments->command->options; option != NULL && option->name != NULL; option++) {
        const bool is_needed = is_positional(option) ? option->name[0] != '[' : option->is_required;
        if (is_needed && count_of(arguments, option) == 0)
            return usage_error(arguments->program, arguments->command, "%s is missing", option->name);
    }
    return CS_EXIT_OK;
}

static int help(const char *program, const char *about, const cs_command *commands, int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[0], "--manual") == 0) {
        const cs_status status = cs_command_manual(program, about, commands, argv[1]);
        if (status != CS_OK)
            fprintf(stderr, "%s: %s\n", program, cs_error_text());
        return status == CS_OK ? CS_EXIT_OK : CS_EXIT_ERROR;
    }
    const cs_command *command = find_command(commands, argc, argv);
    if (command != NULL) {
        print_command_help(stdout, program, command);
        return CS_EXIT_OK;
    }
    CS_AUTO(cs_string) prefix = join_words(argc, argv, SIZE_MAX);
    if (!has_group(commands, prefix))
        return unknown_command(program, commands, argc, argv);
    print_overview(stdout, program, about, commands, prefix);
    return CS_EXIT_OK;
}

int cs_command_main(const char *program, const char *about, const cs_command *commands, int argc, char **argv)
{
    argc -= argc > 0;
    argv += 1;
    if (argc > 0 && strcmp(argv[0], "--version") == 0) {
        printf("%s %s\n", program, CS_VERSION);
        return CS_EXIT_OK;
    }
    if (argc > 0 && strcmp(argv[0], "help") == 0)
        return help(program, about, commands, argc - 1, argv + 1);
    if (asks_for_help(argc, argv))
        return help(program, about, commands, argc, argv);

    const cs_command *command = find_command(commands, argc, argv);
    if (command == NULL) {
        CS_AUTO(cs_string) prefix = join_words(argc, argv, SIZE_MAX);
        if ((argc > 0 && prefix[0] == '\0') || !has_group(commands, prefix))
            return unknown_command(program, commands, argc, argv);
        print_overview(stderr, program, about, commands, prefix);
        return CS_EXIT_USAGE;
    }
    const int words = (int)word_count(command->name);
    cs_arguments arguments = {.program = program, .command = command};
    arguments.items = cs_alloc_array((size_t)argc + 1, sizeof(*arguments.items));
    int result = parse(&arguments, argc - words, argv + words);
    if (result == CS_EXIT_OK)
        result = command->run(&arguments);
    cs_free(arguments.items);
    return result;
}

int cs_command_fail(const cs_arguments *arguments, cs_status status)
{
    if (!cs_argument_flag(arguments, "--json")) {
        fprintf(stderr, "%s: %s\n", arguments->program, cs_error_text());
        return CS_EXIT_ERROR;
    }
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&out);
    cs_json_object(&json, NULL);
    cs_json_text(&json, "error", cs_error_text());
    cs_json_text(&json, "code", cs_status_name(status));
    cs_json_end(&json, '}');
    printf("%s\n", cs_buffer_text(&out));
    return CS_EXIT_ERROR;
}
