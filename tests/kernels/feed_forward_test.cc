#include "kernels/feed_forward.h"

#include "kernels/layers.h"
#include "tests/kernels/kernel_fixture.h"

namespace memlane::testing {
namespace {

using FeedForward = KernelTest;

// Each of its parts has tests of its own against the slow truth.
TEST_P(FeedForward, HasTheBitsOfItsProductsOneByOne) {
  reference::Random random(5);
  struct Shape {
    std::size_t tokens, hidden, intermediate;
  };
  for (const Shape& shape : {Shape{1, 64, 96}, Shape{5, 33, 70}, Shape{16, 100, 31}, Shape{17, 64, 257},
                             Shape{40, 30, 64}, Shape{290, 70, 45}, Shape{300, 2100, 40}, Shape{9, 4200, 33},
                             Shape{7, 64, 600}, Shape{8, 64, 512}, Shape{301, 96, 800}}) {
    for (const WeightFormat format : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
      SCOPED_TRACE(::testing::Message() << shape.tokens << " tokens, " << shape.hidden << ", " << shape.intermediate
                                        << ", " << name_of(format));
      CpuExec exec(3, GetParam());
      const PackedMatrix gate = random_matrix(exec, random, shape.intermediate, shape.hidden, format);
      const PackedMatrix up = random_matrix(exec, random, shape.intermediate, shape.hidden,
                                            format == WeightFormat::int4 ? WeightFormat::int8 : format);
      const PackedMatrix down = random_matrix(exec, random, shape.hidden, shape.intermediate, format);
      std::vector<float> a = random.floats(shape.tokens * shape.hidden, 2);
      std::vector<float> gates(shape.tokens * shape.intermediate, NAN), ups = gates, product(a.size(), NAN);
      std::vector<float> x = random.floats(a.size()), right = x;
      const auto view = [&](std::vector<float>& of) {
        return View<float, 2>(of.data(), {shape.tokens, of.size() / shape.tokens});
      };
      matmul(exec, view(a), gate, view(gates));
      matmul(exec, view(a), up, view(ups));
      swiglu(exec, view(gates), view(ups), view(gates));
      matmul(exec, view(gates), down, view(product));
      add(exec, view(right), view(product));

      feed_forward(exec, view(a), gate, up, down, view(gates), view(ups), view(a), view(x));
      EXPECT_TRUE(same_bits(x, right));
    }
  }
}

TEST_P(FeedForward, RefusesMatricesThatDoNotFit) {
  reference::Random random(6);
  CpuExec exec(1, GetParam());
  const auto matrix = [&](std::size_t n, std::size_t k) {
    return random_matrix(exec, random, n, k, WeightFormat::bf16);
  };
  std::vector<float> a(2 * 8), sums(2 * 8), inner(2 * 12);
  const View<float, 2> h(a.data(), {2, 8}), x(sums.data(), {2, 8}), inner_space(inner.data(), {2, 12});
  const PackedMatrix wide = matrix(12, 8), narrow = matrix(8, 12), other = matrix(13, 8);
  EXPECT_THROW(feed_forward(exec, h, wide, other, narrow, inner_space, inner_space, h, x), std::logic_error);
  EXPECT_THROW(feed_forward(exec, h, wide, wide, wide, inner_space, inner_space, h, x), std::logic_error);
  EXPECT_THROW(feed_forward(exec, h, narrow, narrow, narrow, inner_space, inner_space, h, x), std::logic_error);
  EXPECT_THROW(feed_forward(exec, x, wide, wide, narrow, inner_space, inner_space, h, x), std::logic_error);
}

MEMLANE_ON_EVERY_INSTRUCTION_SET(FeedForward);

}  // namespace
}  // namespace memlane::testing
