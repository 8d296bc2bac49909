#include <cfloat>
#include <cmath>

#include "kernels/matmul.h"
#include "tests/kernels/kernel_fixture.h"
#include "tests/reference/layers.h"

namespace memlane::testing {
namespace {

constexpr std::size_t kThreads[] = {1, 2, 3, 5};
constexpr WeightFormat kFormats[] = {WeightFormat::int8, WeightFormat::int4};
constexpr std::size_t kGroup = 256;

PackedMatrix packed(CpuExec& exec, const std::vector<float>& w, std::size_t n, std::size_t k, WeightFormat format) {
  return {exec, reinterpret_cast<const std::byte*>(w.data()), DType::f32, n, k, format};
}

/// A row as products see it, in double precision; slack: what one element may differ by where it lies between two
/// levels.
struct QuantisedRow {
  reference::Row values, slack;
};

QuantisedRow quantised(const float* x, std::size_t k) {
  QuantisedRow row{reference::Row(k), reference::Row(k)};
  for (std::size_t begin = 0; begin < k; begin += kGroup) {
    const std::size_t end = std::min(k, begin + kGroup);
    float largest = 0;
    for (std::size_t i = begin; i < end; ++i) largest = std::max(largest, std::abs(x[i]));
    const float scale = largest / 127.0F;
    for (std::size_t i = begin; i < end && scale >= FLT_MIN; ++i) {
      const double level = static_cast<double>(x[i]) / static_cast<double>(scale);
      row.values[i] = std::nearbyint(level) * static_cast<double>(scale);
      const bool between = std::abs(level - std::floor(level) - 0.5) < 1e-4;
      row.slack[i] = between ? static_cast<double>(scale) : 0;
    }
  }
  return row;
}

/// a W^T for one random problem with quantised weights.
class Product {
 public:
  Product(std::uint64_t seed, std::size_t m, std::size_t n, std::size_t k, WeightFormat format)
      : m_(m), n_(n), k_(k), format_(format) {
    reference::Random random(seed);
    a_ = random.floats(m * k, 2);
    w_ = random.floats(n * k);
  }
  std::vector<float>& a() { return a_; }
  std::vector<float>& w() { return w_; }

  std::vector<float> run(CpuExec& exec, std::size_t first_row, std::size_t rows) const {
    std::vector<float> out(rows * n_, NAN);
    matmul(exec, View<const float, 2>(a_.data() + first_row * k_, {rows, k_}), packed(exec, w_, n_, k_, format_),
           {out.data(), {rows, n_}});
    return out;
  }
  std::vector<float> row_of_batch(const std::vector<float>& batch, std::size_t row) const {
    return {batch.begin() + static_cast<std::ptrdiff_t>(row * n_),
            batch.begin() + static_cast<std::ptrdiff_t>((row + 1) * n_)};
  }

  /// The largest error, in units of what a rounding for each group and element of scale may make.
  double error(CpuExec& exec, const std::vector<float>& found) const {
    const PackedMatrix matrix = packed(exec, w_, n_, k_, format_);
    std::vector<float> row(k_);
    double worst = 0;
    for (std::size_t j = 0; j < n_; ++j) {
      matrix.read_row(j, row);
      const reference::Row w = row_of(row.data(), k_);
      for (std::size_t i = 0; i < m_; ++i) {
        const QuantisedRow x = quantised(a_.data() + i * k_, k_);
        const double roundings = static_cast<double>(k_ / kGroup + 6) * 0x1p-23;
        const double bound = roundings * reference::dot_of_magnitudes(w, x.values) +
                             1.001 * reference::dot_of_magnitudes(w, x.slack) + 1e-37;
        worst = reference::worse(worst, std::abs(found[i * n_ + j] - reference::dot(w, x.values)) / bound);
      }
    }
    return worst;
  }

