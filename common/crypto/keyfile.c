/* Key files: readable by their owner only, on the way in and on the way out. Any thread. */
#include "common/crypto/keyfile.h"

#include "common/base/failpoint.h"
#include "common/base/file.h"

#include <fcntl.h>
#include <sys/stat.h>

#define KEY_FILE_MODE     0600
#define MODE_GROUP_OTHERS 0077

cs_status cs_key_file_write(const char *path, cs_bytes pem)
{
    CS_FAILPOINT("crypto.key_write");
    return cs_file_write_atomic(path, pem, KEY_FILE_MODE);
}

cs_status cs_key_file_read(const char *path, cs_secret *ret_pem)
{
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(cs_file_open(path, O_RDONLY, 0, &fd));

    /* The mode of the open file, not of the name: nobody can swap the file between the check and the read. */
    struct stat about;
    if (fstat(fd, &about) != 0)
        return cs_fail_errno("cannot look at %s", path);
    if (!S_ISREG(about.st_mode))
        return cs_fail(CS_DENIED, "%s holds a private key and must be a regular file", path);
    if ((about.st_mode & MODE_GROUP_OTHERS) != 0)
        return cs_fail(CS_DENIED, "%s holds a private key but has mode %04o, so others may read it; run: chmod 600 %s",
                       path, (unsigned)(about.st_mode & 07777), path);

    uint64_t size = 0;
    CS_TRY(cs_file_size(fd, &size));
    if (size == 0 || size > CS_KEY_FILE_MAX_BYTES)
        return cs_fail(CS_INVALID, "%s has %llu bytes, a key file has 1 to %d", path, (unsigned long long)size,
                       CS_KEY_FILE_MAX_BYTES);
    CS_AUTO(cs_secret) pem = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&pem, (size_t)size + 1);
    CS_TRY(cs_file_read_exact(fd, pem.data, (size_t)size));
    pem.size = (size_t)size;
    pem.data[size] = 0;

    cs_buffer_wipe(ret_pem);
    *ret_pem = pem;
    pem = CS_BUFFER_EMPTY;
    return CS_OK;
}

cs_status cs_key_file_wipe(const char *path)
{
    if (!cs_file_exists(path))
        return CS_OK;
    CS_AUTO(cs_fd) fd = -1;
    uint64_t size = 0;
    const uint8_t zeros[4096] = {0};
    CS_TRY(cs_file_open(path, O_WRONLY | O_NOFOLLOW, 0, &fd));
    CS_TRY(cs_file_size(fd, &size));
    for (uint64_t at = 0; at < CS_MIN(size, (uint64_t)CS_KEY_FILE_MAX_BYTES); at += sizeof(zeros))
        CS_TRY(cs_file_pwrite(fd, zeros, (size_t)CS_MIN(size - at, (uint64_t)sizeof(zeros)), at));
    CS_TRY(cs_file_sync(fd));
    return cs_file_remove(path);
}
