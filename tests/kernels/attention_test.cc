// Partial attention against the reference: shapes, types, visibility, extreme scores.

#include "kernels/attention.h"

#include "tests/kernels/kernel_fixture.h"
#include "tests/sanitized.h"

namespace memlane::testing {
namespace {

constexpr DType kTypes[] = {DType::f32, DType::f16, DType::bf16};

struct Shape {
  std::size_t tokens, kv_heads, group, head_dim;
  std::vector<std::size_t> counts;  // entries of each block
  DType dtype = DType::f32;
  double key_amplitude = 1;
  Visibility visibility = Visibility::all();
  bool bf16_queries = false;  // their elements are bfloat16 values
};

/// How far float scores may be from true ones, given what they sum up; errors of weights and of the output follow from
/// it.
double score_error(const reference::Row& query, const reference::Entries& entries, double scale) {
  double magnitude = 0;
  for (const reference::Row& key : entries.keys)
    magnitude = std::max(magnitude, reference::dot_of_magnitudes(query, key));
  return static_cast<double>(query.size() + 4) * 0x1p-24 * scale * magnitude;
}

/// The entries that query token i sees, by the definition of a band.
std::vector<std::size_t> visible_entries(const Visibility& visibility, std::size_t i, std::size_t count) {
  std::vector<std::size_t> ids;
  for (std::size_t entry = 0; entry < count; ++entry) {
    const auto distance = static_cast<double>(visibility.first_position + i) - static_cast<double>(entry);
    const bool in_band = entry >= visibility.first_entry && entry < visibility.end_entry &&
                         distance >= static_cast<double>(visibility.min_distance) &&
                         distance <= static_cast<double>(visibility.max_distance);
    if (!visibility.banded || in_band) ids.push_back(entry);
  }
  return ids;
}

/// How far a softmax weight may be from its true value, to itself: matrix tiles multiply weights that were rounded to
/// bfloat16.
double weight_error(const CpuExec& exec, const Shape& shape) {
  const bool by_tiles = exec.micro().tiles != nullptr && shape.dtype == DType::bf16;
  return by_tiles && shape.bf16_queries ? 0x1p-9 + 1e-5 : 0;
}

/// The farthest of the values' elements d from x.
double farthest(const reference::Entries& entries, std::size_t d, double x) {
  double most = 0;
  for (const reference::Row& value : entries.values) most = std::max(most, std::abs(value[d] - x));
  return most;
}

/// Attends and returns the largest error of the outputs relative to the largest value; expects every part of the
/// partials within bounds.
double attend_and_compare(CpuExec& exec, reference::Random& random, const Shape& shape) {
  const std::size_t heads = shape.kv_heads * shape.group;
  const RandomEntries entries(random, shape.kv_heads, shape.head_dim, shape.counts, shape.dtype, shape.key_amplitude);
  std::vector<float> queries = random.floats(shape.tokens * heads * shape.head_dim, 2);
  for (float& x : queries) x = shape.bf16_queries ? to_float(from_float<BFloat16>(x)) : x;
  const float scale = 1.0F / std::sqrt(static_cast<float>(shape.head_dim));
  OwnedPartial partial(shape.tokens, heads, shape.head_dim);
  attend(exec, View<const float, 3>(queries.data(), {shape.tokens, heads, shape.head_dim}), entries.blocks(), scale,
         shape.visibility, partial.view());
  std::vector<float> out(queries.size(), NAN);
  finish(exec, partial.view(), {out.data(), {shape.tokens, heads, shape.head_dim}});

  double worst = 0;
  for (std::size_t row = 0; row < shape.tokens * heads; ++row) {
    const reference::Row query = row_of(queries.data() + row * shape.head_dim, shape.head_dim);
    const reference::Entries& all = entries.truth(row % heads / shape.group);
    const reference::Entries visible = all.chosen(visible_entries(shape.visibility, row / heads, all.keys.size()));
    if (visible.keys.empty()) {
      EXPECT_EQ(partial.weight[row], 0) << "row " << row << " sees nothing";
      EXPECT_EQ(partial.max[row], -INFINITY);
      continue;
    }
    const reference::Partial truth = reference::partial_attention(query, visible, scale);
    const double slack = score_error(query, visible, scale), rounding = weight_error(exec, shape);
    EXPECT_NEAR(partial.max[row], truth.max, slack + 1e-30);
    const double weight = partial.weight[row] * std::exp(partial.max[row] - truth.max);
    EXPECT_NEAR(weight / truth.weight, 1, 2 * slack + 2e-6 + rounding);
    for (std::size_t d = 0; d < shape.head_dim; ++d) {
      const double right = truth.output()[d];
      const double error = std::abs(out[row * shape.head_dim + d] - right);
      // A mean with weights that are a share off is off by at most that share of the values' distances from it.
      EXPECT_LE(error, 4 * slack + 2e-6 + (rounding > 0 ? 1.1 * rounding * farthest(visible, d, right) : 0))
          << "row " << row << ", element " << d;
      worst = reference::worse(worst, error);
    }
  }
  return worst;
}

using Attend = KernelTest;

TEST_P(Attend, EqualsTheReferenceForEveryHeadSizeGroupAndType) {
  reference::Random random(1);
  double worst = 0;
  for (const std::size_t head_dim : {2, 8, 30, 64, 80, 100, 128, 160}) {
    for (const std::size_t group : {1, 2, 4, 8}) {
      for (const DType dtype : kTypes) {
        SCOPED_TRACE(::testing::Message() << "head_dim " << head_dim << ", group " << group << ", " << name_of(dtype));
        CpuExec exec(2, GetParam());
        const std::size_t tokens = random.size(1, 9);
        worst = reference::worse(
            worst, attend_and_compare(
                       exec, random, {tokens, 2, group, head_dim, {random.size(1, 70), 0, random.size(1, 40)}, dtype}));
        ASSERT_FALSE(HasFailure());
      }
    }
  }
  RecordProperty("largest_error", fmt::format("{:.3g}", worst));
}

// These go through matrix tiles where there are such.
TEST_P(Attend, EqualsTheReferenceForBFloat16Throughout) {
  reference::Random random(21);
  for (const std::size_t head_dim : {1, 7, 30, 32, 33, 48, 64, 80, 100, 160}) {
    for (const std::size_t tokens : {1, 2, 17, 33, 70, 300}) {
      // The reference takes long.
      if (tokens > 100 && (kSanitized || (head_dim != 64 && head_dim != 100))) continue;
      SCOPED_TRACE(::testing::Message() << "head_dim " << head_dim << ", " << tokens << " tokens");
      CpuExec exec(2, GetParam());
      const std::size_t group = random.size(1, 3);
      Shape shape{tokens, 2, group, head_dim, {random.size(1, 70), 0, random.size(200, 600)}, DType::bf16};
      shape.bf16_queries = true;
      attend_and_compare(exec, random, shape);
      shape.counts = {tokens + random.size(0, 300)};
      shape.visibility = Visibility::causal_from(shape.counts.front() - tokens);
      attend_and_compare(exec, random, shape);
      ASSERT_FALSE(HasFailure());
    }
  }
}

TEST_P(Attend, GivesARowTheSameBitsAloneAndAmongAnyNumberOfOthers) {
  reference::Random random(27);
  constexpr std::size_t kHeadDim = 80, kMost = 17;
  const RandomEntries entries(random, 1, kHeadDim, {300, 33, 600}, DType::bf16),
      one(random, 1, kHeadDim, {320}, DType::bf16);
  std::vector<float> queries = random.floats(kMost * kHeadDim, 4);
  for (float& x : queries) x = to_float(from_float<BFloat16>(x));
  CpuExec exec(2, GetParam());
  const auto attend_rows = [&](std::size_t begin, std::size_t end, bool causal) {
    OwnedPartial partial(end - begin, 1, kHeadDim);
    const Visibility visibility = causal ? Visibility::causal_from(250 + begin) : Visibility::all();
    attend(exec, View<const float, 3>(queries.data() + begin * kHeadDim, {end - begin, 1, kHeadDim}),
           causal ? one.blocks() : entries.blocks(), 0.2F, visibility, partial.view());
    return partial;
  };
  for (const bool causal : {false, true}) {
    std::vector<OwnedPartial> alone;
    for (std::size_t row = 0; row < kMost; ++row) alone.push_back(attend_rows(row, row + 1, causal));
    for (std::size_t rows = 2; rows <= kMost; ++rows) {
      const OwnedPartial together = attend_rows(0, rows, causal);
      for (std::size_t row = 0; row < rows; ++row) {
        ASSERT_EQ(together.max[row], alone[row].max[0]) << row << " of " << rows;
        ASSERT_EQ(together.weight[row], alone[row].weight[0]) << row << " of " << rows;
        for (std::size_t d = 0; d < kHeadDim; ++d) {
          ASSERT_EQ(together.sum[row * kHeadDim + d], alone[row].sum[d]) << row << " of " << rows;
        }
      }
    }
  }
}

TEST_P(Attend, GivesARowTheSameBitsAloneAndAmongOthersThatAreNoBFloat16) {
  reference::Random random(29);
  constexpr std::size_t kTokens = 40, kHeads = 3, kHeadDim = 50;
  const RandomEntries entries(random, kHeads, kHeadDim, {300, 70}, DType::bf16);
  std::vector<float> queries = random.floats(kTokens * kHeads * kHeadDim, 4);
  for (std::size_t i = 0; i < queries.size(); ++i) {
    if (i / kHeadDim % 4 != 0) queries[i] = to_float(from_float<BFloat16>(queries[i]));
  }
  CpuExec exec(2, GetParam());
  const auto attend_tokens = [&](std::size_t begin, std::size_t end) {
    OwnedPartial partial(end - begin, kHeads, kHeadDim);
    attend(exec, {queries.data() + begin * kHeads * kHeadDim, {end - begin, kHeads, kHeadDim}}, entries.blocks(), 0.2F,
           Visibility::all(), partial.view());
    return partial;
  };
  const OwnedPartial together = attend_tokens(0, kTokens);
  for (std::size_t token = 0; token < kTokens; ++token) {
    const OwnedPartial alone = attend_tokens(token, token + 1);
    for (std::size_t head = 0; head < kHeads; ++head) {
      const std::size_t row = token * kHeads + head;
      ASSERT_EQ(together.max[row], alone.max[head]) << token << " " << head;
      ASSERT_EQ(together.weight[row], alone.weight[head]) << token << " " << head;
      for (std::size_t d = 0; d < kHeadDim; ++d) {
        ASSERT_EQ(together.sum[row * kHeadDim + d], alone.sum[head * kHeadDim + d]) << token << " " << head;
      }
    }
  }
}

TEST_P(Attend, ShowsAnInfiniteScoreWhereverItIs) {
  constexpr std::size_t kHeadDim = 32;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::size_t infinite_block : {0, 1, 2}) {
      reference::Random random(30);
      const RandomEntries entries(random, 1, kHeadDim, {40, 50, 60}, dtype);
      with_type(dtype, [&](auto type) {
        using T = decltype(type);
        auto* keys = static_cast<T*>(const_cast<void*>(entries.blocks()[0][infinite_block].keys));
        keys[key_offset(7, 3, kHeadDim, dtype)] = from_float<T>(INFINITY);
      });
      for (const std::size_t threads : {1, 8}) {
        for (const std::size_t tokens : {1, 5, 600}) {
          CpuExec exec(threads, GetParam());
          const std::vector<float> queries(tokens * kHeadDim, 0.5F);
          OwnedPartial partial(tokens, 1, kHeadDim);
          attend(exec, {queries.data(), {tokens, 1, kHeadDim}}, entries.blocks(), 1, Visibility::all(), partial.view());
          for (std::size_t row = 0; row < tokens; ++row) {
            ASSERT_TRUE(std::isnan(partial.weight[row]))
                << name_of(dtype) << ", block " << infinite_block << ", " << threads << " threads, " << tokens;
          }
        }
      }
    }
  }
}

