/* The site's rules for plans and the words of `plan show`. Called by the agent thread. */
#include "client/agent/policy.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define RULES_SHOWN    3
#define COLUMNS_SHOWN  60
#define LEVELS_SHOWN   12
#define PERSON_DECIDES "a person must decide: consilium-client plan show " /* and the plan's name */

/* ---- rules ---- */

/* True when the rule fits; otherwise says what does not. */
static bool fits(const cs_policy_rule *rule, const cs_plan *plan, size_t invited_count, cs_buffer *why_not)
{
    const char *model = cs_model_kind_name(plan->model.kind);

    if (rule->dataset && strcmp(rule->dataset, plan->dataset.name) != 0)
        cs_buffer_printf(why_not, "is for the data set '%s', the plan uses '%s'", rule->dataset, plan->dataset.name);
    else if (rule->models.count > 0 && plan->federation == CS_VERTICAL)
        cs_buffer_append_text(why_not, "lists models, the plan trains none");
    else if (rule->models.count > 0 && !cs_names_have(&rule->models, model))
        cs_buffer_printf(why_not, "does not list the model '%s'", model);
    else if (rule->rounds_maximum > 0 && plan->training.rounds > rule->rounds_maximum)
        cs_buffer_printf(why_not, "allows %u rounds, the plan has %u", rule->rounds_maximum, plan->training.rounds);
    else if (rule->sites_minimum > plan->sites.minimum)
        cs_buffer_printf(why_not, "wants at least %u sites in every round, the plan is content with %u",
                         rule->sites_minimum, plan->sites.minimum);
    else if (rule->sites_minimum > invited_count)
        cs_buffer_printf(why_not, "wants at least %u sites, %zu are invited", rule->sites_minimum, invited_count);
    else
        return true;
    return false;
}

static void ask_person(const cs_site_config *config, const cs_plan *plan, const cs_buffer *why_not,
                       cs_policy_verdict *ret)
{
    ret->decision = CS_POLICY_ASKS;
    if (config->approve_count == 0)
        snprintf(ret->reason, sizeof ret->reason, "the policy approves nothing by itself; " PERSON_DECIDES "%s",
                 plan->name);
    else
        snprintf(ret->reason, sizeof ret->reason, "no rule of the policy fits%s; " PERSON_DECIDES "%s",
                 cs_buffer_text(why_not), plan->name);
}

/* Can the split put rows into validation at all? */
static bool can_validate(const cs_site_dataset *dataset)
{
    if (dataset->has_fractions)
        return dataset->valid_fraction > 0;
    /* What fits no rule goes to the first part without one. */
    return dataset->valid.column || dataset->train.column;
}

/* What a site does not do whoever asks. */
static bool may_align(const cs_site_config *config, const cs_plan *plan, char *reason, size_t size)
{
    const cs_alignment_policy *policy = &config->alignment;
    const bool is_two_party = plan->sites.invite.count == 2;
    const uint64_t declared = (uint64_t)plan->alignment.patients * plan->alignment.keys_count;

    if (!(policy->modes & (is_two_party ? CS_ALIGNMENT_TWO_PARTY : CS_ALIGNMENT_PATTERN)))
        snprintf(reason, size, "the plan aligns %zu sites (%s), policy.alignment.modes does not list that",
                 plan->sites.invite.count, is_two_party ? "two_party" : "pattern");
    else if (plan->alignment.minimum < policy->minimum)
        snprintf(reason, size,
                 "the plan tells cohorts of %" PRIu32 " patients or more, policy.alignment.minimum is %" PRIu32,
                 plan->alignment.minimum, policy->minimum);
    else if (declared > policy->session_tokens)
        snprintf(reason, size,
                 "the plan declares %" PRIu32 " patients with %zu kinds of key, %" PRIu64
                 " points; the policy allows %" PRIu64 " a session",
                 plan->alignment.patients, plan->alignment.keys_count, declared, policy->session_tokens);
    else
        reason[0] = '\0';
    for (size_t i = 0; i < plan->sites.invite.count && policy->peers.count > 0 && reason[0] == '\0'; i++) {
        const char *site = plan->sites.invite.items[i];
        if (strcmp(site, config->site) != 0 && !cs_names_have(&policy->peers, site))
            snprintf(reason, size, "the plan aligns with site '%s', policy.alignment.peers does not list it", site);
    }
    return reason[0] == '\0';
}

