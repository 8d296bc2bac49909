#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "memory/file_io.h"

namespace memlane {

/// A file that is being appended to, mapped to be read. What it has handed out keeps its address while it lives, also
/// when it is moved.
class GrowingMap {
 public:
  GrowingMap() = default;
  ~GrowingMap();
  GrowingMap(GrowingMap&& other) noexcept { *this = std::move(other); }
  GrowingMap& operator=(GrowingMap&& other) noexcept {
    pieces_.swap(other.pieces_);
    return *this;
  }

  /// Bytes [offset, offset + size), which the file must have and nobody may change any more. Always the same file.
  /// Throws InputError that names it if the system does not map it.
  const std::byte* at(const WritableFile& file, std::uint64_t offset, std::size_t size);

 private:
  struct Piece {
    std::byte* data = nullptr;
    std::uint64_t offset = 0;  // in the file
    std::size_t size = 0;
  };
  std::vector<Piece> pieces_;
};

}  // namespace memlane
