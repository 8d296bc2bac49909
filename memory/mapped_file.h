#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace memlane {

/// A whole file, mapped read-only. Moving it keeps the address of its bytes.
class MappedFile {
 public:
  MappedFile() = default;
  /// Throws InputError, naming the file, if it is missing, unreadable, or not a regular file. `what` says what the file
  /// is for
  /// ("checkpoint", "memory file") in the message. An empty file maps to an empty span.
  MappedFile(const std::filesystem::path& path, std::string_view what);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Lets go of pages of mapped files that were read: they no longer count as this process's, and are read again, from
/// the system's cache or the file, when they are used.
void let_go(std::span<const std::byte> mapped);

/// Says that pages of a mapped file will be read here and there, each for little: the system then reads no more than is
/// touched, where it would read up to megabytes around it.
void expect_scattered_reads(std::span<const std::byte> mapped);

/// Says that pages of a mapped file will be read from beginning to end, as is expected unless something else was said.
void expect_reads_in_order(std::span<const std::byte> mapped);

/// Asks the system for the pages of such bytes, one at least, which will be read soon, and does not wait for them: many
/// at a time are read from a disk faster than one after the other. Of other memory it asks for what was swapped out.
void read_ahead(const void* data, std::size_t bytes);

/// The same, but not for pages that it was called for lately, up to remembered_bytes() of them; for machines that keep
/// more than these in memory. To ask for pages that are there took a third of a question's time.
void read_new_ahead(const void* data, std::size_t bytes);
std::size_t remembered_bytes();

}  // namespace memlane
