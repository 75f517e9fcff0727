/*
 * A disk that fails, for real processes: preloaded, it refuses file operations as a control file says.
 *
 * SICK_DISK names the control file, which is mapped and shared, so that what a test writes counts at the next call. Its
 * first byte is 1 while the lines behind it hold. Each line is "CALLS ERRNO TEXT": letters of the calls that fail (see
 * `is_failing`), the errno that they fail with (0: reads are short, half of what was asked for), and what must stand in
 * the file's path. Sockets and pipes are left alone, as their "paths" hold no such text.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define CONTROL_BYTES 4096
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const volatile char *control;

__attribute__((constructor)) static void map_control(void) {
    const char *path = getenv("SICK_DISK");
    int (*real_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
    int descriptor = path ? real_open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (descriptor < 0) return;
    void *found = mmap(NULL, CONTROL_BYTES, PROT_READ, MAP_SHARED, descriptor, 0);
    if (found != MAP_FAILED) control = found;
    close(descriptor);
}

/* The errno that a call on this path is to fail with, 0 for a short read, -1 when it is to work. */
static int wanted(char call, const char *path) {
    char text[CONTROL_BYTES], *rest = NULL;
    memcpy(text, (const char *)control + 1, sizeof text - 1);
    text[sizeof text - 2] = 0;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char calls[32], part[512];
        int number;
        if (sscanf(line, "%31s %d %511s", calls, &number, part) == 3 && strchr(calls, call) && strstr(path, part))
            return number;
    }
    return -1;
}

static int is_on(void) { return control && control[0]; }

static int wanted_of(char call, int descriptor) {
    char link[64], path[4096];
    if (!is_on()) return -1;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0) return -1;
    path[length] = 0;
    return wanted(call, path);
}

/* r reads, w writes, s syncs, f sendfile, n rename, o open, a allocate */
#define FAIL_IF(call, descriptor)                    \
    do {                                             \
        int number = wanted_of(call, descriptor);    \
        if (number > 0) return errno = number, -1;   \
    } while (0)

static ssize_t shortened(ssize_t (*real)(int, const struct iovec *, int, off_t, int), int descriptor,
                         const struct iovec *parts, int count, off_t offset, int flags) {
    struct iovec half = parts[0];
    half.iov_len = half.iov_len > 1 ? half.iov_len / 2 : half.iov_len;
    return count ? real(descriptor, &half, 1, offset, flags) : 0;
}

ssize_t preadv64v2(int descriptor, const struct iovec *parts, int count, off_t offset, int flags) {
    ssize_t (*real)(int, const struct iovec *, int, off_t, int) = (void *)REAL(preadv64v2);
    int number = wanted_of('r', descriptor);
    if (number > 0) return errno = number, -1;
    if (number == 0) return shortened(real, descriptor, parts, count, offset, flags);
    return real(descriptor, parts, count, offset, flags);
}

ssize_t pread64(int descriptor, void *data, size_t size, off_t offset) {
    int number = wanted_of('r', descriptor);
    if (number > 0) return errno = number, -1;
    return REAL(pread64)(descriptor, data, number == 0 && size > 1 ? size / 2 : size, offset);
}

ssize_t pread(int descriptor, void *data, size_t size, off_t offset) {
    FAIL_IF('r', descriptor);
    return REAL(pread)(descriptor, data, size, offset);
}

ssize_t read(int descriptor, void *data, size_t size) {
    FAIL_IF('r', descriptor);
    return REAL(read)(descriptor, data, size);
}

ssize_t pwritev64v2(int descriptor, const struct iovec *parts, int count, off_t offset, int flags) {
    FAIL_IF('w', descriptor);
    return REAL(pwritev64v2)(descriptor, parts, count, offset, flags);
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    FAIL_IF('w', descriptor);
    return REAL(pwrite)(descriptor, data, size, offset);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    FAIL_IF('w', descriptor);
    return REAL(writev)(descriptor, parts, count);
}

ssize_t write(int descriptor, const void *data, size_t size) {
    FAIL_IF('w', descriptor);
    return REAL(write)(descriptor, data, size);
}

int fsync(int descriptor) {
    FAIL_IF('s', descriptor);
    return REAL(fsync)(descriptor);
}

int fdatasync(int descriptor) {
    FAIL_IF('s', descriptor);
    return REAL(fdatasync)(descriptor);
}

ssize_t sendfile64(int out, int in, off_t *offset, size_t size) {
    FAIL_IF('f', in);
    ssize_t (*real)(int, int, off_t *, size_t) = dlsym(RTLD_NEXT, "sendfile64");
    return real(out, in, offset, size);
}

int posix_fallocate64(int descriptor, off_t offset, off_t size) {
    int number = wanted_of('a', descriptor);
    if (number > 0) return number;
    return REAL(posix_fallocate64)(descriptor, offset, size);
}

int rename(const char *from, const char *to) {
    int number = is_on() ? wanted('n', to) : -1;
    if (number > 0) return errno = number, -1;
    return REAL(rename)(from, to);
}

static mode_t mode_of(int flags, va_list rest) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; }

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    int number = is_on() ? wanted('o', path) : -1;
    if (number > 0) return errno = number, -1;
    return REAL(open64)(path, flags, mode);
}
