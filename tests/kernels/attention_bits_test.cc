// What attention promises to the last bit: threads, batches, splits, merges.

#include "kernels/attention.h"
#include "kernels/top_k.h"
#include "tests/kernels/kernel_fixture.h"

namespace memlane::testing {
namespace {

constexpr std::size_t kThreads[] = {1, 2, 3, 5};
constexpr std::size_t kHeadDim = 20;
constexpr float kScale = 0.22F;

View<const float, 3> view_of(const std::vector<float>& queries, std::size_t heads) {
  return {queries.data(), {queries.size() / heads / kHeadDim, heads, kHeadDim}};
}

OwnedPartial attend_to(CpuExec& exec, View<const float, 3> queries, View<const EntryBlock, 2> blocks,
                       Visibility visibility = Visibility::all()) {
  OwnedPartial partial(queries.extent(0), queries.extent(1), kHeadDim);
  attend(exec, queries, blocks, kScale, visibility, partial.view());
  return partial;
}

/// Token `token` of a partial.
OwnedPartial one_token(const OwnedPartial& whole, std::size_t token) {
  OwnedPartial one(1, whole.heads, whole.head_dim);
  std::copy_n(whole.sum.begin() + static_cast<std::ptrdiff_t>(token * one.sum.size()), one.sum.size(), one.sum.begin());
  std::copy_n(whole.max.begin() + static_cast<std::ptrdiff_t>(token * one.max.size()), one.max.size(), one.max.begin());
  std::copy_n(whole.weight.begin() + static_cast<std::ptrdiff_t>(token * one.weight.size()), one.weight.size(),
              one.weight.begin());
  return one;
}

class AttendBits : public KernelTest {
 protected:
  reference::Random random_{11};
};

// With 4 kv heads and one token there are 4 pieces of work: one thread takes them whole, more threads split them by
// blocks.
TEST_P(AttendBits, AreTheSameForAnyNumberOfThreadsSplitOrNot) {
  for (const std::size_t tokens : {1, 2, 57, 200}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      const RandomEntries entries(random_, 4, kHeadDim, {64, 130, 0, 1, 33, 300}, dtype);
      const std::vector<float> queries = random_.floats(tokens * 8 * kHeadDim, 3);
      CpuExec one(1, GetParam());
      const OwnedPartial expected = attend_to(one, view_of(queries, 8), entries.blocks());
      for (const std::size_t threads : kThreads) {
        CpuExec exec(threads, GetParam());
        EXPECT_TRUE(attend_to(exec, view_of(queries, 8), entries.blocks()).same_bits_as(expected))
            << tokens << " tokens, " << threads << " threads";
      }
    }
  }
}

TEST_P(AttendBits, AreTheSameForAQueryAloneAndInABatch) {
  const RandomEntries entries(random_, 2, kHeadDim, {64, 130, 33}, DType::bf16);
  const std::vector<float> queries = random_.floats(70 * 8 * kHeadDim, 3);
  CpuExec exec(2, GetParam());
  const OwnedPartial batch = attend_to(exec, view_of(queries, 8), entries.blocks());
  for (std::size_t token = 0; token < 70; token += 23) {
    EXPECT_TRUE(attend_to(exec, view_of(queries, 8).slice(token, token + 1), entries.blocks())
                    .same_bits_as(one_token(batch, token)));
  }
}

/// Prefill sees later entries in the same storage; a decode step has only those before it. queries: 4 heads.
void expect_decoded_equals_prefilled(CpuExec& exec, const RandomEntries& entries, const std::vector<float>& queries,
                                     std::size_t past) {
  const View<const float, 3> all = view_of(queries, 4);
  const OwnedPartial prefill = attend_to(exec, all, entries.blocks(), Visibility::causal_from(past));
  for (std::size_t token = 0; token < all.extent(0); ++token) {
    std::vector<EntryBlock> blocks(entries.blocks().data(), entries.blocks().data() + 2);
    for (EntryBlock& block : blocks) block.count = past + token + 1;
    const OwnedPartial decoded =
        attend_to(exec, all.slice(token, token + 1), {blocks.data(), {2, 1}}, Visibility::causal_from(past + token));
    ASSERT_TRUE(decoded.same_bits_as(one_token(prefill, token))) << "token " << token;
  }
}

TEST_P(AttendBits, AreTheSameDecodedAndPrefilled) {
  constexpr std::size_t kTokens = 290, kPast = 7;
  const RandomEntries entries(random_, 2, kHeadDim, {kPast + kTokens}, DType::f32);
  const std::vector<float> queries = random_.floats(kTokens * 4 * kHeadDim, 3);
  CpuExec exec(2, GetParam());
  expect_decoded_equals_prefilled(exec, entries, queries, kPast);
}

/// Queries of heads * kHeadDim elements a token, bfloat16 values but for every third token.
std::vector<float> mixed_queries(reference::Random& random, std::size_t tokens, std::size_t heads, bool mixed) {
  std::vector<float> queries = random.floats(tokens * heads * kHeadDim, 3);
  for (std::size_t i = 0; i < queries.size(); ++i) {
    if (mixed && i / (heads * kHeadDim) % 3 == 2) continue;
    queries[i] = to_float(from_float<BFloat16>(queries[i]));
  }
  return queries;
}

// Matrix tiles take queries of bfloat16 values, in a batch with others or not.
TEST_P(AttendBits, OfBFloat16QueriesAreTheSameForAnyThreadsAloneAndInABatch) {
  const RandomEntries entries(random_, 2, kHeadDim, {64, 730, 0, 33, 256, 300}, DType::bf16);
  CpuExec one(1, GetParam()), three(3, GetParam());
  for (const bool mixed : {false, true}) {
    const std::vector<float> queries = mixed_queries(random_, 150, 4, mixed);
    const OwnedPartial batch = attend_to(one, view_of(queries, 4), entries.blocks());
    EXPECT_TRUE(attend_to(three, view_of(queries, 4), entries.blocks()).same_bits_as(batch));
    for (std::size_t token = 0; token < 150; ++token) {
      const OwnedPartial alone = attend_to(three, view_of(queries, 4).slice(token, token + 1), entries.blocks());
      ASSERT_TRUE(alone.same_bits_as(one_token(batch, token))) << "token " << token;
    }
  }
}

// With matrix tiles a few rows take the vector units, and tiles many: every number of few rows, every sort of numbers
// that rounding treats in its own way.
TEST_P(AttendBits, OfAFewBFloat16RowsAreThoseOfMany) {
  for (const std::size_t heads : {1, 2, 3, 4, 5}) {
    for (const std::size_t head_dim : {2, 34, 100}) {
      for (const double amplitude : {1e-19, 1e-3, 3.0, 40.0}) {
        const RandomEntries entries(random_, 1, head_dim, {700, 31}, DType::bf16, amplitude);
        std::vector<float> queries = random_.floats(40 * heads * head_dim, amplitude);
        for (float& x : queries) x = to_float(from_float<BFloat16>(x));
        CpuExec exec(2, GetParam());
        const View<const float, 3> all(queries.data(), {40, heads, head_dim});
        OwnedPartial batch(40, heads, head_dim);
        attend(exec, all, entries.blocks(), kScale, Visibility::all(), batch.view());
        for (const std::size_t token : {0, 17, 39}) {
          OwnedPartial alone(1, heads, head_dim);
          attend(exec, all.slice(token, token + 1), entries.blocks(), kScale, Visibility::all(), alone.view());
          ASSERT_TRUE(alone.same_bits_as(one_token(batch, token)))
              << heads << " heads of " << head_dim << ", amplitude " << amplitude << ", token " << token;
        }
      }
    }
  }
}

TEST_P(AttendBits, OfBFloat16QueriesAreTheSameDecodedAndPrefilled) {
  constexpr std::size_t kTokens = 600, kPast = 7;
  const RandomEntries entries(random_, 2, kHeadDim, {kPast + kTokens}, DType::bf16);
  const std::vector<float> queries = mixed_queries(random_, kTokens, 4, true);
  CpuExec exec(2, GetParam());
  expect_decoded_equals_prefilled(exec, entries, queries, kPast);
}

TEST_P(AttendBits, OfABandAreTheSameDecodedAndPrefilled) {
  constexpr std::size_t kTokens = 290, kPast = 300;
  const Visibility band{true, kPast, 0, 150, 3};
  CpuExec one(1, GetParam()), two(2, GetParam());
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const RandomEntries entries(random_, 2, kHeadDim, {kPast + kTokens}, dtype);
    const std::vector<float> queries = mixed_queries(random_, kTokens, 4, true);
    const OwnedPartial prefill = attend_to(one, view_of(queries, 4), entries.blocks(), band);
    EXPECT_TRUE(attend_to(two, view_of(queries, 4), entries.blocks(), band).same_bits_as(prefill));
    for (std::size_t token = 0; token < kTokens; ++token) {
      Visibility alone = band;
      alone.first_position += token;
      const OwnedPartial decoded = attend_to(one, view_of(queries, 4).slice(token, token + 1), entries.blocks(), alone);
      ASSERT_TRUE(decoded.same_bits_as(one_token(prefill, token))) << name_of(dtype) << ", token " << token;
    }
  }
}

