/* The one file-I/O layer. Called by everything that keeps bytes, on any thread. */
#include "common/base/file.h"

#include "common/base/random.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *fault_self;
static _Atomic(cs_file_fault) fault_hook;

void cs_file_set_fault(cs_file_fault fault, void *self)
{
    fault_self = self;
    atomic_store(&fault_hook, fault);
}

/* The name behind a descriptor, for error sentences and for the fault hook. A process that may not read /proc gets the
 * number. */
static void name_fd(int fd, char out[PATH_MAX])
{
    char link[64];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    const ssize_t size = readlink(link, out, PATH_MAX - 1);
    if (size >= 0)
        out[size] = '\0';
    else
        snprintf(out, PATH_MAX, "descriptor %d", fd);
}

/* True when a test wants this operation to fail; errno says with what. */
static bool is_faulted(const char *operation, const char *path)
{
    const cs_file_fault fault = atomic_load_explicit(&fault_hook, memory_order_acquire);
    if (fault == NULL)
        return false;
    const int code = fault(fault_self, operation, path);
    if (code != 0)
        errno = code;
    return code != 0;
}

static bool is_fd_faulted(const char *operation, int fd)
{
    if (atomic_load_explicit(&fault_hook, memory_order_relaxed) == NULL)
        return false;
    char path[PATH_MAX];
    name_fd(fd, path);
    return is_faulted(operation, path);
}

static cs_status fail_fd(const char *what, int fd)
{
    const int code = errno;
    char path[PATH_MAX];
    name_fd(fd, path);
    errno = code;
    return cs_fail_errno("cannot %s '%s'", what, path);
}

