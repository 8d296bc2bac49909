#pragma once

#include <cstddef>
#include <filesystem>

namespace memlane {

/// Reading a page of a mapped file that the disk cannot give any more (it fails, or the file was cut) raises SIGBUS.
/// Ends the process then with one line that names the file and exit code 2, as any file that cannot be read does; a
/// SIGBUS elsewhere ends it as ever. For programs: call it once, at the start.
void report_lost_pages();

/// Tells the handler of a mapping of a file that is only read, and that it is about to go. Of more than some hundred at
/// a time it does not know the rest. Thread-safe.
void watch_pages(const std::byte* begin, std::size_t size, const std::filesystem::path& path);
void forget_pages(const std::byte* begin);

/// Bytes that Linux maps at once, where it has them, when a page of a file is touched.
inline constexpr std::size_t kMappedAround = std::size_t{64} << 10;

/// Lets go of the pages of every mapping that was told of, as let_go() does: they may be in use. Thread-safe; a mapping
/// that is being forgotten meanwhile is left alone, so it may go right after.
void let_go_of_watched_pages();

}  // namespace memlane
