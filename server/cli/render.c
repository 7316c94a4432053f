/* How a job looks: JSON, a page, and the live view of `job watch`. Main thread. */
#include "server/cli/cli.h"

#include "common/base/clock.h"
#include "common/config/metric.h"
#include "common/crypto/digest.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define BAR_CELLS 24

const char *cli_job_state(Consilium__V1__JobState state)
{
    switch (state) {
    case CONSILIUM__V1__JOB_STATE__JOB_WAITING:
        return "waiting";
    case CONSILIUM__V1__JOB_STATE__JOB_RUNNING:
        return "running";
    case CONSILIUM__V1__JOB_STATE__JOB_PAUSED:
        return "paused";
    case CONSILIUM__V1__JOB_STATE__JOB_COMPLETE:
        return "complete";
    case CONSILIUM__V1__JOB_STATE__JOB_PARTIAL:
        return "partial";
    case CONSILIUM__V1__JOB_STATE__JOB_FAILED:
        return "failed";
    case CONSILIUM__V1__JOB_STATE__JOB_CANCELLED:
        return "cancelled";
    default:
        return "unknown";
    }
}

bool cli_job_has_ended(Consilium__V1__JobState state)
{
    return state == CONSILIUM__V1__JOB_STATE__JOB_COMPLETE || state == CONSILIUM__V1__JOB_STATE__JOB_PARTIAL ||
           state == CONSILIUM__V1__JOB_STATE__JOB_FAILED || state == CONSILIUM__V1__JOB_STATE__JOB_CANCELLED;
}

int cli_job_exit(Consilium__V1__JobState state)
{
    switch (state) {
    case CONSILIUM__V1__JOB_STATE__JOB_COMPLETE:
        return CS_EXIT_OK;
    case CONSILIUM__V1__JOB_STATE__JOB_PARTIAL:
        return CS_EXIT_PARTIAL;
    default:
        return CS_EXIT_JOB_FAILED;
    }
}

static const char *participation(Consilium__V1__Participation value)
{
    static const char *const names[] = {
        [CONSILIUM__V1__PARTICIPATION__INVITED] = "invited",
        [CONSILIUM__V1__PARTICIPATION__ENROLLED] = "enrolled",
        [CONSILIUM__V1__PARTICIPATION__APPROVED] = "approved",
        [CONSILIUM__V1__PARTICIPATION__REFUSED] = "refused",
        [CONSILIUM__V1__PARTICIPATION__READY] = "ready",
        [CONSILIUM__V1__PARTICIPATION__FETCHING] = "fetching",
        [CONSILIUM__V1__PARTICIPATION__TRAINING] = "training",
        [CONSILIUM__V1__PARTICIPATION__EVALUATING] = "evaluating",
        [CONSILIUM__V1__PARTICIPATION__UPLOADING] = "uploading",
        [CONSILIUM__V1__PARTICIPATION__ANSWERED] = "answered",
        [CONSILIUM__V1__PARTICIPATION__FOLDED] = "folded",
        [CONSILIUM__V1__PARTICIPATION__LATE] = "late",
        [CONSILIUM__V1__PARTICIPATION__EXCLUDED] = "excluded",
        [CONSILIUM__V1__PARTICIPATION__AGREEING] = "agreeing",
        [CONSILIUM__V1__PARTICIPATION__ALIGNING] = "aligning",
    };
    return (size_t)value < CS_COUNT(names) && names[value] ? names[value] : "unknown";
}

static bool has_percent(Consilium__V1__Participation value)
{
    return (value >= CONSILIUM__V1__PARTICIPATION__FETCHING && value <= CONSILIUM__V1__PARTICIPATION__UPLOADING) ||
           value == CONSILIUM__V1__PARTICIPATION__AGREEING || value == CONSILIUM__V1__PARTICIPATION__ALIGNING;
}

/* ---- JSON ---- */

static bool is_calibration(const Consilium__V1__Metric *metric)
{
    return strcmp(metric->name, cs_metric_name(CS_METRIC_CALIBRATION_ERROR)) == 0 &&
           cs_metric_has_parts(metric->name, metric->n_parts);
}

/* An AUC over several classes says how many of them it is the mean of. */
static bool is_macro(const Consilium__V1__Metric *metric)
{
    return !is_calibration(metric) && metric->n_parts > CS_METRIC_CLASS_PARTS;
}

