#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace memlane {

/// Bytes of memory that this process may still take: what the system calls available, or less where a control group or
/// a resource limit says so.
std::uint64_t free_memory();

/// Says, as often as is asked and from any thread, how many bytes this process has resident, pages of mapped files
/// included; 0 where the system does not say.
class ResidentMemory {
 public:
  ResidentMemory();
  ~ResidentMemory();
  ResidentMemory(const ResidentMemory&) = delete;
  ResidentMemory& operator=(const ResidentMemory&) = delete;
  std::uint64_t bytes() const;

 private:
  int file_;
};

/// The largest resident size that this process has had, in bytes.
std::uint64_t peak_memory();

/// Bytes free to this user on the file system of `path` (of its nearest existing parent).
std::uint64_t free_disk(const std::filesystem::path& path);

/// Seconds that a byte takes on its way to the disk of `path`, measured with a few that leave no trace; 0 if it is not
/// known.
double seconds_per_byte_written(const std::filesystem::path& path);

/// Throws InputError if `bytes` do not fit in free memory. what: "the weights of DIR"; advice: what the user can do.
void require_memory(std::uint64_t bytes, std::string_view what, std::string_view advice);

/// Throws InputError if `bytes` do not fit on the file system of `path`.
void require_disk(std::uint64_t bytes, const std::filesystem::path& path, std::string_view what);

/// "1.5 GiB", "312 KiB", "17 bytes".
std::string bytes_text(std::uint64_t bytes);

}  // namespace memlane
