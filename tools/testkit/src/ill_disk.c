/* Stands between a process and the calls that write to files below ILL_DISK_DIRS (several, with ':' between). The file ILL_DISK_MODE says how the disk
 * is: "well"; "readonly" (what writes fails with EROFS, as on a disk that was remounted after an error); "full" (what
 * takes room fails with ENOSPC, after half of it was taken); "nosync" (an fsync fails with EIO); or "slow <ms>" (an fsync
 * takes that long). Everything else is passed on as it is. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

enum { FULL = -3, NOSYNC = -2, READONLY = -1, WELL = 0 };

/* One of these, or above them: milliseconds of an fsync. */
static long mode(void) {
    const char *path = getenv("ILL_DISK_MODE");
    char text[64] = {0};
    if (!path) return 0;
    long fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    long got = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    if (got <= 0) return 0;
    if (!strncmp(text, "readonly", 8)) return READONLY;
    if (!strncmp(text, "full", 4)) return FULL;
    if (!strncmp(text, "nosync", 6)) return NOSYNC;
    if (!strncmp(text, "slow ", 5)) return atol(text + 5);
    return WELL;
}

static int below(const char *path) {
    const char *dirs = getenv("ILL_DISK_DIRS");
    while (dirs && path && *dirs) {
        size_t len = strcspn(dirs, ":");
        if (!strncmp(path, dirs, len) && (path[len] == '/' || !path[len])) return 1;
        dirs += len + (dirs[len] == ':');
    }
    return 0;
}

static int ours(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len <= 0) return 0;
    path[len] = 0;
    return below(path);
}

static int refused(int is_ours) {
    if (is_ours && mode() == READONLY) {
        errno = EROFS;
        return 1;
    }
    return 0;
}

/* Whether the next bytes find no room. Every second time half of them do: a write that was cut short. */
static int full(int is_ours, size_t *len) {
    static _Atomic unsigned turn;
    if (!is_ours || mode() != FULL) return 0;
    if (turn++ % 2 == 0 && *len > 1) {
        *len /= 2;
        return 0;
    }
    errno = ENOSPC;
    return 1;
}

/* How an fsync goes: 0, or -1 when it fails. */
static int synced(int fd) {
    if (!ours(fd)) return 0;
    long now = mode();
    if (now == NOSYNC) {
        errno = EIO;
        return -1;
    }
    if (now > 0) {
        struct timespec time = {now / 1000, now % 1000 * 1000000};
        nanosleep(&time, NULL);
    }
    return 0;
}

#define WRITES (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)

#define OPEN(name)                                                   \
    int name(const char *path, int flags, ...) {                     \
        va_list list;                                                \
        va_start(list, flags);                                       \
        mode_t rights = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; \
        va_end(list);                                                \
        if (flags & WRITES && refused(below(path))) return -1;       \
        return REAL(name)(path, flags, rights);                      \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *from, size_t len) {
    int is_ours = ours(fd);
    return refused(is_ours) || full(is_ours, &len) ? -1 : REAL(write)(fd, from, len);
}
ssize_t writev(int fd, const struct iovec *from, int count) {
    int is_ours = ours(fd);
    size_t len = 0;
    return refused(is_ours) || full(is_ours, &len) ? -1 : REAL(writev)(fd, from, count);
}
ssize_t pwrite(int fd, const void *from, size_t len, off_t at) {
    int is_ours = ours(fd);
    return refused(is_ours) || full(is_ours, &len) ? -1 : REAL(pwrite)(fd, from, len, at);
}
ssize_t pwrite64(int fd, const void *from, size_t len, off64_t at) {
    int is_ours = ours(fd);
    return refused(is_ours) || full(is_ours, &len) ? -1 : REAL(pwrite64)(fd, from, len, at);
}
int ftruncate(int fd, off_t len) {
    return refused(ours(fd)) ? -1 : REAL(ftruncate)(fd, len);
}
int ftruncate64(int fd, off64_t len) {
    return refused(ours(fd)) ? -1 : REAL(ftruncate64)(fd, len);
}
int rename(const char *from, const char *to) {
    return refused(below(to)) ? -1 : REAL(rename)(from, to);
}
int mkdir(const char *path, mode_t rights) {
    return refused(below(path)) ? -1 : REAL(mkdir)(path, rights);
}
int unlink(const char *path) {
    return refused(below(path)) ? -1 : REAL(unlink)(path);
}
int fsync(int fd) {
    return synced(fd) ? -1 : REAL(fsync)(fd);
}
int fdatasync(int fd) {
    return synced(fd) ? -1 : REAL(fdatasync)(fd);
}