TEST_P(AttendBits, OfMergedPartsAreThoseOfTheWhole) {
  const std::vector<float> queries = random_.floats(6 * 4 * kHeadDim, 3);
  const RandomEntries entries(random_, 2, kHeadDim, {40, 0, 129, 17}, DType::f16);
  CpuExec exec(3, GetParam());
  const OwnedPartial whole = attend_to(exec, view_of(queries, 4), entries.blocks());
  OwnedPartial merged = attend_to(exec, view_of(queries, 4), {nullptr, {2, 0}});
  for (std::size_t part = 0; part < 4; ++part) {
    const std::vector<EntryBlock> blocks = {entries.blocks()[0][part], entries.blocks()[1][part]};
    OwnedPartial one = attend_to(exec, view_of(queries, 4), {blocks.data(), {2, 1}});
    merge(exec, merged.view(), one.view());
  }
  EXPECT_TRUE(merged.same_bits_as(whole));
}

TEST_P(AttendBits, OfAPartialStayWhenNothingIsMergedIn) {
  const std::vector<float> queries = random_.floats(6 * 4 * kHeadDim, 3);
  const RandomEntries entries(random_, 2, kHeadDim, {40}, DType::f32);
  CpuExec exec(2, GetParam());
  const OwnedPartial whole = attend_to(exec, view_of(queries, 4), entries.blocks());
  OwnedPartial nothing = attend_to(exec, view_of(queries, 4), {nullptr, {2, 0}});
  OwnedPartial merged = whole;
  merge(exec, merged.view(), nothing.view());
  EXPECT_TRUE(merged.same_bits_as(whole));
  merge(exec, nothing.view(), merged.view());
  EXPECT_TRUE(nothing.same_bits_as(whole));
}

