/* One upload by the agent's own transfer code to a running coordinator, timed: from the announcement until the
 * coordinator says that the blob is complete, which means durable. The file is taken into a blob store first, as the
 * agent does with a worker's result, and the connection stands before the clock starts. Run by tests/bench/transfer.py
 * for a task that is open. Prints one line of JSON. */
#include "client/agent/enrol.h"
#include "client/agent/transfer.h"
#include "common/base/clock.h"
#include "common/base/command.h"

#include <stdio.h>
#include <string.h>

static bool go_on(void *self, uint64_t done, uint64_t total)
{
    (void)self;
    (void)done;
    (void)total;
    return true;
}

static cs_status upload(const cs_arguments *arguments, int64_t round)
{
    const char *state = cs_argument(arguments, "--state");
    CS_AUTO(cs_site_identity) identity = {0};
    CS_TRY(cs_site_identity_load(state, &identity));
    CS_AUTO(cs_string) folder = cs_path_join(state, "bench-blobs");
    CS_AUTO_PTR(cs_blobs) blobs = NULL;
    CS_TRY(cs_blobs_open(folder, &blobs));
    cs_hash hash;
    Consilium__V1__Blob blob = CONSILIUM__V1__BLOB__INIT;
    CS_TRY(cs_blobs_adopt(blobs, cs_argument(arguments, "--file"), &hash, &blob.size));
    blob.name = (char[]){"update"};
    blob.sha256 = cs_wire_data(hash.bytes, sizeof(hash.bytes));

    cs_rpc_channel_config config = {.target = identity.coordinator,
                                    .identity = {.certificate_pem = cs_buffer_view(&identity.certificate_pem),
                                                 .key_pem = cs_buffer_view(&identity.key_pem),
                                                 .authority_pem = cs_buffer_view(&identity.authority_pem)}};
    CS_AUTO_PTR(cs_link) link = NULL;
    CS_TRY(cs_link_open(&config, &link));
    Consilium__V1__TaskKey key = CONSILIUM__V1__TASK_KEY__INIT;
    key.job = (char *)(uintptr_t)cs_argument(arguments, "--job");
    key.round = (uint32_t)round;
    key.phase = (char *)(uintptr_t)cs_argument(arguments, "--phase");

    cs_transfer *transfer = cs_transfer_new(blobs);
    Consilium__V1__Blob none = CONSILIUM__V1__BLOB__INIT;
    none.name = (char[]){"none"};
    none.size = 1;
    uint8_t no_hash[CS_HASH_BYTES] = {0};
    none.sha256 = cs_wire_data(no_hash, sizeof(no_hash));
    CS_IGNORE(cs_transfer_fetch(transfer, link, &key, &none, go_on, NULL), "refused: it only opens the connection");

    const int64_t begun_us = cs_clock_monotonic_us();
    const cs_status status = cs_transfer_store(transfer, link, &key, &blob, go_on, NULL);
    const double seconds = (double)(cs_clock_monotonic_us() - begun_us) / 1e6;
    cs_transfer_free(transfer);
    CS_TRY(status);
    CS_TRY(cs_blobs_remove(blobs, &hash));
    char hex[CS_HASH_HEX_BYTES];
    cs_hash_hex(&hash, hex);
    printf("{\"seconds\": %.4f, \"size\": %llu, \"sha256\": \"%s\"}\n", seconds, (unsigned long long)blob.size, hex);
    return CS_OK;
}

static int run(const cs_arguments *arguments)
{
    int64_t round = 0;
    cs_status status = cs_argument_int(arguments, "--round", 0, UINT32_MAX, &round);
    if (status != CS_OK)
        return cs_command_fail(arguments, status);
    status = cs_crypto_start();
    if (status != CS_OK)
        return cs_command_fail(arguments, status);
    cs_rpc_start();
    status = upload(arguments, round);
    cs_rpc_stop();
    return status == CS_OK ? CS_EXIT_OK : cs_command_fail(arguments, status);
}

int main(int argc, char **argv)
{
    static const cs_option options[] = {{"--state", "DIR", "state directory of a site that has joined", true, false},
                                        {"--job", "JOB", "whose task is open", true, false},
                                        {"--round", "N", "of it", true, false},
                                        {"--phase", "NAME", "of it", true, false},
                                        {"--file", "FILE", "to upload; it is moved into the store", true, false},
                                        {0}};
    static const cs_command commands[] = {{"", "times one upload", options, run}, {0}};
    return cs_command_main("bench_upload", "One upload by the agent's transfer code.", commands, argc, argv);
}
