#pragma once

#include <limits>
#include <vector>

#include "kernels/array.h"
#include "kernels/entries.h"
#include "kernels/key_lists.h"

namespace memlane::list_search {

inline constexpr float kNothing = -std::numeric_limits<float>::infinity();

inline std::size_t filled(std::size_t count) {
  return (count + kPanelEntries - 1) / kPanelEntries * kPanelEntries;
}

/// Where the lists of all chunks of one kv head stand in a row of expected weights.
struct Catalogue {
  Catalogue(View<const ListChunk, 2> all, std::size_t kv_head)
      : chunks(all.data() + kv_head * all.extent(1), all.extent(1)) {
    begins.reserve(chunks.size() + 1);
    begins.push_back(0);
    for (const ListChunk& chunk : chunks) {
      begins.push_back(begins.back() + filled(chunk.lists));
      present += chunk.lists;
    }
  }
  std::size_t width() const { return begins.back(); }

  std::span<const ListChunk> chunks;
  std::vector<std::size_t> begins;  // [chunks + 1]: multiples of 32
  std::size_t present = 0;          // lists
};

}  // namespace memlane::list_search
