/* `consilium-client doctor`: what stands between this site and the federation. Every finding says what was found, what
 * was expected and what to do; docs/doctor.md lists them. Main thread, with or without a running agent; cs_crypto_start
 * and cs_rpc_start come before. It leaves nothing behind: what it writes (a file of its own, a folder under tasks/) it
 * removes. */
#ifndef CS_AGENT_DOCTOR_H
#define CS_AGENT_DOCTOR_H

#include "client/agent/enrol.h"
#include "common/base/json.h"
#include "common/config/site.h"
#include "common/wire/wire.h"

/* For each of name, connection, TLS and call: a hospital's proxy may be slow, a person waits. */
#define CS_DOCTOR_TIMEOUT_MS 10000
/* A round needs room for a model, its update and their copies; with less than the first nothing can be received. */
#define CS_DOCTOR_DISK_FAIL_BYTES (256ULL * 1024 * 1024)
#define CS_DOCTOR_DISK_WARN_BYTES (2048ULL * 1024 * 1024)
/* Certificates begin CS_BACKDATE_MS early: a clock that is behind by more takes a new one for not yet valid. */
#define CS_DOCTOR_CLOCK_WARN_MS (30 * 1000LL)
#define CS_DOCTOR_CLOCK_FAIL_MS CS_BACKDATE_MS
/* The model of the estimate, and the time for it to come and for its update to go: a phase's default deadline. */
#define CS_DOCTOR_MODEL_BYTES (100 * 1000 * 1000LL)
#define CS_DOCTOR_MODEL_S     3600
/* Plans looked at with the data: a worker is started for each. */
#define CS_DOCTOR_PLANS_MAX 8

typedef struct cs_doctor_options {
    const char *state_folder;
    const char *config_path; /* NULL: site.yaml in the state folder */
} cs_doctor_options;

/* Prints the findings, as lines or as one JSON object. CS_EXIT_OK, or CS_EXIT_FINDINGS when one of them failed. */
int cs_doctor(const cs_doctor_options *options, bool json);

/* ---- findings ---- */

/* Ids are for programs and for the table in docs/doctor.md; they do not change. What comes before the dot is the check;
 * a check that found all well says "<check>.ok". */
#define CS_FINDING_IDS(X)                                                                                              \
    X(CONFIGURATION_INVALID, "configuration.invalid")                                                                  \
    X(IDENTITY_MISSING, "identity.missing")                                                                            \
    X(IDENTITY_OTHER_SITE, "identity.other_site")                                                                      \
    X(KEYS_MISSING, "keys.missing")                                                                                    \
    X(KEYS_OWNER, "keys.owner")                                                                                        \
    X(KEYS_RIGHTS, "keys.rights")                                                                                      \
    X(CERTIFICATE_EXPIRED, "certificate.expired")                                                                      \
    X(CERTIFICATE_NOT_RENEWED, "certificate.not_renewed")                                                              \
    X(CERTIFICATE_PREVIOUS, "certificate.previous")                                                                    \
    X(CERTIFICATE_REPLACED, "certificate.replaced")                                                                    \
    X(CLOCK_OUTSIDE_CERTIFICATE, "clock.outside_certificate")                                                          \
    X(CLOCK_OFF, "clock.off")                                                                                          \
    X(DISK_UNREADABLE, "disk.unreadable")                                                                              \
    X(DISK_UNWRITABLE, "disk.unwritable")                                                                              \
    X(DISK_LOW, "disk.low")                                                                                            \
    X(DISK_FULL, "disk.full")                                                                                          \
    X(CONFINEMENT_LANDLOCK, "confinement.landlock")                                                                    \
    X(CONFINEMENT_SECCOMP, "confinement.seccomp")                                                                      \
    X(CONFINEMENT_NO_NEW_PRIVS, "confinement.no_new_privs")                                                            \
    X(GPU_NO_DRIVER, "gpu.no_driver")                                                                                  \
    X(GPU_NOT_GIVEN, "gpu.not_given")                                                                                  \
    X(GPU_MISSING, "gpu.missing")                                                                                      \
    X(GPU_DENIED, "gpu.denied")                                                                                        \
    X(GPU_UNUSED, "gpu.unused")                                                                                        \
    X(ADDRESS_INVALID, "address.invalid")                                                                              \
    X(ADDRESS_UNKNOWN, "address.unknown")                                                                              \
    X(ADDRESS_SILENT, "address.silent")                                                                                \
    X(PROXY_LOGIN_FILE, "proxy.login_file")                                                                            \
    X(PROXY_UNREACHABLE, "proxy.unreachable")                                                                          \
    X(PROXY_LOGIN, "proxy.login")                                                                                      \
    X(PROXY_REFUSES, "proxy.refuses")                                                                                  \
    X(PROXY_NOT_HTTP, "proxy.not_http")                                                                                \
    X(CONNECTION_REFUSED, "connection.refused")                                                                        \
    X(CONNECTION_SILENT, "connection.silent")                                                                          \
    X(TLS_UNCHECKED, "tls.unchecked")                                                                                  \
    X(TLS_FAILED, "tls.failed")                                                                                        \
    X(TLS_INTERCEPTED, "tls.intercepted")                                                                              \
    X(TLS_OTHER_CONSORTIUM, "tls.other_consortium")                                                                    \
    X(TLS_OTHER_NAME, "tls.other_name")                                                                                \
    X(COORDINATOR_DENIES, "coordinator.denies")                                                                        \
    X(COORDINATOR_SILENT, "coordinator.silent")                                                                        \
    X(COORDINATOR_OLDER, "coordinator.older")                                                                          \
    X(BANDWIDTH_SLOW, "bandwidth.slow")                                                                                \
    X(BANDWIDTH_UNMEASURED, "bandwidth.unmeasured")                                                                    \
    X(WORKER_MISSING, "worker.missing")                                                                                \
    X(WORKER_REFUSES, "worker.refuses")                                                                                \
    X(DATA_NONE, "data.none")                                                                                          \
    X(DATA_UNREADABLE, "data.unreadable")                                                                              \
    X(DATA_COLUMN, "data.column")                                                                                      \
    X(DATA_CELLS, "data.cells")                                                                                        \
    X(DATA_FIELDS, "data.fields")                                                                                      \
    X(DATA_MISSING, "data.missing")                                                                                    \
    X(DATA_FEW_ROWS, "data.few_rows")                                                                                  \
    X(DATA_NO_TEST, "data.no_test")                                                                                    \
    X(DATA_ONE_CLASS, "data.one_class")                                                                                \
    X(PLAN_UNREADABLE, "plan.unreadable")                                                                              \
    X(PLAN_REFUSED, "plan.refused")                                                                                    \
    X(PLAN_WAITS, "plan.waits")

