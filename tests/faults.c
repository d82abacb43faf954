/* Makes file operations below one folder fail: preloaded into a process (LD_PRELOAD), armed by it.

   Counts operations on the disk (opening to write, writing, syncing, renaming, removing, making) and,
   apart from these, what reads it. At operation number N, or from there on, the system's answer is an
   error. Frozen after operation N, a disk changes no more: to whoever looks at it later, it is as if
   the process had been killed there. Then only what changes it counts, and syncing does not. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum fault { NONE, FREEZE, TEAR, FAIL_ONCE, FAIL_FROM, FAIL_SPACE_FROM, FAIL_READ };
enum kind { CHANGES, SYNCS, TAKES_SPACE, WRITES, READS };

static _Atomic int armed = NONE;
static atomic_long changes, syncs, reads;
static long at;
static int code;
static char folder[PATH_MAX];
static size_t folder_length;

/* From now on, answer operation `number` below `place` (with no / at its end) with `error`. Disarmed,
   it still tells what it counted. */
void faults_arm(int fault, long number, int error, const char *place) {
    armed = NONE;
    if (!fault) return;
    at = number;
    code = error;
    snprintf(folder, sizeof folder, "%s", place);
    folder_length = strlen(folder);
    changes = syncs = reads = 0;
    armed = fault;
}

long faults_changes(void) { return changes; }
long faults_syncs(void) { return syncs; }
long faults_reads(void) { return reads; }

static int below(const char *path) {
    return !strncmp(path, folder, folder_length) &&
           (path[folder_length] == '/' || path[folder_length] == '\0');
}

static int descriptor_path(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = '\0';
    return length > 0;
}

static int path_below(int base, const char *path) {
    char whole[2 * PATH_MAX];
    if (path[0] == '/') return below(path);
    if (base == AT_FDCWD ? !getcwd(whole, PATH_MAX) : !descriptor_path(base, whole)) return 0;
    size_t length = strlen(whole);
    snprintf(whole + length, sizeof whole - length, "/%s", path);
    return below(whole);
}

static int file_below(int descriptor) {
    char path[PATH_MAX];
    return descriptor_path(descriptor, path) && below(path);
}

enum answer { GO, TORN, REFUSED };

/* What becomes of an operation below the folder. */
static enum answer decide(enum kind kind) {
    int fault = armed;
    if (kind == READS) {
        if (atomic_fetch_add(&reads, 1) + 1 != at || fault != FAIL_READ) return GO;
    } else {
        syncs += kind == SYNCS;
        int counts = kind != SYNCS || (fault != FREEZE && fault != TEAR);
        long number = atomic_fetch_add(&changes, counts) + 1;
        switch (fault) {
        case FREEZE: if (number - !counts <= at) return GO; break;
        case TEAR:
            if (number < at) return GO;
            if (number == at && kind == WRITES) return TORN;
            break;
        case FAIL_ONCE: if (number != at) return GO; break;
        case FAIL_FROM: if (number < at) return GO; break;
        case FAIL_SPACE_FROM: if (number < at || kind <= SYNCS) return GO; break;
        default: return GO;
        }
    }
    errno = code;
    return REFUSED;
}

/* Making a folder that is there changes nothing. */
static int missing(const char *path) {
    struct stat found;
    return lstat(path, &found) != 0;
}

#define REAL(type, name, ...)                                                                      \
    static type (*real)(__VA_ARGS__);                                                              \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name);