TEST_P(AttendBits, MergeInAnyOrderWithinTolerance) {
  const std::vector<float> queries = random_.floats(5 * 2 * kHeadDim, 30);  // scores of tens: maxima differ
  const RandomEntries a(random_, 2, kHeadDim, {70}, DType::f32), b(random_, 2, kHeadDim, {50}, DType::f32);
  CpuExec exec(2, GetParam());
  OwnedPartial ab = attend_to(exec, view_of(queries, 2), a.blocks()),
               ba = attend_to(exec, view_of(queries, 2), b.blocks());
  OwnedPartial a_only = ab, b_only = ba;
  merge(exec, ab.view(), b_only.view());
  merge(exec, ba.view(), a_only.view());
  for (std::size_t i = 0; i < ab.sum.size(); ++i) EXPECT_NEAR(ab.sum[i], ba.sum[i], 1e-5);
  for (std::size_t i = 0; i < ab.max.size(); ++i) EXPECT_EQ(ab.max[i], ba.max[i]);
}

TEST_P(AttendBits, OfSearchAndSelectedAttentionDoNotDependOnThreads) {
  constexpr std::size_t kTop = 9;
  const RandomEntries entries(random_, 2, kHeadDim, {64, 130, 5, 200}, DType::bf16);
  for (const std::size_t tokens : {1, 90}) {
    const std::vector<float> queries = random_.floats(tokens * 4 * kHeadDim, 3);
    std::vector<std::int64_t> first_ids;
    OwnedPartial first(tokens, 4, kHeadDim);
    for (const std::size_t threads : kThreads) {
      CpuExec exec(threads, GetParam());
      std::vector<std::int64_t> ids(tokens * 4 * kTop);
      std::vector<float> scores(ids.size());
      OwnedPartial partial(tokens, 4, kHeadDim);
      top_k_scan(exec, view_of(queries, 4), entries.blocks(), {ids.data(), {tokens, 4, kTop}},
                 {scores.data(), {tokens, 4, kTop}});
      attend_selected(exec, view_of(queries, 4), entries.blocks(),
                      View<const std::int64_t, 3>(ids.data(), {tokens, 4, kTop}),
                      View<const float, 3>(scores.data(), {tokens, 4, kTop}), kScale, partial.view());
      if (threads == 1) {
        first_ids = ids;
        first = partial;
      }
      EXPECT_EQ(ids, first_ids) << threads << " threads";
      EXPECT_TRUE(partial.same_bits_as(first)) << threads << " threads";
    }
  }
}

// What an infinite score weighs cannot be told; the sampler says so of the logits that come of it.
TEST_P(AttendBits, OfAnInfiniteScoreAreNoNumbers) {
  const RandomEntries entries(random_, 2, kHeadDim, {40}, DType::bf16);
  const std::vector<float> queries = random_.floats(2 * kHeadDim, 1);
  const std::vector<std::int64_t> ids = {3, 7, 3, 7};
  const std::vector<float> scores = {1, std::numeric_limits<float>::infinity(), 1, 2};
  CpuExec exec(1, GetParam());
  OwnedPartial partial(1, 2, kHeadDim);
  attend_selected(exec, view_of(queries, 2), entries.blocks(), View<const std::int64_t, 3>(ids.data(), {1, 2, 2}),
                  View<const float, 3>(scores.data(), {1, 2, 2}), kScale, partial.view());
  EXPECT_TRUE(std::isnan(partial.weight[0]));
  EXPECT_GT(partial.weight[1], 0);
}

MEMLANE_ON_EVERY_INSTRUCTION_SET(AttendBits);

}  // namespace
}  // namespace memlane::testing
