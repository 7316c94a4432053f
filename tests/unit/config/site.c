/* A site's configuration: what is read, what is refused, and that the file `join` writes is one. */
#include "common/config/site.h"

#include "common/base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HEAD "site: mercy\ncoordinator: coordinator.example.org:8443\n"

static cs_site_config *read_good(const char *yaml)
{
    cs_site_config *config = NULL;

    if (cs_site_config_read(cs_bytes_of_text(yaml), "site.yaml", "/etc/consilium", &config) != CS_OK)
        fail_msg("%s", cs_error_text());
    return config;
}

static void assert_refused(const char *yaml, const char *expected)
{
    cs_site_config *config = NULL;
    cs_status status = cs_site_config_read(cs_bytes_of_text(yaml), "site.yaml", "/etc/consilium", &config);

    assert_int_equal(status, CS_INVALID);
    assert_null(config);
    if (strncmp(cs_error_text(), expected, strlen(expected)) != 0)
        fail_msg("found    \"%s\"\nexpected \"%s\"", cs_error_text(), expected);
}

static void a_site_says_where_its_data_is_and_what_is_allowed(void **state)
{
    (void)state;

    CS_AUTO_PTR(cs_site_config)
    config =
        read_good(HEAD "datasets:\n"
                       "  heart-v1: {table: data/heart.csv, columns: {trestbps: resting_bp}, missing: [\"?\"], "
                       "split: {by: patient, test: {column: fold, value: test}}}\n"
                       "threads: 4\n"
                       "policy: {approve: [{dataset: heart-v1, model: [logistic_regression, mlp], rounds: "
                       "{maximum: 100}, sites: {minimum: 3}}], confinement: required, accept_missing: [landlock]}\n");

    assert_string_equal(config->site, "mercy");
    assert_string_equal(config->coordinator, "coordinator.example.org:8443");
    assert_string_equal(config->folder, "/etc/consilium");
    assert_null(config->proxy);
    assert_int_equal(config->threads, 4);
    const cs_site_dataset *dataset = cs_site_config_dataset(config, "heart-v1");
    assert_non_null(dataset);
    assert_null(cs_site_config_dataset(config, "heart-v2"));
    assert_string_equal(dataset->table, "data/heart.csv");
    assert_true(dataset->has_header && dataset->delimiter == ',');
    assert_int_equal(dataset->columns_count, 1);
    assert_string_equal(dataset->columns[0].plan, "trestbps");
    assert_string_equal(dataset->columns[0].here, "resting_bp");
    assert_true(cs_names_have(&dataset->missing, "?"));
    assert_null(dataset->patient);
    assert_null(dataset->train.column);
    assert_string_equal(dataset->test.column, "fold");
    assert_string_equal(dataset->test.value, "test");
    assert_int_equal(config->approve_count, 1);
    assert_string_equal(config->approve[0].dataset, "heart-v1");
    assert_true(cs_names_have(&config->approve[0].models, "mlp"));
    assert_int_equal(config->approve[0].rounds_maximum, 100);
    assert_int_equal(config->approve[0].sites_minimum, 3);
    assert_true(config->requires_confinement);
    assert_true(cs_names_have(&config->accepted_missing, "landlock"));
    assert_int_equal(config->floor_rows, 10);
}

static void an_alignment_policy_has_careful_defaults(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_site_config) plain = read_good(HEAD);
    CS_AUTO_PTR(cs_site_config)
    config = read_good(HEAD "datasets: {persons-v1: {table: p.csv, dates: dmy, columns: {given: Vorname}}}\n"
                            "policy: {alignment: {peers: [clinic], modes: [two_party], tokens: {session: 1000, month: "
                            "5000}, sessions: {day: 1}, minimum: 50}}\n");

    assert_int_equal(plain->alignment.peers.count, 0);
    assert_int_equal(plain->alignment.modes, CS_ALIGNMENT_TWO_PARTY | CS_ALIGNMENT_PATTERN);
    assert_int_equal(plain->alignment.session_tokens, 4194304);
    assert_int_equal(plain->alignment.month_tokens, 16777216);
    assert_int_equal(plain->alignment.day_sessions, 4);
    assert_int_equal(plain->alignment.minimum, 20);
    assert_int_equal(cs_site_config_dataset(config, "persons-v1")->dates, CS_DATE_DMY);
    assert_true(cs_names_have(&config->alignment.peers, "clinic"));
    assert_int_equal(config->alignment.modes, CS_ALIGNMENT_TWO_PARTY);
    assert_int_equal(config->alignment.session_tokens, 1000);
    assert_int_equal(config->alignment.month_tokens, 5000);
    assert_int_equal(config->alignment.day_sessions, 1);
    assert_int_equal(config->alignment.minimum, 50);
    assert_refused(HEAD "policy: {alignment: {modes: [union]}}\n",
                   "site.yaml:3:30: policy.alignment.modes[0]: found 'union', expected ");
}

