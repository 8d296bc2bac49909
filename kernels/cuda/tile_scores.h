#pragma once

// What attention and search share: query rows and keys in shared memory, and their scores by matrix instructions.
// A block of kWarps warps takes 16 kRowTiles query rows a warp; all warps share the tiles of keys.

#include "kernels/cuda/tiles.h"
#include "kernels/cuda/warp.h"

namespace memlane::cuda {

/// head_dim of at most 16 * Steps. All sizes in 32-bit words; strides keep the accesses of a warp on different banks.
template <int Steps, int Warps, int RowTiles>
struct TileShape {
  static constexpr int kSteps = Steps, kWarps = Warps, kRowTiles = RowTiles;
  static constexpr int kWarpRows = 16 * RowTiles;
  static constexpr int kRows = Warps * kWarpRows;
  static constexpr int kUnits = 8 * Steps;  // pairs of elements of a query, key or value, with padding
  static constexpr int kQueryStride = kUnits + 4;
  static constexpr int kKeyStride = static_cast<int>(kTileEntries) + 8;
  static constexpr int kValueStride = kUnits + 4;
  static constexpr int kQueryWords = kRows * kQueryStride;
  static constexpr int kKeyWords = kUnits * kKeyStride;
  static constexpr int kValueWords = static_cast<int>(kTileEntries) * kValueStride;
  static constexpr int kColumnTiles = static_cast<int>(kTileEntries) / 8;
};

/// Scores of a warp's rows with a tile of 64 entries, as mma leaves them: [row tile][column tile][4].
template <class Warp, class Shape>
using TileScores = typename Warp::template Lanes<float>[Shape::kRowTiles][Shape::kColumnTiles][4];

/// Queries of rows [first_row, first_row + kRows) as pairs of bfloat16, each warp its own rows; zeros beyond the end.
/// queries: [tokens, heads, head_dim]; shared: [kRows][kQueryStride].
template <class Shape, class Warp>
MEMLANE_KERNEL void load_queries(Warp& warp, const float* queries, const Rows& rows, std::uint32_t kv_head,
                                 std::uint32_t head_dim, std::uint32_t first_row, std::uint32_t* shared) {
  for (int i = warp.index() * Shape::kWarpRows; i < (warp.index() + 1) * Shape::kWarpRows; ++i) {
    const std::uint32_t row = first_row + static_cast<std::uint32_t>(i);
    const bool present = row < rows.count();
    const float* query = queries + (present ? rows.flat(row, kv_head) : 0) * head_dim;
    warp.each([&](int lane) {
      for (int unit = lane; unit < Shape::kUnits; unit += 32) {
        const bool some = present && 2 * static_cast<std::uint32_t>(unit) < head_dim;
        shared[i * Shape::kQueryStride + unit] = some ? bf16_pair(query[2 * unit], query[2 * unit + 1]) : 0;
      }
    });
  }
  warp.sync();
}

/// Starts to copy the keys of a tile, all warps together. first: its first entry; count: entries of the block.
/// shared: [kUnits][kKeyStride], unit by unit as in the panels; zeros beyond head_dim and beyond the last panel.
template <class Shape, class Warp>
MEMLANE_KERNEL void fetch_keys(Warp& warp, const Block& block, std::uint32_t first, std::uint32_t count,
                               std::uint32_t head_dim, std::uint32_t* shared) {
  constexpr int kPieces = static_cast<int>(kTileEntries) / 4;  // of four entries, of each unit
  const std::uint32_t units = head_dim / 2;
  warp.each([&](int lane) {
    for (int i = warp.index() * 32 + lane; i < Shape::kUnits * kPieces; i += Shape::kWarps * 32) {
      const auto unit = static_cast<std::uint32_t>(i / kPieces);
      const std::uint32_t column = static_cast<std::uint32_t>(i % kPieces) * 4;
      const std::uint32_t panel_begin = (first + column) / kPanelEntries * kPanelEntries;
      const bool present = unit < units && panel_begin < count;
      const std::uint32_t* from = block.keys + (present ? key_unit(first + column, unit, units) : 0);
      warp.template copy_async<16>(shared + unit * Shape::kKeyStride + column, from, present);
    }
  });
}

/// c += queries * keys of the tile. queries: of the warp's first row.
template <class Shape, class Warp>
MEMLANE_KERNEL void score_tile(Warp& warp, const std::uint32_t* queries, const std::uint32_t* keys,
                               TileScores<Warp, Shape>& c) {
  using Words = typename Warp::template Lanes<std::uint32_t>;
  MEMLANE_UNROLL
  for (int step = 0; step < Shape::kSteps; ++step) {
    Words a[Shape::kRowTiles][4];
    MEMLANE_UNROLL
    for (int m = 0; m < Shape::kRowTiles; ++m) {
      warp.each([&](int lane) {
        const std::uint32_t* from = queries + (m * 16 + lane / 4) * Shape::kQueryStride + step * 8 + lane % 4;
        a[m][0][lane] = from[0];
        a[m][1][lane] = from[8 * Shape::kQueryStride];
        a[m][2][lane] = from[4];
        a[m][3][lane] = from[8 * Shape::kQueryStride + 4];
      });
    }
    MEMLANE_UNROLL
    for (int n = 0; n < Shape::kColumnTiles; ++n) {
      Words b0, b1;
      warp.each([&](int lane) {
        const std::uint32_t* from = keys + (step * 8 + lane % 4) * Shape::kKeyStride + n * 8 + lane / 4;
        b0[lane] = from[0];
        b1[lane] = from[4 * Shape::kKeyStride];
      });
      MEMLANE_UNROLL
      for (int m = 0; m < Shape::kRowTiles; ++m) warp.mma(c[m][n], a[m], b0, b1);
    }
  }
}

}  // namespace memlane::cuda
