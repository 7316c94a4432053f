/* The worker's part in an alignment: the site's own persons, masked lists of others, the cohort. Files only: in the
 * task's folder what came from other sites, in the job's personal folder what this site keeps and what leaves. Needs no
 * libtorch. Main thread; the curve work takes as many threads as the site allows. */
#ifndef CS_WORKER_ALIGNMENT_H
#define CS_WORKER_ALIGNMENT_H

#include "client/align/psi.h"
#include "client/data/persons.h"

typedef struct cs_aligner cs_aligner;
/* `persons` becomes its own. `personal`: the job's folder. `site`: this one. */
cs_aligner *cs_aligner_new(const cs_plan *plan, const char *site, const char *personal, uint32_t threads,
                           cs_persons *persons);
void cs_aligner_free(cs_aligner *aligner);
CS_DEFINE_AUTO_PTR(cs_aligner)

typedef struct cs_aligner_task {
    const char *phase;
    char *const *participants; /* in name order */
    size_t participants_count;
    cs_bytes seed;      /* CS_PSI_SECRET_BYTES */
    const char *folder; /* with the inputs, named as the blobs are */
    char *const *inputs;
    size_t inputs_count;
    cs_psi_progress progress;
    void *self;
} cs_aligner_task;

typedef struct cs_aligner_result {
    char outputs[CS_ALIGNMENT_SITES_MAX][24]; /* names of blobs, and of the files in the personal folder */
    size_t outputs_count;
    uint64_t patients; /* of the cohort, in compare and cohort */
} cs_aligner_result;

/* One step; done again it gives the same bytes. CS_DENIED where the cohort is too small to be told. */
CS_MUST_CHECK cs_status cs_aligner_run(cs_aligner *aligner, const cs_aligner_task *task, cs_aligner_result *ret);

/* "consilium 0.1.0 align ifma threads=2"; static. */
const char *cs_aligner_build(uint32_t threads);

#endif
