#pragma once

// Index arithmetic of the kernels over entries, shared by the GPU, the host that launches them, and the tests that
// emulate them there. Compiled for both: plain types, nothing that allocates.

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/position.h"

namespace memlane::cuda {

/// Entries that a block of threads takes at once: two key panels.
inline constexpr std::uint32_t kTileEntries = 64;
inline constexpr std::uint32_t kPanelEntries = 32;  // as in kernels/entries.h

/// No limit to a distance or an entry.
inline constexpr std::uint32_t kAny = 0xffffffffU;

/// An EntryBlock of bfloat16 entries on the device, and where it stands among the blocks of its head.
struct Block {
  const std::uint32_t* keys = nullptr;    // panels of pairs (kernels/entries.h)
  const std::uint16_t* values = nullptr;  // rows of bfloat16
  std::uint32_t count = 0;
  std::uint32_t first_tile = 0;   // tiles of the blocks before it; each block has whole tiles of its own
  std::uint32_t first_entry = 0;  // entries of the blocks before it
};

MEMLANE_BOTH constexpr std::uint32_t tiles_for(std::uint32_t count) {
  return (count + kTileEntries - 1) / kTileEntries;
}

/// Where a unit (a pair of elements) of a key lies in its block's panels: key_offset() of kernels/entries.h in units.
/// units: of a key.
MEMLANE_BOTH constexpr std::size_t key_unit(std::size_t entry, std::size_t unit, std::size_t units) {
  return (entry / kPanelEntries * units + unit) * kPanelEntries + entry % kPanelEntries;
}

/// In a pass that may be replayed: how many entries a local cache holds before the pass.
struct Held {
  const std::uint32_t* on_device = nullptr;  // null in any other pass
  std::uint32_t now = 0;
  std::uint32_t room = 0;  // entries that there can be with those of the pass
};

/// The blocks of all kv heads. Only of a single block can some of the entries be left out.
struct Entries {
  const Block* blocks = nullptr;  // [kv_heads][block_count]
  std::uint32_t kv_heads = 0;
  std::uint32_t block_count = 0;
  std::uint32_t tiles = 0;     // of one head
  std::uint32_t limit = kAny;  // only the first `limit` entries of a block count
  Held held;                   // of a single block: what limit and tiles come from
};

/// Where a walk through the tiles of one head stands.
struct Cursor {
  const Block* blocks = nullptr;
  std::uint32_t block_count = 0;
  std::uint32_t block = 0;
  std::uint32_t tile = 0;

  /// At a tile that exists.
  MEMLANE_BOTH Cursor(const Entries& entries, std::uint32_t kv_head, std::uint32_t at)
      : blocks(entries.blocks + static_cast<std::size_t>(kv_head) * entries.block_count),
        block_count(entries.block_count),
        tile(at) {
    std::uint32_t end = block_count;  // the last block whose first tile is not behind `at`; empty ones come before it
    while (end - block > 1) {
      const std::uint32_t middle = block + (end - block) / 2;
      if (blocks[middle].first_tile <= at) {
        block = middle;
      } else {
        end = middle;
      }
    }
  }
  MEMLANE_BOTH const Block& get() const { return blocks[block]; }
  /// The tile's first entry, in its block.
  MEMLANE_BOTH std::uint32_t first_entry() const { return (tile - get().first_tile) * kTileEntries; }
  /// To the next tile, if there is one.
  MEMLANE_BOTH void advance() {
    ++tile;
    while (block + 1 < block_count && blocks[block + 1].first_tile <= tile) ++block;
  }
};

/// The block that holds an entry, counted through all blocks; `entry` < all entries.
MEMLANE_BOTH inline std::uint32_t block_of_entry(const Block* blocks, std::uint32_t block_count, std::uint32_t entry) {
  std::uint32_t begin = 0, end = block_count;
  while (end - begin > 1) {
    const std::uint32_t middle = begin + (end - begin) / 2;
    if (blocks[middle].first_entry <= entry) {
      begin = middle;
    } else {
      end = middle;
    }
  }
  return begin;
}

struct Range {
  std::uint32_t begin = 0, end = 0;
};

/// Visibility (kernels/attention.h) in 32 bits: query token i stands at first_position + i.
struct Band {
  bool on = false;
  std::uint32_t first_position = 0;
  std::uint32_t min_distance = 0;
  std::uint32_t max_distance = kAny;
  std::uint32_t first_entry = 0;
  std::uint32_t end_entry = kAny;

