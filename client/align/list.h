/* Inside client/align: what a site's own list is, the secrets that follow from a session, and files of lists. */
#ifndef CS_ALIGN_LIST_H
#define CS_ALIGN_LIST_H

#include "client/align/psi.h"

#include "common/base/file.h"

/* An item of the list: below `listed` a patient, then the canaries, then the dummies. */
struct cs_psi_own {
    const cs_psi_session *session;
    const uint8_t (*keys)[CS_PSI_KEY_BYTES]; /* `stride` of them for each record */
    size_t stride;
    uint8_t *usable;     /* per record: the kinds of key that go into the list */
    uint32_t *record_of; /* per patient item: its record */
    uint32_t *item_at;   /* per group of the list, in its order: its item */
    cs_psi_counts counts;
};

static inline bool cs_psi_is_patient(const cs_psi_own *own, uint32_t item)
{
    return item < own->counts.listed;
}

static inline bool cs_psi_is_canary(const cs_psi_own *own, uint32_t item)
{
    return item >= own->counts.listed && item < own->counts.listed + CS_PSI_CANARIES;
}

/* 64 bytes that follow from the secret, the purpose (at most 15 letters) and the number, and tell nothing of others. */
#define CS_PSI_DERIVED_BYTES 64
void cs_psi_derive(const uint8_t secret[CS_PSI_SECRET_BYTES], const char *purpose, uint64_t number,
                   uint8_t out[CS_PSI_DERIVED_BYTES]);
/* Shuffles `count` numbers; the order follows from secret and purpose. */
void cs_psi_shuffle(const uint8_t secret[CS_PSI_SECRET_BYTES], const char *purpose, uint32_t *numbers, size_t count);

/* The sites that have masked the list of `owner` once `hops` of its hops are done. */
uint64_t cs_psi_passed(const cs_psi_session *session, uint32_t owner, uint32_t hops);

/* Opens a list of points or tags and checks header and size: of this session, of `owner`, masked by exactly the sites
 * of the first `hops` hops. `groups`: expected, 0 for any. */
CS_MUST_CHECK cs_status cs_psi_list_open(const cs_psi_session *session, uint32_t owner, uint32_t groups, uint32_t hops,
                                         const char *path, cs_fd *ret_fd, cs_psi_header *ret);

#endif
