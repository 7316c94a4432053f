/* Strict YAML for the readers of this folder: a tree that knows the line and column of every value, and a walker over
 * tables of keys. One document, no anchors, aliases, tags or directives, no duplicate keys, everything limited.
 * Internal to common/config. A document belongs to one thread. */
#ifndef CS_CONFIG_YAML_H
#define CS_CONFIG_YAML_H

#include "common/base/bytes.h"
#include "common/config/plan.h"

#define CS_YAML_DEPTH_MAX  10
#define CS_YAML_NODES_MAX  100000
#define CS_YAML_SCALAR_MAX 4096
#define CS_YAML_TEXT_MAX   512 /* a text that is kept: column names, paths, addresses */
#define CS_YAML_LIST_MAX   4096
#define CS_YAML_NAME_MAX   63

typedef enum cs_yaml_kind { CS_YAML_SCALAR, CS_YAML_LIST, CS_YAML_MAPPING } cs_yaml_kind;

typedef struct cs_yaml_document cs_yaml_document;

/* The root, an item of a list, or the value of a key. */
typedef struct cs_yaml_node {
    const cs_yaml_document *document;
    const struct cs_yaml_node *parent;        /* NULL at the root */
    struct cs_yaml_node *first, *last, *next; /* children in the order of the text; the next sibling */
    size_t count;                             /* of children */
    size_t index;                             /* among the siblings */
    cs_yaml_kind kind;
    bool is_plain; /* a scalar without quotes */
    char *text;    /* of a scalar, never with a zero byte inside */
    size_t size;
    const char *key; /* in a mapping */
    size_t line, column, key_line, key_column;
} cs_yaml_node;

struct cs_yaml_document {
    const char *source;
    cs_arena *tree; /* the nodes */
    cs_arena *keep; /* the caller's: what the readers below hand out */
    cs_yaml_node *root;
};

/* The root is a mapping. `source` and `keep` must outlive the document. CS_INVALID names source, line and column. */
CS_MUST_CHECK cs_status cs_yaml_read(cs_bytes yaml, size_t max_bytes, const char *source, cs_arena *keep,
                                     cs_yaml_document *ret);
void cs_yaml_document_clear(cs_yaml_document *document);

typedef struct cs_yaml_word {
    const char *text; /* NULL ends the list */
    unsigned value;
} cs_yaml_word;

/* One key of a mapping. `read` checks the value and stores it at `offset` of the target, or anywhere in the target
 * where the offset is 0; defaults stand in the target before. */
typedef struct cs_yaml_key {
    const char *name; /* NULL ends the table */
    cs_status (*read)(const cs_yaml_node *node, const struct cs_yaml_key *key, void *field);
    size_t offset;
    uint64_t low, high;              /* of integers, milliseconds, bytes, list lengths; high 0: the type's own limit */
    const cs_yaml_word *words;       /* of choices */
    const struct cs_yaml_key *table; /* of a nested mapping, read into the same target */
    bool is_required;
} cs_yaml_key;

#define CS_YAML_KEY(name_, read_, offset_, ...)                                                                        \
    {                                                                                                                  \
        .name = (name_), .read = (read_), .offset = (offset_), ##__VA_ARGS__                                           \
    }

/* Checks that `node` is a mapping with keys of the table only and all required ones, and reads each value. */
CS_MUST_CHECK cs_status cs_yaml_walk(const cs_yaml_node *node, const cs_yaml_key *table, void *target);

/* The readers for tables; `field` is what the comment says. */
cs_status cs_yaml_mapping(const cs_yaml_node *node, const cs_yaml_key *key, void *field); /* the target */
cs_status cs_yaml_text(const cs_yaml_node *node, const cs_yaml_key *key, void *field);    /* char * */
cs_status cs_yaml_name(const cs_yaml_node *node, const cs_yaml_key *key, void *field);    /* char *, a DNS label */
cs_status cs_yaml_identifier(const cs_yaml_node *node, const cs_yaml_key *key,
                             void *field);                                                  /* char *, [A-Za-z0-9._-] */
cs_status cs_yaml_host_port(const cs_yaml_node *node, const cs_yaml_key *key, void *field); /* char * */
cs_status cs_yaml_loopback(const cs_yaml_node *node, const cs_yaml_key *key, void *field);  /* char *, host:port */
cs_status cs_yaml_u16(const cs_yaml_node *node, const cs_yaml_key *key, void *field);       /* uint16_t */
cs_status cs_yaml_u32(const cs_yaml_node *node, const cs_yaml_key *key, void *field);       /* uint32_t */
cs_status cs_yaml_u64(const cs_yaml_node *node, const cs_yaml_key *key, void *field);       /* uint64_t */
cs_status cs_yaml_size(const cs_yaml_node *node, const cs_yaml_key *key, void *field);      /* uint64_t bytes: "1GiB" */
cs_status cs_yaml_duration(const cs_yaml_node *node, const cs_yaml_key *key, void *field);  /* int64_t ms: "10m" */
cs_status cs_yaml_bool(const cs_yaml_node *node, const cs_yaml_key *key, void *field);      /* bool */
cs_status cs_yaml_real(const cs_yaml_node *node, const cs_yaml_key *key, void *field);      /* double, finite */
cs_status cs_yaml_positive(const cs_yaml_node *node, const cs_yaml_key *key, void *field);  /* double > 0, finite */
cs_status cs_yaml_fraction(const cs_yaml_node *node, const cs_yaml_key *key, void *field);  /* double in 0 … 1 */
cs_status cs_yaml_choice(const cs_yaml_node *node, const cs_yaml_key *key, void *field);    /* unsigned or an enum */
cs_status cs_yaml_choices(const cs_yaml_node *node, const cs_yaml_key *key, void *field); /* unsigned: bits of a list */
cs_status cs_yaml_texts(const cs_yaml_node *node, const cs_yaml_key *key, void *field);   /* cs_names */
cs_status cs_yaml_names(const cs_yaml_node *node, const cs_yaml_key *key, void *field);   /* cs_names, DNS labels */
cs_status cs_yaml_identifiers(const cs_yaml_node *node, const cs_yaml_key *key, void *field); /* cs_names */

/* For readers that look at a node themselves. */
CS_MUST_CHECK cs_status cs_yaml_expect_list(const cs_yaml_node *node, size_t low, size_t high);
CS_MUST_CHECK cs_status cs_yaml_reals(const cs_yaml_node *node, size_t low, size_t high, double **ret,
                                      size_t *ret_count);
bool cs_yaml_is(const cs_yaml_node *node, const char *text);
/* Zeroed memory that lives as long as what is read. */
CS_MUST_CHECK cs_status cs_yaml_keep(const cs_yaml_node *node, size_t count, size_t item_size, void **ret);
/* The value at "training.optimizer", or the deepest mapping on the way to it. */
const cs_yaml_node *cs_yaml_find(const cs_yaml_node *node, const char *path);

/* CS_INVALID "source:line:column: path: found …, expected " + the rest. */
cs_status cs_yaml_refuse(const cs_yaml_node *node, const char *expected, ...) CS_PRINTF(2, 3);
/* CS_INVALID "source:line:column: path: " + the sentence. */
cs_status cs_yaml_fail(const cs_yaml_node *node, const char *sentence, ...) CS_PRINTF(2, 3);

#endif
