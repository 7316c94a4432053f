/* Any bytes as a plan: read or refused with a sentence, nothing else. */
#include "common/config/plan.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CS_AUTO_PTR(cs_plan) plan = NULL;

    cs_status status = cs_plan_read(cs_bytes_of(data, size), "fuzz.yaml", &plan);
    if ((status == CS_OK) != (plan != NULL) || (status != CS_OK && cs_error_text()[0] == 0))
        abort();
    return 0;
}
