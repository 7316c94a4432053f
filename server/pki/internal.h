/* What the files of this folder share: the loaded keys, and the records of the transcript. */
#ifndef CS_PKI_INTERNAL_H
#define CS_PKI_INTERNAL_H

#include "server/pki/pki.h"

#include <pthread.h>

/* How often a site renewed since a moment: each time costs a commit and a record that is kept for ever. */
typedef struct pki_pace {
    char site[CS_NAME_MAX + 1];
    int64_t since_ms; /* monotonic */
    unsigned count;
} pki_pace;

struct cs_pki {
    /* Set by cs_pki_open, then only read. */
    char *folder; /* of the state, not of the keys */
    char consortium[CS_NAME_MAX + 1];
    char *address;     /* what sites dial: host without port */
    char *coordinator; /* host:port; empty when any port will do */
    int64_t leaf_life_ms;
    cs_transcript *transcript; /* NULL: none */
    cs_tls_key *authority_key;
    cs_buffer authority_pem;

    pki_pace *paces; /* engine's thread; one for each site that renewed */
    size_t paces_count;

    pthread_mutex_t own_lock; /* guards own_key and own_pem */
    cs_tls_key *own_key;
    cs_buffer own_pem;
};

/* A leaf of this authority, from now on, with a new serial number. */
CS_MUST_CHECK cs_status pki_issue_site(const cs_pki *pki, const char *site, cs_bytes csr, cs_buffer *ret_pem);

/* What a record of the transcript says; empty members are left out. Never a token. */
typedef struct pki_record {
    const char *site;
    const cs_hash *public_key;
    const cs_identity *certificate;
    const char *reason;
} pki_record;
/* With `key` once, however often it is repeated. */
CS_MUST_CHECK cs_status pki_record_append(const cs_pki *pki, const char *kind, const char *key,
                                          const pki_record *record);

#endif
