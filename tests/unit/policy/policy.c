/* What the site's rules say about plans, and what a person is told. */
#include "client/agent/policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define SITE     "site: mercy\ncoordinator: c:8443\n"
#define DATASETS "datasets: {heart-v1: {table: data/heart.csv, columns: {trestbps: resting_bp}}}\n"

static const char plan_text[] =
    "plan: heart-disease\nfederation: horizontal\nsites: {invite: [mercy, stluke, general], minimum: 3}\n"
    "dataset: {name: heart-v1, kind: table, features: [age, trestbps, {name: cp, levels: [2, 3, 4]}], label: {column: "
    "num, above: 0}, missing: drop, standardize: federated}\n"
    "model: {kind: logistic_regression}\n"
    "training: {rounds: 15, local_steps: 100, batch_size: 4, optimizer: {kind: sgd, learning_rate: 0.001}, loss: bce}\n"
    "evaluation: {metrics: [auc, accuracy], standardize: [site, federated]}\n";

static cs_plan *plan_of(const char *text)
{
    cs_plan *plan = NULL;

    if (cs_plan_read(cs_bytes_of_text(text), "plan.yaml", &plan) != CS_OK)
        fail_msg("%s", cs_error_text());
    return plan;
}

static cs_site_config *site_of(const char *text)
{
    cs_site_config *config = NULL;

    if (cs_site_config_read(cs_bytes_of_text(text), "site.yaml", "/site", &config) != CS_OK)
        fail_msg("%s", cs_error_text());
    return config;
}

/* The verdict on the plan above. */
static cs_policy_verdict decide(const char *site, size_t invited_count)
{
    CS_AUTO_PTR(cs_plan) plan = plan_of(plan_text);
    CS_AUTO_PTR(cs_site_config) config = site_of(site);
    cs_policy_verdict verdict;

    cs_policy_decide(config, plan, invited_count, &verdict);
    return verdict;
}

static void a_plan_that_fits_a_rule_is_approved_by_its_number(void **state)
{
    (void)state;

    cs_policy_verdict verdict =
        decide(SITE DATASETS "policy: {approve: [{dataset: other}, {dataset: heart-v1, model: [mlp, "
                             "logistic_regression], rounds: {maximum: 15}, sites: {minimum: 3}}]}\n",
               3);

    assert_int_equal(verdict.decision, CS_POLICY_APPROVED);
    assert_int_equal(verdict.rule, 1);
    assert_string_equal(verdict.reason, "approved by rule 2 of the policy");
}

static void without_rules_a_person_decides(void **state)
{
    (void)state;

    cs_policy_verdict verdict = decide(SITE DATASETS, 3);

    assert_int_equal(verdict.decision, CS_POLICY_ASKS);
    assert_string_equal(verdict.reason, "the policy approves nothing by itself; a person must decide: "
                                        "consilium-client plan show heart-disease");
}

static void an_empty_rule_approves_any_plan(void **state)
{
    (void)state;

    assert_int_equal(decide(SITE DATASETS "policy: {approve: [{}]}\n", 1).decision, CS_POLICY_APPROVED);
}

static void each_condition_that_fails_is_said_to_the_person(void **state)
{
    (void)state;
    static const struct {
        const char *rule;
        const char *reason;
    } cases[] = {
        {"{dataset: lungs}", "rule 1 is for the data set 'lungs', the plan uses 'heart-v1'"},
        {"{model: mlp}", "rule 1 does not list the model 'logistic_regression'"},
        {"{rounds: {maximum: 14}}", "rule 1 allows 14 rounds, the plan has 15"},
        {"{sites: {minimum: 4}}", "rule 1 wants at least 4 sites in every round, the plan is content with 3"},
        {"{model: mlp}, {rounds: {maximum: 1}}", "rule 1 does not list the model 'logistic_regression', rule 2 allows"},
    };
    for (size_t i = 0; i < CS_COUNT(cases); i++) {
        CS_AUTO(cs_string) site = cs_format(SITE DATASETS "policy: {approve: [%s]}\n", cases[i].rule);

        cs_policy_verdict verdict = decide(site, 3);

        assert_int_equal(verdict.decision, CS_POLICY_ASKS);
        if (!strstr(verdict.reason, cases[i].reason))
            fail_msg("found \"%s\", expected \"%s\"", verdict.reason, cases[i].reason);
    }
}

