#pragma once

#include <vector>

#include "kernels/cuda/tiles.h"
#include "kernels/entries.h"

namespace memlane::testing {

/// The table of blocks that GPU kernels walk through, over entries on the host.
class BlockTable {
 public:
  /// blocks: [kv_heads, blocks] of bfloat16 entries.
  explicit BlockTable(View<const EntryBlock, 2> blocks) {
    for (std::size_t head = 0; head < blocks.extent(0); ++head) {
      cuda::Block at;
      for (std::size_t i = 0; i < blocks.extent(1); ++i) {
        const EntryBlock& block = blocks.data()[head * blocks.extent(1) + i];
        at.keys = static_cast<const std::uint32_t*>(block.keys);
        at.values = static_cast<const std::uint16_t*>(block.values);
        at.count = static_cast<std::uint32_t>(block.count);
        table_.push_back(at);
        at.first_tile += cuda::tiles_for(at.count);
        at.first_entry += at.count;
      }
      entries_.tiles = at.first_tile;
    }
    entries_.blocks = table_.data();
    entries_.kv_heads = static_cast<std::uint32_t>(blocks.extent(0));
    entries_.block_count = static_cast<std::uint32_t>(blocks.extent(1));
  }
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;

  cuda::Entries entries() const { return entries_; }

 private:
  std::vector<cuda::Block> table_;
  cuda::Entries entries_;
};

}  // namespace memlane::testing