TEST_P(Attend, GivesScoresThatAreAllMinusInfinityNoWeight) {
  reference::Random random(28);
  for (const std::size_t tokens : {1, 9}) {
    CpuExec exec(2, GetParam());
    const RandomEntries entries(random, 1, 32, {40}, DType::bf16, 1e30);
    std::vector<float> queries(tokens * 32);
    // Of the first key's signs, and so large that products overflow; other keys get what they get.
    const auto& key = entries.truth(0).keys[0];
    for (std::size_t i = 0; i < queries.size(); ++i) queries[i] = key[i % 32] > 0 ? -0x1p120F : 0x1p120F;
    OwnedPartial partial(tokens, 1, 32);
    Visibility first = Visibility::causal_from(0);
    first.end_entry = 1;
    attend(exec, View<const float, 3>(queries.data(), {tokens, 1, 32}), entries.blocks(), 1.0F, first, partial.view());
    for (std::size_t row = 0; row < tokens; ++row) {
      EXPECT_EQ(partial.max[row], -INFINITY);
      EXPECT_EQ(partial.weight[row], 0);
    }
  }
}

TEST_P(Attend, StandsVeryLargeAndVerySmallScoresForBFloat16Throughout) {
  reference::Random random(22);
  CpuExec exec(2, GetParam());
  for (const double amplitude : {1e-30, 1e-6, 20.0, 200.0, 5000.0}) {
    Shape shape{40, 2, 2, 64, {700, 40}, DType::bf16, amplitude};
    shape.bf16_queries = true;
    attend_and_compare(exec, random, shape);
    ASSERT_FALSE(HasFailure()) << "amplitude " << amplitude;
  }
}

