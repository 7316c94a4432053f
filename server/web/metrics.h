/* GET /metrics of the coordinator. Started by `consilium-server run` where server.yaml says `metrics`. */
#ifndef CS_WEB_METRICS_H
#define CS_WEB_METRICS_H

#include "common/metrics/responder.h"
#include "server/engine/engine.h"
#include "server/pki/pki.h"
#include "server/services/services.h"

typedef struct cs_web_metrics cs_web_metrics;

typedef struct cs_web_metrics_config {
    const char *address; /* loopback */
    const char *state_folder;
    cs_engine *engine;
    cs_services *services;
    cs_pki *pki;
} cs_web_metrics_config;

/* CS_EXISTS when the port is taken. */
CS_MUST_CHECK cs_status cs_web_metrics_start(const cs_web_metrics_config *config, cs_web_metrics **ret);
uint16_t cs_web_metrics_port(const cs_web_metrics *metrics);
/* Before the engine stops: a page that is being made waits for it. NULL is fine. */
void cs_web_metrics_stop(cs_web_metrics *metrics);

#endif
