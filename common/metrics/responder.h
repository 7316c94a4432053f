/* Answers GET /metrics over plain HTTP on loopback, with one thread of its own. Started by the daemons' main threads
 * where their configuration says `metrics`. */
#ifndef CS_METRICS_RESPONDER_H
#define CS_METRICS_RESPONDER_H

#include "common/metrics/exposition.h"

/* A request line and its headers, all together. */
#define CS_METRICS_REQUEST_MAX_BYTES 4096
/* At once; when one more comes, the one that has been here longest goes. So nobody who is slow keeps others out. */
#define CS_METRICS_CONNECTIONS 8
/* From accept to the last byte read by the other side. */
#define CS_METRICS_TIMEOUT_MS 10000

/* Judges what has come of a request (RFC 9112, section 2): 0 while its end is missing, else the status to answer with:
 * 200 for GET /metrics, 400 what is no HTTP/1, 404 another path, 405 another method, 431 too long. Pure. */
int cs_metrics_judge(cs_bytes request);

typedef struct cs_metrics_responder cs_metrics_responder;

typedef struct cs_metrics_config {
    const char *address; /* loopback only, as cs_loopback_parse says; port 0: any free */
    int64_t timeout_ms;  /* 0: CS_METRICS_TIMEOUT_MS; tests shorten it */
    /* Fills the page; may wait for the thread that owns what it asks. Another status than CS_OK is answered with 503
     * and the sentence. Called on the responder's thread. */
    cs_status (*fill)(void *self, cs_metrics_page *page);
    void *self;
} cs_metrics_config;

/* CS_INVALID: not a loopback address; CS_EXISTS: the port is taken. */
CS_MUST_CHECK cs_status cs_metrics_start(const cs_metrics_config *config, cs_metrics_responder **ret);
uint16_t cs_metrics_port(const cs_metrics_responder *responder);
/* Waits for a page that is being filled: what fills it must still run. NULL is fine. */
void cs_metrics_stop(cs_metrics_responder *responder);

#endif