static void a_table_without_header_names_columns_by_number(void **state)
{
    (void)state;

    CS_AUTO_PTR(cs_site_config)
    config =
        read_good(HEAD "datasets:\n  heart-v1:\n    table: /data/processed.cleveland.data\n    has_header: false\n"
                       "    delimiter: \"\\t\"\n    columns: {age: \"#0\", num: \"#13\"}\n"
                       "    split: {by: patient, patient: \"#14\", fractions: {train: 0.7, valid: 0.1, test: 0.2}}\n"
                       "proxy: proxy.example:3128\nproxy_login_file: proxy.login\nworker: /opt/worker\n"
                       "policy: {approve: [{model: mlp}], confinement: preferred, minimum_rows: 0}\n");

    const cs_site_dataset *dataset = &config->datasets[0];
    assert_false(dataset->has_header);
    assert_int_equal(dataset->delimiter, '\t');
    assert_string_equal(dataset->columns[1].here, "#13");
    assert_string_equal(dataset->patient, "#14");
    assert_true(dataset->has_fractions && dataset->train_fraction == 0.7 && dataset->test_fraction == 0.2);
    assert_string_equal(config->proxy_login_file, "proxy.login");
    assert_null(config->approve[0].dataset);
    assert_int_equal(config->approve[0].models.count, 1);
    assert_int_equal(config->approve[0].rounds_maximum, 0);
    assert_false(config->requires_confinement);
    assert_int_equal(config->floor_rows, 0);

    assert_refused(HEAD "datasets: {h: {table: t.csv, has_header: false, columns: {age: age}}}\n",
                   "site.yaml:3:58: datasets.h.columns: found 'age' for 'age', expected a column number");
    assert_refused(HEAD "datasets: {h: {table: t.csv, has_header: false, split: {by: row, test: {column: fold, value: "
                        "x}}}}\n",
                   "site.yaml:3:56: datasets.h.split: found the column 'fold', expected a column number");
}

static void a_split_is_by_columns_or_by_fractions(void **state)
{
    (void)state;

    assert_refused(HEAD "datasets: {h: {table: t, split: {by: row, fractions: {train: 0.5, test: 0.6}}}}\n",
                   "site.yaml:3:54: datasets.h.split.fractions: found a sum of 1.1, expected 1");
    assert_refused(HEAD
                   "datasets: {h: {table: t, split: {by: row, fractions: {train: 1}, test: {column: a, value: b}}}}\n",
                   "site.yaml:3:33: datasets.h.split: found fractions and columns, expected one of them");
    assert_refused(HEAD "datasets: {h: {table: t, split: {by: row, patient: id}}}\n",
                   "site.yaml:3:33: datasets.h.split: found 'patient' with by: row");
    assert_refused(HEAD "datasets: {h: {table: t, split: {test: {column: a, value: b}}}}\n",
                   "site.yaml:3:33: datasets.h.split: the key 'by' is missing");
    assert_refused(HEAD "datasets: {h: {table: t, split: {by: row, test: {column: a}}}}\n",
                   "site.yaml:3:49: datasets.h.split.test: the key 'value' is missing");
    assert_refused(HEAD "datasets: {h: {table: t, split: {by: row, fractions: {train: -1, test: 2}}}}\n",
                   "site.yaml:3:62: datasets.h.split.fractions.train: found -1, expected a number, 0 … 1");
}

static void a_value_that_is_a_number_stays_the_text_it_is(void **state)
{
    (void)state;

    CS_AUTO_PTR(cs_site_config)
    config = read_good(HEAD "datasets: {h: {table: t, split: {by: row, test: {column: fold, value: 01}}}}\n");

    assert_string_equal(config->datasets[0].test.value, "01");
}

static void addresses_must_have_a_port(void **state)
{
    (void)state;
    static const char *const refused[] = {"coordinator", "coordinator:",     ":8443",           "coordinator:0",
                                          "host:65536",  "http://host:8443", "user@host:8443",  "\"a b:8443\"",
                                          "::1:8443",    "\"host:84 43\"",   "[\"host:8443\"]", "host:08443"};
    for (size_t i = 0; i < CS_COUNT(refused); i++) {
        CS_AUTO(cs_string) yaml = cs_format("site: mercy\ncoordinator: %s\n", refused[i]);

        assert_refused(yaml, "site.yaml:2:");
    }
    cs_site_config_free(read_good("site: mercy\ncoordinator: \"[::1]:8443\"\n"));
}

