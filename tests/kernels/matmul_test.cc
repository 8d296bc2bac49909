#include "kernels/matmul.h"

#include "tests/kernels/kernel_fixture.h"
#include "tests/reference/layers.h"

namespace memlane::testing {
namespace {

constexpr std::size_t kThreads[] = {1, 2, 3, 5};

/// a W^T for one random problem. The bytes of W start at an odd address, as they may in a checkpoint.
class Product {
 public:
  Product(std::uint64_t seed, std::size_t m, std::size_t n, std::size_t k, DType source, DType compute)
      : m_(m), n_(n), k_(k), compute_(compute) {
    reference::Random random(seed);
    a_ = random.floats(m * k, 2);
    w_ = random.floats(n * k);
    bytes_ = narrowed(w_, source);
    bytes_.insert(bytes_.begin(), std::byte{0});
    for (float& x : w_) x = static_cast<float>(reference::rounded(reference::rounded(x, source), compute));
    source_ = source;
  }

  std::vector<float> run(CpuExec& exec, std::size_t first_row, std::size_t rows) const {
    const PackedMatrix packed(exec, bytes_.data() + 1, source_, n_, k_, compute_);
    std::vector<float> out(rows * n_, NAN);
    matmul(exec, View<const float, 2>(a_.data() + first_row * k_, {rows, k_}), packed, {out.data(), {rows, n_}});
    return out;
  }

  /// The largest error, in units of what k roundings of a sum of these magnitudes may make.
  double error(const std::vector<float>& found) const {
    double worst = 0;
    for (std::size_t i = 0; i < m_; ++i) {
      const reference::Row x = reference::rounded(row_of(a_.data() + i * k_, k_), compute_);
      for (std::size_t j = 0; j < n_; ++j) {
        const reference::Row w = row_of(w_.data() + j * k_, k_);
        const double bound = static_cast<double>(k_ + 1) * 0x1p-24 * reference::dot_of_magnitudes(w, x) + 1e-37;
        const double error = std::abs(found[i * n_ + j] - reference::dot(w, x)) / bound;
        worst = reference::worse(worst, error);
      }
    }
    return worst;
  }

