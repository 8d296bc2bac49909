// Takes the place of memory/mapped_file.cc: a file is read into a piece of the heap that ends with it, so that
// AddressSanitizer sees every access beyond the end. A mapping ends with its page.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <utility>

#include "kernels/error.h"
#include "memory/mapped_file.h"

namespace memlane {

MappedFile::MappedFile(const std::filesystem::path& path, std::string_view what) : path_(path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) input_error("{}: cannot open the {}: {}", path.string(), what, std::strerror(errno));
  struct ::stat status {};
  const bool regular = ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
  size_ = regular ? static_cast<std::size_t>(status.st_size) : 0;
  void* bytes = nullptr;
  // Aligned as the parts of a memory file are; a mapping has the alignment of a page.
  const bool read = regular && (size_ == 0 || (::posix_memalign(&bytes, 64, size_) == 0 &&
                                               ::read(fd, bytes, size_) == static_cast<::ssize_t>(size_)));
  ::close(fd);
  data_ = static_cast<const std::byte*>(bytes);
  if (!read) {
    std::free(bytes);
    data_ = nullptr;
    input_error("{}: expected the {} to be a regular file", path.string(), what);
  }
}

MappedFile::~MappedFile() {
  std::free(const_cast<std::byte*>(data_));
}

MappedFile::MappedFile(MappedFile&& other) noexcept {
  *this = std::move(other);
}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

// The heap has nothing to give back, and nothing to read.
void let_go(std::span<const std::byte> /*mapped*/) {}
void expect_scattered_reads(std::span<const std::byte> /*mapped*/) {}
void expect_reads_in_order(std::span<const std::byte> /*mapped*/) {}
void read_ahead(const void* /*data*/, std::size_t /*bytes*/) {}
void read_new_ahead(const void* /*data*/, std::size_t /*bytes*/) {}
std::size_t remembered_bytes() {
  return 0;
}

}  // namespace memlane
