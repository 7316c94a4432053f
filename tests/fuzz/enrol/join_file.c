/* The join file: text that came by mail. */
#include "client/agent/enrol.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CS_AUTO(cs_join_file) file = {0};
    if (cs_join_file_parse(cs_bytes_of(data, size), "join file", &file) == CS_OK &&
        cs_name_check(file.site, "site") != CS_OK)
        abort();
    return 0;
}
