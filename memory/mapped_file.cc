#include "memory/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/error.h"
#include "memory/lost_pages.h"

namespace memlane {

namespace {

/// The pages that were asked for last, each in a set of two that its number says, the later one first. What threads
/// overwrite of each other is asked for twice.
class AskedPages {
 public:
  static constexpr std::size_t kPages = std::size_t{1} << 19;

  /// Whether it is among them; from now on it is.
  bool has(std::uintptr_t page) {
    Set& set = sets_[page % sets_.size()];
    const std::uintptr_t first = set[0].load(std::memory_order_relaxed);
    if (first == page) return true;
    const bool found = set[1].load(std::memory_order_relaxed) == page;
    set[1].store(first, std::memory_order_relaxed);
    set[0].store(page, std::memory_order_relaxed);
    return found;
  }

 private:
  using Set = std::array<std::atomic<std::uintptr_t>, 2>;
  std::array<Set, kPages / 2> sets_{};
};

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path, std::string_view what) : path_(path) {
  // O_NONBLOCK: opening a named pipe would otherwise wait, even through Ctrl-C, for somebody to write to it.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) input_error("{}: cannot open the {}: {}", path.string(), what, std::strerror(errno));
  struct ::stat status {};
  const bool known = ::fstat(fd, &status) == 0;
  if (!known || !S_ISREG(status.st_mode)) {
    ::close(fd);
    input_error("{}: expected the {} to be a regular file", path.string(), what);
  }
  size_ = static_cast<std::size_t>(status.st_size);
  void* mapped = size_ == 0 ? nullptr : ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
  const int error = errno;
  ::close(fd);
  if (mapped == MAP_FAILED) input_error("{}: cannot map the {}: {}", path.string(), what, std::strerror(error));
  data_ = static_cast<const std::byte*>(mapped);
  if (data_ != nullptr) watch_pages(data_, size_, path);
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  forget_pages(data_);
  ::munmap(const_cast<std::byte*>(data_), size_);
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

namespace {

const auto kPage = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));

/// Of all pages that lie whole in `mapped`. Advice: failing changes speed only.
void advise(std::span<const std::byte> mapped, int advice) {
  const auto begin = (reinterpret_cast<std::uintptr_t>(mapped.data()) + kPage - 1) / kPage * kPage;
  const auto end = reinterpret_cast<std::uintptr_t>(mapped.data() + mapped.size()) / kPage * kPage;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, advice);
}

}  // namespace

void let_go(std::span<const std::byte> mapped) {
  advise(mapped, MADV_DONTNEED);
}

void expect_scattered_reads(std::span<const std::byte> mapped) {
  advise(mapped, MADV_RANDOM);
}

void expect_reads_in_order(std::span<const std::byte> mapped) {
  advise(mapped, MADV_NORMAL);
}

void read_ahead(const void* data, std::size_t bytes) {
  const auto from = reinterpret_cast<std::uintptr_t>(data), begin = from / kPage * kPage;
  ::madvise(reinterpret_cast<void*>(begin), from + bytes - begin, MADV_WILLNEED);
}

void read_new_ahead(const void* data, std::size_t bytes) {
  static AskedPages asked;
  MEMLANE_EXPECTS(bytes > 0);
  const auto from = reinterpret_cast<std::uintptr_t>(data);
  bool known = true;
  for (std::uintptr_t page = from / kPage; page <= (from + bytes - 1) / kPage; ++page) known = asked.has(page) && known;
  if (!known) read_ahead(data, bytes);
}

std::size_t remembered_bytes() {
  return AskedPages::kPages * kPage;
}

}  // namespace memlane