 private:
  std::size_t m_, n_, k_;
  DType source_, compute_;
  std::vector<float> a_, w_;
  std::vector<std::byte> bytes_;
};

using Matmul = KernelTest;

TEST_P(Matmul, EqualsTheReferenceForRaggedShapes) {
  CpuExec exec(2, GetParam());
  const std::array<std::size_t, 3> shapes[] = {{1, 1, 1},    {1, 33, 7},   {2, 31, 64},  {3, 32, 1},   {5, 65, 2},
                                               {13, 40, 33}, {14, 96, 10}, {15, 5, 99},  {29, 64, 31}, {111, 3, 65},
                                               {112, 34, 5}, {113, 70, 3}, {130, 32, 9}, {300, 70, 40}};
  double worst = 0;
  for (const DType compute : {DType::f32, DType::bf16}) {
    for (const auto& [m, n, k] : shapes) {
      const Product product(m * 1000 + n, m, n, k, DType::f32, compute);
      worst = reference::worse(worst, product.error(product.run(exec, 0, m)));
      ASSERT_LE(worst, 1.0) << m << " x " << n << " x " << k << " in " << name_of(compute);
    }
  }
  RecordProperty("largest_error_of_bound", fmt::format("{:.3g}", worst));
}

TEST_P(Matmul, EqualsTheReferenceBeyondOnePassOverK) {
  CpuExec exec(2, GetParam());
  for (const DType compute : {DType::f32, DType::bf16}) {
    for (const std::size_t k : {511, 512, 513, 1025, 2051, 4201}) {
      for (const std::size_t m : {4, 37}) {
        const Product product(k, m, 37, k, DType::f32, compute);
        EXPECT_LE(product.error(product.run(exec, 0, m)), 1.0) << m << " x " << k << " in " << name_of(compute);
      }
    }
  }
}

TEST_P(Matmul, TakesWeightsOfEveryTypeAtAnyAlignment) {
  CpuExec exec(2, GetParam());
  for (const DType source : {DType::f32, DType::f16, DType::bf16}) {
    for (const DType compute : {DType::f32, DType::bf16}) {
      const Product product(3, 6, 45, 27, source, compute);
      EXPECT_LE(product.error(product.run(exec, 0, 6)), 1.0) << name_of(source) << " in " << name_of(compute);
    }
  }
}

TEST_P(Matmul, EqualsTheReferenceForRandomShapes) {
  reference::Random random(99);
  for (int round = 0; round < 40; ++round) {
    const std::size_t m = random.size(1, 130), n = random.size(1, 100), k = random.size(1, 130);
    const DType compute = round % 2 == 0 ? DType::f32 : DType::bf16;
    CpuExec exec(kThreads[round % 4], GetParam());
    const Product product(random.bits(), m, n, k, DType::bf16, compute);
    ASSERT_LE(product.error(product.run(exec, 0, m)), 1.0)
        << m << " x " << n << " x " << k << " in " << name_of(compute);
  }
}

TEST_P(Matmul, GivesTheSameBitsForAnyNumberOfThreads) {
  for (const DType compute : {DType::f32, DType::bf16}) {
    const Product product(7, 120, 170, 67, DType::f32, compute);
    CpuExec one(1, GetParam());
    const std::vector<float> expected = product.run(one, 0, 120);
    for (const std::size_t threads : kThreads) {
      CpuExec exec(threads, GetParam());
      EXPECT_TRUE(same_bits(product.run(exec, 0, 120), expected)) << threads << " threads";
    }
  }
}

TEST_P(Matmul, GivesARowTheSameBitsAloneAndInABatch) {
  constexpr std::size_t kRows = 118, kColumns = 75;
  CpuExec exec(2, GetParam());
  for (const DType compute : {DType::f32, DType::bf16}) {
    for (const std::size_t k : {67, 1100, 4201}) {
      const Product product(8, kRows, kColumns, k, DType::f32, compute);
      const std::vector<float> batch = product.run(exec, 0, kRows);
      for (const std::size_t row : {0, 1, 13, 14, 15, 111, 112, 117}) {
        const std::vector<float> expected(batch.begin() + static_cast<std::ptrdiff_t>(row * kColumns),
                                          batch.begin() + static_cast<std::ptrdiff_t>((row + 1) * kColumns));
        EXPECT_TRUE(same_bits(product.run(exec, row, 1), expected)) << "row " << row << ", k " << k;
      }
    }
  }
}

TEST_P(Matmul, OfNoRowsDoesNothing) {
  CpuExec exec(2, GetParam());
  EXPECT_TRUE(Product(1, 0, 5, 4, DType::f32, DType::bf16).run(exec, 0, 0).empty());
}

TEST_P(Matmul, RefusesShapesThatDoNotFit) {
  CpuExec exec(1, GetParam());
  const std::vector<float> a(6);
  std::vector<float> out(6);
  const PackedMatrix w(exec, reinterpret_cast<const std::byte*>(a.data()), DType::f32, 2, 3, DType::f32);
  EXPECT_THROW(matmul(exec, View<const float, 2>(a.data(), {3, 2}), w, {out.data(), {3, 2}}), std::logic_error);
  EXPECT_THROW(matmul(exec, View<const float, 2>(a.data(), {2, 3}), w, {out.data(), {2, 3}}), std::logic_error);
}

TEST_P(Matmul, GivesSeveralProductsOfTheSameRowsTheBitsOfEach) {
  reference::Random random(31);
  const std::size_t k = 70;
  for (const std::size_t m : {1, 3, 17, 33, 300}) {
    using Formats = std::array<WeightFormat, 3>;
    constexpr auto f32 = WeightFormat::f32, bf16 = WeightFormat::bf16, int8 = WeightFormat::int8,
                   int4 = WeightFormat::int4;
    for (const Formats& formats : {Formats{f32, f32, f32}, Formats{bf16, bf16, bf16}, Formats{int8, int8, int8},
                                   Formats{int8, int4, int8}, Formats{int4, bf16, f32}}) {
      CpuExec exec(3, GetParam());
      const std::vector<float> a = random.floats(m * k, 2);
      const View<const float, 2> rows(a.data(), {m, k});
      std::vector<PackedMatrix> w;
      std::vector<std::vector<float>> one, several;
      for (const std::size_t n : {40, 7, 600}) {
        const std::vector<float> elements = random.floats(n * k);
        w.emplace_back(exec, reinterpret_cast<const std::byte*>(elements.data()), DType::f32, n, k, formats[w.size()]);
        one.emplace_back(m * n, NAN);
        several.emplace_back(m * n, NAN);
        matmul(exec, rows, w.back(), {one.back().data(), {m, n}});
      }
      const auto out = [&](std::size_t i) { return View<float, 2>(several[i].data(), {m, w[i].n()}); };
      matmul(exec, rows, {{w[0], out(0)}, {w[1], out(1)}, {w[2], out(2)}});
      for (std::size_t i = 0; i < w.size(); ++i) EXPECT_TRUE(same_bits(one[i], several[i])) << m << " rows, " << i;
    }
  }
}

TEST_P(Matmul, AddedHasTheBitsOfAProductThatIsAdded) {
  reference::Random random(32);
  CpuExec exec(3, GetParam());
  for (const WeightFormat format : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
    for (const auto& [m, n, k] : {std::array{1, 40, 70}, {5, 33, 300}, {9, 96, 64}, {40, 31, 2100}, {300, 70, 2500}}) {
      const auto rows = static_cast<std::size_t>(m), columns = static_cast<std::size_t>(n),
                 depth = static_cast<std::size_t>(k);
      const std::vector<float> a = random.floats(rows * depth), elements = random.floats(columns * depth);
      const PackedMatrix w(exec, reinterpret_cast<const std::byte*>(elements.data()), DType::f32, columns, depth,
                           format);
      std::vector<float> x = random.floats(rows * columns), right = x, product(x.size(), NAN), space = product;
      matmul(exec, {a.data(), {rows, depth}}, w, {product.data(), {rows, columns}});
      for (std::size_t i = 0; i < x.size(); ++i) right[i] += product[i];
      matmul_add(exec, {a.data(), {rows, depth}}, w, {x.data(), {rows, columns}}, {space.data(), {rows, columns}});
      EXPECT_TRUE(same_bits(x, right)) << name_of(format) << " " << m << " " << n << " " << k;
    }
  }
  float one = 1;
  const PackedMatrix w(exec, reinterpret_cast<const std::byte*>(&one), DType::f32, 1, 1, WeightFormat::f32);
  std::vector<float> x(2);
  EXPECT_THROW(matmul_add(exec, {&one, {1, 1}}, w, {x.data(), {1, 2}}, {x.data(), {1, 2}}), std::logic_error);
}

MEMLANE_ON_EVERY_INSTRUCTION_SET(Matmul);

}  // namespace
}  // namespace memlane::testing
