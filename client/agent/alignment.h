/* What a lane of the agent needs of an alignment's session: a copy that belongs to the task in hand. alignment.c makes
 * it on the agent thread; the functions below, in sealed.c, seal and open with it on the work lane. */
#ifndef CS_AGENT_ALIGNMENT_H
#define CS_AGENT_ALIGNMENT_H

#include "client/align/psi.h"
#include "common/blobs/blobs.h"
#include "common/config/plan.h"
#include "common/crypto/seal.h"
#include "common/crypto/x509.h"

typedef struct cs_sealing {
    cs_hash session, roster;
    uint32_t parties, self, leader; /* places in name order */
    char names[CS_ALIGNMENT_SITES_MAX][CS_NAME_MAX + 1];
    cs_seal_keys keys[CS_ALIGNMENT_SITES_MAX]; /* none for this site itself */
    uint8_t seed[CS_CONTRIBUTION_BYTES];       /* the same at every party */
    uint32_t slots;                            /* points of a group: kinds of key */
    uint32_t groups_max;                       /* of any party's list, by plan and policy */
    bool tells_all;                            /* the others are told their rows too */
    bool is_repeat;                            /* answered from the stored result of `stored_job`, which has … */
    uint64_t stored_patients;
    char stored_job[CS_NAME_MAX + 1];
} cs_sealing;

typedef enum cs_alignment_step {
    CS_ALIGNMENT_AGREE,
    CS_ALIGNMENT_MASK,
    CS_ALIGNMENT_HOP,
    CS_ALIGNMENT_COMPARE,
    CS_ALIGNMENT_COHORT
} cs_alignment_step;

/* False for a phase of another kind of federation. `ret_stop`: of the lists' ways; parties for compare. */
bool cs_alignment_phase(const char *phase, uint32_t parties, cs_alignment_step *ret_step, uint32_t *ret_stop);

/* In personal/JOB/ once the cohort is known: row of the study, line in the table, patient. It stays when the job ends.
 */
#define CS_COHORT_FILE "cohort.csv"

/* A blob between this site and another one: which, and what is in it. */
typedef struct cs_parcel {
    char name[24]; /* "list-2", "answer-0": of the blob, and of the file that the worker reads or writes */
    cs_psi_kind kind;
    uint32_t owner;
    uint32_t other; /* the site that sealed it, or the one it is for */
    char phase[24]; /* in which it was sealed */
} cs_parcel;
/* What the phase takes, and what it may send to whom: computed here and not believed from the coordinator. This is the
 * whole list of what leaves in an alignment. */
size_t cs_parcels_in(const cs_sealing *sealing, const char *phase, cs_parcel ret[CS_ALIGNMENT_SITES_MAX]);
size_t cs_parcels_out(const cs_sealing *sealing, const char *phase, cs_parcel ret[CS_ALIGNMENT_SITES_MAX]);

/* Opens the blob into FOLDER/parcel->name: masked points, tags, or an answer, of the announced size and not more than
 * plan and policy allow. CS_UNAUTHENTICATED: not from that site, or not for this step; CS_INVALID, CS_DENIED: not such
 * a list, or too large a one. */
CS_MUST_CHECK cs_status cs_parcel_open(cs_blobs *blobs, const cs_hash *blob, const cs_sealing *sealing,
                                       const cs_parcel *parcel, const char *folder);
/* Takes FOLDER/file that the worker wrote, checks that it is what the parcel says and no larger than plan and policy
 * allow, seals it for the other site and moves it into the blobs. *ret_points: points or tags in it. */
CS_MUST_CHECK cs_status cs_parcel_take(cs_blobs *blobs, const cs_sealing *sealing, const cs_parcel *parcel,
                                       const char *folder, const char *file, const char *staging_path, cs_hash *ret,
                                       uint64_t *ret_size, uint64_t *ret_points);
/* A sealed stream with nothing in it, for a step that is answered from a stored result. */
CS_MUST_CHECK cs_status cs_parcel_empty(cs_blobs *blobs, const cs_sealing *sealing, const cs_parcel *parcel,
                                        const char *staging_path, cs_hash *ret, uint64_t *ret_size);

#endif
