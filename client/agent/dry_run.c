/* `consilium-client align PLAN --dry-run`: a confined worker counts the own table as an alignment would see it. Nobody
 * is asked, nothing leaves, and no agent need run. Main thread of a short process. */
#include "client/agent/commands.h"

#include "client/agent/supervisor.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/config/plan.h"
#include "common/config/site.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define ANSWER_ARENA_BYTES (4 * 1024 * 1024)

typedef Consilium__V1__PersonsDescription persons;

static void key_name(const cs_plan *plan, size_t key, cs_buffer *out)
{
    const cs_alignment_key *parts = &plan->alignment.keys[key];
    for (size_t i = 0; i < parts->parts_count; i++)
        cs_buffer_printf(out, "%s%s", i > 0 ? ", " : "", cs_identity_part_name(parts->parts[i]));
}

static void print_lines(const cs_plan *plan, const persons *found)
{
    const uint64_t allowed = (uint64_t)plan->alignment.patients * 6 / 5;
    printf("rows          %" PRIu64 "\n", found->rows);
    printf("patients      %" PRIu64 " with at least one key of their own; the plan allows %" PRIu64 "%s\n",
           found->persons, allowed, found->persons > allowed ? ": TOO MANY" : "");
    printf("duplicates    %" PRIu64 " rows with exactly the keys of an earlier row\n", found->duplicates);
    printf("without key   %" PRIu64 " rows\n", found->keyless);
    printf("would leave   %" PRIu64 " points, padding included; %.2f keys a patient\n", found->points,
           found->persons > 0 ? (double)found->keys / (double)found->persons : 0.0);
    for (size_t i = 0; i < found->n_present && i < plan->alignment.keys_count; i++) {
        CS_AUTO(cs_buffer) name = CS_BUFFER_EMPTY;
        key_name(plan, i, &name);
        printf("%s %" PRIu64 " rows have it, %" PRIu64 " of them share it with another patient: %s\n",
               i == 0 ? "keys         " : "             ", found->present[i],
               i < found->n_ambiguous ? found->ambiguous[i] : 0, cs_buffer_text(&name));
    }
    for (size_t i = 0; i < found->n_missing && i < CS_FIELDS; i++)
        if (found->missing[i] > 0)
            printf("missing       %s in %" PRIu64 " rows\n", cs_identity_field_name((cs_identity_field)i),
                   found->missing[i]);
    for (size_t i = 0; i < found->n_unreadable && i < found->n_unreadable_line && i < CS_FIELDS; i++)
        if (found->unreadable[i] > 0)
            printf("unreadable    %s in %" PRIu64 " rows, the first in line %" PRIu64 "\n",
                   cs_identity_field_name((cs_identity_field)i), found->unreadable[i], found->unreadable_line[i]);
}

static void print_json(const cs_plan *plan, const persons *found)
{
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&out);
    cs_json_object(&json, NULL);
    cs_json_uint(&json, "rows", found->rows);
    cs_json_uint(&json, "patients", found->persons);
    cs_json_uint(&json, "patients_allowed", (uint64_t)plan->alignment.patients * 6 / 5);
    cs_json_uint(&json, "duplicates", found->duplicates);
    cs_json_uint(&json, "without_key", found->keyless);
    cs_json_uint(&json, "keys", found->keys);
    cs_json_uint(&json, "points", found->points);
    cs_json_list(&json, "kinds");
    for (size_t i = 0; i < found->n_present && i < found->n_ambiguous && i < plan->alignment.keys_count; i++) {
        CS_AUTO(cs_buffer) name = CS_BUFFER_EMPTY;
        key_name(plan, i, &name);
        cs_json_object(&json, NULL);
        cs_json_text(&json, "key", cs_buffer_text(&name));
        cs_json_uint(&json, "present", found->present[i]);
        cs_json_uint(&json, "ambiguous", found->ambiguous[i]);
        cs_json_end(&json, '}');
    }
    cs_json_end(&json, ']');
    cs_json_list(&json, "fields");
    for (size_t i = 0; i < found->n_missing && i < found->n_unreadable && i < CS_FIELDS; i++) {
        cs_json_object(&json, NULL);
        cs_json_text(&json, "field", cs_identity_field_name((cs_identity_field)i));
        cs_json_uint(&json, "missing", found->missing[i]);
        cs_json_uint(&json, "unreadable", found->unreadable[i]);
        cs_json_uint(&json, "first_unreadable_line", found->unreadable_line[i]);
        cs_json_end(&json, '}');
    }
    cs_json_end(&json, ']');
    cs_json_end(&json, '}');
    printf("%s\n", cs_buffer_text(&out));
}