static void append_parts_json(cs_json *json, const Consilium__V1__Metric *metric)
{
    if (is_macro(metric)) {
        cs_json_uint(json, "classes", metric->n_parts / CS_METRIC_CLASS_PARTS);
        cs_json_uint(json, "measured", cs_metric_classes_measured(metric->parts, metric->n_parts));
    }
    if (!is_calibration(metric))
        return;
    cs_json_list(json, "bins");
    for (size_t i = 0; i < metric->n_parts; i += CS_METRIC_BIN_PARTS) {
        cs_json_object(json, NULL);
        cs_json_real(json, "rows", metric->parts[i]);
        cs_json_real(json, "predicted", metric->parts[i + 1]);
        cs_json_real(json, "observed", metric->parts[i + 2]);
        cs_json_end(json, '}');
    }
    cs_json_end(json, ']');
}

static void append_evaluation(cs_json *json, const Consilium__V1__SiteEvaluation *entry)
{
    const Consilium__V1__Evaluation *evaluation = entry->evaluation;
    cs_json_object(json, NULL);
    cs_json_text(json, "site", entry->site[0] ? entry->site : NULL);
    cs_json_text(json, "model", evaluation->model);
    cs_json_text(json, "split", evaluation->split);
    cs_json_text(json, "standardize", evaluation->standardize);
    cs_json_object(json, "metrics");
    for (size_t i = 0; i < evaluation->n_metrics; i++) {
        const Consilium__V1__Metric *metric = evaluation->metrics[i];
        cs_json_object(json, metric->name);
        cs_json_real(json, "value", metric->is_defined ? metric->value : NAN);
        if (metric->pools) {
            cs_json_real(json, "sum", metric->sum);
            cs_json_real(json, "count", metric->count);
        }
        append_parts_json(json, metric);
        cs_json_end(json, '}');
    }
    cs_json_end(json, '}');
    cs_json_end(json, '}');
}

static void append_round(cs_json *json, const Consilium__V1__RoundSummary *round)
{
    cs_json_object(json, NULL);
    cs_json_uint(json, "round", round->round);
    if (round->model && round->model->sha256.len == CS_HASH_BYTES) {
        cs_json_hex(json, "model", round->model->sha256.data, round->model->sha256.len);
        cs_json_uint(json, "size", round->model->size);
    } else {
        cs_json_text(json, "model", NULL);
    }
    cs_json_real(json, "loss", round->loss);
    cs_json_uint(json, "duration_ms", round->duration_ms);
    cs_json_list(json, "folded");
    for (size_t i = 0; i < round->n_folded; i++)
        cs_json_text(json, NULL, round->folded[i]);
    cs_json_end(json, ']');
    cs_json_list(json, "not_folded");
    for (size_t i = 0; i < round->n_not_folded; i++) {
        cs_json_object(json, NULL);
        cs_json_text(json, "site", round->not_folded[i]->site);
        cs_json_text(json, "reason", round->not_folded[i]->reason);
        cs_json_end(json, '}');
    }
    cs_json_end(json, ']');
    cs_json_list(json, "evaluations");
    for (size_t i = 0; i < round->n_evaluations; i++)
        append_evaluation(json, round->evaluations[i]);
    cs_json_end(json, ']');
    cs_json_end(json, '}');
}

static void append_site(cs_json *json, const Consilium__V1__SiteProgress *site)
{
    cs_json_object(json, NULL);
    cs_json_text(json, "site", site->site);
    cs_json_text(json, "participation", participation(site->participation));
    cs_json_real(json, "percent", site->percent);
    cs_json_text(json, "reason", site->reason);
    cs_json_bool(json, "connected", site->is_connected);
    cs_json_real(json, "loss", site->loss);
    cs_json_real(json, "rate", site->rate);
    cs_json_uint(json, "rounds_folded", site->rounds_folded);
    cs_json_end(json, '}');
}

