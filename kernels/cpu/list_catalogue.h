#pragma once

#include <algorithm>
#include <cmath>
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
    reaches.assign(width(), kNothing);
    for (std::size_t c = 0; c < chunks.size(); ++c) {
      for (std::size_t i = 0; i < chunks[c].lists; ++i) {
        const float variance = std::max(chunks[c].log_counts[i], 0.0F) * chunks[c].spreads[i];
        if (chunks[c].log_counts[i] != kNothing) reaches[begins[c] + i] = 2 * std::sqrt(std::max(variance, 0.0F));
      }
    }
  }
  std::size_t width() const { return begins.back(); }

  std::span<const ListChunk> chunks;
  std::vector<std::size_t> begins;  // [chunks + 1]: multiples of 32
  std::size_t present = 0;          // lists
  /// [width()]: of n normal numbers of variance v the greatest is about 2 sqrt(v log n) above their mean; without the
  /// part of v that depends on the query. -inf where there is no list, or an empty one.
  std::vector<float> reaches;
};

}  // namespace memlane::list_search
