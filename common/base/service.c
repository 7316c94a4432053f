/* sd_notify without libsystemd: it is one datagram. Failing to send it changes nothing here; the manager has timeouts.
 */
#include "common/base/service.h"

#include "common/base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MESSAGE_BYTES 512

static void tell(const char *message)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path == NULL || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof(address.sun_path))
        return;
    memcpy(address.sun_path, path, strlen(path));
    if (path[0] == '@')
        address.sun_path[0] = '\0'; /* the abstract name space */
    CS_AUTO(cs_fd) fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        (void)sendto(fd, message, strlen(message), MSG_NOSIGNAL | MSG_DONTWAIT, (const struct sockaddr *)&address,
                     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)));
}

void cs_service_ready(void)
{
    tell("READY=1");
}

void cs_service_status(const char *sentence)
{
    char message[MESSAGE_BYTES];
    const int size = snprintf(message, sizeof(message), "STATUS=%s", sentence);
    for (char *c = message; size > 0 && *c != '\0'; c++)
        if (*c == '\n')
            *c = ' '; /* would begin another assignment */
    tell(message);
}