void cs_policy_decide(const cs_site_config *config, const cs_plan *plan, size_t invited_count, cs_policy_verdict *ret)
{
    CS_AUTO(cs_buffer) why_not = CS_BUFFER_EMPTY;

    *ret = (cs_policy_verdict){.decision = CS_POLICY_REFUSED};
    if (!plan->sites.invites_all && !cs_names_have(&plan->sites.invite, config->site)) {
        snprintf(ret->reason, sizeof ret->reason, "the plan does not invite the site '%s'", config->site);
        return;
    }
    if (!cs_site_config_dataset(config, plan->dataset.name)) {
        snprintf(ret->reason, sizeof ret->reason,
                 "the data set '%s' is not here: site.yaml has no datasets.%s (found %zu data sets)",
                 plan->dataset.name, plan->dataset.name, config->datasets_count);
        return;
    }
    if (plan->federation == CS_VERTICAL && !may_align(config, plan, ret->reason, sizeof ret->reason))
        return;
    if (plan->training.early_stopping.is_on && !can_validate(cs_site_config_dataset(config, plan->dataset.name))) {
        snprintf(ret->reason, sizeof ret->reason,
                 "the plan stops early by its validation rows, and the split of data set '%s' makes none: "
                 "datasets.%s.split.valid, or fractions with valid, is missing",
                 plan->dataset.name, plan->dataset.name);
        return;
    }
    for (size_t i = 0; i < config->approve_count; i++) {
        CS_AUTO(cs_buffer) reason = CS_BUFFER_EMPTY;
        if (fits(&config->approve[i], plan, invited_count, &reason)) {
            ret->decision = CS_POLICY_APPROVED;
            ret->rule = i;
            snprintf(ret->reason, sizeof ret->reason, "approved by rule %zu of the policy", i + 1);
            return;
        }
        if (i < RULES_SHOWN)
            cs_buffer_printf(&why_not, "%s rule %zu %s", i ? "," : ":", i + 1, cs_buffer_text(&reason));
        else if (i == RULES_SHOWN)
            cs_buffer_printf(&why_not, ", and %zu more", config->approve_count - RULES_SHOWN);
    }
    ask_person(config, plan, &why_not, ret);
}

/* ---- summary ---- */

static const char *name_here(const cs_site_dataset *dataset, const char *name)
{
    for (size_t i = 0; dataset && i < dataset->columns_count; i++) {
        if (strcmp(dataset->columns[i].plan, name) == 0)
            return dataset->columns[i].here;
    }
    return name;
}

static void append_column(cs_buffer *out, const cs_site_dataset *dataset, const char *name)
{
    const char *here = name_here(dataset, name);

    cs_buffer_append_text(out, name);
    if (here != name)
        cs_buffer_printf(out, " (here '%s')", here);
}

static void append_numbers(cs_buffer *out, const double *numbers, size_t count)
{
    for (size_t i = 0; i < CS_MIN(count, (size_t)LEVELS_SHOWN); i++)
        cs_buffer_printf(out, "%s%.15g", i ? ", " : "", numbers[i]);
    if (count > LEVELS_SHOWN)
        cs_buffer_printf(out, " and %zu more", count - LEVELS_SHOWN);
}

static void append_names(cs_buffer *out, const cs_names *names)
{
    for (size_t i = 0; i < CS_MIN(names->count, (size_t)COLUMNS_SHOWN); i++)
        cs_buffer_printf(out, "%s%s", i ? ", " : "", names->items[i]);
    if (names->count > COLUMNS_SHOWN)
        cs_buffer_printf(out, " and %zu more", names->count - COLUMNS_SHOWN);
}

static void summarize_data(const cs_plan *plan, const cs_site_dataset *dataset, cs_buffer *out)
{
    const cs_label *label = &plan->dataset.label;

    cs_buffer_printf(out, "data set     %s", plan->dataset.name);
    if (dataset)
        cs_buffer_printf(out, ", here the table %s\n", dataset->table);
    else
        cs_buffer_append_text(out, ", which this site does not have\n");

    cs_buffer_append_text(out, "columns      ");
    for (size_t i = 0; i < CS_MIN(plan->dataset.features_count, (size_t)COLUMNS_SHOWN); i++) {
        const cs_feature *feature = &plan->dataset.features[i];
        cs_buffer_append_text(out, i ? ", " : "");
        append_column(out, dataset, feature->name);
        if (feature->levels_count) {
            cs_buffer_append_text(out, " as 0/1 for ");
            append_numbers(out, feature->levels, feature->levels_count);
        }
    }
    if (plan->dataset.features_count > COLUMNS_SHOWN)
        cs_buffer_printf(out, " and %zu more", plan->dataset.features_count - COLUMNS_SHOWN);

    cs_buffer_append_text(out, label->classes_count > 0 ? "\nlabel        " : "\nlabel        1 where ");
    append_column(out, dataset, label->column);
    if (label->has_above) {
        cs_buffer_printf(out, " is above %.15g, else 0\n", label->above);
    } else if (label->positive_count > 0) {
        cs_buffer_append_text(out, " is one of ");
        append_numbers(out, label->positive, label->positive_count);
        cs_buffer_append_text(out, ", else 0\n");
    } else {
        cs_buffer_printf(out, " is one of %zu classes: ", label->classes_count);
        append_numbers(out, label->classes, label->classes_count);
        cs_buffer_append_text(out, "\n");
    }
    cs_buffer_printf(out, "rows         %s; consilium-client doctor lets a confined worker count them\n",
                     plan->dataset.missing == CS_MISSING_DROP
                         ? "those that have all of these values; the others are left out"
                         : "all; a missing value ends the work with an error");
}