static cs_status count(const char *state_folder, const cs_site_config *config, cs_bytes config_text, cs_bytes plan,
                       cs_arena *arena, const persons **ret)
{
    char *absolute = realpath(state_folder, NULL);
    if (absolute == NULL)
        return cs_fail_errno("state folder '%s'", state_folder);
    CS_AUTO(cs_string) tasks = cs_path_join(absolute, "tasks");
    free(absolute); /* NOLINT: realpath's own memory */
    const cs_supervisor_config supervisor = {.program = config->worker,
                                             .site = config->site,
                                             .site_config = config_text,
                                             .site_config_folder = config->folder,
                                             .tasks_folder = tasks};
    Consilium__V1__WorkerReady *ready = NULL;
    CS_TRY(cs_supervisor_describe(&supervisor, plan, arena, &ready));
    if (ready->n_datasets != 1)
        return cs_fail(CS_INVALID, "the worker described %zu data sets, expected one", ready->n_datasets);
    if (ready->datasets[0]->error[0] != '\0')
        return cs_fail(CS_INVALID, "data set '%s': %s", ready->datasets[0]->dataset, ready->datasets[0]->error);
    if (ready->datasets[0]->persons == NULL)
        return cs_fail(CS_INVALID, "the worker counted no persons: is it of another version?");
    *ret = ready->datasets[0]->persons;
    return CS_OK;
}

static cs_status dry_run(const cs_arguments *arguments)
{
    const char *state = client_state_folder(arguments), *plan_path = cs_argument(arguments, "PLAN");
    CS_AUTO(cs_string) beside = cs_path_join(state, "site.yaml");
    const char *config_path = cs_argument(arguments, "--config") != NULL ? cs_argument(arguments, "--config") : beside;
    CS_AUTO(cs_buffer) plan_text = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) config_text = CS_BUFFER_EMPTY;
    CS_AUTO_PTR(cs_plan) plan = NULL;
    CS_AUTO_PTR(cs_site_config) config = NULL;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(ANSWER_ARENA_BYTES);
    const persons *found = NULL;
    if (!cs_argument_flag(arguments, "--dry-run"))
        return cs_fail(CS_INVALID, "align: only with --dry-run. An alignment with other sites begins when the operator "
                                   "submits its plan and every site approves it");
    CS_TRY(cs_file_read_all(plan_path, CS_PLAN_MAX_BYTES, &plan_text));
    CS_TRY(cs_plan_read(cs_buffer_view(&plan_text), plan_path, &plan));
    if (plan->federation != CS_VERTICAL)
        return cs_fail(CS_INVALID, "%s: found a plan without an alignment, expected federation: vertical", plan_path);
    CS_TRY(cs_file_read_all(config_path, CS_SITE_CONFIG_MAX_BYTES, &config_text));
    CS_TRY(cs_site_config_load(config_path, &config));
    CS_TRY(count(state, config, cs_buffer_view(&config_text), cs_buffer_view(&plan_text), arena, &found));
    if (cs_argument_flag(arguments, "--json"))
        print_json(plan, found);
    else
        print_lines(plan, found);
    return CS_OK;
}

int client_align(const cs_arguments *arguments)
{
    const cs_status status = dry_run(arguments);
    return status == CS_OK ? CS_EXIT_OK : cs_command_fail(arguments, status);
}