static void a_coordinator_that_invites_fewer_than_the_rule_wants_is_not_approved(void **state)
{
    (void)state;
    const char *site = SITE DATASETS "policy: {approve: [{sites: {minimum: 3}}]}\n";

    assert_int_equal(decide(site, 3).decision, CS_POLICY_APPROVED);
    cs_policy_verdict verdict = decide(site, 2);

    assert_int_equal(verdict.decision, CS_POLICY_ASKS);
    assert_non_null(strstr(verdict.reason, "wants at least 3 sites, 2 are invited"));
}

/* The minimum of the plan counts, not how many are invited: a round might close with so few. */
static void a_coordinator_that_claims_many_sites_gains_nothing(void **state)
{
    (void)state;

    assert_int_equal(decide(SITE DATASETS "policy: {approve: [{sites: {minimum: 4}}]}\n", 1000).decision,
                     CS_POLICY_ASKS);
}

static void a_data_set_that_is_not_here_is_refused_even_with_a_rule_for_all(void **state)
{
    (void)state;

    cs_policy_verdict verdict = decide(SITE "policy: {approve: [{}]}\n", 3);

    assert_int_equal(verdict.decision, CS_POLICY_REFUSED);
    assert_non_null(strstr(verdict.reason, "the data set 'heart-v1' is not here"));
}

static void a_plan_that_does_not_invite_this_site_is_refused(void **state)
{
    (void)state;

    cs_policy_verdict verdict =
        decide("site: elsewhere\ncoordinator: c:8443\n" DATASETS "policy: {approve: [{}]}\n", 3);

    assert_int_equal(verdict.decision, CS_POLICY_REFUSED);
    assert_string_equal(verdict.reason, "the plan does not invite the site 'elsewhere'");
}

static void many_rules_make_a_short_sentence(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) site = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&site, SITE DATASETS "policy:\n  approve:\n");
    for (int i = 0; i < 1000; i++)
        cs_buffer_append_text(&site, "  - {model: mlp}\n");

    cs_policy_verdict verdict = decide(cs_buffer_text(&site), 3);

    assert_int_equal(verdict.decision, CS_POLICY_ASKS);
    assert_non_null(strstr(verdict.reason, "and 997 more; a person must decide"));
}

static void the_summary_says_what_is_used_and_what_leaves(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = plan_of(plan_text);
    CS_AUTO_PTR(cs_site_config) config = site_of(SITE DATASETS);
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;

    cs_plan_summary(plan, config, &out);

    assert_string_equal(
        cs_buffer_text(&out),
        "plan         heart-disease\n"
        "data set     heart-v1, here the table data/heart.csv\n"
        "columns      age, trestbps (here 'resting_bp'), cp as 0/1 for 2, 3, 4\n"
        "label        1 where num is above 0, else 0\n"
        "rows         those that have all of these values; the others are left out; consilium-client doctor lets a "
        "confined worker count them\n"
        "scaling      by means and deviations over all sites' training rows\n"
        "model        logistic_regression with 6 numbers\n"
        "training     15 rounds of 100 steps, 4 rows a step, sgd with learning rate 0.001\n"
        "sent once    for each of 5 columns the sum and the sum of squares over the training rows, and how many rows: "
        "11 numbers\n"
        "sent a round the change of the model's 6 numbers (24 bytes and a header), the mean loss, how many training "
        "rows\n"
        "evaluation   accuracy, auc (with the number of pairs behind the auc) on the held-out rows and how many those "
        "are, scaled by federated, site\n"
        "not sent     rows, identifiers, predictions of single patients\n"
        "with others  at least 3 sites in every round; invited: mercy, stluke, general\n");
}

static const char early_plan[] =
    "plan: stages\nfederation: horizontal\nsites: {invite: [mercy, stluke], minimum: 2}\n"
    "dataset: {name: heart-v1, kind: table, features: [age], label: {column: num, classes: [0, 1, 2]}, standardize: "
    "site}\nmodel: {kind: mlp, hidden: [4]}\n"
    "training: {rounds: 9, local_epochs: 1, batch_size: 8, optimizer: {kind: adam, learning_rate: 0.1, state: keep}, "
    "loss: {kind: cross_entropy, class_weights: balanced}, early_stopping: {metric: log_loss, patience: 2}}\n"
    "evaluation: {metrics: [log_loss, calibration_error]}\n";

