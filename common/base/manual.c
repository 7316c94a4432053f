/* Manual pages from the table that --help prints: one for the program, one for each command. man(7) macros. Run when
 * packages are made: PROGRAM help --manual FOLDER. */
#include "common/base/command.h"

#include "common/base/file.h"

#include <ctype.h>
#include <string.h>

#ifndef CS_RELEASE_DATE
#define CS_RELEASE_DATE "unreleased"
#endif

/* Text as roff reads it: '\' and '-' are its own, and so are '.' and '\'' where a line begins. */
static void put_text(cs_buffer *out, const char *text)
{
    if (*text == '.' || *text == '\'')
        cs_buffer_append_text(out, "\\&");
    for (; *text != '\0'; text++) {
        if (*text == '\\')
            cs_buffer_append_text(out, "\\e");
        else if (*text == '-')
            cs_buffer_append_text(out, "\\-");
        else
            cs_buffer_append(out, text, 1);
    }
}

static void put_line(cs_buffer *out, const char *before, const char *text, const char *after)
{
    cs_buffer_append_text(out, before);
    put_text(out, text);
    cs_buffer_append_text(out, after);
}

/* "consilium-server-job-submit" */
static char *page_name(const char *program, const char *command)
{
    char *name = cs_format("%s%s%s", program, command[0] != '\0' ? "-" : "", command);
    for (char *c = name; *c != '\0'; c++)
        if (*c == ' ')
            *c = '-';
    return name;
}

static void put_head(cs_buffer *out, const char *program, const char *name, const char *help)
{
    CS_AUTO(cs_string) title = cs_strdup(name);
    for (char *c = title; *c != '\0'; c++)
        *c = (char)toupper((unsigned char)*c);
    cs_buffer_printf(out, ".TH %s 1 ", title);
    cs_buffer_printf(out, "\"" CS_RELEASE_DATE "\" \"%s " CS_VERSION "\" \"Consilium\"\n.SH NAME\n", program);
    put_line(out, "", name, " \\- ");
    put_line(out, "", help, "\n");
}

static void put_option(cs_buffer *out, const cs_option *option)
{
    put_line(out, option->name[0] == '-' ? "\\fB" : "\\fI", option->name, "\\fR");
    if (option->argument != NULL)
        put_line(out, " \\fI", option->argument, "\\fR");
}

static void put_synopsis(cs_buffer *out, const char *program, const cs_command *command)
{
    put_line(out, ".SH SYNOPSIS\n\\fB", program, "");
    put_line(out, command->name[0] != '\0' ? " " : "", command->name, "\\fR\n");
    for (const cs_option *option = command->options; option != NULL && option->name != NULL; option++) {
        const bool is_optional = option->name[0] == '-' && !option->is_required;
        cs_buffer_append_text(out, is_optional ? "[" : "");
        put_option(out, option);
        cs_buffer_printf(out, "%s%s\n", is_optional ? "]" : "", option->repeats ? "..." : "");
    }
}

static void put_options(cs_buffer *out, const cs_command *command)
{
    cs_buffer_append_text(out, ".SH OPTIONS\n");
    for (const cs_option *option = command->options; option != NULL && option->name != NULL; option++) {
        cs_buffer_append_text(out, ".TP\n");
        put_option(out, option);
        put_line(out, "\n", option->help != NULL ? option->help : "", "\n");
    }
    cs_buffer_append_text(out, ".TP\n\\fB\\-\\-help\\fR\nprint this\n");
}

static void put_exit_codes(cs_buffer *out)
{
    cs_buffer_append_text(out, ".SH EXIT STATUS\n");
    for (int code = 0; cs_exit_meaning(code) != NULL; code++) {
        cs_buffer_printf(out, ".TP\n%d\n", code);
        put_line(out, "", cs_exit_meaning(code), "\n");
    }
}

static cs_status write_page(const char *folder, const char *name, const cs_buffer *page)
{
    CS_AUTO(cs_string) path = cs_format("%s/%s.1", folder, name);
    return cs_file_write_atomic(path, cs_buffer_view(page), 0644);
}

static cs_status write_command(const char *folder, const char *program, const cs_command *command)
{
    CS_AUTO(cs_string) name = page_name(program, command->name);
    CS_AUTO(cs_buffer) page = CS_BUFFER_EMPTY;
    put_head(&page, program, name, command->help);
    put_synopsis(&page, program, command);
    put_options(&page, command);
    put_exit_codes(&page);
    if (command->name[0] != '\0')
        put_line(&page, ".SH SEE ALSO\n\\fB", program, "\\fR(1)\n");
    return write_page(folder, name, &page);
}

static cs_status write_program(const char *folder, const char *program, const char *about, const cs_command *commands)
{
    CS_AUTO(cs_buffer) page = CS_BUFFER_EMPTY;
    put_head(&page, program, program, about);
    put_line(&page, ".SH SYNOPSIS\n\\fB", program, "\\fR \\fICOMMAND\\fR ...\n.SH COMMANDS\n");
    for (const cs_command *command = commands; command->name != NULL; command++) {
        put_line(&page, ".TP\n\\fB", command->name, "\\fR\n");
        put_line(&page, "", command->help, "\n");
    }
    put_exit_codes(&page);
    cs_buffer_append_text(&page, ".SH SEE ALSO\n");
    for (const cs_command *command = commands; command->name != NULL; command++) {
        CS_AUTO(cs_string) name = page_name(program, command->name);
        put_line(&page, "\\fB", name, command[1].name != NULL ? "\\fR(1),\n" : "\\fR(1)\n");
    }
    return write_page(folder, program, &page);
}

cs_status cs_command_manual(const char *program, const char *about, const cs_command *commands, const char *folder)
{
    const bool has_commands = commands[0].name != NULL && commands[0].name[0] != '\0';
    if (has_commands)
        CS_TRY(write_program(folder, program, about, commands));
    for (const cs_command *command = commands; command->name != NULL; command++)
        CS_TRY(write_command(folder, program, command));
    return CS_OK;
}
