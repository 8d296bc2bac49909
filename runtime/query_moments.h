#pragma once

#include <cstddef>
#include <vector>

#include "kernels/array.h"
#include "memory/segment.h"

namespace memlane {

/// Second moments M = E[q q^T] of the queries to each memory layer and key/value head. (k - l)^T M (k - l) is the mean
/// square of what the scores of two keys differ by: how far apart they are to queries, which lie elsewhere than keys.
class QueryMoments {
 public:
  explicit QueryMoments(const EntryShape& shape);

  /// queries: [tokens, heads, head_dim], heads a multiple of the shape's key/value heads.
  void add(std::size_t layer_slot, View<const float, 3> queries);

  /// For each layer and head, layer-major, what ListIndex::set_metric takes: L with L L^T = M (Cholesky), times a
  /// factor, where M is a little of the identity away from singular. Queries must have been added for each.
  std::vector<std::vector<float>> metrics() const;

 private:
  std::size_t kv_heads_, head_dim_;
  std::vector<std::vector<double>> sums_;  // [layers * kv_heads][head_dim, head_dim]
};

}  // namespace memlane
