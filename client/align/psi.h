/* Private set intersection for 2 to 64 sites, as steps over files, without any network: Diffie-Hellman on Curve25519
 * (Meadows 1986; Huberman, Franklin, Hogg 1999), u-coordinates only. README.md of this folder says what each party
 * learns.
 *
 * Every site masks its own list, every list passes every other site once, the leader compares. The steps are functions
 * of their input and of the session's two secrets: a step that is done again writes the same bytes, with any number of
 * threads and with either engine. Called by the worker's tasks; an object belongs to one thread at a time.
 *
 *     every site   cs_psi_own_new, cs_psi_own_write        its list, masked once, in an order of its own
 *     every site   cs_psi_pass                             another's list, masked once more; cs_psi_hop says who is
 * next leader       cs_psi_match_new, cs_psi_release        compares, then gives each site its answer, or nothing to
 * anybody every other  cs_psi_accept                           its table of rows
 */
#ifndef CS_ALIGN_PSI_H
#define CS_ALIGN_PSI_H

#include "client/align/curve.h"

#define CS_PSI_SLOTS_MAX    6 /* kinds of key for one patient */
#define CS_PSI_KEY_BYTES    32
#define CS_PSI_TAG_BYTES    12 /* 2^-48 for any false match among 2^24 × 2^24 */
#define CS_PSI_SECRET_BYTES 32
#define CS_PSI_SITES_MAX    64
#define CS_PSI_STUDY_BYTES  200                 /* longest name of a study */
#define CS_PSI_GROUPS_MAX   ((uint32_t)1 << 24) /* patients in one list, padding included */
#define CS_PSI_CANARIES     32                  /* groups that every list must have in common with every other */
#define CS_PSI_DUMMIES      32                  /* at least so many groups of each list are in no other */
#define CS_PSI_MINIMUM      20                  /* default of the smallest intersection that is released */
#define CS_PSI_NO_RECORD    UINT32_MAX

/* What the sites of a session agree on, and what this site alone knows. Borrowed: must outlive what is made with it. */
typedef struct cs_psi_session {
    const char *study;     /* 1 to CS_PSI_STUDY_BYTES bytes; part of the hash to the curve: other study, other points */
    uint32_t slots;        /* kinds of key that the plan declares, 1 to CS_PSI_SLOTS_MAX */
    uint32_t sites;        /* 2 to CS_PSI_SITES_MAX */
    uint32_t site, leader; /* places in the roster's order */
    const char *const *names;                   /* of all sites, for the sentences */
    uint8_t shared_secret[CS_PSI_SECRET_BYTES]; /* every site has it, nobody else: the canaries follow from it */
    uint8_t own_secret[CS_PSI_SECRET_BYTES];    /* random, new for each session; kept until the session closes. Scalar,
                                                   order, padding and the order of rows follow from it */
    cs_curve_engine engine;
    uint32_t threads; /* 1 or more; the bytes do not depend on it */
} cs_psi_session;

/* Told after every block; what is not CS_OK stops the step and comes back from it. May be NULL. */
typedef cs_status (*cs_psi_progress)(void *self, uint64_t points_done, uint64_t points_total);

/* Groups of a list of so many patients: canaries and dummies added, padded to 128 or the next (16 + k) 2^e, k < 16,
 * which is at most 1/16 more. What the others see of a list's size. */
uint32_t cs_psi_padded_groups(size_t patients);

/* The site that masks the list of `owner` as number `hop`: hop 0 is the owner, then the others in the order of the
 * roster from the owner on, the leader last. With hop == sites: where the finished tags are compared, the leader. */
uint32_t cs_psi_hop(uint32_t sites, uint32_t leader, uint32_t owner, uint32_t hop);

/* ---- lists as files ----
 * 32 bytes of header, then for each group its slots: points of 32 bytes, or tags of 12 once every site has masked. */
#define CS_PSI_HEADER_BYTES 32

typedef enum cs_psi_kind { CS_PSI_POINTS = 1, CS_PSI_TAGS = 2, CS_PSI_ANSWER = 3 } cs_psi_kind;

typedef struct cs_psi_header {
    cs_psi_kind kind;
    uint32_t slots, sites, owner;
    uint32_t groups; /* of an answer: rows of the cohort */
    uint64_t passed; /* bit i: site i has masked it */
} cs_psi_header;

/* CS_INVALID names `what` and the field. Takes only what cs_psi_header_write gives. */
CS_MUST_CHECK cs_status cs_psi_header_read(cs_bytes bytes, const char *what, cs_psi_header *ret);
void cs_psi_header_write(const cs_psi_header *header, uint8_t out[CS_PSI_HEADER_BYTES]);
/* Size of the file that a header of points or tags announces. */
uint64_t cs_psi_file_size(const cs_psi_header *header);

/* ---- own list ---- */
typedef struct cs_psi_own cs_psi_own;

