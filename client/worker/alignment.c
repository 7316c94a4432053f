/* The worker's part in an alignment: see alignment.h. */
#include "client/worker/alignment.h"

#include "common/base/failpoint.h"
#include "common/base/file.h"
#include "common/crypto/keyfile.h"
#include "common/crypto/sign.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECRET_FILE "secret.key"
#define COHORT_FILE "cohort.csv" /* the one file that the agent leaves when the job ends */

struct cs_aligner {
    const cs_plan *plan;
    char *site, *personal;
    uint32_t threads;
    cs_persons *persons;
    cs_psi_session session;
    const char *names[CS_ALIGNMENT_SITES_MAX];
    bool is_begun;
    cs_psi_own *own;
};

cs_aligner *cs_aligner_new(const cs_plan *plan, const char *site, const char *personal, uint32_t threads,
                           cs_persons *persons)
{
    cs_aligner *aligner = cs_alloc(sizeof *aligner);
    aligner->plan = plan;
    aligner->site = cs_strdup(site);
    aligner->personal = cs_strdup(personal);
    aligner->threads = threads;
    aligner->persons = persons;
    return aligner;
}

void cs_aligner_free(cs_aligner *aligner)
{
    if (aligner == NULL)
        return;
    cs_psi_own_free(aligner->own);
    cs_persons_free(aligner->persons);
    for (size_t i = 0; i < CS_ALIGNMENT_SITES_MAX; i++)
        cs_free((void *)(uintptr_t)aligner->names[i]);
    cs_crypto_wipe(&aligner->session, sizeof aligner->session);
    cs_free(aligner->site);
    cs_free(aligner->personal);
    cs_free(aligner);
}

/* For measuring: an agent gives its worker no environment, so only a wrapper that the site itself put in its place can
 * say this, and the bytes are the same. */
static cs_curve_engine engine(void)
{
    const char *wanted = getenv("CONSILIUM_CURVE");
    return wanted != NULL && strcmp(wanted, "portable") == 0 ? CS_CURVE_PORTABLE : cs_curve_best();
}

const char *cs_aligner_build(uint32_t threads)
{
    static char build[96];
    snprintf(build, sizeof build, "consilium %s align %s threads=%" PRIu32, CS_VERSION, cs_curve_engine_name(engine()),
             threads);
    return build;
}

/* ---- the session ---- */

/* Made here, once, and known to nobody else: the scalar, the order of the list and of the rows follow from it. */
static cs_status take_secret(const cs_aligner *aligner, uint8_t secret[CS_PSI_SECRET_BYTES])
{
    CS_AUTO(cs_string) path = cs_path_join(aligner->personal, SECRET_FILE);
    CS_AUTO(cs_secret) stored = CS_BUFFER_EMPTY;
    if (cs_file_exists(path)) {
        CS_TRY(cs_key_file_read(path, &stored));
        if (stored.size != CS_PSI_SECRET_BYTES)
            return cs_fail(CS_DATA_LOSS, "the secret of this alignment has %zu bytes, expected %d", stored.size,
                           CS_PSI_SECRET_BYTES);
        memcpy(secret, stored.data, CS_PSI_SECRET_BYTES);
        return CS_OK;
    }
    cs_crypto_random(secret, CS_PSI_SECRET_BYTES);
    return cs_key_file_write(path, cs_bytes_of(secret, CS_PSI_SECRET_BYTES));
}

