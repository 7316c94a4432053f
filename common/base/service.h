/* What a service manager wants to hear: that the daemon serves, and how it is. The protocol of sd_notify(3): one
 * datagram to the socket that $NOTIFY_SOCKET names; without one, nothing. Any thread. */
#ifndef CS_BASE_SERVICE_H
#define CS_BASE_SERVICE_H

#include "common/base/status.h"

/* Once, when requests are served: `systemctl start` waits for it. */
void cs_service_ready(void);
/* One sentence for `systemctl status`, such as why there is no session. */
void cs_service_status(const char *sentence);

#endif
