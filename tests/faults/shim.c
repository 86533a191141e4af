/* Makes file operations of a process fail, stop it, or take long: for LD_PRELOAD.
 *
 *   FI_OPS=write,fsync    the operations that count (their names below); all without it
 *   FI_MATCH=text         only on files whose path contains this
 *   FI_AT=N               the N-th such operation is hit
 *   FI_PERSIST=1          and every later one
 *   FI_ERRNO=28           it fails with this error
 *   FI_SIGNAL=9           or the process gets this signal before it
 *   FI_SHORT=1            or a read or write moves one byte only
 *   FI_DELAY=1000         every operation that counts takes so many microseconds longer
 *   FI_LOG=path           gets a line "operation path" when one is hit
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long seen;
static const char *ops, *match, *logged;
static long at, delay;
static int error_number, signal_number, persist, one_byte;

/* Called again in a forked child, whose environment is another. */
__attribute__((constructor)) void fi_configure(void) {
    atomic_store(&seen, 0);
    ops = getenv("FI_OPS");
    match = getenv("FI_MATCH");
    logged = getenv("FI_LOG");
    at = getenv("FI_AT") ? atol(getenv("FI_AT")) : 0;
    delay = getenv("FI_DELAY") ? atol(getenv("FI_DELAY")) : 0;
    error_number = getenv("FI_ERRNO") ? atoi(getenv("FI_ERRNO")) : 0;
    signal_number = getenv("FI_SIGNAL") ? atoi(getenv("FI_SIGNAL")) : 0;
    persist = getenv("FI_PERSIST") != NULL;
    one_byte = getenv("FI_SHORT") != NULL;
}

static int listed(const char *op) {
    if (!ops) return 1;
    size_t n = strlen(op);
    for (const char *p = ops; (p = strstr(p, op)); p += n)
        if ((p == ops || p[-1] == ',') && (p[n] == ',' || p[n] == 0)) return 1;
    return 0;
}

/* 0: go on; 1: fail with errno set; 2: move one byte. */
static int hit(const char *op, const char *path) {
    if ((!at && !delay) || !listed(op) || (match && !strstr(path, match))) return 0;
    if (delay) usleep(delay);
    if (!at) return 0;
    long n = atomic_fetch_add(&seen, 1) + 1;
    if (n != at && !(persist && n > at)) return 0;
    if (logged) {
        char line[4300];
        int size = snprintf(line, sizeof line, "%s %s\n", op, path);
        int fd = syscall(SYS_openat, AT_FDCWD, logged, O_WRONLY | O_CREAT | O_APPEND, 0666);
        if (fd >= 0) {
            syscall(SYS_write, fd, line, size);
            syscall(SYS_close, fd);
        }
    }
    if (signal_number) {
        kill(getpid(), signal_number);
        if (signal_number == SIGKILL) for (;;) pause();
        return 0;
    }
    if (one_byte) return 2;
    errno = error_number;
    return 1;
}

