#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

namespace memlane {

/// The system calls that change files, so that tests can make any of them fail, fall short or be recorded. Each one
/// returns what the system call of its name returns, and sets errno.
struct FileCalls {
  std::function<::ssize_t(int, const void*, std::size_t, ::off_t)> pwrite = ::pwrite;
  std::function<int(int)> fdatasync = ::fdatasync;
  std::function<int(int)> fsync = ::fsync;
  std::function<int(int, ::off_t)> ftruncate = ::ftruncate;
  /// Renames, and fails with EEXIST instead of replacing a file.
  std::function<int(const char*, const char*)> rename = rename_without_replacing;
  /// Renames and replaces.
  std::function<int(const char*, const char*)> replace = ::rename;
  std::function<int(const char*)> unlink = ::unlink;

  static int rename_without_replacing(const char* from, const char* to);
};

/// A file that this process alone may write: it holds the file's lock (flock) while it lives. The kernel drops the lock
/// when the process dies, however it dies. Readers need no lock.
///
/// Every failure is an InputError that names the file, what was tried, the system's reason and what to do.
class WritableFile {
 public:
  /// Opens an existing file to write. Throws if it is missing, not writable, or being written by another process.
  static WritableFile open(const std::filesystem::path& path, FileCalls calls);
  /// Creates an empty file, or empties one that a crashed process left under this name. Throws as open() does.
  static WritableFile create(const std::filesystem::path& path, FileCalls calls);

  ~WritableFile();
  WritableFile(WritableFile&& other) noexcept;
  WritableFile& operator=(WritableFile&& other) noexcept;

  const std::filesystem::path& path() const { return path_; }
  /// To map the file with; open to read and write.
  int descriptor() const { return fd_; }
  /// Whether the name still leads to this file: someone may have moved or replaced it.
  bool is_at_its_path() const;

  /// Writes all bytes at an offset from the start of the file; on failure some of them may have been written.
  /// needed: bytes of all that the caller is about to write, for the message.
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes, std::uint64_t needed);
  /// Returns when everything written is on the disk.
  void sync();
  void truncate(std::uint64_t length);
  /// Gives the file its final name, durably. Throws, leaving both names alone, if `path` exists.
  void rename_to(const std::filesystem::path& path);
  /// The same, but replaces what `path` names, in one step: at any time it names the old file or this one.
  void replace(const std::filesystem::path& path);
  /// Removes the file's name. Failure is ignored: this is how failed work is cleaned up.
  void remove() noexcept;

 private:
  WritableFile(const std::filesystem::path& path, int fd, FileCalls calls);
  void lock();
  void sync_folder();
  [[noreturn]] void fail(const std::string& action, int error) const;

  std::filesystem::path path_;
  int fd_ = -1;
  FileCalls calls_;
};

}  // namespace memlane
