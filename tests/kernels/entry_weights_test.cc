// What single entries weigh in a softmax, against the reference.

#include "kernels/entry_weights.h"

#include <numeric>

#include "tests/kernels/kernel_fixture.h"

namespace memlane::testing {
namespace {

constexpr float kScale = 0.3F;

/// Queries to random entries, and the partial over all of them.
struct Softmax {
  Softmax(CpuExec& exec, std::size_t token_count, std::size_t kv_heads, std::size_t group, std::size_t head_dim,
          const std::vector<std::size_t>& counts, DType dtype)
      : tokens(token_count),
        heads(kv_heads * group),
        random(7),
        entries(random, kv_heads, head_dim, counts, dtype),
        queries(random.floats(tokens * heads * head_dim, 2)),
        partial(tokens, heads, head_dim) {
    attend(exec, query_view(), entries.blocks(), kScale, Visibility::all(), partial.view());
  }
  View<const float, 3> query_view() const { return {queries.data(), {tokens, heads, partial.head_dim}}; }
  std::vector<double> weights(CpuExec& exec, double factor) {
    std::vector<double> sums(entries.count(), 0.0);
    add_entry_weights(exec, query_view(), entries.blocks(), kScale, partial.view().max, partial.view().weight, factor,
                      sums);
    return sums;
  }
  /// By the definition, in double precision.
  std::vector<double> truth(double factor) const {
    std::vector<double> sums(entries.count(), 0.0);
    for (std::size_t row = 0; row < tokens * heads; ++row) {
      const reference::Row query = row_of(queries.data() + row * partial.head_dim, partial.head_dim);
      const reference::Entries& of_head = entries.truth(row % heads * entries.blocks().extent(0) / heads);
      const reference::Partial whole = reference::partial_attention(query, of_head, kScale);
      for (std::size_t i = 0; i < sums.size(); ++i) {
        const double score = static_cast<double>(kScale) * reference::dot(query, of_head.keys[i]);
        sums[i] += factor * std::exp(score - whole.max) / whole.weight;
      }
    }
    return sums;
  }

  std::size_t tokens, heads;
  reference::Random random;
  RandomEntries entries;
  std::vector<float> queries;
  OwnedPartial partial;
};

using EntryWeights = KernelTest;

TEST_P(EntryWeights, EqualTheReferenceAndAddUpToOneForEachQueryAndHead) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const std::size_t tokens : {1, 3, 70}) {
      CpuExec exec(2, GetParam());
      Softmax setup(exec, tokens, 2, 2, 24, {1, 130, 64, 33}, dtype);
      const std::vector<double> found = setup.weights(exec, 0.5), truth = setup.truth(0.5);
      for (std::size_t i = 0; i < truth.size(); ++i) EXPECT_NEAR(found[i], truth[i], 2e-5 * (truth[i] + 0.01)) << i;
      const double sum = std::accumulate(found.begin(), found.end(), 0.0);
      EXPECT_NEAR(sum / (0.5 * static_cast<double>(tokens * setup.heads)), 1, 1e-5);
    }
  }
}

TEST_P(EntryWeights, AreTheSameBitsForAnyNumberOfThreads) {
  CpuExec one(1, GetParam()), three(3, GetParam());
  Softmax setup(one, 9, 2, 4, 16, {200, 1, 77, 128}, DType::bf16);
  EXPECT_EQ(setup.weights(one, 1), setup.weights(three, 1));
}

TEST_P(EntryWeights, OfAllEntriesChosenAreThoseOfTheWhole) {
  CpuExec exec(2, GetParam());
  Softmax setup(exec, 2, 1, 3, 16, {40, 25}, DType::f32);
  const std::size_t k = setup.entries.count(), pairs = setup.tokens * setup.heads;
  std::vector<std::int64_t> ids;
  std::vector<float> scores;
  for (std::size_t row = 0; row < pairs; ++row) {
    const reference::Row query = row_of(setup.queries.data() + row * 16, 16);
    for (std::size_t i = 0; i < k; ++i) {
      ids.push_back(i == 7 ? -1 : static_cast<std::int64_t>(i));
      scores.push_back(static_cast<float>(reference::dot(query, setup.entries.truth(0).keys[i])));
    }
  }
  std::vector<double> sums(k, 0.0);
  const std::array<std::size_t, 3> extents = {setup.tokens, setup.heads, k};
  add_selected_weights({ids.data(), extents}, {scores.data(), extents}, kScale, setup.partial.view().max,
                       setup.partial.view().weight, 1, sums);
  const std::vector<double> truth = setup.truth(1);
  for (std::size_t i = 0; i < k; ++i) {
    if (i < 7) {
      EXPECT_NEAR(sums[i], truth[i], 2e-5 * (truth[i] + 0.01)) << i;
    } else {
      EXPECT_EQ(sums[i], 0) << "behind the end of the list";
    }
  }
}

MEMLANE_ON_EVERY_INSTRUCTION_SET(EntryWeights);

}  // namespace
}  // namespace memlane::testing
