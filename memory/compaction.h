#pragma once

#include <cstdint>
#include <filesystem>

#include "memory/memory_file.h"
#include "memory/memory_file_writer.h"

namespace memlane {

/// Bytes that a file would have once compacted: without dropped documents, replaced key indexes and its joint index.
std::uint64_t compacted_bytes(const MemoryFile& file);
/// Bytes of a file that belong to nothing any more. A joint index that counts belongs to the file.
std::uint64_t wasted_bytes(const MemoryFile& file);

/// Whether compacting a file makes it smaller or brings it to the newest version of the format.
bool gains_from_compaction(const MemoryFile& file);

/// Writes a file anew without what nobody needs any more, in the newest version of the format, and puts it in the place
/// of the old one in one step; documents keep their order and get the ids 0, 1, 2, … anew. A joint
/// index is left out: it names the old ones. Nothing is computed: bytes are copied, under the checksums that they were
/// stored with, and verified before the old file goes. No writer is admitted meanwhile; readers keep the file that they
/// opened. A crash or failure at any point leaves the old file or the new one under the name, and perhaps a file
/// `path` + ".new", which the next compaction takes over.
/// progress: called with the bytes copied so far; what it throws ends the work and goes on to the caller.
/// Throws InputError as MemoryFileWriter does.
void compact(const std::filesystem::path& path, FileCalls calls = {}, const MemoryFileWriter::Progress& progress = {});

}  // namespace memlane