void cli_append_job_json(cs_json *json, const char *key, const Consilium__V1__JobStatus *job)
{
    cs_json_object(json, key);
    cs_json_text(json, "job", job->job);
    cs_json_hex(json, "plan_sha256", job->plan_sha256.data, job->plan_sha256.len);
    cs_json_text(json, "state", cli_job_state(job->state));
    cs_json_text(json, "reason", job->reason);
    cs_json_uint(json, "round", job->round);
    cs_json_uint(json, "rounds", job->rounds);
    cs_json_text(json, "phase", job->phase);
    cs_json_uint(json, "created_ms", job->created_ms);
    cs_json_uint(json, "finished_ms", job->finished_ms);
    cs_json_uint(json, "eta_ms", job->eta_ms);
    cs_json_uint(json, "best_round", job->best_round);
    cs_json_uint(json, "invited", job->invited);
    cs_json_uint(json, "folded_everywhere", job->folded_everywhere);
    cs_json_list(json, "sites");
    for (size_t i = 0; i < job->n_sites; i++)
        append_site(json, job->sites[i]);
    cs_json_end(json, ']');
    cs_json_list(json, "history");
    for (size_t i = 0; i < job->n_history; i++)
        append_round(json, job->history[i]);
    cs_json_end(json, ']');
    cs_json_end(json, '}');
}

void cli_print_job_json(const Consilium__V1__JobStatus *job)
{
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&out);
    cli_append_job_json(&json, NULL, job);
    printf("%s\n", cs_buffer_text(&out));
}

/* ---- text ---- */

static void append_outcome(cs_buffer *out, const Consilium__V1__JobStatus *job)
{
    cs_buffer_printf(out, "%s  %s", job->job, cli_job_state(job->state));
    if (job->state == CONSILIUM__V1__JOB_STATE__JOB_PARTIAL)
        cs_buffer_printf(out, " %u of %u", job->folded_everywhere, job->invited);
    if (job->state == CONSILIUM__V1__JOB_STATE__JOB_RUNNING)
        cs_buffer_printf(out, ": %s", job->phase);
    cs_buffer_printf(out, "  round %u/%u", job->round, job->rounds);
    if (job->eta_ms > 0 && !cli_job_has_ended(job->state))
        cs_buffer_printf(out, "  about %" PRIu64 " s left", (job->eta_ms + 999) / 1000);
    if (job->reason[0])
        cs_buffer_printf(out, "  (%s)", job->reason);
    cs_buffer_append_text(out, "\n");
}

static void append_bar(cs_buffer *out, double percent)
{
    int filled = (int)(CS_MAX(0.0, CS_MIN(100.0, percent)) / 100.0 * BAR_CELLS + 0.5);
    for (int cell = 0; cell < BAR_CELLS; cell++)
        cs_buffer_append_text(out, cell < filled ? "█" : "░");
}

static void append_site_line(cs_buffer *out, const Consilium__V1__SiteProgress *site)
{
    double percent = has_percent(site->participation) ? site->percent
                     : site->participation == CONSILIUM__V1__PARTICIPATION__ANSWERED ||
                             site->participation == CONSILIUM__V1__PARTICIPATION__FOLDED
                         ? 100.0
                         : 0.0;
    cs_buffer_printf(out, "  %-16s ", site->site);
    append_bar(out, percent);
    cs_buffer_printf(out, " %-11s", participation(site->participation));
    if (has_percent(site->participation))
        cs_buffer_printf(out, "%4.0f %%", percent);
    else
        cs_buffer_append_text(out, "      ");
    if (site->loss > 0)
        cs_buffer_printf(out, "  loss %.4f", site->loss);
    if (site->rate > 0)
        cs_buffer_printf(out, "  %.0f points/s", site->rate);
    if (!site->is_connected)
        cs_buffer_append_text(out, "  not connected");
    if (site->reason[0])
        cs_buffer_printf(out, "  %s", site->reason);
    cs_buffer_append_text(out, "\n");
}

/* The pooled numbers of the first standardization the plan names: "accuracy 0.8114  brier 0.1401". */
static void append_pooled(cs_buffer *out, const Consilium__V1__RoundSummary *round)
{
    for (size_t i = 0; i < round->n_evaluations; i++) {
        const Consilium__V1__SiteEvaluation *entry = round->evaluations[i];
        if (entry->site[0] || strcmp(entry->evaluation->model, "global") != 0)
            continue;
        for (size_t m = 0; m < entry->evaluation->n_metrics; m++) {
            const Consilium__V1__Metric *metric = entry->evaluation->metrics[m];
            if (metric->is_defined)
                cs_buffer_printf(out, "  %s %.4f", metric->name, metric->value);
        }
        return;
    }
}