static void a_plan_that_needs_validation_rows_is_refused_where_the_split_makes_none(void **state)
{
    (void)state;
    static const char site[] = SITE "datasets: {heart-v1: {table: t.csv, split: {by: row, %s}}}\n"
                                    "policy: {approve: [{}]}\n";
    static const struct {
        const char *split;
        cs_policy_decision decision;
    } cases[] = {{"test: {column: fold, value: test}", CS_POLICY_REFUSED},
                 {"fractions: {train: 0.8, test: 0.2}", CS_POLICY_REFUSED},
                 {"fractions: {train: 0.7, valid: 0.1, test: 0.2}", CS_POLICY_APPROVED},
                 {"valid: {column: fold, value: valid}, test: {column: fold, value: test}", CS_POLICY_APPROVED}};
    CS_AUTO_PTR(cs_plan) plan = plan_of(early_plan);
    for (size_t i = 0; i < CS_COUNT(cases); i++) {
        CS_AUTO(cs_string) text = cs_format(site, cases[i].split);
        CS_AUTO_PTR(cs_site_config) config = site_of(text);
        cs_policy_verdict verdict;

        cs_policy_decide(config, plan, 2, &verdict);

        assert_int_equal(verdict.decision, cases[i].decision);
        if (verdict.decision == CS_POLICY_REFUSED)
            assert_non_null(strstr(verdict.reason, "datasets.heart-v1.split.valid"));
    }
}

static void the_summary_says_what_a_network_with_classes_sends_and_keeps(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = plan_of(early_plan);
    CS_AUTO_PTR(cs_site_config) config = site_of(SITE DATASETS);
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;

    cs_plan_summary(plan, config, &out);

    static const char *const lines[] = {
        "\nlabel        num is one of 3 classes: 0, 1, 2\n",
        "\nmodel        mlp with 23 numbers\n",
        "\n             ends early when log_loss on validation rows has not improved for 2 evaluations\n",
        "\nstays here   what the optimizer remembers from round to round\n",
        "\nsent once    how many training rows each of the 3 classes of the label has\n",
        "calibration_error (with rows, predicted and observed sums of 15 bins)"};
    for (size_t i = 0; i < CS_COUNT(lines); i++) {
        if (!strstr(cs_buffer_text(&out), lines[i]))
            fail_msg("not found: %s in\n%s", lines[i], cs_buffer_text(&out));
    }
    assert_null(strstr(cs_buffer_text(&out), "sum of squares"));
}

static void the_summary_of_a_data_set_that_is_not_here_says_so(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = plan_of(plan_text);
    CS_AUTO_PTR(cs_site_config) config = site_of(SITE);
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;

    cs_plan_summary(plan, config, &out);

    assert_non_null(strstr(cs_buffer_text(&out), "heart-v1, which this site does not have\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_that_fits_a_rule_is_approved_by_its_number),
        cmocka_unit_test(without_rules_a_person_decides),
        cmocka_unit_test(an_empty_rule_approves_any_plan),
        cmocka_unit_test(each_condition_that_fails_is_said_to_the_person),
        cmocka_unit_test(a_coordinator_that_invites_fewer_than_the_rule_wants_is_not_approved),
        cmocka_unit_test(a_coordinator_that_claims_many_sites_gains_nothing),
        cmocka_unit_test(a_data_set_that_is_not_here_is_refused_even_with_a_rule_for_all),
        cmocka_unit_test(a_plan_that_does_not_invite_this_site_is_refused),
        cmocka_unit_test(many_rules_make_a_short_sentence),
        cmocka_unit_test(the_summary_says_what_is_used_and_what_leaves),
        cmocka_unit_test(a_plan_that_needs_validation_rows_is_refused_where_the_split_makes_none),
        cmocka_unit_test(the_summary_says_what_a_network_with_classes_sends_and_keeps),
        cmocka_unit_test(the_summary_of_a_data_set_that_is_not_here_says_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
