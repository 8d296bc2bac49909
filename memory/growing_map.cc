#include "memory/growing_map.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "kernels/error.h"
#include "memory/lost_pages.h"

namespace memlane {

namespace {
constexpr std::size_t kLeastPiece = std::size_t{64} << 20;
}

GrowingMap::~GrowingMap() {
  for (const Piece& piece : pieces_) {
    forget_pages(piece.data);
    ::munmap(piece.data, piece.size);
  }
}

const std::byte* GrowingMap::at(const WritableFile& file, std::uint64_t offset, std::size_t size) {
  for (const Piece& piece : pieces_) {
    if (offset >= piece.offset && offset + size <= piece.offset + piece.size)
      return piece.data + (offset - piece.offset);
  }
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::uint64_t begin = offset / page * page;
  const std::size_t needed = (offset + size - begin + page - 1) / page * page;
  // Beyond the end of the file: Linux shows what is appended later in the same mapping. Each piece is as large as those
  // before it together, so that there are few; where addresses are short, as large as it must be.
  std::size_t wanted = kLeastPiece;
  for (const Piece& piece : pieces_) wanted += piece.size;
  void* mapped = MAP_FAILED;
  for (const std::size_t bytes : {std::max(needed, wanted), needed}) {
    mapped = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.descriptor(), static_cast<::off_t>(begin));
    if (mapped == MAP_FAILED) continue;
    pieces_.push_back({static_cast<std::byte*>(mapped), begin, bytes});
    break;
  }
  if (mapped == MAP_FAILED) {
    input_error("{}: cannot map the memory file: {}", file.path().string(), std::strerror(errno));
  }
  watch_pages(pieces_.back().data, pieces_.back().size, file.path());
  return pieces_.back().data + (offset - begin);
}

}  // namespace memlane
