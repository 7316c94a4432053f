/* Which connections the core gets to see. The core (1.51) takes any number of them, from anybody, before it knows who
 * they are; and when accept fails once, for want of descriptors, it never listens again. So this stands in the place of
 * libc's accept4, for the whole process: a connection that would take a descriptor of the upper half is closed at once,
 * and no failure that passes is told. Linked into whatever has a server. Any thread. */
#include "common/rpc/call.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Half of it for connections: three for each of a thousand sites, and the rest for strangers in their handshake, some
 * 60 KiB each. The other half for files. */
#define DESCRIPTORS_MOST 8192

static pthread_mutex_t spare_guard = PTHREAD_MUTEX_INITIALIZER;
static int spare = -1; /* spare_guard */

void cs_rpc_accept_prepare(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = CS_MAX(limit.rlim_cur, CS_MIN(limit.rlim_max, (rlim_t)DESCRIPTORS_MOST));
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    pthread_mutex_lock(&spare_guard);
    if (spare < 0)
        spare = open("/dev/null", O_RDONLY | O_CLOEXEC); /* check-tree: a number to hold, no file */
    pthread_mutex_unlock(&spare_guard);
}

static int accept_plainly(int listener, struct sockaddr *peer, socklen_t *size, int flags)
{
    return (int)syscall(SYS_accept4, listener, peer, size, flags);
}

/* The lowest free number is given out, so the number says how many are in use. */
static bool is_over_half(int fd)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 && (rlim_t)fd >= limit.rlim_cur / 2;
}

/* No descriptor is left: the spare one is lent to turn the caller away, or it would wait in the queue for ever. */
static bool turn_away(int listener)
{
    pthread_mutex_lock(&spare_guard);
    bool has_spare = spare >= 0;
    if (has_spare) {
        close(spare);
        int fd = accept_plainly(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0)
            close(fd);
        spare = open("/dev/null", O_RDONLY | O_CLOEXEC); /* check-tree: a number to hold, no file */
    }
    pthread_mutex_unlock(&spare_guard);
    return has_spare;
}

/* Takes libc's place by its name; the declaration is <sys/socket.h>'s. */
__attribute__((visibility("default"))) int accept4(int listener, struct sockaddr *peer, socklen_t *size, int flags)
{
    socklen_t room = size ? *size : 0;
    for (;;) {
        if (size)
            *size = room;
        int fd = accept_plainly(listener, peer, size, flags);
        if (fd >= 0 && !is_over_half(fd))
            return fd;
        if (fd >= 0) {
            close(fd);
            continue;
        }
        switch (errno) {
        case EBADF:
        case EINVAL:
        case ENOTSOCK:
        case EOPNOTSUPP:
        case EFAULT:
        case EAGAIN:
        case EINTR:
            return -1; /* a mistake of the caller, or nobody there */
        case EMFILE:
        case ENFILE:
            if (turn_away(listener))
                continue;
            break;
        default: /* of one connection that is gone, or of a moment */
            break;
        }
        errno = EAGAIN; /* the next connection wakes the core again */
        return -1;
    }
}
