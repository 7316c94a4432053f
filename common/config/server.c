/* Reads the coordinator's configuration. Called by the coordinator and its commands, on any thread. */
#include "common/config/server.h"

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/config/yaml.h"

#include <unistd.h>

#define CONFIG_MAX_BYTES  (64 * 1024)
#define KEEP_BUDGET_BYTES ((size_t)1024 * 1024)
#define THREADS_MAX       256
#define DAY_MS            (24 * 3600 * UINT64_C(1000))

static const cs_yaml_key server_keys[] = {
    CS_YAML_KEY("consortium", cs_yaml_name, offsetof(cs_server_config, consortium), .is_required = true),
    CS_YAML_KEY("name", cs_yaml_text, offsetof(cs_server_config, display_name), .is_required = true),
    CS_YAML_KEY("address", cs_yaml_text, offsetof(cs_server_config, address), .is_required = true),
    CS_YAML_KEY("listen", cs_yaml_text, offsetof(cs_server_config, listen)),
    CS_YAML_KEY("port", cs_yaml_u16, offsetof(cs_server_config, port)),
    CS_YAML_KEY("enrolment_port", cs_yaml_u16, offsetof(cs_server_config, enrolment_port)),
    CS_YAML_KEY("threads", cs_yaml_u32, offsetof(cs_server_config, threads), .low = 1, .high = THREADS_MAX),
    CS_YAML_KEY("disk_reserve", cs_yaml_size, offsetof(cs_server_config, disk_reserve_bytes)),
    CS_YAML_KEY("certificate_life", cs_yaml_duration, offsetof(cs_server_config, leaf_life_ms), .low = 1000,
                .high = 90 * DAY_MS),
    CS_YAML_KEY("metrics", cs_yaml_loopback, offsetof(cs_server_config, metrics)),
    {.name = NULL},
};

static uint32_t core_count(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    return (uint32_t)CS_MIN(CS_MAX(cores, 1L), (long)THREADS_MAX);
}

cs_status cs_server_config_load(const char *path, cs_server_config **ret)
{
    CS_AUTO_PTR(cs_arena) keep = cs_arena_new(KEEP_BUDGET_BYTES);
    CS_AUTO(cs_yaml_document) document = {0};
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    cs_server_config *config = cs_arena_alloc(keep, sizeof *config);

    *ret = NULL;
    if (!config)
        return cs_fail(CS_EXHAUSTED, "%s: no memory to read it", path);
    config->listen = cs_arena_strdup(keep, "0.0.0.0");
    config->port = 8443;
    config->enrolment_port = 8444;
    config->threads = core_count();
    config->disk_reserve_bytes = UINT64_C(1) << 30;
    config->leaf_life_ms = (int64_t)(7 * DAY_MS);

    CS_TRY(cs_file_read_all(path, CONFIG_MAX_BYTES, &text));
    CS_TRY(cs_yaml_read(cs_buffer_view(&text), CONFIG_MAX_BYTES, path, keep, &document));
    CS_TRY(cs_yaml_walk(document.root, server_keys, config));
    if (config->port != 0 && config->port == config->enrolment_port)
        return cs_yaml_fail(cs_yaml_find(document.root, "enrolment_port"),
                            "found %u, expected another port than 'port'", config->enrolment_port);
    config->arena = CS_TAKE(keep);
    *ret = config;
    return CS_OK;
}

void cs_server_config_free(cs_server_config *config)
{
    if (config)
        cs_arena_free(config->arena); /* the configuration itself lies in it */
}

static void append_quoted(cs_buffer *text, const char *value)
{
    cs_json json = cs_json_to(text); /* a JSON text is a quoted YAML text */

    cs_json_text(&json, NULL, value);
}

char *cs_server_config_template(const char *consortium, const char *display_name, const char *address, uint16_t port,
                                uint16_t enrolment_port)
{
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;

    cs_buffer_append_text(&text, "# The coordinator of a consortium. `consortium` stands in every certificate and does "
                                 "not change.\nconsortium: ");
    append_quoted(&text, consortium);
    cs_buffer_append_text(&text, "\nname: ");
    append_quoted(&text, display_name);
    cs_buffer_append_text(&text, "\n\n# What sites dial, without port; it stands in the coordinator's certificate.\n"
                                 "address: ");
    append_quoted(&text, address);
    cs_buffer_printf(&text,
                     "\n"
                     "# Where it listens: sites with a certificate at `port`, newcomers with a token at "
                     "`enrolment_port`.\n"
                     "listen: 0.0.0.0\n"
                     "port: %u\n"
                     "enrolment_port: %u\n"
                     "\n"
                     "# Threads of aggregation; left out: one for each core.\n"
                     "# threads: 2\n"
                     "\n"
                     "# No round opens with less free disk than this.\n"
                     "disk_reserve: 1GiB\n"
                     "\n"
                     "# Life of the certificates that are issued; they are renewed at two thirds of it.\n"
                     "certificate_life: 7d\n"
                     "\n"
                     "# Prometheus reads http://127.0.0.1:9464/metrics on this machine; left out: nobody listens.\n"
                     "# metrics: 127.0.0.1:9464\n",
                     port, enrolment_port);
    return cs_buffer_take_text(&text);
}
