#pragma once

#include <cstddef>
#include <vector>

namespace memlane {

/// How much of the attention went to each entry of memory. The weight of an entry for a token is its weight in the one
/// softmax over local context and memory, as a mean over memory layers and query heads; all that a token attends to
/// adds up to 1, the local context included.
struct MemoryWeights {
  std::vector<double> sums;  ///< [entries of memory]: over tokens
  std::size_t tokens = 0;    ///< those whose logits were asked for
};

}  // namespace memlane
