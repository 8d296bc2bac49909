#include "kernels/input_rows.h"

#include "kernels/feed_forward.h"
#include "kernels/layers.h"
#include "tests/kernels/kernel_fixture.h"

namespace memlane::testing {
namespace {

constexpr WeightFormat kFormats[] = {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4};

View<float, 2> view(std::vector<float>& of, std::size_t rows) {
  return {of.data(), {rows, of.size() / rows}};
}

/// What a product gives of rows that are made as it takes them, beside what it gives of the same rows stored.
class InputRowsOf : public KernelTest {
 protected:
  void expect_products_alike(CpuExec& exec, reference::Random& random, const InputRows& made,
                             const View<const float, 2>& stored) {
    const std::size_t m = stored.extent(0), k = stored.extent(1);
    for (const WeightFormat format : kFormats) {
      SCOPED_TRACE(::testing::Message() << m << " rows of " << k << ", " << name_of(format));
      const PackedMatrix w = random_matrix(exec, random, 40, k, format);
      const PackedMatrix other = random_matrix(exec, random, 7, k, WeightFormat::f32);
      std::vector<float> out(m * 40, NAN), right = out, more(m * 7, NAN), right_more = more, space = out;
      matmul(exec, made, w, view(out, m));
      matmul(exec, stored, w, view(right, m));
      EXPECT_TRUE(same_bits(out, right));
      matmul(exec, made, {{w, view(out, m)}, {w, view(space, m)}, {other, view(more, m)}});
      matmul(exec, stored, other, view(right_more, m));
      EXPECT_TRUE(same_bits(out, right) && same_bits(space, right) && same_bits(more, right_more));
      matmul_add(exec, made, w, view(out, m), view(space, m));
      matmul_add(exec, stored, w, view(right, m), view(space, m));
      EXPECT_TRUE(same_bits(out, right));
    }
  }
};

constexpr std::size_t kRows[] = {1, 5, 16, 17, 290};

TEST_P(InputRowsOf, NormedRowsGivesTheBitsOfRowsThatAreStored) {
  reference::Random random(41);
  CpuExec exec(3, GetParam());
  for (const std::size_t m : kRows) {
    for (const std::size_t k : {33, 64, 600}) {
      const std::vector<float> x = random.floats(m * k, 3), weight = random.floats(k);
      const View<const float, 2> rows(x.data(), {m, k});
      std::vector<float> space(m * k, NAN), stored = space;
      rms_norm(exec, rows, {weight.data(), {k}}, 1e-5F, view(stored, m));
      const InputRows made = normed(exec, rows, {weight.data(), {k}}, 1e-5F, view(space, m));
      EXPECT_FALSE(made.stored());
      expect_products_alike(exec, random, made, view(stored, m));
    }
  }
}

TEST_P(InputRowsOf, FinishedPartialsGivesTheBitsOfRowsThatAreStored) {
  reference::Random random(42);
  CpuExec exec(3, GetParam());
  for (const std::size_t m : kRows) {
    for (const auto& [heads, head_dim] : {std::pair<std::size_t, std::size_t>{3, 11}, {2, 64}, {6, 100}}) {
      PartialBuffer buffer;
      const AttentionPartial partial = buffer.get(m, heads, head_dim);
      const std::vector<float> sums = random.floats(partial.sum.size());
      std::copy(sums.begin(), sums.end(), partial.sum.data());
      for (float& weight : partial.weight.flat()) weight = 1 + std::abs(random.floats(1)[0]);
      std::vector<float> space(m * heads * head_dim, NAN), stored = space;
      finish(exec, partial, {stored.data(), {m, heads, head_dim}});
      const InputRows made = finished(exec, partial, view(space, m));
      EXPECT_FALSE(made.stored());
      expect_products_alike(exec, random, made, view(stored, m));
    }
  }
}

TEST_P(InputRowsOf, TheResidualStreamFeedForwardAsRowsThatAreStored) {
  reference::Random random(43);
  CpuExec exec(3, GetParam());
  const std::size_t k = 96, inner = 600;
  for (const std::size_t m : kRows) {
    for (const WeightFormat format : kFormats) {
      SCOPED_TRACE(::testing::Message() << m << " rows, " << name_of(format));
      const PackedMatrix gate = random_matrix(exec, random, inner, k, format),
                         up = random_matrix(exec, random, inner, k, format),
                         down = random_matrix(exec, random, k, inner, format);
      const std::vector<float> weight = random.floats(k);
      std::vector<float> x = random.floats(m * k), right = x, space(m * k, NAN), gates(m * inner, NAN), ups = gates;
      std::vector<float> stored(m * k);
      rms_norm(exec, view(right, m), {weight.data(), {k}}, 1e-5F, view(stored, m));
      feed_forward(exec, view(stored, m), gate, up, down, view(gates, m), view(ups, m), view(stored, m),
                   view(right, m));
      const InputRows h = normed(exec, view(x, m), {weight.data(), {k}}, 1e-5F, view(space, m));
      feed_forward(exec, h, gate, up, down, view(gates, m), view(ups, m), view(space, m), view(x, m));
      EXPECT_TRUE(same_bits(x, right));
    }
  }
}

MEMLANE_ON_EVERY_INSTRUCTION_SET(InputRowsOf);

TEST(InputRows, AreMadeInTheSpaceThatIsGivenWhenAllAreAskedFor) {
  CpuExec exec(1);
  const std::vector<float> x = {3, 4}, weight = {1, 2};
  std::vector<float> space(2, NAN);
  const View<const float, 2> rows(x.data(), {1, 2});
  const InputRows made = normed(exec, rows, {weight.data(), {2}}, 0, {space.data(), {1, 2}});
  EXPECT_TRUE(std::isnan(space[0]));
  EXPECT_EQ(made.all(exec).data(), space.data());
  EXPECT_FLOAT_EQ(space[0], 3 / std::sqrt(12.5F));
  EXPECT_FLOAT_EQ(space[1], 8 / std::sqrt(12.5F));
  EXPECT_EQ(InputRows(rows).all(exec).data(), x.data());
  EXPECT_TRUE(InputRows(rows).stored());
}

TEST(InputRows, RefusesSpaceThatDoesNotFit) {
  CpuExec exec(1);
  std::vector<float> x(6), weight(3), space(6);
  const View<float, 2> rows(x.data(), {2, 3}), other(space.data(), {3, 2});
  const View<const float, 1> of(weight.data(), {3}), shorter(weight.data(), {2});
  EXPECT_THROW(normed(exec, rows, of, 1, other), std::logic_error);
  EXPECT_THROW(normed(exec, rows, shorter, 1, {space.data(), {2, 3}}), std::logic_error);
  EXPECT_THROW(normed(exec, rows, of, 1, rows), std::logic_error);
  PartialBuffer buffer;
  EXPECT_THROW(finished(exec, buffer.get(2, 1, 4), other), std::logic_error);
}

}  // namespace
}  // namespace memlane::testing
