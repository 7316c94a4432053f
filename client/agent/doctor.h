/* `consilium-client doctor`: what stands between this site and the federation. Every finding says what was found, what
 * was expected and what to do. Main thread, with or without a running agent; cs_crypto_start and cs_rpc_start come
 * before. It changes nothing but a folder of its own under tasks/, which it removes. */
#ifndef CS_AGENT_DOCTOR_H
#define CS_AGENT_DOCTOR_H

#include "client/agent/enrol.h"
#include "common/base/json.h"
#include "common/config/site.h"

/* For each of name, connection, TLS and call: a hospital's proxy may be slow, a person waits. */
#define CS_DOCTOR_TIMEOUT_MS 10000
/* A round needs room for a model, its update and their copies; with less than the first nothing can be received. */
#define CS_DOCTOR_DISK_FAIL_BYTES (256ULL * 1024 * 1024)
#define CS_DOCTOR_DISK_WARN_BYTES (2048ULL * 1024 * 1024)

typedef struct cs_doctor_options {
    const char *state_folder;
    const char *config_path; /* NULL: site.yaml in the state folder */
} cs_doctor_options;

/* Prints the findings, as lines or as one JSON object. CS_EXIT_OK, or CS_EXIT_FINDINGS when one of them failed. */
int cs_doctor(const cs_doctor_options *options, bool json);

/* ---- the parts, for the function above and for tests ---- */

typedef enum cs_finding_level { CS_FINDING_OK, CS_FINDING_WARN, CS_FINDING_FAIL } cs_finding_level;

typedef struct cs_finding {
    const char *check; /* static */
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
void cs_doctor_disk(const char *state_folder, cs_findings *findings);
void cs_doctor_confinement(const cs_kernel *kernel, const cs_site_config *config, cs_findings *findings);
/* Name, connection, chain, clock, and whether the coordinator takes this site's certificate. Either of `identity` (not
 * joined) and `config` (unusable) may be NULL. Stops at the first that fails: what is behind it cannot be seen. */
void cs_doctor_line(const cs_site_config *config, const cs_site_identity *identity, int64_t timeout_ms,
                    cs_findings *findings);
/* Lets a confined worker describe the data sets of the site's configuration. `config_text`: the bytes of site.yaml. */
void cs_doctor_data(const cs_site_config *config, cs_bytes config_text, const char *state_folder,
                    cs_findings *findings);

#endif
