/* The part of a vertical plan that says how common patients are found. Internal to common/config: read by plan.c, on
 * any thread. */
#ifndef CS_CONFIG_ALIGNMENT_H
#define CS_CONFIG_ALIGNMENT_H

#include "common/config/yaml.h"

/* A reader for tables of keys; `field` is a cs_alignment. */
cs_status cs_alignment_read(const cs_yaml_node *node, const cs_yaml_key *key, void *field);
/* What the alignment and the sites must say together; the minimum of sites becomes their number. */
CS_MUST_CHECK cs_status cs_alignment_check(const cs_yaml_node *root, bool has_minimum, cs_plan *plan);

#endif
