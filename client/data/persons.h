/* A site's table of persons as the alignment sees it: keys, not names. Called by client/worker, after it has confined
 * itself; one thread at a time. Errors name file, line and column, never what a cell holds. */
#ifndef CS_DATA_PERSONS_H
#define CS_DATA_PERSONS_H

#include "client/align/identity.h"
#include "client/align/psi.h"

#define CS_PERSONS_MAX (1u << 28)

/* What `align --dry-run` shows, and nothing that leaves the building. */
typedef struct cs_persons_count {
    cs_psi_counts list;
    uint64_t present[CS_ALIGNMENT_KEYS_MAX]; /* rows that have the key */
    uint64_t missing[CS_FIELDS];             /* rows without the field, of the fields that the keys use */
    uint64_t unreadable[CS_FIELDS];          /* rows whose field is there but cannot be read */
    uint64_t unreadable_line[CS_FIELDS];     /* the first of these; 0: none */
} cs_persons_count;

typedef struct cs_persons {
    size_t count;                           /* rows of the table, in its order */
    size_t keys_count;                      /* of the plan */
    uint8_t (*keys)[CS_IDENTITY_KEY_BYTES]; /* (count, keys_count) */
    uint8_t *present; /* (count): keys that are this row's alone, bits 1 << key; 0: not part of the alignment */
    uint32_t *lines;  /* (count): where the row starts in the file */
    char **patients;  /* (count): the site's own number of the patient; NULL where no column is given */
    cs_persons_count counted;
} cs_persons;

/* Reads the table that `dataset` describes; relative paths start in `folder`. A key stays with a row when no other
 * person of the table has it: a hit on it is a hit on that person. CS_NOT_FOUND: no such file or column; CS_INVALID: a
 * row that does not fit; CS_EXHAUSTED over a limit. */
CS_MUST_CHECK cs_status cs_persons_load(const cs_plan *plan, const cs_site_dataset *dataset, const char *folder,
                                        cs_persons **ret);
/* The same from bytes, for tests and fuzzing. The bytes are changed. */
CS_MUST_CHECK cs_status cs_persons_read(const cs_plan *plan, const cs_site_dataset *dataset, cs_buffer *bytes,
                                        const char *name, cs_persons **ret);
/* Wipes the keys. */
void cs_persons_free(cs_persons *persons);
CS_DEFINE_AUTO_PTR(cs_persons)

#endif
