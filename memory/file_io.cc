#include "memory/file_io.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "kernels/error.h"

namespace memlane {

namespace {

/// Linux writes at most about 2 GiB in one call; asking for less keeps the arithmetic of short writes out of the way.
constexpr std::size_t kLargestWrite = std::size_t{1} << 30;

template <class Call>
auto retry_interrupted(const Call& call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

std::string_view advice(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return "free disk space and run the command again";
    case EFBIG:
      return "raise the limit on file sizes (ulimit -f) and run the command again";
    case EIO:
      return "check the disk, then run the command again";
    case EACCES:
    case EPERM:
    case EROFS:
      return "choose a folder and file you may write to";
    case EISDIR:
      return "name a file";
    case ENOENT:
      return "check the path and create its folder first";
    case EEXIST:
      return "choose another name, or remove it first";
    default:
      return "put that right and run the command again";
  }
}

}  // namespace

int FileCalls::rename_without_replacing(const char* from, const char* to) {
  if (::renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return -1;
  // This file system cannot do it in one step; the writers' lock leaves only strangers to race with.
  struct ::stat status {};
  if (::lstat(to, &status) == 0) {
    errno = EEXIST;
    return -1;
  }
  return ::rename(from, to);
}

WritableFile::WritableFile(const std::filesystem::path& path, int fd, FileCalls calls)
    : path_(path), fd_(fd), calls_(std::move(calls)) {}

WritableFile::~WritableFile() {
  if (fd_ >= 0) ::close(fd_);
}

WritableFile::WritableFile(WritableFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), calls_(std::move(other.calls_)) {}

WritableFile& WritableFile::operator=(WritableFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(calls_, other.calls_);
  return *this;
}

WritableFile WritableFile::open(const std::filesystem::path& path, FileCalls calls) {
  const int fd = retry_interrupted([&] { return ::open(path.c_str(), O_RDWR | O_CLOEXEC); });
  WritableFile file(path, fd, std::move(calls));
  if (fd < 0) file.fail("cannot open to write", errno);
  file.lock();
  return file;
}

WritableFile WritableFile::create(const std::filesystem::path& path, FileCalls calls) {
  // Not O_TRUNC: until the lock is held, the file may be another process's.
  const int fd =
      retry_interrupted([&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666); });
  WritableFile file(path, fd, std::move(calls));
  if (fd < 0) file.fail("cannot create the file", errno);
  file.lock();
  try {
    file.truncate(0);
  } catch (const InputError&) {
    file.remove();
    throw;
  }
  return file;
}

void WritableFile::lock() {
  if (retry_interrupted([&] { return ::flock(fd_, LOCK_EX | LOCK_NB); }) != 0) {
    if (errno != EWOULDBLOCK) fail("cannot lock the file", errno);
    input_error("{}: another memlane is writing to this file; wait until it is done", path_.string());
  }
  if (!is_at_its_path()) {
    input_error("{}: another process moved or replaced this file just now; run the command again", path_.string());
  }
}

bool WritableFile::is_at_its_path() const {
  struct ::stat mine {};
  struct ::stat named {};
  return ::fstat(fd_, &mine) == 0 && ::stat(path_.c_str(), &named) == 0 && mine.st_dev == named.st_dev &&
         mine.st_ino == named.st_ino;
}

void WritableFile::write_at(std::uint64_t offset, std::span<const std::byte> bytes, std::uint64_t needed) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const std::size_t size = std::min(bytes.size() - done, kLargestWrite);
    const auto position = static_cast<::off_t>(offset + done);
    const ::ssize_t written =
        retry_interrupted([&] { return calls_.pwrite(fd_, bytes.data() + done, size, position); });
    // Nothing written and no reason given: treat as a failing disk rather than try for ever.
    if (written <= 0) fail(fmt::format("cannot write {} bytes", needed), written < 0 ? errno : EIO);
    done += static_cast<std::size_t>(written);
  }
}

void WritableFile::sync() {
  if (retry_interrupted([&] { return calls_.fdatasync(fd_); }) != 0) fail("cannot bring the file to the disk", errno);
}

void WritableFile::truncate(std::uint64_t length) {
  if (retry_interrupted([&] { return calls_.ftruncate(fd_, static_cast<::off_t>(length)); }) != 0) {
    fail(fmt::format("cannot cut the file to {} bytes", length), errno);
  }
}

void WritableFile::rename_to(const std::filesystem::path& path) {
  if (calls_.rename(path_.c_str(), path.c_str()) != 0) {
    const int error = errno;
    WritableFile(path, -1, {}).fail("cannot create the file", error);
  }
  path_ = path;
  sync_folder();
}

void WritableFile::replace(const std::filesystem::path& path) {
  if (calls_.replace(path_.c_str(), path.c_str()) != 0) fail(fmt::format("cannot replace {}", path.string()), errno);
  path_ = path;
  sync_folder();
}

void WritableFile::sync_folder() {
  // The new name is an entry of its folder: that has to reach the disk too.
  const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : ".";
  const int fd = retry_interrupted([&] { return ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (fd < 0) fail("cannot open the folder of the file", errno);
  const int synced = retry_interrupted([&] { return calls_.fsync(fd); });
  const int error = errno;
  ::close(fd);
  // EINVAL: the file system does not sync folders, which leaves nothing more to do.
  if (synced != 0 && error != EINVAL) fail("cannot bring the folder of the file to the disk", error);
}

void WritableFile::remove() noexcept {
  calls_.unlink(path_.c_str());
}

void WritableFile::fail(const std::string& action, int error) const {
  input_error("{}: {}: {}; {}", path_.string(), action, std::strerror(error), advice(error));
}

}  // namespace memlane
