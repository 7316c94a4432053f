/* Writes a page of metrics in Prometheus' text format, version 0.0.4. Filled by the daemons' threads in turn, served by
 * responder.h. A page belongs to whoever holds it. */
#ifndef CS_METRICS_EXPOSITION_H
#define CS_METRICS_EXPOSITION_H

#include "common/base/bytes.h"

typedef enum cs_metrics_kind { CS_COUNTER, CS_GAUGE } cs_metrics_kind;

typedef struct cs_metrics_page {
    cs_buffer *out;
    const char *name, *help; /* of the family that is open */
    cs_metrics_kind kind;
    bool has_samples; /* of the open family: only then its head is written */
} cs_metrics_page;

typedef struct cs_metrics_label {
    const char *name; /* NULL ends the list */
    const char *value;
} cs_metrics_label;

#define CS_LABEL(name_, value_) ((cs_metrics_label){.name = (name_), .value = (value_)})

static inline cs_metrics_page cs_metrics_to(cs_buffer *out)
{
    return (cs_metrics_page){.out = out};
}

/* Opens a family; all its samples follow. Names are lower case with '_', in base units (seconds, bytes, ratio);
 * counters, and only they, end in _total. `name` and `help` are constants of the program. */
void cs_metrics_family(cs_metrics_page *page, const char *name, cs_metrics_kind kind, const char *help);

/* One sample of the open family: cs_metrics_count(page, 3, CS_LABEL("site", name)). Whole numbers keep every digit.
 * Values of labels may hold anything: what breaks a line is escaped, what is no UTF-8 becomes '?'. */
#define cs_metrics_count(page, value, ...)                                                                             \
    cs_metrics_put_count(page, value,                                                                                  \
                         (const cs_metrics_label[]){__VA_ARGS__ __VA_OPT__(, )(cs_metrics_label){.name = NULL}})
#define cs_metrics_number(page, value, ...)                                                                            \
    cs_metrics_put_number(page, value,                                                                                 \
                          (const cs_metrics_label[]){__VA_ARGS__ __VA_OPT__(, )(cs_metrics_label){.name = NULL}})
void cs_metrics_put_count(cs_metrics_page *page, uint64_t value, const cs_metrics_label *labels);
void cs_metrics_put_number(cs_metrics_page *page, double value, const cs_metrics_label *labels);

/* consilium_build_info, and what Prometheus' own libraries say of a process: memory, descriptors, processor time, when
 * it began (`started_wall_ms`). What the system does not tell is left out. */
void cs_metrics_process(cs_metrics_page *page, const char *program, int64_t started_wall_ms);
/* The disk under `folder`: free bytes; nothing where that cannot be asked. */
void cs_metrics_disk_free(cs_metrics_page *page, const char *folder);

#endif