static const char *scaling_words(cs_standardize standardize)
{
    switch (standardize) {
    case CS_STANDARDIZE_NONE:
        return "as they are";
    case CS_STANDARDIZE_PLAN:
        return "by means and deviations that stand in the plan";
    case CS_STANDARDIZE_FEDERATED:
        return "by means and deviations over all sites' training rows";
    case CS_STANDARDIZE_SITE:
        return "by this site's own means and deviations, which stay here";
    }
    return "";
}

/* One weight for each input of each unit and one bias a unit, 32 bits each. */
static uint64_t parameter_count(const cs_plan *plan)
{
    uint64_t count = 0, inputs = plan->dataset.columns_count;
    for (size_t i = 0; i < plan->model.hidden_count; i++) {
        count += (inputs + 1) * plan->model.hidden[i];
        inputs = plan->model.hidden[i];
    }
    return count + (inputs + 1) * cs_plan_outputs(plan);
}

static void summarize_work(const cs_plan *plan, cs_buffer *out)
{
    bool counts_steps = plan->training.local_steps > 0;

    cs_buffer_printf(out, "scaling      %s\n", scaling_words(plan->dataset.standardize));
    cs_buffer_printf(out, "model        %s with %" PRIu64 " numbers\n", cs_model_kind_name(plan->model.kind),
                     parameter_count(plan));
    cs_buffer_printf(out, "training     %u rounds of %u %s, %u rows a step, %s with learning rate %.15g\n",
                     plan->training.rounds, counts_steps ? plan->training.local_steps : plan->training.local_epochs,
                     counts_steps ? "steps" : "passes over the training rows", plan->training.batch_size,
                     cs_optimizer_kind_name(plan->training.optimizer.kind), plan->training.optimizer.learning_rate);
    if (plan->training.early_stopping.is_on)
        cs_buffer_printf(out,
                         "             ends early when %s on validation rows has not improved for %u evaluations\n",
                         cs_metric_name(plan->training.early_stopping.metric), plan->training.early_stopping.patience);
    if (plan->training.optimizer.memory == CS_OPTIMIZER_KEEPS)
        cs_buffer_append_text(out, "stays here   what the optimizer remembers from round to round\n");
}

static void append_metrics(const cs_plan *plan, cs_buffer *out)
{
    static const cs_standardize scalings[] = {CS_STANDARDIZE_NONE, CS_STANDARDIZE_PLAN, CS_STANDARDIZE_FEDERATED,
                                              CS_STANDARDIZE_SITE};
    const char *comma = "";

    for (size_t i = 0; i < CS_METRICS_MAX; i++) {
        if (plan->evaluation.metrics & (unsigned)cs_metrics[i]) {
            cs_buffer_printf(out, "%s%s", comma, cs_metric_name(cs_metrics[i]));
            comma = ", ";
        }
    }
    if (plan->evaluation.metrics & CS_METRIC_AUC)
        cs_buffer_append_text(out, " (with the number of pairs behind the auc)");
    if (plan->evaluation.metrics & CS_METRIC_CALIBRATION_ERROR)
        cs_buffer_printf(out, " (with rows, predicted and observed sums of %u bins)", plan->evaluation.bins);
    cs_buffer_append_text(out, " on the held-out rows and how many those are, scaled by ");
    comma = "";
    for (size_t i = 0; i < CS_COUNT(scalings); i++) {
        if (plan->evaluation.standardize & scalings[i]) {
            cs_buffer_printf(out, "%s%s", comma, cs_standardize_name(scalings[i]));
            comma = ", ";
        }
    }
}

static void summarize_what_leaves(const cs_plan *plan, cs_buffer *out)
{
    if (cs_plan_needs_class_counts(plan))
        cs_buffer_printf(out, "sent once    how many training rows each of the %zu classes of the label has\n",
                         cs_plan_classes(plan));
    if (cs_plan_needs_moments(plan))
        cs_buffer_printf(out,
                         "sent once    for each of %zu columns the sum and the sum of squares over the training rows, "
                         "and how many rows: %zu numbers\n",
                         plan->dataset.columns_count, 2 * plan->dataset.columns_count + 1);
    cs_buffer_printf(out,
                     "sent a round the change of the model's %" PRIu64 " numbers (%" PRIu64
                     " bytes and a header), the mean loss, how many training rows\n",
                     parameter_count(plan), 4 * parameter_count(plan));
    cs_buffer_append_text(out, "evaluation   ");
    if (plan->evaluation.metrics)
        append_metrics(plan, out);
    else
        cs_buffer_append_text(out, "none");
    cs_buffer_append_text(out, "\nnot sent     rows, identifiers, predictions of single patients\n");
}