/* `before`: the round before, whose model this round's sites evaluated; NULL when unknown. */
static void append_round_line(cs_buffer *out, const Consilium__V1__RoundSummary *round,
                              const Consilium__V1__RoundSummary *before)
{
    cs_buffer_printf(out, "round %u: %zu folded", round->round, round->n_folded);
    if (round->loss > 0)
        cs_buffer_printf(out, "  loss %.4f", round->loss);
    cs_buffer_printf(out, "  %.2f s", (double)round->duration_ms / 1000.0);
    if (before && before->n_evaluations > 0) {
        cs_buffer_printf(out, "  | model of round %u:", before->round);
        append_pooled(out, before);
    }
    for (size_t i = 0; i < round->n_not_folded; i++)
        cs_buffer_printf(out, "  without %s: %s", round->not_folded[i]->site, round->not_folded[i]->reason);
    cs_buffer_append_text(out, "\n");
}

static bool is_closed(const Consilium__V1__JobStatus *job, size_t index)
{
    return job->history[index]->round < job->round || cli_job_has_ended(job->state);
}

/* Of each bin with rows: what the model said on average, and what share came true. */
static void append_reliability(cs_buffer *out, const Consilium__V1__Evaluation *evaluation)
{
    for (size_t m = 0; m < evaluation->n_metrics; m++) {
        const Consilium__V1__Metric *metric = evaluation->metrics[m];
        const double bins = (double)(metric->n_parts / CS_METRIC_BIN_PARTS);
        if (!is_calibration(metric))
            continue;
        cs_buffer_printf(out, "\ncalibration, all sites, %s rows scaled by %s\n  %-13s %9s %9s %7s\n",
                         evaluation->split, evaluation->standardize, "bin", "predicted", "observed", "rows");
        for (size_t i = 0; i < metric->n_parts; i += CS_METRIC_BIN_PARTS) {
            const double rows = metric->parts[i], bin = (double)(i / CS_METRIC_BIN_PARTS);
            if (rows > 0)
                cs_buffer_printf(out, "  %5.3f – %5.3f %9.3f %9.3f %7.0f\n", bin / bins, (bin + 1) / bins,
                                 metric->parts[i + 1] / rows, metric->parts[i + 2] / rows, rows);
        }
    }
}

static void append_metric(cs_buffer *out, const Consilium__V1__Metric *metric)
{
    if (metric->is_defined)
        cs_buffer_printf(out, "  %s %.4f", metric->name, metric->value);
    else
        cs_buffer_printf(out, "  %s undefined", metric->name);
    const size_t classes = metric->n_parts / CS_METRIC_CLASS_PARTS;
    if (is_macro(metric) && cs_metric_classes_measured(metric->parts, metric->n_parts) < classes)
        cs_buffer_printf(out, " (%zu of %zu classes)", cs_metric_classes_measured(metric->parts, metric->n_parts),
                         classes);
}

static void append_last_evaluations(cs_buffer *out, const Consilium__V1__JobStatus *job)
{
    const Consilium__V1__RoundSummary *last = NULL;
    for (size_t i = 0; i < job->n_history; i++) {
        if (job->history[i]->n_evaluations > 0)
            last = job->history[i];
    }
    if (!last)
        return;
    const Consilium__V1__Evaluation *first = last->evaluations[0]->evaluation;
    if (strcmp(first->model, "cohort") == 0 && first->n_metrics > 0) {
        cs_buffer_printf(out, "\ncohort of %.0f patients\n", first->metrics[0]->value);
        return;
    }
    cs_buffer_printf(out, "\nmodel of round %u on held-out rows\n", last->round);
    for (size_t i = 0; i < last->n_evaluations; i++) {
        const Consilium__V1__SiteEvaluation *entry = last->evaluations[i];
        if (strcmp(entry->evaluation->model, "global") != 0)
            continue;
        cs_buffer_printf(out, "  %-16s %-5s %-10s", entry->site[0] ? entry->site : "all sites",
                         entry->evaluation->split, entry->evaluation->standardize);
        for (size_t m = 0; m < entry->evaluation->n_metrics; m++)
            append_metric(out, entry->evaluation->metrics[m]);
        cs_buffer_append_text(out, "\n");
    }
    for (size_t i = 0; i < last->n_evaluations; i++) {
        if (!last->evaluations[i]->site[0])
            append_reliability(out, last->evaluations[i]->evaluation);
    }
}

