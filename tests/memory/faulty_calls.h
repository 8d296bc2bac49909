#pragma once

#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "memory/file_io.h"

namespace memlane {

/// What a writer did to the disk, to be done again up to any point.
struct DiskOperation {
  enum class Kind { write, sync, truncate, rename } kind;
  std::uint64_t offset = 0;  ///< of a write; the length of a truncation
  std::vector<std::byte> bytes;
};

/// Real system calls that also keep a log.
inline FileCalls recording_calls(std::vector<DiskOperation>& log) {
  using Kind = DiskOperation::Kind;
  FileCalls calls;
  calls.pwrite = [&log](int fd, const void* data, std::size_t size, ::off_t offset) {
    const auto* bytes = static_cast<const std::byte*>(data);
    log.push_back({Kind::write, static_cast<std::uint64_t>(offset), {bytes, bytes + size}});
    return ::pwrite(fd, data, size, offset);
  };
  calls.fdatasync = [&log](int fd) {
    log.push_back({Kind::sync, 0, {}});
    return ::fdatasync(fd);
  };
  calls.ftruncate = [&log](int fd, ::off_t length) {
    log.push_back({Kind::truncate, static_cast<std::uint64_t>(length), {}});
    return ::ftruncate(fd, length);
  };
  calls.rename = [&log](const char* from, const char* to) {
    log.push_back({Kind::rename, 0, {}});
    return FileCalls::rename_without_replacing(from, to);
  };
  return calls;
}

/// When calls fail, and how.
struct Fault {
  int error = EIO;
  int first = 0;          ///< the first call that fails: 0, 1, …
  int last = 0;           ///< the last one; further calls work again
  bool halfway = false;   ///< a failing write of records first writes half of its bytes
  bool happened = false;  ///< set when a call has failed
  int calls = 0;          ///< counted so far

  static constexpr int kForEver = 1 << 30;
  static constexpr std::size_t kSector = 512;  ///< disks write sectors whole or not at all

  /// Counts a call, and says whether it fails.
  bool strikes() {
    const bool failing = calls >= first && calls <= last;
    ++calls;
    happened = happened || failing;
    if (failing) errno = error;
    return failing;
  }
};

/// Calls of which some fail. Removing works always: it is how failures are cleaned up.
inline FileCalls faulty_calls(std::shared_ptr<Fault> fault) {
  FileCalls calls;
  calls.pwrite = [fault](int fd, const void* data, std::size_t size, ::off_t offset) -> ::ssize_t {
    if (!fault->strikes()) return ::pwrite(fd, data, size, offset);
    if (!fault->halfway || size <= Fault::kSector) return -1;
    --fault->first;  // the rest fails too, after this short write
    ++fault->last;
    return ::pwrite(fd, data, size / 2, offset);
  };
  calls.fdatasync = [fault](int fd) { return fault->strikes() ? -1 : ::fdatasync(fd); };
  calls.fsync = [fault](int fd) { return fault->strikes() ? -1 : ::fsync(fd); };
  calls.ftruncate = [fault](int fd, ::off_t length) { return fault->strikes() ? -1 : ::ftruncate(fd, length); };
  calls.rename = [fault](const char* from, const char* to) {
    return fault->strikes() ? -1 : FileCalls::rename_without_replacing(from, to);
  };
  calls.replace = [fault](const char* from, const char* to) { return fault->strikes() ? -1 : ::rename(from, to); };
  return calls;
}

}  // namespace memlane