static int hit_fd(const char *op, int fd) {
    if (!at && !delay) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return hit(op, path);
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define TRY(op, fd) int h = hit_fd(op, fd); if (h == 1) return -1

ssize_t write(int fd, const void *b, size_t n) { REAL(write); TRY("write", fd); return real(fd, b, h == 2 && n ? 1 : n); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { REAL(pwrite); TRY("write", fd); return real(fd, b, h == 2 && n ? 1 : n, o); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { REAL(pwrite64); TRY("write", fd); return real(fd, b, h == 2 && n ? 1 : n, o); }
ssize_t writev(int fd, const struct iovec *v, int c) { REAL(writev); TRY("write", fd); return real(fd, v, c); }
ssize_t read(int fd, void *b, size_t n) { REAL(read); TRY("read", fd); return real(fd, b, h == 2 && n ? 1 : n); }
ssize_t pread(int fd, void *b, size_t n, off_t o) { REAL(pread); TRY("read", fd); return real(fd, b, h == 2 && n ? 1 : n, o); }
ssize_t pread64(int fd, void *b, size_t n, off64_t o) { REAL(pread64); TRY("read", fd); return real(fd, b, h == 2 && n ? 1 : n, o); }
ssize_t preadv(int fd, const struct iovec *v, int c, off_t o) { REAL(preadv); TRY("read", fd); if (h == 2) { struct iovec one = {v->iov_base, 1}; return real(fd, &one, 1, o); } return real(fd, v, c, o); }
ssize_t preadv64(int fd, const struct iovec *v, int c, off64_t o) { REAL(preadv64); TRY("read", fd); if (h == 2) { struct iovec one = {v->iov_base, 1}; return real(fd, &one, 1, o); } return real(fd, v, c, o); }
ssize_t preadv64v2(int fd, const struct iovec *v, int c, off64_t o, int f) { REAL(preadv64v2); TRY("read", fd); if (h == 2) { struct iovec one = {v->iov_base, 1}; return real(fd, &one, 1, o, f); } return real(fd, v, c, o, f); }
ssize_t preadv2(int fd, const struct iovec *v, int c, off_t o, int f) { REAL(preadv2); TRY("read", fd); if (h == 2) { struct iovec one = {v->iov_base, 1}; return real(fd, &one, 1, o, f); } return real(fd, v, c, o, f); }
int fsync(int fd) { REAL(fsync); TRY("fsync", fd); return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); TRY("fsync", fd); return real(fd); }
int ftruncate(int fd, off_t n) { REAL(ftruncate); TRY("ftruncate", fd); return real(fd, n); }
int ftruncate64(int fd, off64_t n) { REAL(ftruncate64); TRY("ftruncate", fd); return real(fd, n); }
int posix_fallocate(int fd, off_t o, off_t n) { REAL(posix_fallocate); if (hit_fd("fallocate", fd) == 1) return errno; return real(fd, o, n); }
int posix_fallocate64(int fd, off64_t o, off64_t n) { REAL(posix_fallocate64); if (hit_fd("fallocate", fd) == 1) return errno; return real(fd, o, n); }
int close(int fd) { REAL(close); int h = hit_fd("close", fd); int r = real(fd); return h == 1 ? (errno = error_number, -1) : r; }
int rename(const char *a, const char *b) { REAL(rename); if (hit("rename", b) == 1) return -1; return real(a, b); }
int renameat2(int x, const char *a, int y, const char *b, unsigned f) { REAL(renameat2); if (hit("rename", b) == 1) return -1; return real(x, a, y, b, f); }
int renameat(int x, const char *a, int y, const char *b) { REAL(renameat); if (hit("rename", b) == 1) return -1; return real(x, a, y, b); }
int unlink(const char *a) { REAL(unlink); if (hit("unlink", a) == 1) return -1; return real(a); }
int unlinkat(int x, const char *a, int f) { REAL(unlinkat); if (hit("unlink", a) == 1) return -1; return real(x, a, f); }
int mkdir(const char *a, mode_t m) { REAL(mkdir); if (hit("mkdir", a) == 1) return -1; return real(a, m); }
int rmdir(const char *a) { REAL(rmdir); if (hit("rmdir", a) == 1) return -1; return real(a); }
DIR *opendir(const char *a) { REAL(opendir); if (hit("list", a) == 1) return NULL; return real(a); }
struct dirent *readdir(DIR *d) { REAL(readdir); if (hit_fd("list", dirfd(d)) == 1) return NULL; return real(d); }
struct dirent64 *readdir64(DIR *d) { REAL(readdir64); if (hit_fd("list", dirfd(d)) == 1) return NULL; return real(d); }
int flock(int fd, int how) { REAL(flock); TRY("flock", fd); return real(fd, how); }
static mode_t mode_of(int flags, va_list list) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; }
#define MODE(flags) va_list list; va_start(list, flags); mode_t m = mode_of(flags, list); va_end(list)
int open(const char *a, int flags, ...) { REAL(open); MODE(flags); if (hit("open", a) == 1) return -1; return real(a, flags, m); }
int open64(const char *a, int flags, ...) { REAL(open64); MODE(flags); if (hit("open", a) == 1) return -1; return real(a, flags, m); }
int openat(int x, const char *a, int flags, ...) { REAL(openat); MODE(flags); if (hit("open", a) == 1) return -1; return real(x, a, flags, m); }
int openat64(int x, const char *a, int flags, ...) { REAL(openat64); MODE(flags); if (hit("open", a) == 1) return -1; return real(x, a, flags, m); }
