#include "memory/cuda/entry_pieces.h"

#include "kernels/cuda/array.h"

namespace memlane {

std::size_t layer_bytes(const EntryShape& shape, std::size_t count) {
  return shape.kv_heads * (shape.key_bytes(count) + shape.value_bytes(count));
}

std::vector<EntryPiece> cut_into_pieces(const EntryShape& shape, std::span<const std::size_t> counts,
                                        std::size_t piece_bytes, std::size_t resident_bytes) {
  std::vector<EntryPiece> pieces;
  std::size_t in_piece = 0;
  for (std::size_t window = 0; window < counts.size(); ++window) {
    const std::size_t bytes = layer_bytes(shape, counts[window]);
    if (pieces.empty() || in_piece + bytes > piece_bytes) {
      pieces.push_back({window, window});
      in_piece = 0;
    }
    in_piece += bytes;
    pieces.back().end = window + 1;
  }
  for (EntryPiece& piece : pieces) {
    std::size_t bytes = 0;
    for (std::size_t window = piece.begin; window < piece.end; ++window) {
      bytes += device_bytes(shape.segment_bytes(counts[window]));
    }
    if (bytes > resident_bytes) break;
    resident_bytes -= bytes;
    piece.resident = true;
  }
  return pieces;
}

}  // namespace memlane
