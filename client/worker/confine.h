/* Gives up every right the worker does not need, for good, before the first byte of patient data is opened: Landlock
 * (only the named files and folders, no network, no signals), a seccomp allow-list, no_new_privs. Called once by the
 * worker's session on the main thread; holds for all threads of the process, those that libtorch has started too. */
#ifndef CS_WORKER_CONFINE_H
#define CS_WORKER_CONFINE_H

#include "common/config/site.h"

#define CS_CONFINE_PATHS_MAX 256

typedef struct cs_confinement {
    const char *const *readable; /* files or folders; those that do not exist are left out */
    size_t readable_count;
    const char *writable[2];      /* folders with everything in them; NULL: none */
    const cs_site_config *config; /* which missing confinements it accepts */
} cs_confinement;

/* What holds now, "landlock 7, seccomp, no_new_privs" (static), and what this kernel lacks but the site accepts; at
 * most three names. CS_DENIED when the kernel lacks one that the site's configuration does not accept by name. */
CS_MUST_CHECK cs_status cs_confine(const cs_confinement *confinement, const char **ret_holds,
                                   const char *ret_missing[3], size_t *ret_missing_count);

/* Early in main: closes every descriptor above `last`, so that none of the parent's is left. */
void cs_confine_close_above(int last);

#endif
