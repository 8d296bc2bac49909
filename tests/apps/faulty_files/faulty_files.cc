// A library to be loaded before all others (LD_PRELOAD). It makes the program's calls on the files of one folder fail,
// fall short, or be its last, below everything that the program and its libraries do themselves. Told by the
// environment:
//
//   FAULTY_FOLDER     calls on files below it are counted: 0, 1, 2, ...
//   FAULTY_FIRST      the first call that is struck, and
//   FAULTY_LAST       the last one
//   FAULTY_HOW        fail: with FAULTY_ERRNO
//                     half: a write larger than a sector writes half of its bytes; from then on all writes fail
//                     kill-before, kill-half, kill-after: SIGKILL before the call, when half of a write is done, after
//                     it
//   FAULTY_COUNT_TO   a file for the number of calls, written when the program ends
//
// It makes system calls itself instead of looking for the next function of the name, so it needs nothing of what it
// interposes.

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

namespace {

struct Settings {
  const char* folder = getenv("FAULTY_FOLDER");
  const char* how = text("FAULTY_HOW");
  const char* count_to = getenv("FAULTY_COUNT_TO");
  long first = number("FAULTY_FIRST", -1);
  long last = number("FAULTY_LAST", -1);
  int error = static_cast<int>(number("FAULTY_ERRNO", EIO));

  static const char* text(const char* name) {
    const char* value = getenv(name);
    return value == nullptr ? "" : value;
  }
  static long number(const char* name, long otherwise) {
    const char* value = getenv(name);
    return value == nullptr ? otherwise : strtol(value, nullptr, 10);
  }
};

const Settings& settings() {
  static const Settings settings;
  return settings;
}

/// Disks and the system's page cache take so many bytes whole or not at all; memory files rely on it
/// (docs/memory-file.md).
constexpr size_t kSector = 512;

std::atomic<long> calls = 0;
std::atomic<bool> disk_is_full = false;

bool in_folder(const char* path) {
  const char* folder = settings().folder;
  return folder != nullptr && strncmp(path, folder, strlen(folder)) == 0;
}

bool in_folder(int fd) {
  if (fd < 0 || settings().folder == nullptr) return false;
  char link[64];
  char path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const long size = syscall(SYS_readlink, link, path, sizeof path - 1);
  if (size <= 0) return false;
  path[size] = '\0';
  return in_folder(path);
}

bool is(const char* how) {
  return strcmp(settings().how, how) == 0;
}

[[noreturn]] void die() {
  syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
  for (;;) pause();
}

/// Counts a call on the folder's files; returns whether it is struck.
bool struck() {
  const long call = calls++;
  return call >= settings().first && call <= settings().last;
}

/// A call other than a write. `real` makes it.
template <class Real>
long strike(bool counted, const Real& real) {
  if (!counted || !struck()) return real();
  if (is("kill-before") || is("kill-half")) die();
  if (is("kill-after")) {
    real();
    die();
  }
  errno = settings().error;
  return -1;
}

/// write(size) writes so many of the bytes.
template <class Write>
long strike_write(bool counted, size_t size, const Write& write) {
  if (!counted) return write(size);
  const bool hit = struck();
  if (disk_is_full) {
    errno = settings().error;
    return -1;
  }
  if (!hit) return write(size);
  if (is("kill-before")) die();
  if (is("kill-half")) {
    if (size > kSector) write(size / 2);
    die();
  }
  if (is("kill-after")) {
    write(size);
    die();
  }
  if (is("half") && size > kSector) {
    disk_is_full = true;
    return write(size / 2);
  }
  errno = settings().error;
  return -1;
}

__attribute__((destructor)) void write_count() {
  if (settings().count_to == nullptr) return;
  char text[32];
  const int size = snprintf(text, sizeof text, "%ld", calls.load());
  const long fd = syscall(SYS_openat, AT_FDCWD, settings().count_to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (syscall(SYS_write, fd, text, size) != size) abort();
}

long open_file(int folder, const char* path, int flags, va_list rest) {
  const bool makes = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
  const int mode = makes ? va_arg(rest, int) : 0;
  return strike(in_folder(path), [&] { return syscall(SYS_openat, folder, path, flags, mode); });
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const long fd = open_file(AT_FDCWD, path, flags, rest);
  va_end(rest);
  return static_cast<int>(fd);
}

int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const long fd = open_file(AT_FDCWD, path, flags, rest);
  va_end(rest);
  return static_cast<int>(fd);
}

ssize_t read(int fd, void* bytes, size_t size) {
  return strike(in_folder(fd), [&] { return syscall(SYS_read, fd, bytes, size); });
}

ssize_t write(int fd, const void* bytes, size_t size) {
  return strike_write(in_folder(fd), size, [&](size_t part) { return syscall(SYS_write, fd, bytes, part); });
}

ssize_t pwrite(int fd, const void* bytes, size_t size, off_t offset) {
  return strike_write(in_folder(fd), size, [&](size_t part) { return syscall(SYS_pwrite64, fd, bytes, part, offset); });
}

ssize_t pwrite64(int fd, const void* bytes, size_t size, off64_t offset) {
  return pwrite(fd, bytes, size, offset);
}

int fsync(int fd) {
  return static_cast<int>(strike(in_folder(fd), [&] { return syscall(SYS_fsync, fd); }));
}

int fdatasync(int fd) {
  return static_cast<int>(strike(in_folder(fd), [&] { return syscall(SYS_fdatasync, fd); }));
}

int ftruncate(int fd, off_t size) noexcept {
  return static_cast<int>(strike(in_folder(fd), [&] { return syscall(SYS_ftruncate, fd, size); }));
}

int ftruncate64(int fd, off64_t size) noexcept {
  return ftruncate(fd, size);
}

int rename(const char* from, const char* to) noexcept {
  return static_cast<int>(strike(in_folder(from), [&] { return syscall(SYS_rename, from, to); }));
}

int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) noexcept {
  return static_cast<int>(
      strike(in_folder(from), [&] { return syscall(SYS_renameat2, from_folder, from, to_folder, to, flags); }));
}

int flock(int fd, int operation) noexcept {
  return static_cast<int>(strike(in_folder(fd), [&] { return syscall(SYS_flock, fd, operation); }));
}

void* mmap(void* at, size_t size, int protection, int flags, int fd, off_t offset) noexcept {
  const bool counted = (flags & MAP_ANONYMOUS) == 0 && in_folder(fd);
  return reinterpret_cast<void*>(
      strike(counted, [&] { return syscall(SYS_mmap, at, size, protection, flags, fd, offset); }));
}

void* mmap64(void* at, size_t size, int protection, int flags, int fd, off64_t offset) noexcept {
  return mmap(at, size, protection, flags, fd, offset);
}

// How failed work is cleaned up: never fails, but may be the last call.
int unlink(const char* path) noexcept {
  const bool dies = in_folder(path) && struck() && strncmp(settings().how, "kill", 4) == 0;
  if (dies && !is("kill-after")) die();
  const long result = syscall(SYS_unlink, path);
  if (dies) die();
  return static_cast<int>(result);
}

}  // extern "C"
