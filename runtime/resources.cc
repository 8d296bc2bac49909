#include "runtime/resources.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <limits>
#include <optional>
#include <vector>

#include "kernels/error.h"
#include "kernels/stopwatch.h"

namespace memlane {

namespace {

constexpr std::uint64_t kUnlimited = std::numeric_limits<std::uint64_t>::max();

/// The number behind `key`, which begins a line, in a file of /proc or /sys.
std::optional<std::uint64_t> number_after(const char* file, std::string_view key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.compare(0, key.size(), key) == 0) return std::stoull(line.substr(key.size()));
  }
  return std::nullopt;
}

std::optional<std::uint64_t> number_in(const char* file) {
  std::ifstream in(file);
  std::uint64_t value = 0;
  if (in >> value) return value;
  return std::nullopt;  // missing, or "max"
}

std::uint64_t left_of_control_group() {
  const auto limit = number_in("/sys/fs/cgroup/memory.max");
  const auto used = number_in("/sys/fs/cgroup/memory.current");
  if (!limit || !used) return kUnlimited;
  // Cached file pages count as used and are given up when memory is wanted.
  constexpr const char* kStatistics = "/sys/fs/cgroup/memory.stat";
  const std::uint64_t cached =
      number_after(kStatistics, "inactive_file ").value_or(0) + number_after(kStatistics, "active_file ").value_or(0);
  const std::uint64_t held = *used > cached ? *used - cached : 0;
  return *limit > held ? *limit - held : 0;
}

std::uint64_t left_of_address_space() {
  struct ::rlimit limit {};
  if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kUnlimited;
  const std::uint64_t used = number_after("/proc/self/status", "VmSize:").value_or(0) * 1024;
  return limit.rlim_cur > used ? limit.rlim_cur - used : 0;
}

/// The path, or the nearest above it that exists.
std::filesystem::path nearest_existing(const std::filesystem::path& path) {
  std::filesystem::path at = std::filesystem::absolute(path);
  std::error_code error;
  while (!std::filesystem::exists(at, error) && at.has_relative_path()) at = at.parent_path();
  return at;
}

}  // namespace

std::uint64_t free_memory() {
  const auto available = number_after("/proc/meminfo", "MemAvailable:");
  const std::uint64_t system = available ? *available * 1024 : kUnlimited;
  return std::min({system, left_of_control_group(), left_of_address_space()});
}

ResidentMemory::ResidentMemory() : file_(::open("/proc/self/statm", O_RDONLY | O_CLOEXEC)) {}

ResidentMemory::~ResidentMemory() {
  if (file_ >= 0) ::close(file_);
}

std::uint64_t ResidentMemory::bytes() const {
  std::array<char, 128> text{};
  const ::ssize_t size = file_ < 0 ? -1 : ::pread(file_, text.data(), text.size(), 0);
  if (size <= 0) return 0;
  const char* const begin = text.data();
  const char* const end = begin + size;
  const char* const second = std::find(begin, end, ' ');  // the first number is that of addresses
  std::uint64_t pages = 0;
  if (second == end || std::from_chars(second + 1, end, pages).ec != std::errc()) return 0;
  return pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

std::uint64_t peak_memory() {
  return number_after("/proc/self/status", "VmHWM:").value_or(0) * 1024;
}

std::uint64_t free_disk(const std::filesystem::path& path) {
  const std::filesystem::path at = nearest_existing(path);
  struct ::statvfs status {};
  if (::statvfs(at.c_str(), &status) != 0) return kUnlimited;  // unknown: the write itself will tell
  return static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
}

double seconds_per_byte_written(const std::filesystem::path& path) {
  constexpr std::size_t kPiece = std::size_t{256} << 10, kPieces = 16, kCommit = 512;  // as a window is stored
  constexpr double kSlow = 0.05;  // seconds, which are not spent again
  const std::filesystem::path at = nearest_existing(path);
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::is_directory(at, error) ? at : at.parent_path();
  const int file = ::open(folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
  if (file < 0) return 0;
  const std::vector<char> bytes(kPiece, 1);
  bool written = true;
  double least = std::numeric_limits<double>::infinity();  // what else is on its way there does not count
  for (int round = 0; round < 3 && (round == 0 || least < kSlow); ++round) {
    const Stopwatch watch;
    const auto put = [&](std::size_t count) {
      written = written && ::write(file, bytes.data(), count) == static_cast<::ssize_t>(count);
    };
    for (std::size_t piece = 0; piece < kPieces; ++piece) put(kPiece);
    written = written && ::fdatasync(file) == 0;
    put(kCommit);
    written = written && ::fdatasync(file) == 0;
    least = std::min(least, watch.seconds());
  }
  ::close(file);
  return written ? least / (kPiece * kPieces) : 0;
}

void require_memory(std::uint64_t bytes, std::string_view what, std::string_view advice) {
  const std::uint64_t available = free_memory();
  if (bytes > available) {
    input_error("{}: needs {} of memory, {} are free; {}", what, bytes_text(bytes), bytes_text(available), advice);
  }
}

void require_disk(std::uint64_t bytes, const std::filesystem::path& path, std::string_view what) {
  const std::uint64_t available = free_disk(path);
  if (bytes > available) {
    input_error("{}: {} needs {} of disk, {} are free; free some, or name a file on another disk", path.string(), what,
                bytes_text(bytes), bytes_text(available));
  }
}

std::string bytes_text(std::uint64_t bytes) {
  constexpr const char* kUnits[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::size_t unit = 0;
  auto value = static_cast<double>(bytes);
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  return unit == 0 ? fmt::format("{} bytes", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

}  // namespace memlane