static void metrics_are_served_on_this_machine_alone(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_site_config) silent = read_good(HEAD);
    CS_AUTO_PTR(cs_site_config) open = read_good(HEAD "metrics: localhost:9465\n");

    assert_null(silent->metrics);
    assert_string_equal(open->metrics, "localhost:9465");
    assert_refused(HEAD "metrics: mercy.example.org:9465\n", "site.yaml:3:10: metrics: found 'mercy.example.org:9465'");
    assert_refused(HEAD "metrics: 9465\n", "site.yaml:3:10: metrics: found 9465, expected an address");
}

static void unknown_confinements_and_models_are_told_apart(void **state)
{
    (void)state;

    assert_refused(
        HEAD "policy: {accept_missing: [landlok]}\n",
        "site.yaml:3:27: policy.accept_missing[0]: found 'landlok', expected landlock, seccomp or no_new_privs");
    assert_refused(HEAD "policy: {confinement: none}\n",
                   "site.yaml:3:23: policy.confinement: found 'none', expected required or preferred");
    /* A site may allow what only a later version can train. */
    cs_site_config_free(read_good(HEAD "policy: {approve: [{model: [resnet50]}]}\n"));
}

static void a_data_set_with_a_hostile_name_is_refused_at_its_key(void **state)
{
    (void)state;

    assert_refused(HEAD "datasets:\n  \"../x\\n\": {table: t}\n",
                   "site.yaml:4:3: datasets.../x?: found ../x?, expected letters");
    assert_refused(
        HEAD "datasets: {h: {tabel: t}}\n",
        "site.yaml:3:16: datasets.h: found the key \"tabel\", expected table, has_header, delimiter, columns, "
        "missing, dates or split; the nearest is 'table'");
    assert_refused(HEAD "datasets: [h]\n",
                   "site.yaml:3:11: datasets: found a list of 1, expected a mapping of data set");
}

static void the_file_that_join_writes_can_be_read(void **state)
{
    (void)state;
    CS_AUTO(cs_string) text =
        cs_site_config_template(&(cs_site_template){.site = "mercy", .coordinator = "coordinator.example.org:8443"});

    CS_AUTO_PTR(cs_site_config) config = read_good(text);

    assert_string_equal(config->site, "mercy");
    assert_string_equal(config->coordinator, "coordinator.example.org:8443");
    assert_int_equal(config->threads, 2);
    assert_int_equal(config->datasets_count, 0);
    assert_int_equal(config->approve_count, 0);
    assert_true(config->requires_confinement);
    assert_int_equal(config->accepted_missing.count, 0);
}

static void what_join_was_told_stands_in_the_file_it_writes(void **state)
{
    (void)state;
    const struct cs_site_template_dataset datasets[] = {{"heart-v1", "/data/heart \"1\": x.csv", true},
                                                        {"lung-v1", "/data/lung.csv", false}};
    CS_AUTO(cs_string) text = cs_site_config_template(&(cs_site_template){.site = "mercy",
                                                                          .coordinator = "coordinator.example.org:8443",
                                                                          .proxy = "proxy.example.org:3128",
                                                                          .proxy_login_file = "/etc/proxy.login",
                                                                          .datasets = datasets,
                                                                          .datasets_count = CS_COUNT(datasets)});

    CS_AUTO_PTR(cs_site_config) config = read_good(text);

    assert_string_equal(config->proxy, "proxy.example.org:3128");
    assert_string_equal(config->proxy_login_file, "/etc/proxy.login");
    assert_int_equal(config->datasets_count, 2);
    assert_string_equal(config->datasets[0].name, "heart-v1");
    assert_string_equal(config->datasets[0].table, "/data/heart \"1\": x.csv");
    assert_true(config->datasets[1].has_fractions && config->datasets[1].test_fraction > 0);
    assert_int_equal(config->approve_count, 1);
    assert_string_equal(config->approve[0].dataset, "heart-v1");
}