typedef struct cs_psi_counts {
    size_t records;     /* given */
    size_t listed;      /* in the list: records less the three below */
    size_t without_key; /* no kind of key present */
    size_t repeated;    /* every key equal to those of an earlier record: the same patient twice; the first counts */
    size_t only_shared; /* every key is also another patient's */
    size_t keys;        /* in the list */
    uint64_t shared[CS_PSI_SLOTS_MAX]; /* for each kind: keys left out because two or more patients have them */
    uint32_t groups;                   /* padded */
} cs_psi_counts;

/* Key s of record i is keys[i * stride + s], where bit s of `present[i]` is set; bits of `slots` and above must be
 * clear (CS_INVALID). Keys are 32 bytes that are equal at two sites exactly when they are to match
 * (client/align/identity.h). Says which of them go into a list: usable[i], of `count` records, has the bits; 0: the
 * record has no part in it. */
CS_MUST_CHECK cs_status cs_psi_sort_out(const uint8_t (*keys)[CS_PSI_KEY_BYTES], size_t stride, uint32_t slots,
                                        const uint8_t *present, size_t count, uint8_t *usable, cs_psi_counts *ret);

/* The list of these records, sorted out as above; the kind of key is added to the hash here. The arrays are borrowed
 * and must outlive the list. Up to CS_PSI_GROUPS_MAX - CS_PSI_CANARIES - CS_PSI_DUMMIES records (0 is fine):
 * CS_EXHAUSTED above. */
CS_MUST_CHECK cs_status cs_psi_own_new(const cs_psi_session *session, const uint8_t (*keys)[CS_PSI_KEY_BYTES],
                                       size_t stride, const uint8_t *present, size_t count, cs_psi_own **ret);
void cs_psi_own_free(cs_psi_own *own);
CS_DEFINE_AUTO_PTR(cs_psi_own)
cs_psi_counts cs_psi_own_counts(const cs_psi_own *own);
/* The masked list. Goes on where an interrupted call stopped (`path`.part), and takes the name when whole and durable.
 */
CS_MUST_CHECK cs_status cs_psi_own_write(const cs_psi_own *own, const char *path, cs_psi_progress progress, void *self);

/* ---- another's list ----
 * Masks the list in the file `from` once more into `to`: points, or tags where this site was the last. Goes on where an
 * interrupted call stopped, like above. CS_INVALID, naming owner and point: not a list of this session or of that size,
 * already masked here, not yet masked by its owner, u of p or more, a point of the twist, a result of zero. `owner` and
 * `groups` are what the caller expects (the announced, padded size). */
CS_MUST_CHECK cs_status cs_psi_pass(const cs_psi_session *session, uint32_t owner, uint32_t groups, const char *from,
                                    const char *to, cs_psi_progress progress, void *self);

/* ---- the leader ---- */
typedef struct cs_psi_match cs_psi_match;

typedef struct cs_psi_match_counts {
    size_t matched;   /* patients, canaries taken off */
    size_t ambiguous; /* own patients with a candidate there and no match: a tie, or a better partner elsewhere */
} cs_psi_match_counts;

/* Compares the tags of every site (tags[i] is the file of site i's list after its last hop, the leader's own included)
 * with the leader's own. A patient and a group of another site match when each has more kinds of key in common with the
 * other than with anything else: a tie matches nobody. CS_INVALID: a file is not such a list. CS_ABORTED, naming the
 * site: a canary is missing there or has another's match, or one of the own dummies was found. Borrows `own`. */
CS_MUST_CHECK cs_status cs_psi_match_new(const cs_psi_own *own, const char *const *tags, cs_psi_match **ret);
void cs_psi_match_free(cs_psi_match *match);
CS_DEFINE_AUTO_PTR(cs_psi_match)
/* For the leader's own eyes; zeros until cs_psi_release has released something. */
cs_psi_match_counts cs_psi_match_counts_of(const cs_psi_match *match, uint32_t site);

/* Row i of the study is record records[i] of this site, CS_PSI_NO_RECORD where it has none (rule "any"). */
typedef struct cs_psi_table {
    size_t rows;
    uint32_t *records;
    uint64_t *found_at; /* at the leader: bit i: site i has the patient too; elsewhere NULL */
} cs_psi_table;
#define CS_PSI_TABLE_EMPTY ((cs_psi_table){0})
void cs_psi_table_clear(cs_psi_table *table);

/* The cohort: the leader's patients found at all other sites (any = 0) or at `any` of them or more. The only door
 * through which positions leave: CS_DENIED, and no file, when the cohort or what any one site would be told of is
 * smaller than `minimum` patients. answers[i] is where the answer for site i goes; NULL for the leader itself, and for
 * a site that is told nothing. Rows are in a random order that follows from own_secret only. */
CS_MUST_CHECK cs_status cs_psi_release(cs_psi_match *match, uint32_t any, size_t minimum, const char *const *answers,
                                       cs_psi_table *ret);

/* ---- every other site ----
 * The leader's answer. CS_INVALID: not an answer for this list. CS_ABORTED: a canary is missing in it or a dummy is in
 * it. CS_DENIED: fewer than `minimum` own patients in it. */
CS_MUST_CHECK cs_status cs_psi_accept(const cs_psi_own *own, size_t minimum, const char *path, cs_psi_table *ret);

#endif
