/* Any bytes as what another site sends: a header, a list to mask, tags to compare, an answer. Nothing crashes; what is
 * taken is what the format says. The first byte chooses. */
#include "client/align/psi.h"

#include "common/base/file.h"
#include "common/crypto/sign.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RECORDS 40

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"ada", "bonn"};
static uint8_t keys[RECORDS][CS_PSI_KEY_BYTES];
static uint8_t present[RECORDS];
static cs_psi_session leader, other;
static cs_psi_own *leaders_own, *others_own;
static char folder[] = "/tmp/consilium-fuzz-XXXXXX";
static char *in_path, *out_path, *tags_path;

static void must(cs_status status)
{
    if (status == CS_OK)
        return;
    fprintf(stderr, "%s\n", cs_error_text());
    abort();
}

static void remove_folder(void)
{
    cs_psi_own_free(leaders_own);
    cs_psi_own_free(others_own);
    cs_free(in_path);
    cs_free(out_path);
    cs_free(tags_path);
    must(cs_folder_remove(folder));
}

/* Two sites and the leader's own tags, once. Secrets are fixed: inputs mean the same in every run. */
static void set_up(void)
{
    must(cs_crypto_start());
    if (mkdtemp(folder) == NULL)
        abort();
    in_path = cs_path_join(folder, "in");
    out_path = cs_path_join(folder, "out");
    tags_path = cs_path_join(folder, "tags");
    for (size_t i = 0; i < RECORDS; i++) {
        keys[i][0] = (uint8_t)(i + 1);
        present[i] = 1;
    }
    leader = (cs_psi_session){.study = "fuzz", .slots = 1, .sites = 2, .names = names, .threads = 1};
    other = leader;
    other.site = 1;
    other.own_secret[0] = 1;
    must(cs_psi_own_new(&leader, (const uint8_t(*)[CS_PSI_KEY_BYTES])keys, 1, present, RECORDS, &leaders_own));
    must(cs_psi_own_new(&other, (const uint8_t(*)[CS_PSI_KEY_BYTES])keys, 1, present, RECORDS, &others_own));
    must(cs_psi_own_write(leaders_own, in_path, NULL, NULL));
    must(cs_psi_pass(&other, 0, 0, in_path, tags_path, NULL, NULL));
    atexit(remove_folder);
}

static void read_header(cs_bytes bytes)
{
    cs_psi_header header;
    if (cs_psi_header_read(bytes, "header", &header) != CS_OK)
        return;
    uint8_t again[CS_PSI_HEADER_BYTES];
    cs_psi_header_write(&header, again);
    if (memcmp(again, bytes.data, sizeof again) != 0)
        abort();
}

static void mask_list(void)
{
    cs_psi_header header;
    if (cs_psi_pass(&leader, 1, 0, in_path, out_path, NULL, NULL) != CS_OK)
        return;
    CS_AUTO(cs_buffer) tags = CS_BUFFER_EMPTY;
    must(cs_file_read_all(out_path, 1 << 24, &tags));
    must(cs_psi_header_read(cs_buffer_view(&tags), "tags", &header));
    if (header.kind != CS_PSI_TAGS || header.passed != 3 || tags.size != cs_psi_file_size(&header))
        abort();
}

static void compare_list(void)
{
    const char *lists[] = {tags_path, in_path};
    const char *answers[] = {NULL, NULL};
    CS_AUTO_PTR(cs_psi_match) match = NULL;
    CS_AUTO(cs_psi_table) table = CS_PSI_TABLE_EMPTY;
    if (cs_psi_match_new(leaders_own, lists, &match) != CS_OK)
        return;
    must(cs_psi_release(match, 0, 0, answers, &table));
    for (size_t row = 0; row < table.rows; row++)
        if (table.records[row] >= RECORDS || table.found_at[row] != 2)
            abort();
}

static void accept_answer(void)
{
    CS_AUTO(cs_psi_table) table = CS_PSI_TABLE_EMPTY;
    if (cs_psi_accept(others_own, 0, in_path, &table) != CS_OK)
        return;
    uint8_t is_named[RECORDS] = {0};
    for (size_t row = 0; row < table.rows; row++) {
        if (table.records[row] == CS_PSI_NO_RECORD)
            continue;
        if (table.records[row] >= RECORDS || is_named[table.records[row]]++)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (in_path == NULL)
        set_up();
    if (size == 0)
        return 0;
    if (data[0] % 4 == 0) {
        read_header(cs_bytes_of(data + 1, size - 1));
        return 0;
    }
    /* Not through cs_file_write_atomic: the sync would be most of the time. */
    CS_AUTO(cs_fd) fd = -1;
    must(cs_file_open(in_path, O_WRONLY | O_CREAT | O_TRUNC, 0600, &fd));
    must(cs_file_write(fd, data + 1, size - 1));
    must(cs_file_close(&fd));
    if (data[0] % 4 == 1)
        mask_list();
    else if (data[0] % 4 == 2)
        compare_list();
    else
        accept_answer();
    return 0;
}
