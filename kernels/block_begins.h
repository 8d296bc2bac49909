#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/array.h"
#include "kernels/entries.h"
#include "kernels/error.h"

namespace memlane {

/// Where each block begins in the numbering of the entries of a key/value head, which goes through its blocks.
class BlockBegins {
 public:
  explicit BlockBegins(std::span<const EntryBlock> blocks) : begins_(1, 0) {
    begins_.reserve(blocks.size() + 1);
    for (const EntryBlock& block : blocks) begins_.push_back(begins_.back() + block.count);
    if (entries() == 0) return;
    shift_ = static_cast<unsigned>(std::bit_width(entries() / blocks.size()));
    if (shift_ > 0) --shift_;
    first_blocks_.resize(((entries() - 1) >> shift_) + 1);
    std::size_t block = 0;
    for (std::size_t stretch = 0; stretch < first_blocks_.size(); ++stretch) {
      while (begins_[block + 1] <= stretch << shift_) ++block;
      first_blocks_[stretch] = static_cast<std::uint32_t>(block);
    }
  }
  /// blocks: [kv_heads, blocks], of all heads with the same counts.
  explicit BlockBegins(View<const EntryBlock, 2> blocks) : BlockBegins({blocks.data(), blocks.extent(1)}) {}

  std::size_t entries() const { return begins_.back(); }
  /// Of the number of blocks: where the last one ends.
  std::size_t operator[](std::size_t block) const { return begins_[block]; }
  /// Without a search where blocks are of about the same size: then it is one of a few.
  std::size_t block_of(std::size_t entry) const {
    MEMLANE_EXPECTS(entry < entries());
    std::size_t block = first_blocks_[entry >> shift_];
    while (begins_[block + 1] <= entry) ++block;
    return block;
  }

 private:
  std::vector<std::size_t> begins_;  // and the end of the last
  // Entries are cut into stretches of 2^shift, about the size of a block or half of it; this is where each begins.
  unsigned shift_ = 0;
  std::vector<std::uint32_t> first_blocks_;
};

}  // namespace memlane
