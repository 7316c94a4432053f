/* Any bytes as a site's configuration: read or refused with a sentence, nothing else. */
#include "common/config/site.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CS_AUTO_PTR(cs_site_config) config = NULL;

    cs_status status = cs_site_config_read(cs_bytes_of(data, size), "fuzz.yaml", "/site", &config);
    if ((status == CS_OK) != (config != NULL) || (status != CS_OK && cs_error_text()[0] == 0))
        abort();
    return 0;
}
