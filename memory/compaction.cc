#include "memory/compaction.h"

#include <utility>

#include "memory/memory_file_format.h"

namespace memlane {

std::uint64_t compacted_bytes(const MemoryFile& file) {
  std::uint64_t bytes = format::empty_file(file.header()).size();
  for (const StoredDocument& document : file.documents()) {
    if (!document.dropped) bytes += MemoryFileWriter::copied_bytes(document, file.header().shape);
  }
  return bytes;
}

std::uint64_t wasted_bytes(const MemoryFile& file) {
  const std::uint64_t needed = compacted_bytes(file) + file.joint_index().file_bytes;
  return file.bytes() > needed ? file.bytes() - needed : 0;
}

bool gains_from_compaction(const MemoryFile& file) {
  return file.version() < format::kVersion || wasted_bytes(file) > 0;
}

void compact(const std::filesystem::path& path, FileCalls calls, const MemoryFileWriter::Progress& progress) {
  std::error_code unknown;
  const std::filesystem::path resolved = std::filesystem::canonical(path, unknown);  // a link stays one
  const std::filesystem::path& real = unknown ? path : resolved;
  const MemoryFileWriter old = MemoryFileWriter::append_to(real, calls);  // for its lock
  MemoryFileWriter successor = MemoryFileWriter::create_successor(real, old.stored().header(), std::move(calls));
  try {
    std::uint64_t before = 0;
    for (const StoredDocument& document : old.stored().documents()) {
      if (document.dropped) continue;
      successor.copy_document(document, [&](std::uint64_t bytes) {
        if (progress) progress(before + bytes);
      });
      before += MemoryFileWriter::copied_bytes(document, old.stored().header().shape);
    }
    successor.take_place();
  } catch (...) {
    successor.discard_successor();
    throw;
  }
}

}  // namespace memlane
