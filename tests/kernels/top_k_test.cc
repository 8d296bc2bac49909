// Exact search and attention over chosen entries. Keys and queries are whole numbers where ids must agree exactly:
// their scores are exact in float and often equal, so ties are everywhere.

#include "kernels/top_k.h"

#include "kernels/attention.h"
#include "tests/kernels/kernel_fixture.h"

namespace memlane::testing {
namespace {

/// Ids and scores of a search, [tokens, heads, k].
struct Found {
  Found(std::size_t tokens, std::size_t heads, std::size_t k)
      : extents{tokens, heads, k}, ids(tokens * heads * k, -7), scores(ids.size(), NAN) {}
  View<std::int64_t, 3> id_view() { return {ids.data(), extents}; }
  View<float, 3> score_view() { return {scores.data(), extents}; }
  std::array<std::size_t, 3> extents;
  std::vector<std::int64_t> ids;
  std::vector<float> scores;
};

class TopK : public KernelTest {
 protected:
  std::vector<float> whole_queries(std::size_t count) {
    std::vector<float> queries = random_.floats(count, 2.5);
    for (float& x : queries) x = std::round(x);
    return queries;
  }

  /// Expects the search's answer to be the reference's, to the last bit.
  void expect_exact(const Found& found, const std::vector<float>& queries, const RandomEntries& entries,
                    std::size_t kv_heads) {
    const auto [tokens, heads, k] = found.extents;
    const std::size_t head_dim = queries.size() / tokens / heads;
    for (std::size_t row = 0; row < tokens * heads; ++row) {
      reference::Row scores;
      for (const auto& key : entries.truth(row % heads / (heads / kv_heads)).keys) {
        scores.push_back(reference::dot(row_of(queries.data() + row * head_dim, head_dim), key));
      }
      const std::vector<std::size_t> expected = reference::top_k(scores, k);
      for (std::size_t i = 0; i < k; ++i) {
        const bool some = i < expected.size();
        ASSERT_EQ(found.ids[row * k + i], some ? static_cast<std::int64_t>(expected[i]) : -1)
            << "row " << row << ", place " << i;
        ASSERT_EQ(found.scores[row * k + i], some ? scores[expected[i]] : -std::numeric_limits<double>::infinity());
      }
    }
  }

