/* `consilium-client doctor`: the findings, and all checks one after the other. Main thread. */
#include "client/agent/doctor.h"

#include "common/base/command.h"
#include "common/base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- findings ---- */

const char *cs_finding_id_text(cs_finding_id id)
{
    static const char *const texts[] = {
#define CS_FINDING_TEXT(name, text) text,
        CS_FINDING_IDS(CS_FINDING_TEXT)
#undef CS_FINDING_TEXT
    };

    return texts[id];
}

static cs_finding *add(cs_findings *findings, const char *id, cs_finding_level level)
{
    findings->items = cs_realloc(findings->items, (findings->count + 1) * sizeof *findings->items);
    cs_finding *finding = &findings->items[findings->count++];
    *finding = (cs_finding){.id = id, .level = level};
    return finding;
}

void cs_finding_good(cs_findings *findings, const char *id, const char *found, ...)
{
    char text[CS_ERROR_TEXT_BYTES];
    va_list arguments;

    va_start(arguments, found);
    vsnprintf(text, sizeof text, found, arguments);
    va_end(arguments);
    add(findings, id, CS_FINDING_OK)->found = cs_strdup(text);
}

void cs_finding_bad(cs_findings *findings, cs_finding_id id, cs_finding_level level, const char *found,
                    const char *expected, const char *action)
{
    cs_finding *finding = add(findings, cs_finding_id_text(id), level);

    finding->found = cs_strdup(found);
    finding->expected = cs_strdup(expected);
    finding->action = cs_strdup(action);
}

void cs_findings_clear(cs_findings *findings)
{
    for (size_t i = 0; i < findings->count; i++) {
        cs_free(findings->items[i].found);
        cs_free(findings->items[i].expected);
        cs_free(findings->items[i].action);
    }
    cs_free(findings->items);
    *findings = (cs_findings){0};
}

bool cs_findings_have_failed(const cs_findings *findings)
{
    for (size_t i = 0; i < findings->count; i++) {
        if (findings->items[i].level == CS_FINDING_FAIL)
            return true;
    }
    return false;
}

static const char *level_name(cs_finding_level level)
{
    static const char *const names[] = {[CS_FINDING_OK] = "ok", [CS_FINDING_WARN] = "warn", [CS_FINDING_FAIL] = "fail"};

    return names[level];
}

void cs_findings_print(const cs_findings *findings, cs_buffer *out)
{
    for (size_t i = 0; i < findings->count; i++) {
        const cs_finding *finding = &findings->items[i];
        cs_buffer_printf(out, "%-4s  %-26s %s\n", level_name(finding->level), finding->id, finding->found);
        if (finding->expected)
            cs_buffer_printf(out, "%6sexpected: %s\n%6swhat to do: %s\n", "", finding->expected, "", finding->action);
    }
}

void cs_findings_json(const cs_findings *findings, cs_buffer *out)
{
    cs_json json = cs_json_to(out);

    cs_json_object(&json, NULL);
    cs_json_bool(&json, "ok", !cs_findings_have_failed(findings));
    cs_json_list(&json, "findings");
    for (size_t i = 0; i < findings->count; i++) {
        const cs_finding *finding = &findings->items[i];
        CS_AUTO(cs_string) check = cs_strndup(finding->id, strcspn(finding->id, "."));
        cs_json_object(&json, NULL);
        cs_json_text(&json, "id", finding->id);
        cs_json_text(&json, "check", check);
        cs_json_text(&json, "level", level_name(finding->level));
        cs_json_text(&json, "found", finding->found);
        cs_json_text(&json, "expected", finding->expected);
        cs_json_text(&json, "action", finding->action);
        cs_json_end(&json, '}');
    }
    cs_json_end(&json, ']');
    cs_json_end(&json, '}');
    cs_buffer_append_text(out, "\n");
}

/* ---- all of it ---- */

/* The worker's build, for the question whether it could use a GPU. */
static void examine_data(const cs_doctor_options *options, const char *config_path, const cs_site_config *config,
                         cs_findings *findings, char **ret_build)
{
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;

    if (!config || cs_file_read_all(config_path, CS_SITE_CONFIG_MAX_BYTES, &text) != CS_OK)
        return;
    cs_doctor_data(config, cs_buffer_view(&text), options->state_folder, findings, ret_build);
    if (*ret_build)
        cs_doctor_plans(config, cs_buffer_view(&text), options->state_folder, findings);
}

static void examine(const cs_doctor_options *options, const char *config_path, cs_findings *findings)
{
    const cs_kernel kernel = cs_kernel_probe();
    CS_AUTO_PTR(cs_site_config) config = NULL;
    CS_AUTO(cs_site_identity) identity = {0};
    CS_AUTO(cs_string) build = NULL;

    cs_doctor_configuration(config_path, findings, &config);
    bool has_joined = cs_site_identity_load(options->state_folder, &identity) == CS_OK;
    if (!has_joined)
        cs_finding_bad(
            findings, CS_FOUND_IDENTITY_MISSING, CS_FINDING_FAIL, cs_error_text(),
            "keys and a certificate of the consortium",
            "ask the operator for a join file (consilium-server token new SITE) and run consilium-client join");
    CS_AUTO(cs_string) keys = cs_path_join(options->state_folder, "keys");
    if (has_joined || cs_file_exists(keys)) /* also where a key with rights of others is why it was not loaded */
        cs_doctor_keys(options->state_folder, findings);
    if (has_joined)
        cs_doctor_certificate(&identity, config, findings);
    cs_doctor_line(config, has_joined ? &identity : NULL, CS_DOCTOR_TIMEOUT_MS, findings);
    cs_doctor_disk(options->state_folder, findings);
    cs_doctor_confinement(&kernel, config, findings);
    examine_data(options, config_path, config, findings, &build);
    cs_doctor_gpu("", getenv("NVIDIA_VISIBLE_DEVICES"), build, findings);
}

int cs_doctor(const cs_doctor_options *options, bool json)
{
    CS_AUTO(cs_findings) findings = {0};
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    CS_AUTO(cs_string) beside = cs_path_join(options->state_folder, "site.yaml");

    examine(options, options->config_path ? options->config_path : beside, &findings);
    if (json)
        cs_findings_json(&findings, &out);
    else
        cs_findings_print(&findings, &out);
    fputs(cs_buffer_text(&out), stdout);
    return cs_findings_have_failed(&findings) ? CS_EXIT_FINDINGS : CS_EXIT_OK;
}