void cs_fd_clear(cs_fd *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

cs_status cs_file_open(const char *path, int flags, mode_t mode, cs_fd *ret)
{
    int fd = -1;
    if (!is_faulted("open", path)) {
        do {
            fd = open(path, flags | O_CLOEXEC, mode);
        } while (fd < 0 && errno == EINTR);
    }
    if (fd < 0)
        return cs_fail_errno("cannot open '%s'", path);
    *ret = fd;
    return CS_OK;
}

cs_status cs_file_read(int fd, void *data, size_t size, size_t *ret_size)
{
    uint8_t *bytes = data;
    size_t got = 0;
    while (got < size) {
        const ssize_t n = is_fd_faulted("read", fd) ? -1 : read(fd, bytes + got, size - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_fd("read", fd);
        if (n == 0)
            break;
        got += (size_t)n;
    }
    *ret_size = got;
    return CS_OK;
}

static cs_status fail_early_end(int fd, size_t got, size_t size)
{
    char path[PATH_MAX];
    name_fd(fd, path);
    return cs_fail(CS_DATA_LOSS, "'%s' ends early: %zu of %zu bytes are there", path, got, size);
}

cs_status cs_file_read_exact(int fd, void *data, size_t size)
{
    size_t got = 0;
    CS_TRY(cs_file_read(fd, data, size, &got));
    return got == size ? CS_OK : fail_early_end(fd, got, size);
}

cs_status cs_file_write(int fd, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    while (size > 0) {
        const ssize_t n = is_fd_faulted("write", fd) ? -1 : write(fd, bytes, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_fd("write", fd);
        bytes += n;
        size -= (size_t)n;
    }
    return CS_OK;
}

cs_status cs_file_pread_exact(int fd, void *data, size_t size, uint64_t offset)
{
    uint8_t *bytes = data;
    size_t got = 0;
    while (got < size) {
        const ssize_t n = is_fd_faulted("pread", fd) ? -1 : pread(fd, bytes + got, size - got, (off_t)(offset + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_fd("read", fd);
        if (n == 0)
            return fail_early_end(fd, got, size);
        got += (size_t)n;
    }
    return CS_OK;
}

cs_status cs_file_pwrite(int fd, const void *data, size_t size, uint64_t offset)
{
    const uint8_t *bytes = data;
    while (size > 0) {
        const ssize_t n = is_fd_faulted("pwrite", fd) ? -1 : pwrite(fd, bytes, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_fd("write", fd);
        bytes += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return CS_OK;
}

/* Calls that answer 0 or -1, with EINTR tried again. */
#define RETRY_FD(operation, what, fd, call)                                                                            \
    do {                                                                                                               \
        int result_;                                                                                                   \
        do {                                                                                                           \
            result_ = is_fd_faulted(operation, fd) ? -1 : (call);                                                      \
        } while (result_ < 0 && errno == EINTR);                                                                       \
        if (result_ < 0)                                                                                               \
            return fail_fd(what, fd);                                                                                  \
    } while (0)

cs_status cs_file_truncate(int fd, uint64_t size)
{
    RETRY_FD("truncate", "truncate", fd, ftruncate(fd, (off_t)size));
    return CS_OK;
}

cs_status cs_file_size(int fd, uint64_t *ret)
{
    struct stat info;
    RETRY_FD("stat", "see the size of", fd, fstat(fd, &info));
    *ret = (uint64_t)info.st_size;
    return CS_OK;
}

cs_status cs_file_sync(int fd)
{
    RETRY_FD("fsync", "make durable", fd, fsync(fd));
    return CS_OK;
}

cs_status cs_file_sync_data(int fd)
{
    RETRY_FD("fdatasync", "make durable", fd, fdatasync(fd));
    return CS_OK;
}

cs_status cs_file_sync_folder(const char *folder)
{
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(cs_file_open(folder, O_RDONLY | O_DIRECTORY, 0, &fd));
    return cs_file_sync(fd);
}

cs_status cs_file_close(cs_fd *fd)
{
    if (*fd < 0)
        return CS_OK;
    char path[PATH_MAX] = "";
    const bool is_hooked = atomic_load_explicit(&fault_hook, memory_order_relaxed) != NULL;
    if (is_hooked)
        name_fd(*fd, path);
    const bool is_made_to_fail = is_hooked && is_faulted("close", path);
    const int fault = errno;
    const int result = close(*fd); /* after EINTR the descriptor is gone all the same */
    const int number = *fd;
    *fd = -1;
    if (is_made_to_fail)
        errno = fault;
    else if (result == 0 || errno == EINTR)
        return CS_OK;
    return cs_fail_errno("cannot close descriptor %d", number);
}

bool cs_file_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

static cs_status fail_too_large(const char *path, size_t max_bytes)
{
    return cs_fail(CS_EXHAUSTED, "'%s' is larger than the limit of %zu bytes", path, max_bytes);
}

cs_status cs_file_read_all(const char *path, size_t max_bytes, cs_buffer *ret)
{
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(cs_file_open(path, O_RDONLY, 0, &fd));
    uint64_t size = 0;
    CS_TRY(cs_file_size(fd, &size));
    if (size > max_bytes)
        return fail_too_large(path, max_bytes);

    /* Files of /proc have no size and others may grow meanwhile: read on until the end or one byte past the limit. */
    CS_AUTO(cs_buffer) content = CS_BUFFER_EMPTY;
    size_t room = (size_t)size;
    for (;;) {
        room = CS_MIN(room, max_bytes) + 1;
        CS_TRY(cs_buffer_reserve_peer(&content, room, path));
        size_t got = 0;
        CS_TRY(cs_file_read(fd, content.data + content.size, room - content.size, &got));
        content.size += got;
        content.data[content.size] = 0;
        if (content.size < room)
            break;
        if (content.size > max_bytes)
            return fail_too_large(path, max_bytes);
        room = CS_MAX(2 * room, (size_t)4096);
    }
    cs_buffer_clear(ret);
    *ret = content;
    content = CS_BUFFER_EMPTY;
    return CS_OK;
}

static cs_status write_temporary(const char *path, cs_bytes bytes, mode_t mode)
{
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(cs_file_open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode, &fd));
    CS_TRY(cs_file_write(fd, bytes.data, bytes.size));
    CS_TRY(cs_file_sync(fd));
    return cs_file_close(&fd);
}

cs_status cs_file_write_atomic(const char *path, cs_bytes bytes, mode_t mode)
{
    uint64_t number = 0;
    cs_random_bytes(&number, sizeof(number));
    CS_AUTO(cs_string) temporary = cs_format("%s.%d-%016llx.tmp", path, (int)getpid(), (unsigned long long)number);
    cs_status status = write_temporary(temporary, bytes, mode);
    if (status == CS_OK)
        status = cs_file_rename(temporary, path);
    if (status != CS_OK)
        unlink(temporary); /* past the hook: tidying must not hide the first error */
    return status;
}

cs_status cs_file_rename(const char *from, const char *to)
{
    if (is_faulted("rename", to) || rename(from, to) != 0)
        return cs_fail_errno("cannot rename '%s' to '%s'", from, to);
    CS_AUTO(cs_string) to_folder = cs_path_folder(to);
    return cs_file_sync_folder(to_folder);
}

cs_status cs_file_remove(const char *path)
{
    if ((is_faulted("remove", path) || unlink(path) != 0) && errno != ENOENT)
        return cs_fail_errno("cannot remove '%s'", path);
    return CS_OK;
}

/* CS_DONE when it was there. */
static cs_status make_if_missing(const char *path, mode_t mode)
{
    if (!is_faulted("mkdir", path) && mkdir(path, mode) == 0)
        return CS_OK;
    struct stat info;
    if (errno == EEXIST && stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        return CS_DONE;
    return cs_fail_errno("cannot make the folder '%s'", path);
}

cs_status cs_folder_make_unsynced(const char *path, mode_t mode)
{
    cs_status status = make_if_missing(path, mode);
    return status == CS_DONE ? CS_OK : status;
}

static cs_status make_one_folder(const char *path, mode_t mode)
{
    cs_status status = make_if_missing(path, mode);
    if (status != CS_OK)
        return status == CS_DONE ? CS_OK : status;
    CS_AUTO(cs_string) parent = cs_path_folder(path);
    return cs_file_sync_folder(parent);
}

cs_status cs_folder_make(const char *path, mode_t mode)
{
    CS_AUTO(cs_string) prefix = cs_strdup(path);
    for (char *slash = strchr(prefix + 1, '/'); *prefix != '\0' && slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (!cs_file_exists(prefix))
            CS_TRY(make_one_folder(prefix, mode));
        *slash = '/';
    }
    return make_one_folder(path, mode);
}

typedef DIR *open_folder;
static void open_folder_clear(open_folder *folder)
{
    if (*folder != NULL)
        closedir(*folder);
}

static cs_status open_folder_at(int parent_fd, const char *name, open_folder *ret)
{
    int fd = -1;
    if (!is_faulted("open", name))
        fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (folder == NULL) {
        const int code = errno;
        if (fd >= 0)
            close(fd);
        errno = code;
        return cs_fail_errno("cannot open the folder '%s'", name);
    }
    *ret = folder;
    return CS_OK;
}

/* The next entry but "." and ".."; *ret is NULL at the end. */
static cs_status next_entry(DIR *folder, const char **ret)
{
    struct dirent *entry = NULL;
    do {
        errno = 0;
        entry = readdir(folder);
    } while (entry != NULL && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0));
    if (entry == NULL && errno != 0)
        return fail_fd("list", dirfd(folder));
    *ret = entry == NULL ? NULL : entry->d_name;
    return CS_OK;
}

/* Removes a file or an empty folder; *ret_is_full where a folder still has something in it. */
static cs_status remove_entry(int folder_fd, const char *name, bool *ret_is_full)
{
    *ret_is_full = false;
    if (is_faulted("remove", name))
        return cs_fail_errno("cannot remove '%s'", name);
    if (unlinkat(folder_fd, name, 0) == 0 || errno == ENOENT)
        return CS_OK;
    if (errno != EISDIR && errno != EPERM)
        return cs_fail_errno("cannot remove '%s'", name);
    if (unlinkat(folder_fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
        return CS_OK;
    *ret_is_full = errno == ENOTEMPTY || errno == EEXIST;
    return *ret_is_full ? CS_OK : cs_fail_errno("cannot remove '%s'", name);
}

/* Empties the folder `name` of `top`: its files go, its folders move up into `top`. So a tree of any depth, made by a
 * process we do not trust, costs two descriptors and no recursion. */
static cs_status lift_folder(int top_fd, const char *name)
{
    CS_AUTO(open_folder) folder = NULL;
    CS_TRY(open_folder_at(top_fd, name, &folder));
    const char *entry = NULL;
    for (;;) {
        CS_TRY(next_entry(folder, &entry));
        if (entry == NULL)
            break;
        bool is_full = false;
        CS_TRY(remove_entry(dirfd(folder), entry, &is_full));
        if (is_full) {
            uint64_t number = 0;
            cs_random_bytes(&number, sizeof(number));
            char lifted[32];
            snprintf(lifted, sizeof(lifted), "lifted-%016llx", (unsigned long long)number);
            if (renameat(dirfd(folder), entry, top_fd, lifted) != 0)
                return cs_fail_errno("cannot move the folder '%s'", entry);
        }
    }
    return CS_OK;
}

cs_status cs_folder_remove(const char *path)
{
    CS_AUTO(open_folder) top = NULL;
    cs_status opened = open_folder_at(AT_FDCWD, path, &top);
    if (opened == CS_NOT_FOUND)
        return CS_OK;
    CS_TRY(opened);
    for (bool is_empty = false; !is_empty;) {
        is_empty = true;
        rewinddir(top);
        const char *entry = NULL;
        for (;;) {
            CS_TRY(next_entry(top, &entry));
            if (entry == NULL)
                break;
            bool is_full = false;
            is_empty = false;
            CS_TRY(remove_entry(dirfd(top), entry, &is_full));
            if (is_full)
                CS_TRY(lift_folder(dirfd(top), entry));
        }
    }
    if (rmdir(path) != 0 && errno != ENOENT)
        return cs_fail_errno("cannot remove the folder '%s'", path);
    return CS_OK;
}

typedef struct names {
    char **items;
    size_t count, capacity;
} names;

static void names_clear(names *names)
{
    for (size_t i = 0; i < names->count; i++)
        cs_free(names->items[i]);
    cs_free(names->items);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

cs_status cs_folder_list(const char *path, cs_status (*visit)(void *self, const char *name), void *self)
{
    CS_AUTO(names) names = {0};
    {
        CS_AUTO(cs_fd) fd = -1;
        CS_TRY(cs_file_open(path, O_RDONLY | O_DIRECTORY, 0, &fd));
        CS_AUTO(open_folder) folder = fdopendir(fd);
        if (folder == NULL)
            return cs_fail_errno("cannot list the folder '%s'", path);
        fd = -1; /* closedir closes it */
        const char *entry = NULL;
        for (;;) {
            CS_TRY(next_entry(folder, &entry));
            if (entry == NULL)
                break;
            if (names.count == names.capacity) {
                names.capacity = CS_MAX(2 * names.capacity, (size_t)16);
                names.items = cs_realloc(names.items, names.capacity * sizeof(char *));
            }
            names.items[names.count++] = cs_strdup(entry);
        }
    }
    if (names.count > 1)
        qsort(names.items, names.count, sizeof(char *), compare_names);
    for (size_t i = 0; i < names.count; i++)
        CS_TRY(visit(self, names.items[i]));
    return CS_OK;
}

#define SIZED_LEVELS 3

struct sizing {
    const char *folder;
    int levels;
    uint64_t bytes;
};

static cs_status add_size(void *self, const char *name)
{
    struct sizing *sizing = self;
    CS_AUTO(cs_string) path = cs_path_join(sizing->folder, name);
    struct stat info;
    if (lstat(path, &info) != 0)
        return errno == ENOENT ? CS_OK : cs_fail_errno("cannot look at '%s'", path);
    if (S_ISREG(info.st_mode))
        sizing->bytes += (uint64_t)info.st_size;
    if (!S_ISDIR(info.st_mode) || sizing->levels == 0)
        return CS_OK;
    struct sizing inner = {.folder = path, .levels = sizing->levels - 1};
    const cs_status status = cs_folder_list(path, add_size, &inner);
    sizing->bytes += inner.bytes;
    return status == CS_NOT_FOUND ? CS_OK : status;
}

cs_status cs_folder_size(const char *path, uint64_t *ret_bytes)
{
    struct sizing sizing = {.folder = path, .levels = SIZED_LEVELS};
    CS_TRY(cs_folder_list(path, add_size, &sizing));
    *ret_bytes = sizing.bytes;
    return CS_OK;
}

cs_status cs_disk_free(const char *path, uint64_t *ret_bytes)
{
    struct statvfs info;
    int result;
    do {
        result = is_faulted("statvfs", path) ? -1 : statvfs(path, &info);
    } while (result != 0 && errno == EINTR);
    if (result != 0)
        return cs_fail_errno("cannot see the free space at '%s'", path);
    *ret_bytes = (uint64_t)info.f_bavail * info.f_frsize;
    return CS_OK;
}

#define OPEN_ATTEMPTS 100

cs_status cs_file_open_beneath(int folder_fd, const char *name, uint64_t max_bytes, cs_fd *ret, uint64_t *ret_size)
{
    /* O_NONBLOCK: a pipe in a file's place must not hold us up before we have seen what it is. */
    struct open_how how = {
        .flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    /* EAGAIN: a rename raced with us. Not for ever: the owner of the folder could make it last. */
    int number = -1;
    const bool is_made_to_fail = is_faulted("open", name);
    for (int attempt = 0; number < 0 && !is_made_to_fail && attempt < OPEN_ATTEMPTS; attempt++) {
        number = (int)syscall(SYS_openat2, folder_fd, name, &how, sizeof(how));
        if (number < 0 && errno != EINTR && errno != EAGAIN)
            break;
    }
    if (number < 0 && (errno == ELOOP || errno == EXDEV))
        return cs_fail(CS_DENIED, "'%s' leads through a link or out of its folder", name);
    if (number < 0)
        return cs_fail_errno("cannot open '%s'", name);

    CS_AUTO(cs_fd) fd = number;
    struct stat info;
    RETRY_FD("stat", "see the size of", fd, fstat(fd, &info));
    if (!S_ISREG(info.st_mode))
        return cs_fail(CS_DENIED, "'%s' is not a regular file", name);
    if ((uint64_t)info.st_size > max_bytes)
        return cs_fail(CS_EXHAUSTED, "'%s' has %llu bytes, the limit is %llu", name, (unsigned long long)info.st_size,
                       (unsigned long long)max_bytes);
    *ret_size = (uint64_t)info.st_size;
    *ret = fd;
    fd = -1;
    return CS_OK;
}

char *cs_path_join(const char *folder, const char *name)
{
    if (name[0] == '/' || folder[0] == '\0')
        return cs_strdup(name);
    const bool ends_in_slash = folder[strlen(folder) - 1] == '/';
    return cs_format("%s%s%s", folder, ends_in_slash ? "" : "/", name);
}

char *cs_path_folder(const char *path)
{
    size_t size = strlen(path);
    while (size > 1 && path[size - 1] == '/')
        size--;
    while (size > 0 && path[size - 1] != '/')
        size--;
    if (size == 0)
        return cs_strdup(".");
    while (size > 1 && path[size - 1] == '/')
        size--;
    return cs_strndup(path, size);
}
