#include "runtime/query_moments.h"

#include <cmath>

#include "kernels/error.h"

namespace memlane {

namespace {
constexpr double kRidge = 1e-3;  // of the mean of the diagonal
}  // namespace

QueryMoments::QueryMoments(const EntryShape& shape)
    : kv_heads_(shape.kv_heads),
      head_dim_(shape.head_dim),
      sums_(shape.layers.size() * shape.kv_heads, std::vector<double>(shape.head_dim * shape.head_dim)) {}

void QueryMoments::add(std::size_t layer_slot, View<const float, 3> queries) {
  const std::size_t heads = queries.extent(1), dim = head_dim_;
  MEMLANE_EXPECTS(queries.extent(2) == dim && heads % kv_heads_ == 0);
  for (std::size_t row = 0; row < queries.extent(0) * heads; ++row) {
    const float* q = queries.data() + row * dim;
    std::vector<double>& sum = sums_[layer_slot * kv_heads_ + row % heads / (heads / kv_heads_)];
    for (std::size_t i = 0; i < dim; ++i) {
      for (std::size_t j = 0; j <= i; ++j) sum[i * dim + j] += static_cast<double>(q[i]) * static_cast<double>(q[j]);
    }
  }
}

std::vector<std::vector<float>> QueryMoments::metrics() const {
  std::vector<std::vector<float>> metrics;
  const std::size_t dim = head_dim_;
  for (const std::vector<double>& sum : sums_) {
    double mean = 0;
    for (std::size_t i = 0; i < dim; ++i) mean += sum[i * dim + i] / static_cast<double>(dim);
    MEMLANE_EXPECTS(mean > 0);
    std::vector<double> root(dim * dim);
    for (std::size_t i = 0; i < dim; ++i) {
      for (std::size_t j = 0; j <= i; ++j) {
        double left = sum[i * dim + j] / mean + (i == j ? kRidge : 0);
        for (std::size_t k = 0; k < j; ++k) left -= root[i * dim + k] * root[j * dim + k];
        root[i * dim + j] = i == j ? std::sqrt(left) : left / root[j * dim + j];
      }
    }
    metrics.emplace_back(root.begin(), root.end());
  }
  return metrics;
}

}  // namespace memlane
