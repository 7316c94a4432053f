/* What the site's page of metrics says: the federation as this agent sees it, its tasks, its worker. Nothing of the
 * data: no row, no path, no loss. Agent thread. */
#include "client/agent/internal.h"

static double seconds(int64_t milliseconds)
{
    return (double)milliseconds / 1000.0;
}

static void measure_session(cs_agent *agent, cs_metrics_page *page)
{
    cs_metrics_family(page, "consilium_site_info", CS_GAUGE, "Always 1; the labels name the site.");
    cs_metrics_count(page, 1, CS_LABEL("site", agent->identity.site),
                     CS_LABEL("consortium", agent->identity.consortium));
    cs_metrics_family(page, "consilium_attending", CS_GAUGE, "1 while there is a session with the coordinator.");
    cs_metrics_count(page, agent->current != NULL);
    cs_metrics_family(page, "consilium_sessions_total", CS_COUNTER,
                      "Sessions since the agent started; the second and later ones are reconnects.");
    cs_metrics_count(page, agent->counts.sessions);
    cs_metrics_family(page, "consilium_certificate_left_seconds", CS_GAUGE,
                      "Time until the site's certificate ends; it is renewed at a third of its life.");
    cs_metrics_number(page, seconds(agent->identity.leaf.not_after_ms - cs_clock_wall_ms()));
}

static void measure_tasks(cs_agent *agent, cs_metrics_page *page)
{
    cs_metrics_family(page, "consilium_tasks_total", CS_COUNTER, "Tasks with a result since the agent started.");
    cs_metrics_count(page, agent->counts.tasks_done, CS_LABEL("outcome", "done"));
    cs_metrics_count(page, agent->counts.tasks_failed, CS_LABEL("outcome", "failed"));
    cs_metrics_family(page, "consilium_results_answered_total", CS_COUNTER,
                      "Results by what the coordinator answered, since the agent started.");
    for (Consilium__V1__Verdict verdict = 0; verdict < VERDICTS; verdict++)
        cs_metrics_count(page, agent->counts.answers[verdict], CS_LABEL("verdict", verdict_word(verdict)));
    uint64_t open = 0;
    for (const struct task *task = agent->tasks; task != NULL; task = task->next)
        open += task->step != STEP_ACKNOWLEDGED;
    cs_metrics_family(page, "consilium_tasks_open", CS_GAUGE, "Tasks that are not acknowledged yet.");
    cs_metrics_count(page, open);
    cs_metrics_family(page, "consilium_task_progress_ratio", CS_GAUGE,
                      "How far the task in hand is in its stage, 0 to 1; 0 where there is none.");
    cs_metrics_number(page, agent->shown_total > 0 ? (double)agent->shown_done / (double)agent->shown_total : 0);
}

static void measure_worker(cs_agent *agent, cs_metrics_page *page)
{
    cs_metrics_family(page, "consilium_worker_starts_total", CS_COUNTER,
                      "Workers that became ready since the agent started.");
    cs_metrics_count(page, agent->counts.workers_started);
    cs_metrics_family(page, "consilium_worker_losses_total", CS_COUNTER,
                      "Workers that were lost or did not start; each costs a repeat of its task.");
    cs_metrics_count(page, agent->counts.workers_lost);
}

cs_status agent_measure(cs_agent *agent, cs_metrics_page *page)
{
    measure_session(agent, page);
    measure_tasks(agent, page);
    measure_worker(agent, page);
    uint64_t received = 0, sent = 0, records = 0;
    cs_transfer_bytes(agent->transfer, &received, &sent);
    cs_metrics_family(page, "consilium_blob_received_bytes_total", CS_COUNTER,
                      "Bytes of blobs that came from the coordinator since the agent started.");
    cs_metrics_count(page, received);
    cs_metrics_family(page, "consilium_blob_sent_bytes_total", CS_COUNTER,
                      "Bytes of blobs that went to the coordinator since the agent started.");
    cs_metrics_count(page, sent);
    cs_hash root;
    cs_transcript_head(agent->transcript, &records, &root);
    cs_metrics_family(page, "consilium_transcript_records", CS_GAUGE, "Records in the site's transcript.");
    cs_metrics_count(page, records);
    return CS_OK;
}
