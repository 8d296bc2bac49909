#pragma once

#include <cstddef>
#include <vector>

namespace memlane {

/// How much of the attention went to each entry of memory. The weight of an entry for a token is its weight in the one
/// softmax over local context and memory, as a mean over query heads and the memory layers that attend; all that a
/// token attends to adds up to 1, the local context included. Where a pass ends at the keys and values of the last
/// memory layer, that one does not attend.
struct MemoryWeights {
  std::vector<double> sums;  ///< [entries of memory]: over tokens
  std::size_t tokens = 0;    ///< those that were recorded
  /// Which tokens of a pass are recorded: the first one and each stride-th after it; 0: those whose logits are asked
  /// for.
  std::size_t stride = 0;
};

}  // namespace memlane
