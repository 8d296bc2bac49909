#pragma once

#include <cstddef>

#include "kernels/array.h"
#include "kernels/cpu/micro_kernels.h"
#include "kernels/entries.h"
#include "kernels/exec.h"

namespace memlane {

/// What attention and search share on the CPU: rows of queries of one kv head against tiles of its keys.

inline constexpr std::size_t kTileEntries = 128;  // keys scored at once: four panels
inline constexpr std::size_t kQueryRows =
    112;  // query rows that share each tile: eight register tiles of the widest set

/// How the query rows of a call are cut into items. A row is one token and one of the query heads that share a kv head.
struct QueryRows {
  /// rows_per_item: about how many rows an item has.
  QueryRows(View<const float, 3> queries, std::size_t kv_heads, std::size_t rows_per_item = kQueryRows);

  std::size_t tokens, heads, head_dim, kv_heads;
  std::size_t group;            ///< query heads per kv head
  std::size_t tokens_per_item;  ///< so that an item has about rows_per_item rows
  std::size_t items_per_head;
  std::size_t max_rows() const { return tokens_per_item * group; }

  struct Item {
    std::size_t first_token, tokens, kv_head;
  };
  Item item(std::size_t index_in_head, std::size_t kv_head) const;
  /// Index of row `row` of an item in [tokens, heads] order.
  std::size_t flat_index(const Item& item, std::size_t row) const {
    return (item.first_token + row / group) * heads + item.kv_head * group + row % group;
  }
};

/// Whether all blocks are of bfloat16.
bool all_bf16(View<const EntryBlock, 2> blocks);

inline constexpr std::size_t kTiledQueryRows = 256;  // that share each tile of entries with TileKernels

/// An item's queries for TileKernels, in a worker's space.
struct TiledQueries {
  TiledQueries(ScratchLayout& layout, const QueryRows& rows);
  void gather(const TileKernels& kernels, View<const float, 3> queries, const QueryRows& rows,
              const QueryRows::Item& item) const;
  /// Units that 16 rows take in tiles.
  static std::size_t row_tile_units(std::size_t head_dim) { return (head_dim + 31) / 32 * 256; }

  float* few;            ///< all rows, [rows, head_dim rounded up to even], if they are at most kFewTileRows
  std::uint32_t* tiles;  ///< all rows
};

/// Copies an item's rows of queries together, times `scale`. out: [rows, head_dim].
void gather_queries(View<const float, 3> queries, const QueryRows& rows, const QueryRows::Item& item, float scale,
                    float* out);

/// q . k of all rows with the keys [begin, begin + kTileEntries) of a block; -inf beyond the block's end.
/// queries: [rows, head_dim]; widened: scratch [padded head_dim, 32]; scores: [rows, kTileEntries].
void score_tile(const MicroKernels& micro, const float* queries, std::size_t rows, std::size_t head_dim,
                const EntryBlock& block, std::size_t begin, float* widened, float* scores);

/// Values [begin, end) of a block as floats, in panels of 32 of their elements: [ceil(head_dim /
/// 32)][kTileEntries][32], zero beyond `end` and head_dim. row: scratch [head_dim].
void widen_values(const MicroKernels& micro, const EntryBlock& block, std::size_t begin, std::size_t end,
                  std::size_t head_dim, float* row, float* panels);

/// One row of values as floats. out: [head_dim].
void widen_value(const MicroKernels& micro, const EntryBlock& block, std::size_t entry, std::size_t head_dim,
                 float* out);

}  // namespace memlane
