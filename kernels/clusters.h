#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/array.h"
#include "kernels/exec.h"

namespace memlane {

/// The means of clusters, laid out for finding the nearest (in Euclidean distance) of many points at once.
class ClusterMeans {
 public:
  /// means: [clusters, dim].
  explicit ClusterMeans(View<const float, 2> means);

  /// The nearest cluster of each point; of equally near ones the first. points: [n, dim].
  std::vector<std::uint32_t> nearest(const MicroKernels& micro, View<const float, 2> points) const;

 private:
  std::size_t clusters_, dim_;
  Buffer<float> panels_;  // [ceil(clusters / 32)][dim + 1][32]: means, and -|mean|^2 / 2 (-inf for no cluster)
};

/// Means of `clusters` clusters of points, by a few rounds of k-means (Lloyd 1982) from points spread over all.
/// Clusters that lose all points keep their means. points: [n, dim], n >= clusters >= 1. Returns [clusters, dim].
std::vector<float> k_means(const MicroKernels& micro, View<const float, 2> points, std::size_t clusters);

}  // namespace memlane
