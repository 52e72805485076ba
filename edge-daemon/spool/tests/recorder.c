/* Writes down every call that changes a file below RECORD_DIR, in order, to the file RECORD_LOG: what a disk was asked to do.
 * An entry is: kind, u16 length of the path below RECORD_DIR, path, u64 number, u32 length of the data, data.
 *   C create  W write at number  T truncate to number  S fsync of a file  D fsync of a directory
 *   M mkdir   U unlink           X rmdir               R rename, data is the new path */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static long log_fd = -1;

static const char *below(const char *path) {
    const char *dir = getenv("RECORD_DIR");
    size_t len = dir ? strlen(dir) : 0;
    return len && path && !strncmp(path, dir, len) && (path[len] == '/' || !path[len]) ? path + len : NULL;
}

static const char *path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, PATH_MAX - 1);
    if (len <= 0) return NULL;
    path[len] = 0;
    return below(path);
}

static void put(const void *from, size_t len) {
    const char *at = from;
    while (len) {
        long put = syscall(SYS_write, log_fd, at, len);
        if (put <= 0) abort();
        at += put, len -= put;
    }
}

static void record(char kind, const char *path, uint64_t number, const void *data, uint32_t len) {
    if (log_fd < 0) {
        log_fd = syscall(SYS_openat, AT_FDCWD, getenv("RECORD_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (log_fd < 0) abort();
    }
    uint16_t path_len = strlen(path);
    put(&kind, 1), put(&path_len, 2), put(path, path_len), put(&number, 8), put(&len, 4), put(data, len);
}

#define LOCKED(call, entry)                 \
    do {                                    \
        pthread_mutex_lock(&order);         \
        __typeof__(call) result = call;     \
        int error = errno;                  \
        if (result >= 0) entry;             \
        pthread_mutex_unlock(&order);       \
        errno = error;                      \
        return result;                      \
    } while (0)

static int open_recorded(int (*real)(const char *, int, ...), const char *path, int flags, mode_t rights) {
    const char *name = below(path);
    if (!name || !(flags & (O_CREAT | O_TRUNC))) return real(path, flags, rights);
    pthread_mutex_lock(&order);
    int there = !syscall(SYS_faccessat, AT_FDCWD, path, F_OK);
    int fd = real(path, flags, rights), error = errno;
    if (fd >= 0 && !there) record('C', name, 0, "", 0);
    if (fd >= 0 && there && flags & O_TRUNC) record('T', name, 0, "", 0);
    pthread_mutex_unlock(&order);
    errno = error;
    return fd;
}

#define OPEN(name)                                                       \
    int name(const char *path, int flags, ...) {                         \
        va_list list;                                                    \
        va_start(list, flags);                                           \
        mode_t rights = flags & O_CREAT ? va_arg(list, mode_t) : 0;      \
        va_end(list);                                                    \
        return open_recorded((int (*)(const char *, int, ...))REAL(name), path, flags, rights); \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *from, size_t len) {
    char path[PATH_MAX];
    const char *name = path_of(fd, path);
    if (!name) return REAL(write)(fd, from, len);
    struct stat stat;
    int appends = fcntl(fd, F_GETFL) & O_APPEND;
    off_t at = appends && !fstat(fd, &stat) ? stat.st_size : lseek(fd, 0, SEEK_CUR);
    LOCKED(REAL(write)(fd, from, len), record('W', name, at, from, result));
}
#define PWRITE(call, offset)                                             \
    ssize_t call(int fd, const void *from, size_t len, offset at) {      \
        char path[PATH_MAX];                                             \
        const char *name = path_of(fd, path);                            \
        if (!name) return REAL(call)(fd, from, len, at);                 \
        LOCKED(REAL(call)(fd, from, len, at), record('W', name, at, from, result)); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)
#define TRUNCATE(call, offset)                                           \
    int call(int fd, offset len) {                                       \
        char path[PATH_MAX];                                             \
        const char *name = path_of(fd, path);                            \
        if (!name) return REAL(call)(fd, len);                           \
        LOCKED(REAL(call)(fd, len), record('T', name, len, "", 0));      \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)
/* What is asked for before the call is what the call promises: the entry comes after it. */
#define SYNC(call)                                                       \
    int call(int fd) {                                                   \
        char path[PATH_MAX];                                             \
        struct stat stat;                                                \
        const char *name = path_of(fd, path);                            \
        if (!name || fstat(fd, &stat)) return REAL(call)(fd);            \
        LOCKED(REAL(call)(fd), record(S_ISDIR(stat.st_mode) ? 'D' : 'S', name, 0, "", 0)); \
    }
SYNC(fsync)
SYNC(fdatasync)
int rename(const char *from, const char *to) {
    const char *name = below(from), *target = below(to);
    if (!name || !target) return REAL(rename)(from, to);
    LOCKED(REAL(rename)(from, to), record('R', name, 0, target, strlen(target)));
}
int mkdir(const char *path, mode_t rights) {
    const char *name = below(path);
    if (!name) return REAL(mkdir)(path, rights);
    LOCKED(REAL(mkdir)(path, rights), record('M', name, 0, "", 0));
}
int unlink(const char *path) {
    const char *name = below(path);
    if (!name) return REAL(unlink)(path);
    LOCKED(REAL(unlink)(path), record('U', name, 0, "", 0));
}
int rmdir(const char *path) {
    const char *name = below(path);
    if (!name) return REAL(rmdir)(path);
    LOCKED(REAL(rmdir)(path), record('X', name, 0, "", 0));
}
int unlinkat(int dir, const char *path, int flags) {
    char parent[PATH_MAX], whole[2 * PATH_MAX];
    const char *name = path[0] == '/' ? below(path) : NULL;
    if (path[0] != '/' && dir != AT_FDCWD && path_of(dir, parent)) {
        snprintf(whole, sizeof whole, "%s/%s", parent, path);
        name = below(whole);
    }
    if (!name) return REAL(unlinkat)(dir, path, flags);
    LOCKED(REAL(unlinkat)(dir, path, flags), record(flags & AT_REMOVEDIR ? 'X' : 'U', name, 0, "", 0));
}
/* Copies go through write(). */
ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t len, unsigned flags) {
    (void)from, (void)a, (void)to, (void)b, (void)len, (void)flags;
    errno = EXDEV;
    return -1;
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t len) {
    (void)to, (void)from, (void)at, (void)len;
    errno = EINVAL;
    return -1;
}
