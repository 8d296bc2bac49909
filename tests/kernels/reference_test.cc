// The reference itself, against numbers that can be worked out by hand: a wrong truth would bless wrong kernels.

#include <gtest/gtest.h>

#include <set>

#include "tests/reference/attention.h"
#include "tests/reference/layers.h"
#include "tests/reference/random_values.h"

namespace memlane::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(Reference, RoundsToTheNearestValueOfEachType) {
  EXPECT_EQ(rounded(1 + 0x1p-9, DType::bf16), 1);  // under half a step
  EXPECT_EQ(rounded(1 + 0x1p-8, DType::bf16), 1);  // a tie goes to the even neighbour
  EXPECT_EQ(rounded(1 + 3 * 0x1p-8, DType::bf16), 1 + 0x1p-6);
  EXPECT_EQ(rounded(1 + 0x1p-11, DType::f16), 1);
  EXPECT_EQ(rounded(1 + 3 * 0x1p-11, DType::f16), 1 + 0x1p-9);
  EXPECT_EQ(rounded(65519, DType::f16), 65504);
  EXPECT_EQ(rounded(65520, DType::f16), kInfinity);
  EXPECT_EQ(rounded(0x1p-24, DType::f16), 0x1p-24);  // the smallest subnormal
  EXPECT_EQ(rounded(0x1p-25, DType::f16), 0);
  EXPECT_EQ(rounded(1.0 / 3, DType::f32), static_cast<double>(1.0F / 3.0F));
}

TEST(Reference, NormalisesActivatesAndRotates) {
  EXPECT_EQ(rms_norm({3, -3}, {1, 2}, 0), (Row{1, -2}));
  EXPECT_EQ(matmul({{1, 2}, {3, 4}}, {5, 6}), (Row{17, 39}));
  EXPECT_DOUBLE_EQ(swiglu({0.5}, {2})[0], 1 / (1 + std::exp(-0.5)));
  EXPECT_DOUBLE_EQ(silu(-800), 0);
  const Row turned = rope({1, 0, 0, 0}, 3, 10000);  // the first pair turns by one radian a position
  EXPECT_DOUBLE_EQ(turned[0], std::cos(3.0));
  EXPECT_DOUBLE_EQ(turned[2], std::sin(3.0));
  EXPECT_EQ(rope({1, 2, 3, 4}, 0, 10000), (Row{1, 2, 3, 4}));
}

TEST(Reference, AttendsInOneSoftmaxOverLocalAndMemory) {
  Entries local, memory;
  local.add({std::log(1.0)}, {10});
  memory.add({std::log(3.0)}, {20});
  EXPECT_DOUBLE_EQ(attention({1}, local, memory, 1)[0], (1 * 10 + 3 * 20) / 4.0);
  EXPECT_DOUBLE_EQ(attention({1}, local, {}, 1)[0], 10);
}

TEST(Reference, TopKPrefersLargeScoresThenSmallIds) {
  EXPECT_EQ(top_k({1, 5, 3, 5, 3}, 3), (std::vector<std::size_t>{1, 2, 3}));
  EXPECT_EQ(top_k({1, 2}, 5), (std::vector<std::size_t>{0, 1}));
}

TEST(Reference, RandomValuesFillTheirRangeAndRepeat) {
  Random random(1), again(1);
  const std::vector<float> values = random.floats(10000, 2);
  EXPECT_EQ(values, again.floats(10000, 2));
  EXPECT_GT(std::set<float>(values.begin(), values.end()).size(), 9900U);
  double mean = 0, square = 0;
  for (const float x : values) {
    EXPECT_LE(std::abs(x), 2.0F);
    mean += x / 1e4;
    square += static_cast<double>(x) * x / 1e4;
  }
  EXPECT_NEAR(mean, 0, 0.05);
  EXPECT_NEAR(square, 4.0 / 3, 0.05);
}

}  // namespace
}  // namespace memlane::reference
