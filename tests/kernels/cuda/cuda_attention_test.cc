// Partial attention, search and selection on the GPU against the reference.

#include "kernels/cuda/attention.h"
#include "tests/kernels/cuda/cuda_fixture.h"

namespace memlane::testing {
namespace {

struct Shape {
  std::size_t tokens, kv_heads, group, head_dim;
  std::vector<std::size_t> counts;
  Visibility visibility = Visibility::all();
  double key_amplitude = 1;
};

class CudaAttention : public CudaTest {
 protected:
  std::vector<float> bf16_floats(std::size_t count, double amplitude) {
    std::vector<float> values = random_.floats(count, amplitude);
    for (float& x : values) x = to_float(from_float<BFloat16>(x));
    return values;
  }

  void attend_and_compare(const Shape& shape) {
    const std::size_t heads = shape.kv_heads * shape.group;
    const std::array extents = {shape.tokens, heads, shape.head_dim};
    const RandomEntries entries(random_, shape.kv_heads, shape.head_dim, shape.counts, DType::bf16,
                                shape.key_amplitude);
    const CudaEntriesCopy copy(exec(), entries.blocks(), shape.head_dim);
    const std::vector<float> queries = bf16_floats(shape.tokens * heads * shape.head_dim, 2);
    const CudaBuffer<float> on_device = on_gpu(queries);
    const float scale = 1.0F / std::sqrt(static_cast<float>(shape.head_dim));
    CudaOwnedPartial partial(exec(), shape.tokens, heads, shape.head_dim);
    attend(exec(), on_device.view<3>(extents), copy.entries(), scale, shape.visibility, partial.view());
    CudaBuffer<float> out = poisoned(queries.size());
    finish(exec(), partial.view(), out.view<3>(extents));
    compare(shape, entries, queries, scale, partial.on_host(exec()), back(out));
  }

  void compare(const Shape& shape, const RandomEntries& entries, const std::vector<float>& queries, float scale,
               const OwnedPartial& partial, const std::vector<float>& out) {
    const std::size_t heads = shape.kv_heads * shape.group;
    for (std::size_t row = 0; row < shape.tokens * heads; ++row) {
      const reference::Row query = row_of(queries.data() + row * shape.head_dim, shape.head_dim);
      const reference::Entries& all = entries.truth(row % heads / shape.group);
      const Visibility::Range seen = shape.visibility.seen_by(row / heads, all.keys.size());
      std::vector<std::size_t> ids;
      for (std::size_t id = seen.begin; id < seen.end; ++id) ids.push_back(id);
      if (ids.empty()) {
        ASSERT_EQ(partial.weight[row], 0) << "row " << row << " sees nothing";
        ASSERT_EQ(partial.max[row], -INFINITY);
        continue;
      }
      const reference::Partial truth = reference::partial_attention(query, all.chosen(ids), scale);
      double magnitude = 0;
      for (const std::size_t id : ids) {
        magnitude = std::max(magnitude, scale * reference::dot_of_magnitudes(query, all.keys[id]));
      }
      const double slack = magnitude * 0x1p-18 + 1e-5;  // of a score
      ASSERT_NEAR(partial.max[row], truth.max, slack) << "row " << row;
      // Weights are rounded to bfloat16: to one part in 2^9.
      const double weight = partial.weight[row] * std::exp(partial.max[row] - truth.max);
      ASSERT_NEAR(weight / truth.weight, 1, 0x1p-8 + 2 * slack) << "row " << row;
      for (std::size_t d = 0; d < shape.head_dim; ++d) {
        ASSERT_NEAR(out[row * shape.head_dim + d], truth.output()[d], 0x1p-8 + 4 * slack) << "row " << row << ", " << d;
      }
    }
  }

