/* A site's configuration, site.yaml: maps the plan's data sets to what is there and says what is allowed. Read by the
 * agent and, for the data sets, by the worker. Same strictness as plans. Any thread; does not change once read. */
#ifndef CS_CONFIG_SITE_H
#define CS_CONFIG_SITE_H

#include "common/config/plan.h"

#define CS_SITE_CONFIG_MAX_BYTES (256 * 1024)

typedef struct cs_column_map {
    char *plan; /* name in the plan */
    char *here; /* name in the table; or "#3": column number from 0 where the table has no header */
} cs_column_map;

/* A row is in the part whose column holds this value, or by fractions of a hash of the row's patient. */
typedef struct cs_split_part {
    char *column; /* NULL: no column rule */
    char *value;
} cs_split_part;

/* In which order a date stands where it is not ISO 8601 (which is always understood). */
typedef enum cs_date_order { CS_DATE_YMD, CS_DATE_DMY, CS_DATE_MDY } cs_date_order;

typedef struct cs_site_dataset {
    char *name;
    char *table;     /* CSV; relative to the configuration's folder */
    bool has_header; /* default true */
    char delimiter;  /* default ',' */
    cs_column_map *columns;
    size_t columns_count;
    cs_names missing; /* texts that mean missing besides the empty field */
    cs_date_order dates;
    char *patient; /* column that names the patient; NULL: each row is one */
    cs_split_part train, valid,
        test; /* by column; a part without a rule takes the rest in the order train, valid, test */
    bool has_fractions;
    double train_fraction, valid_fraction, test_fraction;
} cs_site_dataset;

typedef struct cs_policy_rule {
    char *dataset;           /* NULL: any */
    cs_names models;         /* empty: any */
    uint32_t rounds_maximum; /* 0: any */
    uint32_t sites_minimum;  /* 0: any */
} cs_policy_rule;

/* Of an alignment. A token is a point that leaves: a slot of a patient, padding included. */
typedef enum cs_alignment_mode { CS_ALIGNMENT_TWO_PARTY = 1, CS_ALIGNMENT_PATTERN = 2 } cs_alignment_mode;
typedef struct cs_alignment_policy {
    cs_names peers;          /* sites an alignment may be with; empty: any of the approved roster */
    unsigned modes;          /* cs_alignment_mode bits; default both */
    uint64_t session_tokens; /* default 2^22 */
    uint64_t month_tokens;   /* default 2^24 */
    uint32_t day_sessions;   /* default 4 */
    uint32_t minimum;        /* a plan must ask for at least this many common patients; default 20 */
} cs_alignment_policy;

typedef struct cs_site_config {
    char *site;
    char *coordinator; /* host:port */
    char *proxy;       /* host:port; NULL: none */
    char *proxy_login_file;
    char *folder; /* where the file lies; relative paths start here */
    cs_site_dataset *datasets;
    size_t datasets_count;
    uint32_t threads;        /* default 2; recorded with every result */
    char *metrics;           /* loopback address of GET /metrics; NULL: not served */
    char *worker;            /* program; NULL: consilium-worker beside consilium-client */
    cs_policy_rule *approve; /* a plan that fits one is approved without a person */
    size_t approve_count;
    cs_alignment_policy alignment;
    uint32_t floor_rows;       /* policy.minimum_rows: fewer training rows here: the plan is refused; default 10 */
    bool requires_confinement; /* policy.confinement: required (default) */
    cs_names
        accepted_missing; /* policy.accept_missing: [landlock, seccomp …]: named confinements the site does without */
    cs_arena *arena;
} cs_site_config;

/* `source`: the file's path or a name for errors; `folder`: where relative paths start. */
CS_MUST_CHECK cs_status cs_site_config_read(cs_bytes yaml, const char *source, const char *folder,
                                            cs_site_config **ret);
CS_MUST_CHECK cs_status cs_site_config_load(const char *path, cs_site_config **ret);
void cs_site_config_free(cs_site_config *config);
CS_DEFINE_AUTO_PTR(cs_site_config)
/* NULL when the site has no such data set. */
const cs_site_dataset *cs_site_config_dataset(const cs_site_config *config, const char *name);
/* A commented site.yaml for `join`, with what is known already. Free with cs_free. */
typedef struct cs_site_template {
    const char *site, *coordinator;
    const char *proxy, *proxy_login_file; /* NULL: none */
    const struct cs_site_template_dataset {
        char *name, *table;
        bool is_approved; /* plans that use it run without a person */
    } * datasets;
    size_t datasets_count;
} cs_site_template;
char *cs_site_config_template(const cs_site_template *what);

#endif
