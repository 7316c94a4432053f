/* What the agent thread does about tasks while nothing can be done for them, and when a lane is full. */
#include "client/agent/internal.h"
#include "tests/unit/crypto/folder.h"

static void a_time_that_has_passed_does_not_keep_the_thread_awake(void **state)
{
    (void)state;
    struct task task = {.step = STEP_SEND, .due_ms = 1000}; /* and no session to send in */
    cs_agent agent = {.tasks = &task};
    task.agent = &agent;
    cs_clock_fake(999, 0);
    tasks_advance(&agent);
    assert_int_equal(tasks_due(&agent, INT64_MAX), 1000);

    cs_clock_fake_advance(1);
    tasks_advance(&agent);

    assert_true(tasks_due(&agent, INT64_MAX) == INT64_MAX);
    cs_clock_real();
}

static void a_full_lane_refuses_and_the_task_stays_with_the_agent_thread(void **state)
{
    (void)state;
    struct task first = {.step = STEP_RUN}, second = {.step = STEP_RUN, .next = &first};
    cs_agent agent = {.tasks = &second};
    first.agent = second.agent = &agent;
    agent.work.errands = cs_mailbox_new(1); /* of a lane that is busy */
    first.job = second.job = first.phase = second.phase = (char[]){"one"};

    tasks_advance(&agent);

    assert_true(second.is_in_flight);
    assert_false(first.is_in_flight);
    void *errand = NULL;
    must_be_ok(cs_mailbox_take(agent.work.errands, 0, &errand));
    cs_free(errand);
    tasks_advance(&agent);
    assert_true(first.is_in_flight);
    must_be_ok(cs_mailbox_take(agent.work.errands, 0, &errand));
    cs_free(errand);
    cs_mailbox_free(agent.work.errands);
    cs_free(agent.shown_task);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_time_that_has_passed_does_not_keep_the_thread_awake),
        cmocka_unit_test(a_full_lane_refuses_and_the_task_stays_with_the_agent_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
