/* The coordinator's gRPC handlers: thin. They check, post to the engine, answer. Used by `consilium-server run`.
 * Handlers run on rpc threads and never wait; cs_services_send runs on the engine's thread. */
#ifndef CS_SERVICES_SERVICES_H
#define CS_SERVICES_SERVICES_H

#include "common/rpc/rpc.h"
#include "server/engine/engine.h"
#include "server/pki/pki.h"

typedef struct cs_services cs_services;

typedef struct cs_services_config {
    cs_blobs *blobs;
    cs_pki *pki;
    const char *coordinator; /* host:port that join files name */
    const char *enrolment;   /* host:enrolment_port */
} cs_services_config;

cs_services *cs_services_new(const cs_services_config *config);
/* After the rpc server and the engine have stopped. */
void cs_services_free(cs_services *services);
CS_DEFINE_AUTO_PTR(cs_services)
/* Before the rpc server starts. */
void cs_services_set_engine(cs_services *services, cs_engine *engine);
/* After it has started: revocation ends calls there. */
void cs_services_set_server(cs_services *services, cs_rpc_server *server);

/* Ends with an entry whose path is NULL. The context of both is the cs_services. */
const cs_rpc_method *cs_services_federation_methods(void);
const cs_rpc_method *cs_services_admin_methods(void);
/* cs_rpc_server_config.admit */
cs_status cs_services_admit(void *services, const cs_rpc_peer *peer, const char *path);
/* cs_engine_config.send */
bool cs_services_send(void *services, const char *site, const Consilium__V1__CoordinatorMessage *message);
/* Blobs from and to sites, for the page of metrics. Any thread. */
void cs_services_measure(cs_services *services, cs_metrics_page *page);
/* Main thread, a few times a second: lets streams go on that paused because the engine's mailbox was full. */
void cs_services_tick(cs_services *services);

#endif
