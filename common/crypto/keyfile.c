/* Key files: readable by their owner only, on the way in and on the way out. Any thread. */
#include "common/crypto/keyfile.h"

#include "common/base/failpoint.h"
#include "common/base/file.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define KEY_FILE_MODE     0600
#define MODE_GROUP_OTHERS 0077

cs_status cs_key_file_write(const char *path, cs_bytes pem)
{
    CS_FAILPOINT("crypto.key_write");
    return cs_file_write_atomic(path, pem, KEY_FILE_MODE);
}

/* `holds` says what it is that others must not see. */
static cs_status read_secret(const char *path, const char *holds, cs_secret *ret)
{
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(cs_file_open(path, O_RDONLY, 0, &fd));

    /* The mode of the open file, not of the name: nobody can swap the file between the check and the read. */
    struct stat about;
    if (fstat(fd, &about) != 0)
        return cs_fail_errno("cannot look at %s", path);
    if (!S_ISREG(about.st_mode))
        return cs_fail(CS_DENIED, "%s holds %s and must be a regular file", path, holds);
    if ((about.st_mode & MODE_GROUP_OTHERS) != 0)
        return cs_fail(CS_DENIED, "%s holds %s but has mode %04o, so others may read it; run: chmod 600 %s", path,
                       holds, (unsigned)(about.st_mode & 07777), path);

    uint64_t size = 0;
    CS_TRY(cs_file_size(fd, &size));
    if (size == 0 || size > CS_KEY_FILE_MAX_BYTES)
        return cs_fail(CS_INVALID, "%s has %llu bytes, such a file has 1 to %d", path, (unsigned long long)size,
                       CS_KEY_FILE_MAX_BYTES);
    CS_AUTO(cs_secret) text = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&text, (size_t)size + 1);
    CS_TRY(cs_file_read_exact(fd, text.data, (size_t)size));
    text.size = (size_t)size;
    text.data[size] = 0;

    cs_buffer_wipe(ret);
    *ret = text;
    text = CS_BUFFER_EMPTY;
    return CS_OK;
}

cs_status cs_key_file_read(const char *path, cs_secret *ret_pem)
{
    return read_secret(path, "a private key", ret_pem);
}

cs_status cs_proxy_login_read(const char *path, cs_secret *ret_login)
{
    CS_AUTO(cs_secret) text = CS_BUFFER_EMPTY;
    CS_TRY(read_secret(path, "a password", &text));
    size_t size = strcspn(cs_buffer_text(&text), "\r\n");
    if (memchr(text.data, ':', size) == NULL || size > CS_PROXY_LOGIN_MAX_BYTES)
        return cs_fail(CS_INVALID,
                       "%s: the first line must be user:password, at most %d bytes; found %zu bytes %s a colon", path,
                       CS_PROXY_LOGIN_MAX_BYTES, size, memchr(text.data, ':', size) ? "with" : "without");
    for (size_t i = 0; i < size; i++) {
        if (text.data[i] < ' ' || text.data[i] == 127)
            return cs_fail(CS_INVALID, "%s: the login has a control character at byte %zu", path, i + 1);
    }
    memset(text.data + size, 0, text.size - size);
    text.size = size;
    cs_buffer_wipe(ret_login);
    *ret_login = text;
    text = CS_BUFFER_EMPTY;
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
