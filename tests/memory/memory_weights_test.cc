// What entries of a memory of several documents weigh, by every lookup.

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <numeric>

#include "memory/memory.h"
#include "tests/reference/random_memory.h"

namespace memlane {
namespace {

constexpr std::size_t kHeads = 4, kKvHeads = 2, kHeadDim = 16, kTokens = 3, kTopK = 9;
constexpr float kScale = 0.25F;
const EntryShape kShape{{2, 5}, kKvHeads, kHeadDim, DType::bf16};

class MemoryWeightsTest : public ::testing::TestWithParam<const char*> {
 protected:
  MemoryWeightsTest() : lookup_(Lookup::named(GetParam())) {
    lookup_.top_k = kTopK;
    reference::Random random(1);
    for (const auto& windows : {std::vector<std::size_t>{70, 3}, {}, {33}, {130, 20}}) {
      documents_.emplace_back(kShape, lookup_);
      for (const std::size_t count : windows) documents_.back().append(random, count);
      documents_.back().memory().update_indexes(exec_);
      for (std::size_t head = 0; head < kKvHeads; ++head) all_[head].append(documents_.back().truth(1, head));
    }
    queries_ = random.floats(kTokens * kHeads * kHeadDim, 3);
  }
  bool dense() const { return lookup_.kind == Lookup::Kind::dense; }

  Lookup lookup_;
  CpuExec exec_{2};
  std::deque<reference::RandomDocument> documents_;
  std::array<reference::Entries, kKvHeads> all_;
  std::vector<float> queries_;
};

TEST_P(MemoryWeightsTest, AreThoseOfTheSoftmaxOverWhatIsAttendedTo) {
  Memory memory(kShape, lookup_);
  for (const auto& document : documents_) memory.add(document.memory());
  const View<const float, 3> queries(queries_.data(), {kTokens, kHeads, kHeadDim});
  PartialBuffer buffer;
  const AttentionPartial partial = buffer.get(kTokens, kHeads, kHeadDim);
  memory.attend(exec_, 1, queries, kScale, partial);
  std::vector<double> found(memory.entries(), 0.0);
  memory.add_weights(exec_, 1, queries, kScale, partial.max, partial.weight, 0.5, found);

  std::vector<double> truth(found.size(), 0.0);
  for (std::size_t row = 0; row < kTokens * kHeads; ++row) {
    const reference::Entries& entries = all_[row % kHeads / (kHeads / kKvHeads)];
    const reference::Row query(queries_.begin() + static_cast<std::ptrdiff_t>(row * kHeadDim),
                               queries_.begin() + static_cast<std::ptrdiff_t>((row + 1) * kHeadDim));
    reference::Row scores;
    for (const reference::Row& key : entries.keys) scores.push_back(reference::dot(query, key));
    const std::vector<std::size_t> chosen = reference::top_k(scores, dense() ? scores.size() : kTopK);
    const reference::Partial whole =
        reference::partial_attention(query, entries.chosen(chosen), static_cast<double>(kScale));
    for (const std::size_t id : chosen) {
      truth[id] += 0.5 * std::exp(static_cast<double>(kScale) * scores[id] - whole.max) / whole.weight;
    }
  }
  for (std::size_t i = 0; i < truth.size(); ++i) EXPECT_NEAR(found[i], truth[i], 1e-5) << i;
  EXPECT_NEAR(std::accumulate(found.begin(), found.end(), 0.0), 0.5 * kTokens * kHeads, 1e-4);
}

INSTANTIATE_TEST_SUITE_P(ByLookup, MemoryWeightsTest, ::testing::Values("dense", "exact", "Flat"),
                         [](const auto& each) { return std::string(each.param); });

}  // namespace
}  // namespace memlane