 private:
  std::size_t m_, n_, k_;
  WeightFormat format_;
  std::vector<float> a_, w_;
};

using QuantisedMatmul = KernelTest;

TEST_P(QuantisedMatmul, EqualsTheReferenceForRaggedShapes) {
  CpuExec exec(2, GetParam());
  const std::array<std::size_t, 3> shapes[] = {{1, 1, 1},     {1, 33, 7},    {2, 31, 64},   {3, 32, 65},
                                               {7, 65, 130},  {8, 40, 255},  {14, 96, 256}, {15, 5, 257},
                                               {16, 31, 320}, {17, 33, 63},  {31, 64, 511}, {32, 3, 512},
                                               {33, 34, 70},  {40, 70, 300}, {260, 33, 66}};
  for (const WeightFormat format : kFormats) {
    double worst = 0;
    for (const auto& [m, n, k] : shapes) {
      const Product product(m * 1000 + n, m, n, k, format);
      worst = reference::worse(worst, product.error(exec, product.run(exec, 0, m)));
      ASSERT_LE(worst, 1.0) << m << " x " << n << " x " << k << " in " << name_of(format);
    }
    RecordProperty(fmt::format("largest_error_of_bound_{}", name_of(format)), fmt::format("{:.3g}", worst));
  }
}

TEST_P(QuantisedMatmul, EqualsTheReferenceBeyondOnePassOverK) {
  CpuExec exec(2, GetParam());
  for (const WeightFormat format : kFormats) {
    for (const std::size_t m : {2, 9}) {
      const Product product(m, m, 37, 4096 + 300, format);
      EXPECT_LE(product.error(exec, product.run(exec, 0, m)), 1.0) << m << " rows in " << name_of(format);
    }
  }
}

TEST_P(QuantisedMatmul, EqualsTheReferenceForEveryNumberOfRows) {
  CpuExec exec(2, GetParam());
  for (const WeightFormat format : kFormats) {
    for (std::size_t m = 1; m <= 40; ++m) {
      const Product product(m, m, 45, 150, format);
      ASSERT_LE(product.error(exec, product.run(exec, 0, m)), 1.0) << m << " rows in " << name_of(format);
    }
  }
}

TEST_P(QuantisedMatmul, EqualsTheReferenceWithOutliersZerosAndTinyNumbers) {
  CpuExec exec(2, GetParam());
  for (const WeightFormat format : kFormats) {
    constexpr std::size_t kRows = 11, kColumns = 40, kDepth = 600;
    Product product(3, kRows, kColumns, kDepth, format);
    for (std::size_t i = 0; i < kDepth; ++i) {
      product.a()[2 * kDepth + i] = 0;                         // a row of zeros
      product.w()[4 * kDepth + i] = 0;                         // a column of zeros
      product.a()[3 * kDepth + i] *= 1e-38F;                   // below the normal numbers
      product.w()[5 * kDepth + i] *= i < kGroup ? 1e-38F : 1;  // so in one group
      product.a()[5 * kDepth + i] *= 1e30F;                    // large
    }
    product.a()[7 * kDepth + 100] = 3e4F;  // outliers
    product.w()[8 * kDepth + 300] = -500;
    const std::vector<float> found = product.run(exec, 0, kRows);
    EXPECT_LE(product.error(exec, found), 1.0) << name_of(format);
    for (std::size_t j = 0; j < kColumns; ++j) EXPECT_EQ(found[2 * kColumns + j], 0.0F);
    for (std::size_t i = 0; i < kRows; ++i) EXPECT_EQ(found[i * kColumns + 4], 0.0F);
  }
}

TEST_P(QuantisedMatmul, GivesTheSameBitsForAnyNumberOfThreads) {
  for (const WeightFormat format : kFormats) {
    for (const std::size_t rows : {1, 300}) {
      const Product product(7, rows, 170, 333, format);
      CpuExec one(1, GetParam());
      const std::vector<float> expected = product.run(one, 0, rows);
      for (const std::size_t threads : kThreads) {
        CpuExec exec(threads, GetParam());
        EXPECT_TRUE(same_bits(product.run(exec, 0, rows), expected)) << threads << " threads, " << name_of(format);
      }
    }
  }
}

TEST_P(QuantisedMatmul, GivesARowTheSameBitsAloneAndInAnyBatch) {
  constexpr std::size_t kRows = 270, kColumns = 75, kDepth = 4096 + 330;
  CpuExec exec(2, GetParam());
  for (const WeightFormat format : kFormats) {
    const Product product(8, kRows, kColumns, kDepth, format);
    const std::vector<float> batch = product.run(exec, 0, kRows);
    for (const std::size_t row : {0, 1, 13, 15, 31, 255, 256, 269}) {
      EXPECT_TRUE(same_bits(product.run(exec, row, 1), product.row_of_batch(batch, row))) << name_of(format) << row;
    }
    for (std::size_t rows = 2; rows <= 40; rows += 3) {
      const std::vector<float> some = product.run(exec, 5, rows);
      EXPECT_TRUE(same_bits(product.row_of_batch(some, rows - 1), product.row_of_batch(batch, 4 + rows)))
          << rows << " rows, " << name_of(format);
    }
  }
}

TEST_P(QuantisedMatmul, OfARowThatIsNotFiniteIsNaNInThatRowAlone) {
  constexpr std::size_t kRows = 20, kColumns = 40, kDepth = 300;
  CpuExec exec(2, GetParam());
  for (const WeightFormat format : kFormats) {
    Product product(9, kRows, kColumns, kDepth, format);
    const std::vector<float> expected = product.run(exec, 0, kRows);
    product.a()[3 * kDepth + 270] = INFINITY;
    product.a()[6 * kDepth + 10] = NAN;
    for (const std::size_t rows : {7UL, kRows}) {
      const std::vector<float> found = product.run(exec, 0, rows);
      for (std::size_t row = 0; row < rows; ++row) {
        if (row == 3 || row == 6) {
          for (const float x : product.row_of_batch(found, row)) EXPECT_TRUE(std::isnan(x)) << row;
        } else {
          EXPECT_TRUE(same_bits(product.row_of_batch(found, row), product.row_of_batch(expected, row))) << row;
        }
      }
    }
  }
}

MEMLANE_ON_EVERY_INSTRUCTION_SET(QuantisedMatmul);

/// The squared error of a row, relative to the row's squares.
double relative_error(const reference::Row& exact, const std::vector<float>& held) {
  double error = 0, squares = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    error += (exact[i] - held[i]) * (exact[i] - held[i]);
    squares += exact[i] * exact[i];
  }
  return squares == 0 ? error : error / squares;
}

TEST(QuantisedWeights, Int8LiesWithinHalfALevelOfEveryWeight) {
  CpuExec exec(2);
  reference::Random random(11);
  constexpr std::size_t kRows = 45, kDepth = 700;
  const std::vector<float> w = random.floats(kRows * kDepth, 3);
  const PackedMatrix matrix = packed(exec, w, kRows, kDepth, WeightFormat::int8);
  std::vector<float> row(kDepth);
  for (std::size_t j = 0; j < kRows; ++j) {
    matrix.read_row(j, row);
    for (std::size_t i = 0; i < kDepth; ++i) {
      float largest = 0;
      for (std::size_t l = i / kGroup * kGroup; l < std::min(kDepth, (i / kGroup + 1) * kGroup); ++l) {
        largest = std::max(largest, std::abs(w[j * kDepth + l]));
      }
      ASSERT_LE(std::abs(row[i] - w[j * kDepth + i]), largest / 127 * 0.5001F) << j << ", " << i;
    }
  }
}

TEST(QuantisedWeights, Int4IsNoWorseThanTheLargestMagnitudeOf32) {
  CpuExec exec(2);
  reference::Random random(12);
  constexpr std::size_t kRows = 40, kDepth = 700;
  std::vector<float> w = random.floats(kRows * kDepth, 1);
  for (float& x : w) x = x * x * x;  // many small ones, few large
  const PackedMatrix matrix = packed(exec, w, kRows, kDepth, WeightFormat::int4);
  double found = 0, plain = 0;
  std::vector<float> row(kDepth), by_largest(kDepth);
  for (std::size_t j = 0; j < kRows; ++j) {
    const float* exact = w.data() + j * kDepth;
    matrix.read_row(j, row);
    for (std::size_t begin = 0; begin < kDepth; begin += 32) {
      const std::size_t end = std::min(kDepth, begin + 32);
      float largest = 0;
      for (std::size_t i = begin; i < end; ++i) largest = std::max(largest, std::abs(exact[i]));
      for (std::size_t i = begin; i < end; ++i) by_largest[i] = std::nearbyint(exact[i] / largest * 7) * largest / 7;
    }
    found += relative_error(row_of(exact, kDepth), row);
    plain += relative_error(row_of(exact, kDepth), by_largest);
  }
  EXPECT_LE(found, plain);
  EXPECT_LE(found / kRows, 0.01);
}

TEST(QuantisedWeights, TakeWeightsOfEveryTypeAtAnyAlignment) {
  CpuExec exec(2);
  reference::Random random(13);
  constexpr std::size_t kRows = 35, kDepth = 90;
  const std::vector<float> w = random.floats(kRows * kDepth);
  for (const WeightFormat format : kFormats) {
    for (const DType source : {DType::f32, DType::f16, DType::bf16}) {
      std::vector<std::byte> bytes = narrowed(w, source);
      std::vector<float> rounded(w);
      for (float& x : rounded) x = static_cast<float>(reference::rounded(x, source));
      const PackedMatrix expected = packed(exec, rounded, kRows, kDepth, format);
      bytes.insert(bytes.begin(), std::byte{0});
      const PackedMatrix found(exec, bytes.data() + 1, source, kRows, kDepth, format);
      ASSERT_EQ(found.bytes(), expected.bytes());
      EXPECT_EQ(std::memcmp(found.panel(0), expected.panel(0), found.bytes()), 0) << name_of(source);
    }
  }
}

TEST(QuantisedWeights, RefuseWhatIsNotFinite) {
  CpuExec exec(2);
  for (const WeightFormat format : kFormats) {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      std::vector<float> w(40 * 70, 1.0F);
      w[39 * 70 + 69] = bad;
      EXPECT_THROW(packed(exec, w, 40, 70, format), InputError);
    }
  }
}

TEST(QuantisedWeights, TakeAsManyBytesAsTheyPromise) {
  CpuExec exec(1);
  EXPECT_EQ(PackedMatrix::packed_bytes(32, 256, WeightFormat::int8), 32U * (256 + 4));
  EXPECT_EQ(PackedMatrix::packed_bytes(32, 256, WeightFormat::int4), 32U * (128 + 8 + 4));
  EXPECT_EQ(PackedMatrix::packed_bytes(33, 320, WeightFormat::int8), 64U * (320 + 2 * 4));
  for (const WeightFormat format : kFormats) {
    const std::vector<float> w(45 * 300, 1.0F);
    EXPECT_EQ(packed(exec, w, 45, 300, format).bytes(), PackedMatrix::packed_bytes(45, 300, format));
  }
}

}  // namespace
}  // namespace memlane::testing
