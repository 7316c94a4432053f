/* Whatever a proxy may answer to CONNECT, in whatever pieces it comes: the way is open only behind a status line with
 * 2xx and an empty line, however the answer was cut; and what it says goes into a sentence without control characters.
 */
#include "common/crypto/dial.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_sentence(void)
{
    for (const char *at = cs_error_text(); *at; at++) {
        if (*at < ' ' || *at > '~')
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    /* As it comes over the line: the first byte says how long a piece is. What is taken whole was wanted in pieces. */
    size_t piece = (size_t)data[0] + 1;
    data++;
    size--;
    cs_status status = CS_LATER;
    size_t seen = 0;
    while (status == CS_LATER && seen < size) {
        seen = CS_MIN(seen + piece, size);
        status = cs_proxy_answer_check(cs_bytes_of(data, seen), "proxy p:3128", "c:8443");
    }
    if (status == CS_INVALID || status == CS_DENIED || status == CS_UNAUTHENTICATED)
        check_sentence();
    else if (status != CS_LATER && status != CS_OK)
        abort();
    if (status == CS_LATER && seen >= CS_PROXY_ANSWER_MAX_BYTES)
        abort(); /* nobody waits for an endless answer */
    if (status == CS_OK &&
        (memcmp(data, "HTTP/1.", 7) != 0 || data[9] != '2' || memcmp(data + seen - 4, "\r\n\r\n", 4) != 0))
        abort();
    return 0;
}
