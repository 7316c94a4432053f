/* The one file-I/O layer: every byte that the daemons keep goes through here, so that tests can fail any call.
 * Handles EINTR and short transfers. Any thread. */
#ifndef CS_BASE_FILE_H
#define CS_BASE_FILE_H

#include "common/base/bytes.h"

#include <sys/types.h>

/* An owned descriptor; -1 is none. CS_AUTO(cs_fd) fd = -1; */
typedef int cs_fd;
void cs_fd_clear(cs_fd *fd);

/* Always O_CLOEXEC. `flags` and `mode` as open(2). */
CS_MUST_CHECK cs_status cs_file_open(const char *path, int flags, mode_t mode, cs_fd *ret);
CS_MUST_CHECK cs_status cs_file_read(int fd, void *data, size_t size, size_t *ret_size); /* up to size; 0 at the end */
CS_MUST_CHECK cs_status cs_file_read_exact(int fd, void *data, size_t size);  /* CS_DATA_LOSS at an early end */
CS_MUST_CHECK cs_status cs_file_write(int fd, const void *data, size_t size); /* all of it */
CS_MUST_CHECK cs_status cs_file_pread_exact(int fd, void *data, size_t size, uint64_t offset);
CS_MUST_CHECK cs_status cs_file_pwrite(int fd, const void *data, size_t size, uint64_t offset);
CS_MUST_CHECK cs_status cs_file_truncate(int fd, uint64_t size);
CS_MUST_CHECK cs_status cs_file_size(int fd, uint64_t *ret);
CS_MUST_CHECK cs_status cs_file_sync(int fd);      /* fsync */
CS_MUST_CHECK cs_status cs_file_sync_data(int fd); /* fdatasync */
CS_MUST_CHECK cs_status cs_file_sync_folder(const char *folder);
/* Closes and reports what close says. */
CS_MUST_CHECK cs_status cs_file_close(cs_fd *fd);

bool cs_file_exists(const char *path);
/* CS_EXHAUSTED when larger than max_bytes; the sentence names the path and the limit. */
CS_MUST_CHECK cs_status cs_file_read_all(const char *path, size_t max_bytes, cs_buffer *ret);
/* A new file takes the name only once it is whole and durable: temporary file, fsync, rename, fsync of the folder. */
CS_MUST_CHECK cs_status cs_file_write_atomic(const char *path, cs_bytes bytes, mode_t mode);
/* Durable at `to`, whose folder is fsynced. After a power cut `from`, where its folder is another, may be there as
 * well. */
CS_MUST_CHECK cs_status cs_file_rename(const char *from, const char *to);
/* CS_OK also when it was not there. */
CS_MUST_CHECK cs_status cs_file_remove(const char *path);
/* Makes missing parents too; durable. Existing is fine. */
CS_MUST_CHECK cs_status cs_folder_make(const char *path, mode_t mode);
/* One folder whose parent is there, durable once the caller has synced the parent: for many at once. Existing is fine.
 */
CS_MUST_CHECK cs_status cs_folder_make_unsynced(const char *path, mode_t mode);
/* Removes the folder and everything in it, never following links. CS_OK when it was not there. */
CS_MUST_CHECK cs_status cs_folder_remove(const char *path);
/* Calls `visit` for each name but "." and ".." in byte order; stops at the first status that is not CS_OK and returns
 * it. */
CS_MUST_CHECK cs_status cs_folder_list(const char *path, cs_status (*visit)(void *self, const char *name), void *self);
/* Bytes of the files in `path` and in its folders down to three levels; links are not followed, what vanishes meanwhile
 * does not count. */
CS_MUST_CHECK cs_status cs_folder_size(const char *path, uint64_t *ret_bytes);
CS_MUST_CHECK cs_status cs_disk_free(const char *path, uint64_t *ret_bytes);
/* Opens `name` inside the folder `folder_fd` with openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS): read-only, regular
 * files of at most max_bytes. For reading what a less trusted process wrote. */
CS_MUST_CHECK cs_status cs_file_open_beneath(int folder_fd, const char *name, uint64_t max_bytes, cs_fd *ret,
                                             uint64_t *ret_size);

/* "a/b"; free with cs_free. An absolute `name` is returned as it is. */
char *cs_path_join(const char *folder, const char *name);
char *cs_path_folder(const char *path);

/* Tests: called before each operation with its name ("write", "fsync", "rename" …); a non-zero errno makes it fail with
 * that. */
typedef int (*cs_file_fault)(void *self, const char *operation, const char *path);
void cs_file_set_fault(cs_file_fault fault, void *self);

#endif
