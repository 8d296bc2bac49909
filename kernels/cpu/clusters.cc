#include "kernels/clusters.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/entries.h"

namespace memlane {

namespace {
constexpr std::size_t kRows = 64;  // points that share each panel of means
constexpr int kRounds = 8;
}  // namespace

ClusterMeans::ClusterMeans(View<const float, 2> means)
    : clusters_(means.extent(0)),
      dim_(means.extent(1)),
      panels_(Buffer<float>::zeroed(panels_for(clusters_) * (dim_ + 1) * kPanelEntries)) {
  for (std::size_t c = 0; c < panels_for(clusters_) * kPanelEntries; ++c) {
    float* panel = panels_.data() + c / kPanelEntries * (dim_ + 1) * kPanelEntries + c % kPanelEntries;
    double square = 0;
    for (std::size_t d = 0; c < clusters_ && d < dim_; ++d) {
      const float x = means.data()[c * dim_ + d];
      panel[d * kPanelEntries] = x;
      square += static_cast<double>(x) * static_cast<double>(x);
    }
    panel[dim_ * kPanelEntries] =
        c < clusters_ ? static_cast<float>(-0.5 * square) : -std::numeric_limits<float>::infinity();
  }
}

std::vector<std::uint32_t> ClusterMeans::nearest(const MicroKernels& micro, View<const float, 2> points) const {
  MEMLANE_EXPECTS(points.extent(1) == dim_);
  const std::size_t n = points.extent(0), columns = panels_for(clusters_) * kPanelEntries;
  std::vector<std::uint32_t> result(n);
  std::vector<float> rows(kRows * (dim_ + 1)), scores(kRows * columns), best_scores(columns);
  std::vector<std::uint32_t> best_places(columns);
  for (std::size_t begin = 0; begin < n; begin += kRows) {
    const std::size_t count = std::min(kRows, n - begin);
    for (std::size_t i = 0; i < count; ++i) {
      std::copy_n(points.data() + (begin + i) * dim_, dim_, rows.data() + i * (dim_ + 1));
      rows[i * (dim_ + 1) + dim_] = 1;
    }
    for (std::size_t column = 0; column < columns; column += kPanelEntries) {
      micro.gemm_f32(count, dim_ + 1, rows.data(), dim_ + 1, panels_.data() + column * (dim_ + 1),
                     scores.data() + column, columns, false);
    }
    for (std::size_t i = 0; i < count; ++i) {
      const float* row = scores.data() + i * columns;
      const float best = micro.row_max(row, columns);
      const std::size_t found =
          micro.collect(row, columns, std::nextafter(best, -std::numeric_limits<float>::infinity()), 0,
                        best_scores.data(), best_places.data());
      // None is above -inf, and none is found for a point that is no number.
      const std::size_t otherwise = std::isnan(best) ? clusters_ - 1 : 0;
      result[begin + i] = found > 0 ? best_places[0] : static_cast<std::uint32_t>(otherwise);
    }
  }
  return result;
}

std::vector<float> k_means(const MicroKernels& micro, View<const float, 2> points, std::size_t clusters) {
  const std::size_t n = points.extent(0), dim = points.extent(1);
  MEMLANE_EXPECTS(clusters >= 1 && clusters <= n);
  std::vector<float> means(clusters * dim);
  // Spread as multiples of the golden ratio are, which no period of the points meets.
  constexpr double kGolden = 0.6180339887498949;
  for (std::size_t c = 0; c < clusters; ++c) {
    const double place = std::fmod(static_cast<double>(c) * kGolden, 1.0) * static_cast<double>(n);
    std::copy_n(points.data() + std::min(static_cast<std::size_t>(place), n - 1) * dim, dim, means.data() + c * dim);
  }
  std::vector<double> sums(clusters * dim);
  std::vector<std::size_t> counts(clusters);
  for (int round = 0; round < kRounds; ++round) {
    const std::vector<std::uint32_t> nearest = ClusterMeans({means.data(), {clusters, dim}}).nearest(micro, points);
    std::fill(sums.begin(), sums.end(), 0.0);
    std::fill(counts.begin(), counts.end(), std::size_t{0});
    for (std::size_t i = 0; i < n; ++i) {
      ++counts[nearest[i]];
      double* sum = sums.data() + nearest[i] * dim;
      for (std::size_t d = 0; d < dim; ++d) sum[d] += static_cast<double>(points.data()[i * dim + d]);
    }
    for (std::size_t c = 0; c < clusters; ++c) {
      for (std::size_t d = 0; counts[c] > 0 && d < dim; ++d) {
        means[c * dim + d] = static_cast<float>(sums[c * dim + d] / static_cast<double>(counts[c]));
      }
    }
  }
  return means;
}

}  // namespace memlane