  reference::Random random_{21};
};

TEST_P(TopK, ScanFindsExactlyTheBestAndOfEqualOnesTheFirst) {
  const std::vector<std::vector<std::size_t>> cases = {
      {1}, {40}, {128}, {129}, {300, 0, 1, 70}, {33, 33, 33, 33, 33, 33, 33, 33}};
  for (const auto& counts : cases) {
    for (const std::size_t k : {1, 2, 17, 128, 600}) {
      for (const std::size_t tokens : {1, 37}) {
        for (const std::size_t threads : {1, 3}) {
          CpuExec exec(threads, GetParam());
          const RandomEntries entries(random_, 2, 6, counts, tokens == 1 ? DType::f32 : DType::bf16, 2.5, true);
          const std::vector<float> queries = whole_queries(tokens * 4 * 6);
          Found found(tokens, 4, k);
          top_k_scan(exec, View<const float, 3>(queries.data(), {tokens, 4, 6}), entries.blocks(), found.id_view(),
                     found.score_view());
          expect_exact(found, queries, entries, 2);
          ASSERT_FALSE(HasFatalFailure())
              << counts.size() << " blocks, k " << k << ", " << tokens << " tokens, " << threads << " threads";
        }
      }
    }
  }
}

// Matrix tiles take them where there are any, a few rows on the vector units.
TEST_P(TopK, ScanOfManyEntriesFindsExactlyTheBestForAnyNumberOfRows) {
  const RandomEntries entries(random_, 1, 70, {1000, 257, 31}, DType::bf16, 2.5, true);
  for (const std::size_t tokens : {1, 2, 3, 34, 290}) {
    for (const std::size_t k : {1, 40, 300}) {
      CpuExec exec(2, GetParam());
      const std::vector<float> queries = whole_queries(tokens * 2 * 70);
      Found found(tokens, 2, k);
      top_k_scan(exec, View<const float, 3>(queries.data(), {tokens, 2, 70}), entries.blocks(), found.id_view(),
                 found.score_view());
      expect_exact(found, queries, entries, 1);
      ASSERT_FALSE(HasFatalFailure()) << tokens << " tokens, k " << k;
    }
  }
}

// Scores that are no whole numbers differ in their last bits between ways to add them up: a row must go one way.
TEST_P(TopK, ScanGivesARowTheSameBitsAloneAndInABatch) {
  const RandomEntries entries(random_, 2, 70, {600, 33, 90}, DType::bf16);
  std::vector<float> queries = random_.floats(60 * 6 * 70);
  for (std::size_t i = 0; i < queries.size(); ++i) {  // every third token is of more than bfloat16 values
    if (i / (6 * 70) % 3 != 2) queries[i] = to_float(from_float<BFloat16>(queries[i]));
  }
  CpuExec exec(2, GetParam());
  const View<const float, 3> all(queries.data(), {60, 6, 70});
  Found batch(60, 6, 50);
  top_k_scan(exec, all, entries.blocks(), batch.id_view(), batch.score_view());
  for (std::size_t token = 0; token < 60; ++token) {
    Found alone(1, 6, 50);
    top_k_scan(exec, all.slice(token, token + 1), entries.blocks(), alone.id_view(), alone.score_view());
    for (std::size_t i = 0; i < alone.ids.size(); ++i) {
      ASSERT_EQ(alone.ids[i], batch.ids[token * alone.ids.size() + i]) << "token " << token;
      ASSERT_EQ(alone.scores[i], batch.scores[token * alone.ids.size() + i]) << "token " << token;
    }
  }
}

TEST_P(TopK, ScanFindsTheSameForUpToSeventeenRows) {
  const RandomEntries entries(random_, 1, 64, {600, 33, 90}, DType::bf16, 2.5, true);
  for (std::size_t tokens = 1; tokens <= 17; ++tokens) {
    CpuExec exec(1, GetParam());
    const std::vector<float> queries = whole_queries(tokens * 64);
    Found found(tokens, 1, 30);
    top_k_scan(exec, View<const float, 3>(queries.data(), {tokens, 1, 64}), entries.blocks(), found.id_view(),
               found.score_view());
    expect_exact(found, queries, entries, 1);
    ASSERT_FALSE(HasFatalFailure()) << tokens << " tokens";
  }
}

TEST_P(TopK, ScanOfEqualKeysTakesTheFirst) {
  CpuExec exec(3, GetParam());
  const RandomEntries entries(random_, 1, 4, {100, 200, 300}, DType::f16, 0.4, true);  // every key is zero
  const std::vector<float> queries = whole_queries(4);
  Found found(1, 1, 150);
  top_k_scan(exec, View<const float, 3>(queries.data(), {1, 1, 4}), entries.blocks(), found.id_view(),
             found.score_view());
  for (std::size_t i = 0; i < 150; ++i) EXPECT_EQ(found.ids[i], static_cast<std::int64_t>(i));
}

TEST_P(TopK, ScanOfNothingFindsNothing) {
  CpuExec exec(2, GetParam());
  const std::vector<float> queries = whole_queries(8);
  Found found(1, 2, 3);
  top_k_scan(exec, View<const float, 3>(queries.data(), {1, 2, 4}), {nullptr, {2, 0}}, found.id_view(),
             found.score_view());
  EXPECT_EQ(found.ids, std::vector<std::int64_t>(6, -1));
}

TEST_P(TopK, ScoresOfProposedEntriesAreExact) {
  CpuExec exec(2, GetParam());
  const RandomEntries entries(random_, 2, 10, {50, 0, 77, 1}, DType::bf16, 4, true);
  const std::vector<float> queries = whole_queries(5 * 4 * 10);
  Found proposed(5, 4, 30);
  for (std::int64_t& id : proposed.ids) id = static_cast<std::int64_t>(random_.size(0, 128)) - 1;
  score_entries(exec, View<const float, 3>(queries.data(), {5, 4, 10}), entries.blocks(),
                View<const std::int64_t, 3>(proposed.ids.data(), proposed.extents), proposed.score_view());
  for (std::size_t i = 0; i < proposed.ids.size(); ++i) {
    const std::size_t row = i / 30;
    if (proposed.ids[i] < 0) {
      EXPECT_EQ(proposed.scores[i], -std::numeric_limits<float>::infinity());
    } else {
      const auto& key = entries.truth(row % 4 / 2).keys[static_cast<std::size_t>(proposed.ids[i])];
      EXPECT_EQ(proposed.scores[i], reference::dot(row_of(queries.data() + row * 10, 10), key));
    }
  }
}

TEST_P(TopK, SelectsTheBestOfProposalsInAnyOrder) {
  CpuExec exec(3, GetParam());
  for (const std::size_t k : {1, 5, 40, 90}) {
    constexpr std::size_t kProposals = 60, kRows = 12;
    Found proposed(3, 4, kProposals), best(3, 4, k);
    for (std::size_t row = 0; row < kRows; ++row) {
      for (std::size_t i = 0; i < kProposals; ++i) {  // ids 59, 58, ...: each once; every seventh is none
        proposed.ids[row * kProposals + i] = i % 7 == 3 ? -1 : static_cast<std::int64_t>(kProposals - 1 - i);
        proposed.scores[row * kProposals + i] = std::round(random_.between(-4, 4));
      }
    }
    select_best(exec, View<const std::int64_t, 3>(proposed.ids.data(), proposed.extents),
                View<const float, 3>(proposed.scores.data(), proposed.extents), best.id_view(), best.score_view());
    for (std::size_t row = 0; row < kRows; ++row) {
      reference::Row scores(kProposals, -1e30);  // by id
      std::size_t some = 0;
      for (std::size_t i = row * kProposals; i < (row + 1) * kProposals; ++i) {
        if (proposed.ids[i] >= 0) scores[static_cast<std::size_t>(proposed.ids[i])] = proposed.scores[i], ++some;
      }
      const std::vector<std::size_t> expected = reference::top_k(scores, std::min(k, some));
      for (std::size_t i = 0; i < k; ++i) {
        ASSERT_EQ(best.ids[row * k + i], i < expected.size() ? static_cast<std::int64_t>(expected[i]) : -1);
        if (i < expected.size()) {
          ASSERT_EQ(best.scores[row * k + i], scores[expected[i]]);
        }
      }
    }
  }
}

TEST_P(TopK, AttentionOverChosenEntriesEqualsTheReference) {
  double worst = 0;
  for (const std::size_t head_dim : {2, 8, 64, 100}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      for (const std::size_t k : {1, 20, 300}) {
        CpuExec exec(2, GetParam());
        const RandomEntries entries(random_, 2, head_dim, {30, 90, 1}, dtype);
        const std::vector<float> queries = random_.floats(4 * 6 * head_dim, 2);
        const View<const float, 3> view(queries.data(), {4, 6, head_dim});
        const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
        Found found(4, 6, k);
        top_k_scan(exec, view, entries.blocks(), found.id_view(), found.score_view());
        OwnedPartial partial(4, 6, head_dim);
        attend_selected(exec, view, entries.blocks(), View<const std::int64_t, 3>(found.ids.data(), found.extents),
                        View<const float, 3>(found.scores.data(), found.extents), scale, partial.view());
        for (std::size_t row = 0; row < 24; ++row) {
          std::vector<std::size_t> ids;
          for (std::size_t i = row * k; i < (row + 1) * k && found.ids[i] >= 0; ++i)
            ids.push_back(static_cast<std::size_t>(found.ids[i]));
          EXPECT_EQ(ids.size(), std::min<std::size_t>(k, 121));
          const auto chosen = entries.truth(row % 6 / 3).chosen(ids);
          const auto truth =
              reference::partial_attention(row_of(queries.data() + row * head_dim, head_dim), chosen, scale).output();
          for (std::size_t d = 0; d < head_dim; ++d) {
            worst = std::max(
                worst, std::abs(partial.sum[row * head_dim + d] / static_cast<double>(partial.weight[row]) - truth[d]));
          }
        }
      }
    }
  }
  EXPECT_LE(worst, 5e-6);
  RecordProperty("largest_error", fmt::format("{:.3g}", worst));
}

MEMLANE_ON_EVERY_INSTRUCTION_SET(TopK);

}  // namespace
}  // namespace memlane::testing
