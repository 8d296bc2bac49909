// Products with quantised weights as on the GPU, emulated, against the double reference.

#include "kernels/cuda/quantised_block.h"
#include "kernels/matmul.h"
#include "tests/kernels/emulated_warp.h"
#include "tests/kernels/kernel_fixture.h"
#include "tests/reference/layers.h"

namespace memlane::testing {
namespace {

PackedMatrix packed(const std::vector<float>& w, std::size_t n, std::size_t k, WeightFormat format) {
  CpuExec exec(1, InstructionSet::portable);
  return {exec, reinterpret_cast<const std::byte*>(w.data()), DType::f32, n, k, format};
}

template <WeightFormat Format, int Rows>
std::vector<float> multiply(const std::vector<float>& a, const PackedMatrix& w) {
  std::vector<float> out(Rows * w.n(), NAN);
  cuda::QuantisedTask task{a.data(), reinterpret_cast<const std::byte*>(w.panel(0)), static_cast<std::uint32_t>(w.n()),
                           static_cast<std::uint32_t>(w.k()), out.data()};
  for (std::uint32_t panel = 0; panel * kPanelRows < w.n(); ++panel) {
    run_block(cuda::kQuantisedWarps, cuda::quantised_shared_bytes(Rows, w.k()),
              [&](EmulatedWarp& warp, std::uint32_t* shared) {
                cuda::quantised_rows_block<Format, Rows>(warp, task, panel, shared);
              });
  }
  return out;
}

template <WeightFormat Format, int Rows>
void multiply_and_compare(reference::Random& random, std::size_t n, std::size_t k) {
  const PackedMatrix w = packed(random.floats(n * k), n, k, Format);
  const std::vector<float> a = random.floats(Rows * k, 2);
  const std::vector<float> found = multiply<Format, Rows>(a, w);
  std::vector<float> row(k);
  for (std::size_t j = 0; j < n; ++j) {
    w.read_row(j, row);
    const reference::Row weights = row_of(row.data(), k);
    for (std::size_t i = 0; i < Rows; ++i) {
      const reference::Row x = reference::rounded(row_of(a.data() + i * k, k), DType::bf16);
      const double bound = 300 * 0x1p-24 * reference::dot_of_magnitudes(weights, x);
      ASSERT_NEAR(found[i * n + j], reference::dot(weights, x), bound)
          << name_of(Format) << ", " << n << " x " << k << ", row " << i << ", column " << j;
    }
  }
}

template <WeightFormat Format>
void multiply_every_shape() {
  reference::Random random(1);
  for (const std::size_t k : {1, 7, 64, 65, 256, 300, 2304, 2500}) {
    multiply_and_compare<Format, 1>(random, 40, k);
    multiply_and_compare<Format, 4>(random, 33, k);
    if (::testing::Test::HasFailure()) return;
  }
  multiply_and_compare<Format, 2>(random, 1, 511);
  multiply_and_compare<Format, 3>(random, 96, 256);
}

TEST(CudaQuantised, MultipliesFewRowsWithInt8AsTheReferenceDoes) {
  multiply_every_shape<WeightFormat::int8>();
}

TEST(CudaQuantised, MultipliesFewRowsWithInt4AsTheReferenceDoes) {
  multiply_every_shape<WeightFormat::int4>();
}

TEST(CudaQuantised, KeepsRowsThatAreNotFiniteToThemselves) {
  reference::Random random(2);
  constexpr std::size_t kColumns = 40, kDepth = 300;
  const PackedMatrix w = packed(random.floats(kColumns * kDepth), kColumns, kDepth, WeightFormat::int8);
  std::vector<float> a = random.floats(3 * kDepth);
  const std::vector<float> expected = multiply<WeightFormat::int8, 3>(a, w);
  a[kDepth + 290] = NAN;
  const std::vector<float> found = multiply<WeightFormat::int8, 3>(a, w);
  for (std::size_t j = 0; j < kColumns; ++j) {
    EXPECT_EQ(found[j], expected[j]);
    EXPECT_TRUE(std::isnan(found[kColumns + j]));
    EXPECT_EQ(found[2 * kColumns + j], expected[2 * kColumns + j]);
  }
}

template <WeightFormat Format>
void dequantise_and_compare(std::size_t n, std::size_t k) {
  reference::Random random(3);
  const PackedMatrix w = packed(random.floats(n * k), n, k, Format);
  std::vector<std::uint16_t> out((n + 1) * k, 0x7fff);
  run_block(1, 0, [&](EmulatedWarp& warp, std::uint32_t*) {
    for (std::size_t panel = 0; panel * kPanelRows < n; ++panel) {
      for (std::size_t group = 0; group < group_count(k); ++group) {
        cuda::dequantise_group<Format>(warp, reinterpret_cast<const std::byte*>(w.panel(panel)),
                                       static_cast<std::uint32_t>(k), static_cast<std::uint32_t>(group),
                                       static_cast<std::uint32_t>(n - panel * kPanelRows),
                                       out.data() + panel * kPanelRows * k);
      }
    }
  });
  std::vector<float> row(k);
  for (std::size_t j = 0; j < n; ++j) {
    w.read_row(j, row);
    for (std::size_t i = 0; i < k; ++i) {
      ASSERT_EQ(out[j * k + i], from_float<BFloat16>(row[i]).bits) << name_of(Format) << ' ' << j << ", " << i;
    }
  }
  for (std::size_t i = 0; i < k; ++i) ASSERT_EQ(out[n * k + i], 0x7fff) << "beyond the last row";
}

TEST(CudaQuantised, DequantisesToTheNearestBFloat16) {
  for (const std::size_t n : {1, 32, 45, 96}) {
    for (const std::size_t k : {8, 64, 72, 256, 520}) {
      dequantise_and_compare<WeightFormat::int8>(n, k);
      dequantise_and_compare<WeightFormat::int4>(n, k);
      ASSERT_FALSE(HasFailure()) << n << " x " << k;
    }
  }
}

}  // namespace
}  // namespace memlane::testing
