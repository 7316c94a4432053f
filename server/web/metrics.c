/* Puts the coordinator's page together: what the engine knows is asked on the engine's thread, the rest (transfers,
 * disk, process) is read on the responder's. */
#include "server/web/metrics.h"

#include "common/base/clock.h"
#include "common/base/file.h"

struct cs_web_metrics {
    char *state_folder;
    cs_engine *engine;
    cs_services *services;
    cs_pki *pki;
    int64_t started_wall_ms;
    cs_metrics_responder *responder;
};

struct filling {
    cs_engine *engine;
    cs_metrics_page *page;
};

static cs_status fill_on_engine(void *argument, cs_store *store)
{
    struct filling *filling = argument;
    (void)store;
    return cs_engine_measure(filling->engine, filling->page);
}

static void measure_folder(cs_metrics_page *page, const char *state_folder, const char *name, const char *label)
{
    CS_AUTO(cs_string) folder = cs_path_join(state_folder, name);
    uint64_t bytes = 0;
    if (cs_folder_size(folder, &bytes) == CS_OK)
        cs_metrics_count(page, bytes, CS_LABEL("what", label));
}

static cs_status measure_certificate(cs_pki *pki, cs_metrics_page *page)
{
    int64_t not_after_ms = 0;
    CS_TRY(cs_pki_own_not_after(pki, &not_after_ms));
    cs_metrics_family(page, "consilium_certificate_left_seconds", CS_GAUGE,
                      "Time until the coordinator's own certificate ends; it is renewed at a third of its life.");
    cs_metrics_number(page, (double)(not_after_ms - cs_clock_wall_ms()) / 1000.0);
    return CS_OK;
}

static cs_status fill(void *self, cs_metrics_page *page)
{
    cs_web_metrics *metrics = self;
    struct filling filling = {metrics->engine, page};
    CS_TRY(cs_engine_run(metrics->engine, fill_on_engine, &filling));
    cs_services_measure(metrics->services, page);
    CS_TRY(measure_certificate(metrics->pki, page));
    cs_metrics_family(page, "consilium_state_bytes", CS_GAUGE, "Bytes of files in parts of the state directory.");
    measure_folder(page, metrics->state_folder, "db", "database");
    measure_folder(page, metrics->state_folder, "blobs", "blobs");
    measure_folder(page, metrics->state_folder, "audit", "transcript");
    cs_metrics_disk_free(page, metrics->state_folder);
    cs_metrics_process(page, "consilium-server", metrics->started_wall_ms);
    return CS_OK;
}

cs_status cs_web_metrics_start(const cs_web_metrics_config *config, cs_web_metrics **ret)
{
    cs_web_metrics *metrics = cs_alloc(sizeof *metrics);
    metrics->state_folder = cs_strdup(config->state_folder);
    metrics->engine = config->engine;
    metrics->services = config->services;
    metrics->pki = config->pki;
    metrics->started_wall_ms = cs_clock_wall_ms();
    cs_metrics_config responder = {.address = config->address, .fill = fill, .self = metrics};
    cs_status status = cs_metrics_start(&responder, &metrics->responder);
    if (status != CS_OK) {
        cs_web_metrics_stop(metrics);
        return status;
    }
    *ret = metrics;
    return CS_OK;
}

uint16_t cs_web_metrics_port(const cs_web_metrics *metrics)
{
    return cs_metrics_port(metrics->responder);
}

void cs_web_metrics_stop(cs_web_metrics *metrics)
{
    if (!metrics)
        return;
    cs_metrics_stop(metrics->responder);
    cs_free(metrics->state_folder);
    cs_free(metrics);
}