TEST_P(Attend, EqualsTheReferenceOverRaggedBlocks) {
  reference::Random random(2);
  CpuExec exec(3, GetParam());
  const std::vector<std::vector<std::size_t>> cases = {
      {1}, {31}, {32}, {33}, {127}, {128}, {129}, {257}, {1, 1, 1}, {128, 128}, {200, 3, 65, 1, 32}};
  for (const auto& counts : cases) {
    attend_and_compare(exec, random, {3, 2, 2, 24, counts, DType::f32});
    attend_and_compare(exec, random, {120, 1, 1, 10, counts, DType::bf16});
    ASSERT_FALSE(HasFailure()) << "first block of " << counts.front();
  }
}

TEST_P(Attend, IsCausalFromAnyOffset) {
  reference::Random random(3);
  CpuExec exec(2, GetParam());
  for (const std::size_t first : {0, 1, 30, 31, 32, 127, 128, 200}) {
    for (const std::size_t tokens : {1, 2, 33, 130}) {
      Shape shape{tokens, 2, 2, 16, {first + tokens}, DType::f32};
      shape.visibility = Visibility::causal_from(first);
      attend_and_compare(exec, random, shape);
      ASSERT_FALSE(HasFailure()) << tokens << " tokens from " << first;
    }
  }
}

