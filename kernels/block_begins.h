#pragma once

#include <algorithm>
#include <cstddef>
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
  }
  /// blocks: [kv_heads, blocks], of all heads with the same counts.
  explicit BlockBegins(View<const EntryBlock, 2> blocks) : BlockBegins({blocks.data(), blocks.extent(1)}) {}

  std::size_t entries() const { return begins_.back(); }
  /// Of the number of blocks: where the last one ends.
  std::size_t operator[](std::size_t block) const { return begins_[block]; }
  std::size_t block_of(std::size_t entry) const {
    MEMLANE_EXPECTS(entry < entries());
    return static_cast<std::size_t>(std::upper_bound(begins_.begin(), begins_.end(), entry) - begins_.begin()) - 1;
  }

 private:
  std::vector<std::size_t> begins_;  // and the end of the last
};

}  // namespace memlane