/* A function whose answer is an int, and which changes something below the folder if `inside`. */
#define CHANGE(name, parameters, arguments, kind, inside)                                          \
    int name parameters {                                                                          \
        static int(*real) parameters;                                                              \
        if (!real) real = (int(*) parameters)dlsym(RTLD_NEXT, #name);                              \
        if (armed && inside && decide(kind) != GO) return -1;                                      \
        return real arguments;                                                                     \
    }

CHANGE(fsync, (int file), (file), SYNCS, file_below(file))
CHANGE(fdatasync, (int file), (file), SYNCS, file_below(file))
CHANGE(ftruncate, (int file, off_t size), (file, size), TAKES_SPACE, file_below(file))
CHANGE(ftruncate64, (int file, off64_t size), (file, size), TAKES_SPACE, file_below(file))
CHANGE(fchmod, (int file, mode_t mode), (file, mode), CHANGES, file_below(file))
CHANGE(chmod, (const char *path, mode_t mode), (path, mode), CHANGES, path_below(AT_FDCWD, path))
CHANGE(unlink, (const char *path), (path), CHANGES, path_below(AT_FDCWD, path))
CHANGE(rmdir, (const char *path), (path), CHANGES, path_below(AT_FDCWD, path))
CHANGE(mkdir, (const char *path, mode_t mode), (path, mode), TAKES_SPACE,
       path_below(AT_FDCWD, path) && missing(path))
CHANGE(unlinkat, (int base, const char *path, int flags), (base, path, flags), CHANGES,
       path_below(base, path))
CHANGE(mkdirat, (int base, const char *path, mode_t mode), (base, path, mode), TAKES_SPACE,
       path_below(base, path))
CHANGE(rename, (const char *from, const char *to), (from, to), CHANGES, path_below(AT_FDCWD, to))
CHANGE(renameat, (int a, const char *from, int b, const char *to), (a, from, b, to), CHANGES,
       path_below(b, to))
CHANGE(renameat2, (int a, const char *from, int b, const char *to, unsigned flags),
       (a, from, b, to, flags), CHANGES, path_below(b, to))
CHANGE(link, (const char *from, const char *to), (from, to), TAKES_SPACE, path_below(AT_FDCWD, to))
CHANGE(symlink, (const char *from, const char *to), (from, to), TAKES_SPACE,
       path_below(AT_FDCWD, to))

static int writing(int flags) {
    return (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC);
}

#define OPEN(name, base, declared, call)                                                           \
    int name declared {                                                                            \
        static int (*real)();                                                                      \
        if (!real) real = (int (*)())dlsym(RTLD_NEXT, #name);                                      \
        mode_t mode = 0;                                                                           \
        if (flags & (O_CREAT | O_TMPFILE)) {                                                       \
            va_list more;                                                                          \
            va_start(more, flags);                                                                 \
            mode = va_arg(more, mode_t);                                                           \
            va_end(more);                                                                          \
        }                                                                                          \
        if (armed && path_below(base, path) && decide(writing(flags) ? TAKES_SPACE : READS) != GO) \
            return -1;                                                                             \
        return real call;                                                                          \
    }

OPEN(open, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, base, (int base, const char *path, int flags, ...), (base, path, flags, mode))
OPEN(openat64, base, (int base, const char *path, int flags, ...), (base, path, flags, mode))

/* A write of some bytes, or of some buffers: torn, half of them arrive, and nothing after. */
#define WRITE(name, buffer, offset, given, some)                                                   \
    ssize_t name(int file, buffer, some count offset) {                                            \
        static ssize_t (*real)();                                                                  \
        if (!real) real = (ssize_t(*)())dlsym(RTLD_NEXT, #name);                                   \
        if (armed && file_below(file)) {                                                           \
            enum answer answer = decide(WRITES);                                                   \
            if (answer == TORN) {                                                                  \
                some half = count / 2;                                                             \
                (void)!real(file, data, half given);                                               \
                errno = code;                                                                      \
            }                                                                                      \
            if (answer != GO) return -1;                                                           \
        }                                                                                          \
        return real(file, data, count given);                                                      \
    }
#define AT_64 , off64_t where
#define AT , off_t where
#define WHERE , where
#define NOWHERE

WRITE(write, const void *data, NOWHERE, NOWHERE, size_t)
WRITE(pwrite, const void *data, AT, WHERE, size_t)
WRITE(pwrite64, const void *data, AT_64, WHERE, size_t)
WRITE(writev, const struct iovec *data, NOWHERE, NOWHERE, int)
WRITE(pwritev, const struct iovec *data, AT, WHERE, int)
WRITE(pwritev64, const struct iovec *data, AT_64, WHERE, int)

#define READ(name, buffer, offset, given, some)                                                    \
    ssize_t name(int file, buffer, some count offset) {                                            \
        static ssize_t (*real)();                                                                  \
        if (!real) real = (ssize_t(*)())dlsym(RTLD_NEXT, #name);                                   \
        if (armed && file_below(file) && decide(READS) != GO) return -1;                           \
        return real(file, data, count given);                                                      \
    }

READ(read, void *data, NOWHERE, NOWHERE, size_t)
READ(pread, void *data, AT, WHERE, size_t)
READ(pread64, void *data, AT_64, WHERE, size_t)
READ(readv, const struct iovec *data, NOWHERE, NOWHERE, int)
READ(preadv, const struct iovec *data, AT, WHERE, int)
READ(preadv64, const struct iovec *data, AT_64, WHERE, int)

void *mmap(void *place, size_t length, int protection, int flags, int file, off_t offset) {
    REAL(void *, mmap, void *, size_t, int, int, int, off_t)
    if (armed && file >= 0 && file_below(file) && decide(READS) != GO) return MAP_FAILED;
    return real(place, length, protection, flags, file, offset);
}
