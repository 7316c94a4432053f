/* Reads "host:port" where the host can only be this machine. Any thread. */
#include "common/base/loopback.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define HOST_BYTES 64

static cs_status refuse(const char *text)
{
    return cs_fail(
        CS_INVALID,
        "'%.100s' is no address of this machine alone: expected 127.0.0.1:PORT, [::1]:PORT or localhost:PORT", text);
}

static bool parse_port(const char *text, uint16_t *ret)
{
    if (strspn(text, "0123456789") != strlen(text) || text[0] == '\0' || strlen(text) > 5)
        return false;
    const unsigned long port = strtoul(text, NULL, 10);
    *ret = htons((uint16_t)port);
    return port <= UINT16_MAX;
}

cs_status cs_loopback_parse(const char *text, struct sockaddr_storage *ret, socklen_t *ret_size)
{
    const char *colon = strrchr(text, ':');
    const size_t host_size = colon != NULL ? (size_t)(colon - text) : 0;
    uint16_t port = 0;
    char host[HOST_BYTES] = {0};
    if (host_size == 0 || host_size >= sizeof(host) || !parse_port(colon + 1, &port))
        return refuse(text);
    memcpy(host, text, host_size);
    memset(ret, 0, sizeof(*ret));

    if (strcmp(host, "[::1]") == 0) {
        *(struct sockaddr_in6 *)ret =
            (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
        *ret_size = sizeof(struct sockaddr_in6);
        return CS_OK;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = port};
    const char *number = strcmp(host, "localhost") == 0 ? "127.0.0.1" : host;
    if (inet_pton(AF_INET, number, &address.sin_addr) != 1 || ntohl(address.sin_addr.s_addr) >> 24 != IN_LOOPBACKNET)
        return refuse(text);
    *(struct sockaddr_in *)ret = address;
    *ret_size = sizeof(address);
    return CS_OK;
}