/* What the comments of the template offer must be right too: without the marks it is a configuration. */
static void the_examples_in_that_file_can_be_read_when_uncommented(void **state)
{
    (void)state;
    CS_AUTO(cs_string) text =
        cs_site_config_template(&(cs_site_template){.site = "mercy", .coordinator = "coordinator.example.org:8443"});
    CS_AUTO(cs_buffer) yaml = CS_BUFFER_EMPTY;
    for (char *rest = NULL, *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        static const char *const examples[] = {"# proxy", "# worker:",    "# datasets:", "#   ",
                                               "#     ",  "  # approve:", "  #   "};
        if (strcmp(line, "datasets: {}") == 0 || strcmp(line, "  approve: []") == 0 || strstr(line, "# or by"))
            continue;
        for (size_t i = 0; i < CS_COUNT(examples); i++) {
            char *mark = strchr(line, '#');
            if (mark && strncmp(line, examples[i], strlen(examples[i])) == 0) {
                memmove(mark, mark + 2, strlen(mark + 2) + 1);
                break;
            }
        }
        cs_buffer_printf(&yaml, "%s\n", line);
    }

    CS_AUTO_PTR(cs_site_config) config = read_good(cs_buffer_text(&yaml));

    assert_int_equal(config->datasets_count, 1);
    assert_true(config->datasets[0].has_fractions);
    assert_string_equal(config->datasets[0].patient, "patient_id");
    assert_int_equal(config->approve_count, 1);
    assert_non_null(config->proxy);
    assert_non_null(config->worker);
}

static void the_example_of_the_documentation_can_be_read(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) page = CS_BUFFER_EMPTY;
    assert_int_equal(cs_file_read_all(CS_SOURCE_DIR "/docs/site.md", 65536, &page), CS_OK);
    char *yaml = strstr((char *)page.data, "```yaml\n");
    assert_non_null(yaml);
    yaml += strlen("```yaml\n");
    *strstr(yaml, "```") = 0;

    CS_AUTO_PTR(cs_site_config) config = read_good(yaml);

    assert_int_equal(config->datasets_count, 1);
    assert_int_equal(config->approve_count, 1);
}

static void a_file_is_loaded_and_its_folder_remembered(void **state)
{
    (void)state;
    char folder[] = "/tmp/config-site-XXXXXX";
    assert_non_null(mkdtemp(folder));
    CS_AUTO(cs_string) path = cs_path_join(folder, "site.yaml");
    assert_int_equal(cs_file_write_atomic(path, cs_bytes_of_text(HEAD), 0600), CS_OK);

    cs_site_config *config = NULL;
    assert_int_equal(cs_site_config_load(path, &config), CS_OK);
    assert_string_equal(config->folder, folder);
    cs_site_config_free(config);

    assert_int_equal(cs_folder_remove(folder), CS_OK);
    assert_int_equal(cs_site_config_load(path, &config), CS_NOT_FOUND);
    assert_null(config);
}

static void a_configuration_one_byte_above_the_limit_is_refused(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) yaml = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&yaml, HEAD "#");
    while (yaml.size < CS_SITE_CONFIG_MAX_BYTES)
        cs_buffer_append_text(&yaml, "x");
    cs_site_config_free(read_good(cs_buffer_text(&yaml)));

    cs_buffer_append_text(&yaml, "x");

    assert_refused(cs_buffer_text(&yaml), "site.yaml: found 262145 bytes, expected at most 262144");
}

static void a_text_one_byte_above_the_limit_is_refused(void **state)
{
    (void)state;
    char table[514];
    memset(table, 'x', 513);
    table[513] = 0;
    CS_AUTO(cs_string) yaml = cs_format(HEAD "datasets: {h: {table: %s}}\n", table);

    assert_refused(yaml, "site.yaml:3:23: datasets.h.table: found 'xxxx");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_site_says_where_its_data_is_and_what_is_allowed),
        cmocka_unit_test(an_alignment_policy_has_careful_defaults),
        cmocka_unit_test(a_table_without_header_names_columns_by_number),
        cmocka_unit_test(a_split_is_by_columns_or_by_fractions),
        cmocka_unit_test(a_value_that_is_a_number_stays_the_text_it_is),
        cmocka_unit_test(addresses_must_have_a_port),
        cmocka_unit_test(unknown_confinements_and_models_are_told_apart),
        cmocka_unit_test(metrics_are_served_on_this_machine_alone),
        cmocka_unit_test(a_data_set_with_a_hostile_name_is_refused_at_its_key),
        cmocka_unit_test(the_file_that_join_writes_can_be_read),
        cmocka_unit_test(what_join_was_told_stands_in_the_file_it_writes),
        cmocka_unit_test(the_examples_in_that_file_can_be_read_when_uncommented),
        cmocka_unit_test(the_example_of_the_documentation_can_be_read),
        cmocka_unit_test(a_file_is_loaded_and_its_folder_remembered),
        cmocka_unit_test(a_configuration_one_byte_above_the_limit_is_refused),
        cmocka_unit_test(a_text_one_byte_above_the_limit_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
