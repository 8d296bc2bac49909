#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "memory/segment.h"

namespace memlane {

/// Windows [begin, end) of a memory that are attended to as one source, with a partial of their own.
struct EntryPiece {
  std::size_t begin = 0, end = 0;
  bool resident = false;  ///< on the device; else streamed to it

  friend bool operator==(const EntryPiece&, const EntryPiece&) = default;
};

/// Bytes of a window's entries of one layer: in a segment they lie together.
std::size_t layer_bytes(const EntryShape& shape, std::size_t count);

/// Cuts windows of `counts` entries, in order, into pieces of as many as have at most `piece_bytes` in a layer, at
/// least one. Where pieces end is decided by the windows alone, from the first on: neither by what is resident nor by
/// what comes later, so that partials merged in order of the pieces have the same bits wherever the entries are.
/// Resident are the first pieces, as long as their windows, with all layers, take at most `resident_bytes` of the
/// device (device_bytes()).
std::vector<EntryPiece> cut_into_pieces(const EntryShape& shape, std::span<const std::size_t> counts,
                                        std::size_t piece_bytes, std::size_t resident_bytes);

}  // namespace memlane
