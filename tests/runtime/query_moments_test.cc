#include "runtime/query_moments.h"

#include <gtest/gtest.h>

#include "tests/reference/random_values.h"

namespace memlane {
namespace {

TEST(QueryMoments, GiveDistancesThatAreDifferencesOfScores) {
  constexpr std::size_t kTokens = 3000, kHeads = 4, kDim = 6;
  const EntryShape shape{.layers = {1, 3}, .kv_heads = 2, .head_dim = kDim};
  reference::Random random(9);
  std::vector<float> queries = random.floats(kTokens * kHeads * kDim);
  for (std::size_t i = 0; i < queries.size(); ++i) queries[i] *= static_cast<float>(1 + i % kDim + i / kDim % kHeads);
  QueryMoments moments(shape);
  const View<const float, 3> all(queries.data(), {kTokens, kHeads, kDim});
  moments.add(0, all.slice(0, 1000));
  moments.add(0, all.slice(1000, kTokens));
  moments.add(1, all);
  const auto metrics = moments.metrics();
  ASSERT_EQ(metrics.size(), 4U);
  EXPECT_EQ(metrics[0], metrics[2]) << "the same queries, in one call or two";
  for (std::size_t kv_head = 0; kv_head < 2; ++kv_head) {
    double first_ratio = 0;
    for (int pair = 0; pair < 5; ++pair) {
      const std::vector<float> apart = random.floats(kDim);
      double distance = 0;
      for (std::size_t j = 0; j < kDim; ++j) {
        double x = 0;
        for (std::size_t d = 0; d < kDim; ++d) {
          x += static_cast<double>(apart[d]) * static_cast<double>(metrics[kv_head][d * kDim + j]);
        }
        distance += x * x;
      }
      double score = 0;
      for (std::size_t token = 0; token < kTokens; ++token) {
        for (const std::size_t head : {2 * kv_head, 2 * kv_head + 1}) {
          double dot = 0;
          for (std::size_t d = 0; d < kDim; ++d) {
            dot += static_cast<double>(apart[d]) * static_cast<double>(queries[(token * kHeads + head) * kDim + d]);
          }
          score += dot * dot / (2 * kTokens);
        }
      }
      if (pair == 0) first_ratio = distance / score;
      EXPECT_NEAR(distance / score / first_ratio, 1, 0.02) << "one factor for all pairs, but for the ridge";
    }
  }
}

TEST(QueryMoments, WantQueriesForEveryHead) {
  const QueryMoments moments({.layers = {1}, .kv_heads = 2, .head_dim = 4});
  EXPECT_THROW(moments.metrics(), std::logic_error);
}

}  // namespace
}  // namespace memlane
