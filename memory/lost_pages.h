#pragma once

#include <cstddef>
#include <filesystem>

namespace memlane {

/// Reading a page of a mapped file that the disk cannot give any more (it fails, or the file was cut) raises SIGBUS.
/// Ends the process then with one line that names the file and exit code 2, as any file that cannot be read does; a
/// SIGBUS elsewhere ends it as ever. For programs: call it once, at the start.
void report_lost_pages();

/// Tells the handler of a mapping, and that it is gone. Of more than some hundred at a time it does not know the
/// rest's names. Thread-safe.
void watch_pages(const std::byte* begin, std::size_t size, const std::filesystem::path& path);
void forget_pages(const std::byte* begin);

}  // namespace memlane