typedef enum cs_finding_id {
#define CS_FINDING_ENUM(name, text) CS_FOUND_##name,
    CS_FINDING_IDS(CS_FINDING_ENUM)
#undef CS_FINDING_ENUM
        CS_FINDING_IDS_COUNT
} cs_finding_id;
const char *cs_finding_id_text(cs_finding_id id);

typedef enum cs_finding_level { CS_FINDING_OK, CS_FINDING_WARN, CS_FINDING_FAIL } cs_finding_level;

typedef struct cs_finding {
    const char *id; /* static */
    cs_finding_level level;
    char *found, *expected, *action; /* the last two are NULL where all is well */
} cs_finding;

typedef struct cs_findings {
    cs_finding *items;
    size_t count;
} cs_findings;
void cs_findings_clear(cs_findings *findings);
bool cs_findings_have_failed(const cs_findings *findings);
void cs_findings_print(const cs_findings *findings, cs_buffer *out);
void cs_findings_json(const cs_findings *findings, cs_buffer *out);
/* `id`: "<check>.ok" */
void cs_finding_good(cs_findings *findings, const char *id, const char *found, ...) CS_PRINTF(3, 4);
/* The texts are copied. */
void cs_finding_bad(cs_findings *findings, cs_finding_id id, cs_finding_level level, const char *found,
                    const char *expected, const char *action);

/* ---- the parts, for cs_doctor and for tests: what lies here (doctor_here.c) ---- */

/* What this kernel offers a worker to confine itself with. */
typedef struct cs_kernel {
    int landlock_abi; /* 0: none */
    bool has_seccomp;
    bool has_no_new_privs;
} cs_kernel;
cs_kernel cs_kernel_probe(void);

/* *ret is NULL when there is none to be had; the finding says why. */
void cs_doctor_configuration(const char *path, cs_findings *findings, cs_site_config **ret);
/* Modes and owner of what lies in keys/. */
void cs_doctor_keys(const char *state_folder, cs_findings *findings);
/* Dates against this machine's clock, and whether it is the site of site.yaml; `config` may be NULL. */
void cs_doctor_certificate(const cs_site_identity *identity, const cs_site_config *config, cs_findings *findings);
/* Room, and whether a file can be written. */
void cs_doctor_disk(const char *state_folder, cs_findings *findings);
void cs_doctor_room(const char *state_folder, uint64_t free_bytes, cs_findings *findings);
void cs_doctor_confinement(const cs_kernel *kernel, const cs_site_config *config, cs_findings *findings);
/* Whether an NVIDIA card is there, and what keeps the worker from it. `root`: "" but in tests; `asked_for`: the value
 * of NVIDIA_VISIBLE_DEVICES, NULL: none; `build`: of the worker, NULL: not known. */
void cs_doctor_gpu(const char *root, const char *asked_for, const char *build, cs_findings *findings);

/* ---- the line to the coordinator (doctor_line.c) ---- */

/* Name, proxy, connection, chain, clock, whether the coordinator takes this site's certificate, and how fast the line
 * is. Either of `identity` (not joined) and `config` (unusable) may be NULL. Stops at the first that fails: what is
 * behind it cannot be seen. */
void cs_doctor_line(const cs_site_config *config, const cs_site_identity *identity, int64_t timeout_ms,
                    cs_findings *findings);

/* ---- the worker, the data, the plans (doctor_data.c) ---- */

/* Lets a confined worker look at the data sets of the site's configuration. `config_text`: the bytes of site.yaml.
 * *ret_build: the worker's build, NULL when there is none; free with cs_free. */
void cs_doctor_data(const cs_site_config *config, cs_bytes config_text, const char *state_folder, cs_findings *findings,
                    char **ret_build);
/* What the worker says of one data set; `plan`: of the plan it was looked at for, or NULL. */
void cs_doctor_description(const cs_site_config *config, const char *plan,
                           const Consilium__V1__DatasetDescription *data, cs_findings *findings);
/* The plans that wait here, as the running agent has them, or else its database: what the policy, as site.yaml has it
 * now, says of each, and whether the data fits. */
void cs_doctor_plans(const cs_site_config *config, cs_bytes config_text, const char *state_folder,
                     cs_findings *findings);
/* What the policy says of one plan. */
void cs_doctor_policy(const cs_site_config *config, const char *job, cs_bytes plan, cs_findings *findings);

#endif
