/* The agent's Unix socket, from both ends. */
#include "client/agent/control.h"
#include "tests/unit/crypto/folder.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const Consilium__V1__ControlAnswer *answer_with_status(void *self, const Consilium__V1__ControlRequest *request,
                                                              cs_arena *arena)
{
    (void)self;
    Consilium__V1__ControlAnswer *answer = cs_arena_alloc(arena, sizeof(*answer));
    consilium__v1__control_answer__init(answer);
    if (request->body_case != CONSILIUM__V1__CONTROL_REQUEST__BODY_STATUS) {
        answer->code = CS_NOT_FOUND;
        answer->error = (char *)(uintptr_t) "no such plan";
        return answer;
    }
    answer->status = cs_arena_alloc(arena, sizeof(*answer->status));
    consilium__v1__agent_status__init(answer->status);
    answer->status->site = (char *)(uintptr_t) "mercy";
    return answer;
}

static cs_status ask(const char *folder, Consilium__V1__ControlRequest__BodyCase kind, cs_arena *arena,
                     Consilium__V1__ControlAnswer **ret)
{
    Consilium__V1__StatusRequest status = CONSILIUM__V1__STATUS_REQUEST__INIT;
    Consilium__V1__PlanListRequest list = CONSILIUM__V1__PLAN_LIST_REQUEST__INIT;
    Consilium__V1__ControlRequest request = CONSILIUM__V1__CONTROL_REQUEST__INIT;
    request.body_case = kind;
    if (kind == CONSILIUM__V1__CONTROL_REQUEST__BODY_STATUS)
        request.status = &status;
    else
        request.plan_list = &list;
    return cs_control_ask(folder, &request, arena, ret);
}

static void a_question_is_answered_and_an_error_comes_back_as_one(void **state)
{
    cs_control *control = NULL;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    Consilium__V1__ControlAnswer *answer = NULL;
    must_be_ok(cs_control_start(*state, answer_with_status, NULL, &control));

    must_be_ok(ask(*state, CONSILIUM__V1__CONTROL_REQUEST__BODY_STATUS, arena, &answer));
    assert_string_equal(answer->status->site, "mercy");
    must_fail(ask(*state, CONSILIUM__V1__CONTROL_REQUEST__BODY_PLAN_LIST, arena, &answer), CS_NOT_FOUND,
              "no such plan");
    cs_control_stop(control);
}

static void without_an_agent_it_says_how_to_start_one(void **state)
{
    cs_control *control = NULL;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    Consilium__V1__ControlAnswer *answer = NULL;
    CS_AUTO(cs_string) nowhere = cs_path_join(*state, "nowhere");

    must_fail(ask(*state, CONSILIUM__V1__CONTROL_REQUEST__BODY_STATUS, arena, &answer), CS_UNAVAILABLE, "run");
    must_fail(ask(nowhere, CONSILIUM__V1__CONTROL_REQUEST__BODY_STATUS, arena, &answer), CS_UNAVAILABLE, "run");
    must_be_ok(cs_control_start(*state, answer_with_status, NULL, &control));
    cs_control_stop(control);
    must_fail(ask(*state, CONSILIUM__V1__CONTROL_REQUEST__BODY_STATUS, arena, &answer), CS_UNAVAILABLE, "run");
}

static void the_socket_is_its_owners_alone_and_a_stale_one_is_replaced(void **state)
{
    CS_AUTO(cs_string) path = cs_path_join(*state, CS_CONTROL_SOCKET);
    must_be_ok(cs_file_write_atomic(path, cs_bytes_of_text("stale"), 0644));
    cs_control *control = NULL;

    must_be_ok(cs_control_start(*state, answer_with_status, NULL, &control));

    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_true(S_ISSOCK(info.st_mode));
    assert_int_equal(info.st_mode & 0777, 0600);
    cs_control_stop(control);
}

static void nonsense_ends_one_connection_and_not_the_service(void **state)
{
    cs_control *control = NULL;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    Consilium__V1__ControlAnswer *answer = NULL;
    must_be_ok(cs_control_start(*state, answer_with_status, NULL, &control));
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    CS_AUTO(cs_string) path = cs_path_join(*state, CS_CONTROL_SOCKET);
    snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", path);
    static const char *const nonsense[] = {"\xff\xff\xff\xff", "GET / HTTP/1.1\r\n\r\n", ""};
    for (size_t i = 0; i < CS_COUNT(nonsense); i++) {
        CS_AUTO(cs_fd) fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        must_be_ok(cs_file_write(fd, nonsense[i], strlen(nonsense[i])));
    }

    must_be_ok(ask(*state, CONSILIUM__V1__CONTROL_REQUEST__BODY_STATUS, arena, &answer));
    cs_control_stop(control);
}

static void a_state_directory_with_a_very_long_path_works(void **state)
{
    char part[120];
    memset(part, 'a', sizeof(part) - 1);
    part[sizeof(part) - 1] = '\0';
    CS_AUTO(cs_string) folder = cs_format("%s/%s/%s", (const char *)*state, part, part);
    must_be_ok(cs_folder_make(folder, 0700));
    cs_control *control = NULL;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    Consilium__V1__ControlAnswer *answer = NULL;

    must_be_ok(cs_control_start(folder, answer_with_status, NULL, &control));
    must_be_ok(ask(folder, CONSILIUM__V1__CONTROL_REQUEST__BODY_STATUS, arena, &answer));
    cs_control_stop(control);
}

#define FOLDER_TEST(function) cmocka_unit_test_setup_teardown(function, folder_make, folder_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(a_question_is_answered_and_an_error_comes_back_as_one),
        FOLDER_TEST(without_an_agent_it_says_how_to_start_one),
        FOLDER_TEST(the_socket_is_its_owners_alone_and_a_stale_one_is_replaced),
        FOLDER_TEST(nonsense_ends_one_connection_and_not_the_service),
        FOLDER_TEST(a_state_directory_with_a_very_long_path_works),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
