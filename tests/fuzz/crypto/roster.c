/* The text of a roster: whatever is read is written again as the very same bytes, and finds what it names. */
#include "common/crypto/roster.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CS_AUTO(cs_roster) roster = CS_ROSTER_EMPTY;
    if (cs_roster_parse(cs_bytes_of(data, size), &roster) != CS_OK)
        return 0;
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    cs_roster_write(&roster, &text);
    if (!cs_bytes_equal(cs_buffer_view(&text), cs_bytes_of(data, size)))
        abort();
    for (size_t i = 0; i < roster.count; i++)
        if (cs_roster_find(&roster, roster.members[i].site) != &roster.members[i])
            abort();
    return 0;
}
