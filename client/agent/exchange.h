/* Files to and from the folder of a task, where the worker may write what it likes. Nothing of the worker is trusted:
 * its files are copied out of its reach first, and the copy is checked and sent. Worker thread of the agent. */
#ifndef CS_AGENT_EXCHANGE_H
#define CS_AGENT_EXCHANGE_H

#include "common/blobs/blobs.h"

/* What a phase may send. The table in exchange.c is the whole list: nothing else leaves the building. */
typedef struct cs_phase_rule {
    const char *phase;
    const char *output;    /* the only output's name; NULL: numbers only */
    bool is_shaped;        /* it must have the tensors of the input "model" */
    uint64_t output_bytes; /* the most it may have; shaped: in addition to the model's */
    const char *kept;      /* what it may leave for the job's next task of this phase; never sent; NULL: nothing */
    bool is_sealed;        /* of an alignment: its outputs are sealed for single sites (alignment.h) */
} cs_phase_rule;
/* NULL when this build has no such phase. */
const cs_phase_rule *cs_phase_rule_find(const char *phase);

/* Puts a copy of the blob into the task's folder. */
CS_MUST_CHECK cs_status cs_exchange_give(cs_blobs *blobs, const cs_hash *blob, const char *folder, const char *file);

/* Readable safetensors, every value finite, and the tensors of `model_path` unless that is NULL. Errors speak of
 * `name`, never of a path or a value. */
CS_MUST_CHECK cs_status cs_exchange_check(const char *path, const char *model_path, const char *name);

/* Takes FOLDER/FILE that the worker wrote: copies it to `staging_path` (outside its folders), checks it by the rule and
 * moves it into the blobs. `model_path`: the input "model"; NULL when there was none. */
CS_MUST_CHECK cs_status cs_exchange_take(cs_blobs *blobs, const cs_phase_rule *rule, const char *folder,
                                         const char *file, const char *model_path, const char *staging_path,
                                         cs_hash *ret, uint64_t *ret_size);
/* The same for what the phase keeps: any safetensors of finite values, as large as CS_KEPT_MODELS models. */
#define CS_KEPT_MODELS 4
CS_MUST_CHECK cs_status cs_exchange_take_kept(cs_blobs *blobs, const cs_phase_rule *rule, const char *folder,
                                              const char *file, const char *model_path, const char *staging_path,
                                              cs_hash *ret);

#endif