static void summarize_company(const cs_plan *plan, cs_buffer *out)
{
    cs_buffer_printf(out, "with others  at least %u sites in every round; invited: ", plan->sites.minimum);
    if (plan->sites.invites_all)
        cs_buffer_append_text(out, "all");
    else
        append_names(out, &plan->sites.invite);
    if (plan->sites.require.count) {
        cs_buffer_append_text(out, "; required: ");
        append_names(out, &plan->sites.require);
    }
    cs_buffer_append_text(out, "\n");
}

/* ---- summary of an alignment ---- */

static void summarize_keys(const cs_plan *plan, cs_buffer *out)
{
    const cs_alignment *alignment = &plan->alignment;
    for (size_t i = 0; i < alignment->keys_count; i++) {
        cs_buffer_append_text(out, i == 0 ? "keys         " : "             ");
        for (size_t part = 0; part < alignment->keys[i].parts_count; part++)
            cs_buffer_printf(out, "%s%s", part ? ", " : "", cs_identity_part_name(alignment->keys[i].parts[part]));
        cs_buffer_append_text(out, "\n");
    }
}

static void summarize_alignment(const cs_plan *plan, const cs_site_config *config, cs_buffer *out)
{
    const cs_alignment *alignment = &plan->alignment;
    const cs_site_dataset *dataset = cs_site_config_dataset(config, plan->dataset.name);
    const bool leads = strcmp(alignment->leader, config->site) == 0;
    const size_t others = plan->sites.invite.count - 1;

    cs_buffer_printf(out, "data set     %s", plan->dataset.name);
    if (dataset)
        cs_buffer_printf(out, ", here the table %s\n", dataset->table);
    else
        cs_buffer_append_text(out, ", which this site does not have\n");
    cs_buffer_printf(out, "what for     the patients that the sites have in common, for the study '%s'; no model\n",
                     alignment->study);
    summarize_keys(plan, out);
    if (alignment->needs_all)
        cs_buffer_printf(out, "cohort       patients of '%s' that are found at every other site\n", alignment->leader);
    else
        cs_buffer_printf(out, "cohort       patients of '%s' that are found at %" PRIu32 " other sites or more\n",
                         alignment->leader, alignment->any_of);
    cs_buffer_printf(out,
                     "sent         each patient's keys as %zu point%s, masked with a secret of this site, in random "
                     "order, padded, sealed for the next site: to the other %zu; at most %" PRIu64 " patients\n",
                     alignment->keys_count, alignment->keys_count == 1 ? "" : "s", others,
                     (uint64_t)alignment->patients * 6 / 5);
    cs_buffer_append_text(out, "coordinator  learns who takes part, when, padded sizes, and how large the cohort is\n");
    cs_buffer_append_text(out, "other sites  learn how many patients each list has, padded\n");
    if (leads)
        cs_buffer_append_text(out,
                              "this site    leads: it learns which of its patients which site has, and which kinds "
                              "of key agree\n");
    else if (alignment->is_mutual)
        cs_buffer_printf(
            out,
            "this site    learns which of its patients are in the cohort; '%s' learns which of its own are "
            "here, and which kinds of key agree\n",
            alignment->leader);
    else
        cs_buffer_printf(out,
                         "this site    learns nothing; '%s' learns which of its own patients are here, and which "
                         "kinds of key agree\n",
                         alignment->leader);
    if (alignment->minimum > 1)
        cs_buffer_printf(out, "too few      with fewer than %" PRIu32 " common patients nobody is told any of them\n",
                         alignment->minimum);
    else
        cs_buffer_append_text(out, "too few      the plan sets no minimum: even a single common patient is told\n");
    cs_buffer_append_text(out,
                          "not sent     names, dates, numbers, or anything that one could be found by without this "
                          "site's secret\n");
    cs_buffer_append_text(out, "with others  all of: ");
    append_names(out, &plan->sites.invite);
    cs_buffer_append_text(out, "; by the keys in the roster that was approved here (consilium-client roster show)\n");
}

void cs_plan_summary(const cs_plan *plan, const cs_site_config *config, cs_buffer *out)
{
    cs_buffer_printf(out, "plan         %s\n", plan->name);
    if (plan->federation == CS_VERTICAL) {
        summarize_alignment(plan, config, out);
        return;
    }
    summarize_data(plan, cs_site_config_dataset(config, plan->dataset.name), out);
    summarize_work(plan, out);
    summarize_what_leaves(plan, out);
    summarize_company(plan, out);
}
