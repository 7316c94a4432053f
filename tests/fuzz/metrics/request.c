/* An HTTP request to GET /metrics: from any process of the machine. A verdict does not change when more comes. */
#include "common/metrics/responder.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size = CS_MIN(size, (size_t)CS_METRICS_REQUEST_MAX_BYTES);
    const int whole = cs_metrics_judge(cs_bytes_of(data, size));
    for (size_t part = 0; part <= size; part++) {
        const int verdict = cs_metrics_judge(cs_bytes_of(data, part));
        if (verdict != 0 && verdict != whole)
            abort();
    }
    if (whole != 0 && whole != 200 && whole != 400 && whole != 404 && whole != 405 && whole != 431)
        abort();
    return 0;
}