static cs_status begin(cs_aligner *aligner, const cs_aligner_task *task)
{
    const cs_alignment *asked = &aligner->plan->alignment;
    cs_psi_session *session = &aligner->session;
    if (aligner->is_begun)
        return CS_OK;
    if (task->participants_count < 2 || task->participants_count > CS_ALIGNMENT_SITES_MAX)
        return cs_fail(CS_INVALID, "%zu participants, an alignment has 2 to %d", task->participants_count,
                       CS_ALIGNMENT_SITES_MAX);
    if (task->seed.size != CS_PSI_SECRET_BYTES)
        return cs_fail(CS_INVALID, "the session's seed has %zu bytes, expected %d", task->seed.size,
                       CS_PSI_SECRET_BYTES);
    session->site = session->leader = UINT32_MAX;
    for (uint32_t i = 0; i < task->participants_count; i++) {
        if (aligner->names[i] == NULL)
            aligner->names[i] = cs_strdup(task->participants[i]);
        if (strcmp(aligner->names[i], aligner->site) == 0)
            session->site = i;
        if (strcmp(aligner->names[i], asked->leader) == 0)
            session->leader = i;
    }
    if (session->site == UINT32_MAX || session->leader == UINT32_MAX)
        return cs_fail(CS_INVALID, "this site or the leader '%s' is not among the participants", asked->leader);
    session->study = asked->study;
    session->slots = (uint32_t)asked->keys_count;
    session->sites = (uint32_t)task->participants_count;
    session->names = aligner->names;
    session->engine = engine();
    session->threads = aligner->threads;
    memcpy(session->shared_secret, task->seed.data, CS_PSI_SECRET_BYTES);
    CS_TRY(take_secret(aligner, session->own_secret));
    aligner->is_begun = true;
    return CS_OK;
}

static cs_status take_own(cs_aligner *aligner)
{
    const cs_persons *persons = aligner->persons;
    if (aligner->own != NULL)
        return CS_OK;
    return cs_psi_own_new(&aligner->session, (const uint8_t(*)[CS_PSI_KEY_BYTES])persons->keys, persons->keys_count,
                          persons->present, persons->count, &aligner->own);
}

/* ---- files ---- */

static char *kept(const cs_aligner *aligner, const char *kind, uint32_t owner)
{
    CS_AUTO(cs_string) name = cs_format("%s-%" PRIu32, kind, owner);
    return cs_path_join(aligner->personal, name);
}

static char *given(const cs_aligner_task *task, const char *kind, uint32_t owner)
{
    CS_AUTO(cs_string) name = cs_format("%s-%" PRIu32, kind, owner);
    return cs_path_join(task->folder, name);
}

static void bring(cs_aligner_result *result, const char *kind, uint32_t owner)
{
    snprintf(result->outputs[result->outputs_count++], sizeof result->outputs[0], "%s-%" PRIu32, kind, owner);
}

static cs_status read_header(const char *path, cs_psi_header *ret)
{
    uint8_t bytes[CS_PSI_HEADER_BYTES];
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(cs_file_open(path, O_RDONLY, 0, &fd));
    CS_TRY(cs_file_read_exact(fd, bytes, sizeof bytes));
    return cs_psi_header_read(cs_bytes_of(bytes, sizeof bytes), "list", ret);
}

/* Row of the study, line and patient of the site's own table; at the leader also who else has the patient. */
static cs_status write_cohort(const cs_aligner *aligner, const cs_psi_table *table)
{
    const cs_persons *persons = aligner->persons;
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    cs_buffer_printf(&text, "row,line%s%s\n", persons->patients != NULL ? ",patient" : "",
                     table->found_at != NULL ? ",found_at" : "");
    for (size_t row = 0; row < table->rows; row++) {
        const uint32_t record = table->records[row];
        if (record == CS_PSI_NO_RECORD)
            continue;
        cs_buffer_printf(&text, "%zu,%" PRIu32, row, persons->lines[record]);
        if (persons->patients != NULL) {
            cs_buffer_append_text(&text, ",\"");
            for (const char *at = persons->patients[record]; *at != '\0'; at++)
                cs_buffer_printf(&text, *at == '"' ? "\"\"" : "%c", *at);
            cs_buffer_append_text(&text, "\"");
        }
        for (uint32_t site = 0, shown = 0; table->found_at != NULL && site < aligner->session.sites; site++) {
            if (table->found_at[row] >> site & 1 && site != aligner->session.leader)
                cs_buffer_printf(&text, "%s%s", shown++ == 0 ? "," : " ", aligner->names[site]);
        }
        cs_buffer_append_text(&text, "\n");
    }
    CS_AUTO(cs_string) path = cs_path_join(aligner->personal, COHORT_FILE);
    CS_FAILPOINT("worker.cohort");
    const cs_status status = cs_file_write_atomic(path, cs_buffer_view(&text), 0600);
    cs_buffer_wipe(&text);
    return status;
}

/* ---- steps ---- */