  /// The entries [begin, end) of `count` that query token i sees; begin = end for none.
  MEMLANE_BOTH constexpr Range seen_by(std::uint32_t i, std::uint32_t count) const {
    if (!on) return {0, count};
    const std::uint32_t position = first_position + i;
    std::uint32_t end = position < min_distance ? 0 : position - min_distance + 1;
    end = end < count ? end : count;
    end = end < end_entry ? end : end_entry;
    std::uint32_t begin = position > max_distance ? position - max_distance : 0;
    begin = begin > first_entry ? begin : first_entry;
    return {begin < end ? begin : end, end};
  }
};

/// The query rows of one kv head: a row is one token and one of the query heads that share the kv head.
struct Rows {
  std::uint32_t tokens = 0, heads = 0, group = 0;

  MEMLANE_BOTH constexpr std::uint32_t count() const { return tokens * group; }
  MEMLANE_BOTH constexpr std::uint32_t token(std::uint32_t row) const { return row / group; }
  /// Index of a row in [tokens, heads].
  MEMLANE_BOTH constexpr std::size_t flat(std::uint32_t row, std::uint32_t kv_head) const {
    return static_cast<std::size_t>(row / group) * heads + kv_head * group + row % group;
  }
};

/// Piece `index` of `pieces` of a range, in order; pieces differ by at most one.
MEMLANE_BOTH constexpr Range piece_of(Range range, std::uint32_t index, std::uint32_t pieces) {
  const std::uint64_t size = range.end - range.begin;
  return {range.begin + static_cast<std::uint32_t>(size * index / pieces),
          range.begin + static_cast<std::uint32_t>(size * (index + 1) / pieces)};
}

/// The tiles of one head that rows [first_row, end_row) see anything of. A band has one block, and both its bounds rise
/// with the query token.
MEMLANE_BOTH inline Range seen_tiles(const Entries& entries, const Band& band, const Rows& rows,
                                     std::uint32_t first_row, std::uint32_t end_row) {
  if (!band.on || end_row <= first_row) return {0, entries.tiles};
  const std::uint32_t count = entries.blocks->count < entries.limit ? entries.blocks->count : entries.limit;
  const std::uint32_t begin = band.seen_by(rows.token(first_row), count).begin;
  const std::uint32_t end = band.seen_by(rows.token(end_row - 1), count).end;
  if (begin >= end) return {0, 0};
  return {begin / kTileEntries, tiles_for(end)};
}

inline constexpr std::uint32_t kMostSplits = 64;

/// Pieces of the entries with which `blocks` blocks of threads become enough for the GPU, however few the tiles are.
constexpr std::uint32_t wanted_splits(std::uint64_t blocks, std::uint64_t wanted_blocks) {
  const std::uint64_t wanted = blocks == 0 ? 1 : (wanted_blocks + blocks - 1) / blocks;
  return wanted < kMostSplits ? static_cast<std::uint32_t>(wanted) : kMostSplits;
}

/// Into how many pieces so many tiles are split: as many as are wanted, but none of fewer than four tiles. At least 1,
/// and never fewer for more tiles.
MEMLANE_BOTH constexpr std::uint32_t splits_of_tiles(std::uint32_t tiles, std::uint32_t wanted) {
  constexpr std::uint32_t kLeastTiles = 4;
  const std::uint32_t most = tiles / kLeastTiles;
  const std::uint32_t splits = wanted < most ? wanted : most;
  return splits > 0 ? splits : 1;
}

/// Into how many pieces the entries are split, so that `blocks` blocks of threads become enough for the GPU and no
/// piece has fewer than four tiles. At least 1.
constexpr std::uint32_t splits_for(std::uint64_t blocks, std::uint32_t tiles, std::uint64_t wanted_blocks) {
  return splits_of_tiles(tiles, wanted_splits(blocks, wanted_blocks));
}

/// Rows of all pieces together, at most, of a call with `rows` rows of all heads in blocks of at most `block_rows`:
/// entries are split only as long as there are fewer blocks than wanted.
constexpr std::uint64_t most_split_rows(std::uint64_t rows, std::uint64_t block_rows, std::uint64_t wanted_blocks) {
  const std::uint64_t by_blocks = 2 * wanted_blocks * block_rows;  // splits * blocks < wanted + blocks < 2 wanted
  return rows * kMostSplits < by_blocks ? rows * kMostSplits : by_blocks;
}

}  // namespace memlane::cuda