TEST_P(Attend, SeesABandOfDistances) {
  reference::Random random(8);
  CpuExec exec(2, GetParam());
  for (int round = 0; round < (kSanitized ? 30 : 120); ++round) {
    const std::size_t tokens = random.size(1, 200), first = random.size(0, 400);
    Shape shape{tokens, 2, random.size(1, 3), 16, {first + tokens}, kTypes[round % 3]};
    shape.bf16_queries = round % 6 >= 3;
    shape.visibility = {true, first, round % 4 == 0 ? random.size(0, 300) : 0, Visibility::kAnyDistance, 0};
    if (round % 3 != 0) shape.visibility.max_distance = shape.visibility.min_distance + random.size(0, 260);
    if (round % 2 != 0) shape.visibility.first_entry = random.size(0, 40);
    if (round % 5 == 0) shape.visibility.end_entry = random.size(0, 60);
    attend_and_compare(exec, random, shape);
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
}

TEST_P(Attend, EqualsTheReferenceForRandomShapes) {
  reference::Random random(4);
  for (int round = 0; round < 30; ++round) {
    Shape shape{random.size(1, 40), random.size(1, 4), random.size(1, 5), 2 * random.size(1, 40), {},
                kTypes[round % 3]};
    shape.counts.push_back(shape.tokens + random.size(0, 90));
    if (round % 2 == 0) {
      shape.visibility = Visibility::causal_from(shape.counts.front() - shape.tokens);
    } else {
      for (std::size_t block = random.size(0, 4); block > 0; --block) shape.counts.push_back(random.size(0, 150));
    }
    CpuExec exec(random.size(1, 5), GetParam());
    attend_and_compare(exec, random, shape);
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
}

// Scores of hundreds make one weight nearly 1 and underflow the others; scores near zero make all weights equal.
TEST_P(Attend, StandsVeryLargeAndVerySmallScores) {
  reference::Random random(5);
  CpuExec exec(2, GetParam());
  for (const double amplitude : {1e-30, 1e-6, 20.0, 200.0, 5000.0}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      Shape shape{5, 2, 2, 64, {150, 40}, dtype};
      shape.key_amplitude = amplitude;
      attend_and_compare(exec, random, shape);
      ASSERT_FALSE(HasFailure()) << "amplitude " << amplitude;
    }
  }
}

// Rising scores change the maximum at every tile, falling ones never.
TEST_P(Attend, RescalesWhenLaterTilesHaveLargerScores) {
  constexpr std::size_t kCount = 700, kHeadDim = 2;
  for (const double slope : {0.25, -0.25}) {
    std::vector<float> keys(kCount * kHeadDim, 0.0F), values(kCount * kHeadDim, 1.0F);
    reference::Entries truth;
    for (std::size_t i = 0; i < kCount; ++i) {
      keys[i * kHeadDim] = static_cast<float>(slope * static_cast<double>(i));
      values[i * kHeadDim] = static_cast<float>(i);
      truth.add(row_of(&keys[i * kHeadDim], kHeadDim), row_of(&values[i * kHeadDim], kHeadDim));
    }
    std::vector<float> panels(key_elements(kCount, kHeadDim, DType::f32));
    write_keys(panels.data(), 0, keys.data(), kHeadDim, kCount, kHeadDim);
    const EntryBlock block{panels.data(), values.data(), kCount, DType::f32};
    const std::vector<float> query = {1, 0};
    CpuExec exec(1, GetParam());
    OwnedPartial partial(1, 1, kHeadDim);
    attend(exec, View<const float, 3>(query.data(), {1, 1, kHeadDim}), {&block, {1, 1}}, 1, Visibility::all(),
           partial.view());
    const reference::Row expected = reference::partial_attention({1, 0}, truth, 1).output();
    EXPECT_NEAR(partial.sum[0] / partial.weight[0], expected[0], 1e-3);
    EXPECT_NEAR(partial.sum[1] / partial.weight[0], 1, 1e-5);
  }
}

// One entry with score 0 and one with score x: the second one's weight is exp(x), as the kernel computes it.
TEST_P(Attend, ComputesExpWithinTwoUnitsInTheLastPlace) {
  double worst = 0;
  for (double x = -86.9; x < 0; x += 0.0137) {
    const std::vector<float> keys = {0.0F, static_cast<float>(x)}, values = {0.0F, 1.0F}, query = {1.0F};
    std::vector<float> panels(key_elements(2, 1, DType::f32));
    write_keys(panels.data(), 0, keys.data(), 1, 2, 1);
    const EntryBlock block{panels.data(), values.data(), 2, DType::f32};
    CpuExec exec(1, GetParam());
    OwnedPartial partial(1, 1, 1);
    attend(exec, View<const float, 3>(query.data(), {1, 1, 1}), {&block, {1, 1}}, 1, Visibility::all(), partial.view());
    const double expected = std::exp(static_cast<double>(keys[1]));
    worst = reference::worse(worst, std::abs(partial.sum[0] - expected) / std::ldexp(1.0, std::ilogb(expected) - 23));
  }
  EXPECT_LE(worst, 2.0);
  RecordProperty("largest_error_in_ulp", fmt::format("{:.3g}", worst));
}

TEST_P(Attend, OverNothingIsAnEmptyPartial) {
  reference::Random random(6);
  CpuExec exec(2, GetParam());
  const std::vector<float> queries = random.floats(3 * 2 * 8);
  for (const std::vector<std::size_t>& counts : {std::vector<std::size_t>{}, {0}, {0, 0}}) {
    const RandomEntries entries(random, 1, 8, counts, DType::f32);
    OwnedPartial partial(3, 2, 8);
    attend(exec, View<const float, 3>(queries.data(), {3, 2, 8}), entries.blocks(), 1, Visibility::all(),
           partial.view());
    EXPECT_EQ(partial.sum, std::vector<float>(48, 0.0F));
    EXPECT_EQ(partial.weight, std::vector<float>(6, 0.0F));
    EXPECT_EQ(partial.max, std::vector<float>(6, -std::numeric_limits<float>::infinity()));
  }
}

TEST_P(Attend, RefusesWhatItsContractExcludes) {
  reference::Random random(7);
  CpuExec exec(1, GetParam());
  const std::vector<float> queries(3 * 8);
  const View<const float, 3> view(queries.data(), {1, 3, 8});
  OwnedPartial partial(1, 3, 8), other(1, 3, 6);
  const RandomEntries two_heads(random, 2, 8, {4}, DType::f32), two_blocks(random, 1, 8, {4, 4}, DType::f32);
  EXPECT_THROW(attend(exec, view, two_heads.blocks(), 1, Visibility::all(), partial.view()), std::logic_error);
  EXPECT_THROW(attend(exec, view, two_blocks.blocks(), 1, Visibility::causal_from(0), partial.view()),
               std::logic_error);
  EXPECT_THROW(attend(exec, view, two_blocks.blocks(), 1, Visibility::all(), other.view()), std::logic_error);
}

MEMLANE_ON_EVERY_INSTRUCTION_SET(Attend);

}  // namespace
}  // namespace memlane::testing