static cs_status mask(cs_aligner *aligner, const cs_aligner_task *task, cs_aligner_result *ret)
{
    CS_TRY(take_own(aligner));
    CS_AUTO(cs_string) path = kept(aligner, "list", aligner->session.site);
    bring(ret, "list", aligner->session.site);
    return cs_psi_own_write(aligner->own, path, task->progress, task->self);
}

static cs_status hop(cs_aligner *aligner, const cs_aligner_task *task, uint32_t stop, cs_aligner_result *ret)
{
    const cs_psi_session *session = &aligner->session;
    for (uint32_t owner = 0; owner < session->sites; owner++) {
        if (cs_alignment_stop(session->sites, session->leader, owner, stop) != session->site)
            continue;
        CS_AUTO(cs_string) from = given(task, "list", owner);
        CS_AUTO(cs_string) to = kept(aligner, "list", owner);
        cs_psi_header header;
        CS_TRY(read_header(from, &header));
        CS_TRY(cs_psi_pass(session, owner, header.groups, from, to, task->progress, task->self));
        if (cs_alignment_stop(session->sites, session->leader, owner, stop + 1) != session->site)
            bring(ret, "list", owner);
    }
    return CS_OK;
}

static cs_status compare(cs_aligner *aligner, const cs_aligner_task *task, cs_aligner_result *ret)
{
    const cs_psi_session *session = &aligner->session;
    const cs_alignment *asked = &aligner->plan->alignment;
    char *tags[CS_ALIGNMENT_SITES_MAX] = {0}, *answers[CS_ALIGNMENT_SITES_MAX] = {0};
    CS_TRY(take_own(aligner));
    for (uint32_t site = 0; site < session->sites; site++) {
        /* Where its last mask was put on: the own list comes back, the others ended here. */
        const bool is_here =
            cs_alignment_stop(session->sites, session->leader, site, session->sites - 1) == session->site;
        tags[site] = is_here ? kept(aligner, "list", site) : given(task, "list", site);
        if (site != session->site && asked->is_mutual) {
            answers[site] = kept(aligner, "answer", site);
            bring(ret, "answer", site);
        }
    }
    CS_AUTO_PTR(cs_psi_match) match = NULL;
    CS_AUTO(cs_psi_table) table = CS_PSI_TABLE_EMPTY;
    cs_status status = cs_psi_match_new(aligner->own, (const char *const *)tags, &match);
    if (status == CS_OK)
        status = cs_psi_release(match, asked->needs_all ? 0 : asked->any_of, asked->minimum,
                                (const char *const *)answers, &table);
    for (size_t site = 0; site < session->sites; site++) {
        cs_free(tags[site]);
        cs_free(answers[site]);
    }
    CS_TRY(status);
    ret->patients = table.rows;
    return write_cohort(aligner, &table);
}

static cs_status cohort(cs_aligner *aligner, const cs_aligner_task *task, cs_aligner_result *ret)
{
    if (task->inputs_count == 0)
        return CS_OK; /* the plan says that this site is told nothing */
    CS_AUTO(cs_psi_table) table = CS_PSI_TABLE_EMPTY;
    CS_AUTO(cs_string) path = given(task, "answer", aligner->session.site);
    CS_TRY(take_own(aligner));
    CS_TRY(cs_psi_accept(aligner->own, aligner->plan->alignment.minimum, path, &table));
    ret->patients = table.rows;
    return write_cohort(aligner, &table);
}

cs_status cs_aligner_run(cs_aligner *aligner, const cs_aligner_task *task, cs_aligner_result *ret)
{
    *ret = (cs_aligner_result){0};
    CS_TRY(begin(aligner, task));
    if (strcmp(task->phase, "mask") == 0)
        return mask(aligner, task, ret);
    if (strcmp(task->phase, "compare") == 0)
        return compare(aligner, task, ret);
    if (strcmp(task->phase, "cohort") == 0)
        return cohort(aligner, task, ret);
    if (strncmp(task->phase, "hop", 3) == 0) {
        const unsigned long stop = strtoul(task->phase + 3, NULL, 10);
        if (stop >= 1 && stop < aligner->session.sites)
            return hop(aligner, task, (uint32_t)stop, ret);
    }
    return cs_fail(CS_UNIMPLEMENTED, "an alignment of %" PRIu32 " sites has no phase '%s'", aligner->session.sites,
                   task->phase);
}
