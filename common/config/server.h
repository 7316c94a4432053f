/* The coordinator's configuration, server.yaml in its state directory, written by `init`. Any thread; does not change
 * once read. */
#ifndef CS_CONFIG_SERVER_H
#define CS_CONFIG_SERVER_H

#include "common/base/bytes.h"

typedef struct cs_server_config {
    char *consortium; /* short name, in certificates: a DNS label */
    char *display_name;
    char *address;               /* what sites dial: host without port */
    char *listen;                /* default "0.0.0.0" */
    uint16_t port;               /* default 8443; 0: any free (tests) */
    uint16_t enrolment_port;     /* default 8444; 0: any free */
    uint32_t threads;            /* of aggregation; default: cores */
    uint64_t disk_reserve_bytes; /* below it no round opens; default 1 GiB */
    int64_t leaf_life_ms;        /* default 7d; tests shorten it */
    char *metrics;               /* loopback address of GET /metrics; NULL: not served */
    cs_arena *arena;
} cs_server_config;

CS_MUST_CHECK cs_status cs_server_config_load(const char *path, cs_server_config **ret);
void cs_server_config_free(cs_server_config *config);
CS_DEFINE_AUTO_PTR(cs_server_config)
/* The commented text `init` writes. */
char *cs_server_config_template(const char *consortium, const char *display_name, const char *address, uint16_t port,
                                uint16_t enrolment_port);

#endif