  reference::Random random_{7};
};

TEST_F(CudaAttention, EqualsTheReferenceForEveryHeadSizeAndGroup) {
  for (const std::size_t head_dim : {2, 8, 10, 30, 64, 80, 100, 112, 128}) {
    for (const std::size_t group : {1, 2, 4, 8}) {
      attend_and_compare({random_.size(1, 9), 2, group, head_dim, {random_.size(1, 70), 0, random_.size(1, 300)}});
      ASSERT_FALSE(HasFailure()) << "head_dim " << head_dim << ", group " << group;
    }
  }
}

TEST_F(CudaAttention, EqualsTheReferenceForManyRowsAndEntries) {
  attend_and_compare({300, 2, 1, 100, {500, 1, 64}});
  attend_and_compare({40, 1, 8, 128, {700, 700}});
}

// Decode: few rows, many pieces.
TEST_F(CudaAttention, EqualsTheReferenceOverManyPieces) {
  attend_and_compare({1, 2, 4, 100, {9000, 1, 5000, 77}});
  attend_and_compare({1, 1, 1, 64, {20000}});
}

TEST_F(CudaAttention, SeesABandOfDistances) {
  for (int round = 0; round < 60; ++round) {
    const std::size_t tokens = random_.size(1, 200), first = random_.size(0, 400);
    Shape shape{tokens, 2, random_.size(1, 3), 16, {first + tokens}};
    shape.visibility = {true, first, round % 4 == 0 ? random_.size(0, 300) : 0, Visibility::kAnyDistance, 0};
    if (round % 3 != 0) shape.visibility.max_distance = shape.visibility.min_distance + random_.size(0, 260);
    if (round % 2 != 0) shape.visibility.first_entry = random_.size(0, 40);
    if (round % 5 == 0) shape.visibility.end_entry = random_.size(0, 60);
    attend_and_compare(shape);
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
}

TEST_F(CudaAttention, StandsVeryLargeAndVerySmallScores) {
  for (const double amplitude : {1e-30, 1e-6, 20.0, 200.0}) {
    Shape shape{40, 2, 2, 64, {700, 40}};
    shape.key_amplitude = amplitude;
    attend_and_compare(shape);
    ASSERT_FALSE(HasFailure()) << "amplitude " << amplitude;
  }
}

TEST_F(CudaAttention, MergesPartialsOfTwoSources) {
  const RandomEntries first(random_, 2, 64, {130}, DType::bf16), second(random_, 2, 64, {3, 70}, DType::bf16);
  const CudaEntriesCopy first_copy(exec(), first.blocks(), 64), second_copy(exec(), second.blocks(), 64);
  const std::vector<float> queries = bf16_floats(5 * 4 * 64, 2);
  const CudaBuffer<float> on_device = on_gpu(queries);
  CudaOwnedPartial into(exec(), 5, 4, 64), from(exec(), 5, 4, 64);
  attend(exec(), on_device.view<3>({5, 4, 64}), first_copy.entries(), 0.125F, Visibility::all(), into.view());
  attend(exec(), on_device.view<3>({5, 4, 64}), second_copy.entries(), 0.125F, Visibility::all(), from.view());
  merge(exec(), into.view(), from.view());
  CudaBuffer<float> out = poisoned(queries.size());
  finish(exec(), into.view(), out.view<3>({5, 4, 64}));
  const std::vector<float> found = back(out);
  for (std::size_t row = 0; row < 20; ++row) {
    const reference::Row truth = reference::attention(row_of(queries.data() + row * 64, 64), first.truth(row % 4 / 2),
                                                      second.truth(row % 4 / 2), 0.125);
    for (std::size_t d = 0; d < 64; ++d) ASSERT_NEAR(found[row * 64 + d], truth[d], 0x1p-8 + 1e-5);
  }
}

/// Keys and queries are whole numbers: scores are exact, many are equal.
TEST_F(CudaAttention, FindsTheBestEntriesInOrderAndTheOlderOfEqualOnes) {
  const std::vector<Shape> shapes = {
      {1, 2, 1, 100, {3000, 0, 5000, 7}}, {3, 2, 4, 32, {500, 64}}, {70, 1, 2, 64, {900, 1}}, {1, 1, 4, 128, {20}}};
  for (const Shape& shape : shapes) {
    for (const std::size_t k : {1, 32, 128}) {
      const std::size_t heads = shape.kv_heads * shape.group;
      const RandomEntries entries(random_, shape.kv_heads, shape.head_dim, shape.counts, DType::bf16, 3, true);
      const CudaEntriesCopy copy(exec(), entries.blocks(), shape.head_dim);
      std::vector<float> queries = random_.floats(shape.tokens * heads * shape.head_dim, 3);
      for (float& x : queries) x = std::round(x);
      const CudaBuffer<float> on_device = on_gpu(queries);
      const std::array extents = {shape.tokens, heads, k};
      CudaBuffer<std::int32_t> ids = on_gpu(std::vector<std::int32_t>(shape.tokens * heads * k, -7));
      CudaBuffer<float> scores = poisoned(ids.size());
      const auto queries_view = on_device.view<3>({shape.tokens, heads, shape.head_dim});
      top_k_scan(exec(), queries_view, copy.entries(), ids.view<3>(extents), scores.view<3>(extents));
      CudaOwnedPartial partial(exec(), shape.tokens, heads, shape.head_dim);
      attend_selected(exec(), queries_view, copy.entries(), ids.view<3>(extents), scores.view<3>(extents), 1.0F / 32,
                      partial.view());
      const std::vector<std::int32_t> found = back(ids);
      const std::vector<float> found_scores = back(scores);
      const OwnedPartial& attended = partial.on_host(exec());
      for (std::size_t row = 0; row < shape.tokens * heads; ++row) {
        const reference::Row query = row_of(queries.data() + row * shape.head_dim, shape.head_dim);
        const reference::Entries& all = entries.truth(row % heads / shape.group);
        reference::Row truth_scores;
        for (const reference::Row& key : all.keys) truth_scores.push_back(reference::dot(query, key));
        const std::vector<std::size_t> truth = reference::top_k(truth_scores, k);
        for (std::size_t i = 0; i < k; ++i) {
          ASSERT_EQ(found[row * k + i], i < truth.size() ? static_cast<std::int32_t>(truth[i]) : -1) << "row " << row;
          ASSERT_EQ(found_scores[row * k + i],
                    i < truth.size() ? static_cast<float>(truth_scores[truth[i]]) : -INFINITY);
        }
        const reference::Partial expected = reference::partial_attention(query, all.chosen(truth), 1.0 / 32);
        ASSERT_NEAR(attended.weight[row] / expected.weight, 1, 1e-5);
        for (std::size_t d = 0; d < shape.head_dim; ++d) {
          const double got = attended.sum[row * shape.head_dim + d] / static_cast<double>(attended.weight[row]);
          ASSERT_NEAR(got, expected.output()[d], 1e-5);
        }
      }
    }
  }
}

}  // namespace
}  // namespace memlane::testing