void cli_print_job(const Consilium__V1__JobStatus *job)
{
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    append_outcome(&out, job);
    cs_hash hash = {0};
    if (cs_hash_from(cs_wire_bytes(job->plan_sha256), "plan hash", &hash) == CS_OK) {
        char text[CS_HASH_TEXT_BYTES], created[CS_TIME_TEXT_BYTES];
        cs_hash_text(&hash, text);
        cs_clock_format((int64_t)job->created_ms, created);
        cs_buffer_printf(&out, "plan %s, submitted %s\n", text, created);
    }
    for (size_t i = 0; i < job->n_sites; i++)
        append_site_line(&out, job->sites[i]);
    for (size_t i = 0; i < job->n_history; i++) {
        if (is_closed(job, i))
            append_round_line(&out, job->history[i], i > 0 ? job->history[i - 1] : NULL);
    }
    append_last_evaluations(&out, job);
    fputs(cs_buffer_text(&out), stdout);
}

/* ---- watching ---- */

struct cli_view {
    bool is_terminal;
    int lines_drawn;
    bool has_rounds;
    uint32_t last_round; /* newest round whose line was printed */
    char last_state[32];
    char last_sites[4096]; /* plain: participations as last printed */
};

cli_view *cli_view_new(bool is_terminal)
{
    cli_view *view = cs_alloc(sizeof *view);
    view->is_terminal = is_terminal;
    return view;
}

void cli_view_free(cli_view *view)
{
    cs_free(view);
}

static int count_lines(const cs_buffer *text)
{
    int lines = 0;
    for (size_t i = 0; i < text->size; i++)
        lines += text->data[i] == '\n';
    return lines;
}

static void append_closed_rounds(cli_view *view, cs_buffer *out, const Consilium__V1__JobStatus *job)
{
    for (size_t i = 0; i < job->n_history; i++) {
        const Consilium__V1__RoundSummary *round = job->history[i];
        if (!is_closed(job, i) || (view->has_rounds && round->round <= view->last_round))
            continue;
        append_round_line(out, round, i > 0 ? job->history[i - 1] : NULL);
        view->has_rounds = true;
        view->last_round = round->round;
    }
}

static void show_on_terminal(cli_view *view, const Consilium__V1__JobStatus *job)
{
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    if (view->lines_drawn > 0)
        cs_buffer_printf(&out, "\033[%dA\033[J", view->lines_drawn);
    append_closed_rounds(view, &out, job);
    CS_AUTO(cs_buffer) live = CS_BUFFER_EMPTY;
    append_outcome(&live, job);
    for (size_t i = 0; i < job->n_sites; i++)
        append_site_line(&live, job->sites[i]);
    view->lines_drawn = count_lines(&live);
    cs_buffer_append(&out, live.data, live.size);
    if (cli_job_has_ended(job->state))
        append_last_evaluations(&out, job);
    fputs(cs_buffer_text(&out), stdout);
}

/* One line for each thing that happened: pipes and logs read it. */
static void show_plainly(cli_view *view, const Consilium__V1__JobStatus *job)
{
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    append_closed_rounds(view, &out, job);
    if (job->state == CONSILIUM__V1__JOB_STATE__JOB_WAITING) {
        CS_AUTO(cs_buffer) sites = CS_BUFFER_EMPTY;
        for (size_t i = 0; i < job->n_sites; i++)
            cs_buffer_printf(&sites, "%s%s %s", i ? ", " : "", job->sites[i]->site,
                             participation(job->sites[i]->participation));
        if (strncmp(cs_buffer_text(&sites), view->last_sites, sizeof view->last_sites - 1) != 0) {
            snprintf(view->last_sites, sizeof view->last_sites, "%s", cs_buffer_text(&sites));
            cs_buffer_printf(&out, "sites: %s\n", cs_buffer_text(&sites));
        }
    }
    if (strcmp(view->last_state, cli_job_state(job->state)) != 0) {
        snprintf(view->last_state, sizeof view->last_state, "%s", cli_job_state(job->state));
        append_outcome(&out, job);
    }
    if (cli_job_has_ended(job->state))
        append_last_evaluations(&out, job);
    fputs(cs_buffer_text(&out), stdout);
}

void cli_view_show(cli_view *view, const Consilium__V1__JobStatus *job)
{
    if (view->is_terminal)
        show_on_terminal(view, job);
    else
        show_plainly(view, job);
}
