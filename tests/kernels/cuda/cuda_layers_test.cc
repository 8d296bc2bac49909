// Layers and products on the GPU against the reference.

#include "kernels/cuda/layers.h"
#include "kernels/cuda/matmul.h"
#include "kernels/matmul.h"
#include "tests/kernels/cuda/cuda_fixture.h"
#include "tests/reference/layers.h"

namespace memlane::testing {
namespace {

class CudaLayers : public CudaTest {
 protected:
  /// m rows by quantised matrices of every shape, against the reference. Many rows have weights rounded to bfloat16.
  void multiply_quantised(std::size_t m) {
    CpuExec cpu(2);
    for (const WeightFormat format : {WeightFormat::int8, WeightFormat::int4}) {
      for (const auto& [n, k] : {std::pair<std::size_t, std::size_t>{33, 48}, {100, 31}, {1, 304}, {330, 2304}}) {
        const std::vector<float> a = random_.floats(m * k), w = random_.floats(n * k);
        const PackedMatrix packed(cpu, reinterpret_cast<const std::byte*>(w.data()), DType::f32, n, k, format);
        const CudaMatrix matrix(exec(), reinterpret_cast<const std::byte*>(packed.panel(0)), format, n, k);
        const CudaBuffer<float> input = on_gpu(a);
        CudaBuffer<float> out = poisoned(m * n);
        matmul(exec(), input.view<2>({m, k}), matrix, out.view<2>({m, n}));
        const std::vector<float> found = back(out);
        std::vector<float> weights(k);
        for (std::size_t column = 0; column < n; ++column) {
          packed.read_row(column, weights);
          reference::Row y = row_of(weights.data(), k);
          if (m > kQuantisedFewRows && k % 8 == 0) y = reference::rounded(y, DType::bf16);
          for (std::size_t row = 0; row < m; ++row) {
            const reference::Row x = reference::rounded(row_of(a.data() + row * k, k), DType::bf16);
            const double bound = 300 * 0x1p-24 * reference::dot_of_magnitudes(x, y);
            ASSERT_NEAR(found[row * n + column], reference::dot(x, y), bound)
                << name_of(format) << " " << m << " x " << n << " x " << k << ", row " << row << ", column " << column;
          }
        }
      }
    }
  }

  reference::Random random_{3};
};

TEST_F(CudaLayers, MultipliesByMatricesOfEveryTypeAndShape) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const std::size_t m : {1, 2, 3, 4, 5, 17, 130}) {
      for (const auto& [n, k] : {std::pair<std::size_t, std::size_t>{33, 48}, {100, 31}, {8, 200}, {320, 256}}) {
        const std::vector<float> a = random_.floats(m * k), w = random_.floats(n * k);
        const std::vector<std::byte> stored = narrowed(w, dtype);
        const CudaMatrix matrix(exec(), stored.data(), dtype, n, k);
        const CudaBuffer<float> input = on_gpu(a);
        CudaBuffer<float> out = poisoned(m * n);
        matmul(exec(), input.view<2>({m, k}), matrix, out.view<2>({m, n}));
        const std::vector<float> found = back(out);
        for (std::size_t row = 0; row < m; ++row) {
          const reference::Row x = reference::rounded(row_of(a.data() + row * k, k), DType::bf16);
          for (std::size_t column = 0; column < n; ++column) {
            const reference::Row y =
                reference::rounded(reference::rounded(row_of(w.data() + column * k, k), dtype), DType::bf16);
            ASSERT_NEAR(found[row * n + column], reference::dot(x, y),
                        1e-6 + 0x1p-20 * reference::dot_of_magnitudes(x, y))
                << name_of(dtype) << " " << m << " x " << n << " x " << k << ", row " << row << ", column " << column;
          }
        }
      }
    }
  }
}

TEST_F(CudaLayers, MultipliesFewRowsByQuantisedWeightsAsTheyAre) {
  for (const std::size_t m : {1, 2, 3, 4, 5, 16}) multiply_quantised(m);
}

TEST_F(CudaLayers, MultipliesManyRowsByQuantisedWeightsRoundedToBFloat16) {
  for (const std::size_t m : {17, 130}) multiply_quantised(m);
}

TEST_F(CudaLayers, NormsEveryRow) {
  for (const std::size_t hidden : {1, 31, 256, 1000, 3200}) {
    const std::vector<float> x = random_.floats(5 * hidden, 3), weight = random_.floats(hidden);
    const CudaBuffer<float> input = on_gpu(x), weights = on_gpu(weight);
    CudaBuffer<float> out = poisoned(x.size());
    rms_norm(exec(), input.view<2>({5, hidden}), weights.view<1>({hidden}), 1e-5F, out.view<2>({5, hidden}));
    const std::vector<float> found = back(out);
    for (std::size_t row = 0; row < 5; ++row) {
      const reference::Row truth =
          reference::rms_norm(row_of(x.data() + row * hidden, hidden), row_of(weight.data(), hidden), 1e-5F);
      for (std::size_t i = 0; i < hidden; ++i) ASSERT_NEAR(found[row * hidden + i], truth[i], 1e-5) << hidden;
    }
  }
}

TEST_F(CudaLayers, GatesAddsAndRounds) {
  constexpr std::size_t kTokens = 7, kWidth = 333, kSize = kTokens * kWidth;
  const std::vector<float> gate = random_.floats(kSize, 20), up = random_.floats(kSize);
  CudaBuffer<float> gates = on_gpu(gate);
  const CudaBuffer<float> ups = on_gpu(up);
  CudaBuffer<float> out = poisoned(kSize);
  swiglu(exec(), gates.view<2>({kTokens, kWidth}), ups.view<2>({kTokens, kWidth}), out.view<2>({kTokens, kWidth}));
  const std::vector<float> gated = back(out);
  add(exec(), out.view<2>({kTokens, kWidth}), ups.view<2>({kTokens, kWidth}));
  const std::vector<float> added = back(out);
  round_to_bf16(exec(), out.view<1>({kSize}));
  const std::vector<float> rounded = back(out);
  for (std::size_t i = 0; i < kSize; ++i) {
    ASSERT_NEAR(gated[i], reference::silu(gate[i]) * up[i], 1e-5);
    ASSERT_EQ(added[i], gated[i] + up[i]);
    ASSERT_EQ(rounded[i], to_float(from_float<BFloat16>(added[i])));
  }
}

TEST_F(CudaLayers, LooksUpEmbeddingsOfEveryType) {
  const std::vector<float> table = random_.floats(50 * 24);
  const std::vector<std::int32_t> ids = {49, 0, 7, 7, 31};
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const std::vector<std::byte> stored = narrowed(table, dtype);
    const CudaBuffer<std::byte> rows = on_gpu(stored);
    CudaBuffer<float> out = poisoned(ids.size() * 24);
    embed(exec(), rows.view<1>({rows.size()}), dtype, ids, out.view<2>({ids.size(), 24}));
    const std::vector<float> found = back(out);
    for (std::size_t i = 0; i < found.size(); ++i) {
      const double truth = reference::rounded(table[static_cast<std::size_t>(ids[i / 24]) * 24 + i % 24], dtype);
      ASSERT_EQ(found[i], truth);
    }
  }
}

TEST_F(CudaLayers, RotatesToThePositionOfEveryToken) {
  constexpr std::size_t kTokens = 9, kHeads = 3, kHeadDim = 20, kPositions = 30, kFirst = 14;
  for (const std::size_t last : {std::size_t{17}, std::numeric_limits<std::size_t>::max()}) {
    const std::vector<float> x = random_.floats(kTokens * kHeads * kHeadDim);
    const std::vector<float> cosine = random_.floats(kPositions * kHeadDim / 2), sine = random_.floats(cosine.size());
    CudaBuffer<float> input = on_gpu(x);
    const CudaBuffer<float> cosines = on_gpu(cosine), sines = on_gpu(sine);
    const std::array extents = {kTokens, kHeads, kHeadDim};
    rope(exec(), input.view<3>(extents), cosines.view<2>({kPositions, kHeadDim / 2}),
         sines.view<2>({kPositions, kHeadDim / 2}), kFirst, input.view<3>(extents), last);
    const std::vector<float> found = back(input);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t position = std::min(kFirst + i / (kHeads * kHeadDim), last), d = i % kHeadDim;
      const std::size_t at = position * kHeadDim / 2 + d % (kHeadDim / 2);
      const bool upper = d >= kHeadDim / 2;
      const double other = upper ? x[i - kHeadDim / 2] : -x[i + kHeadDim / 2];
      ASSERT_NEAR(found[i], x[i] * static_cast<double>(cosine[at]) + other * sine[at], 1e-6) << "element " << i;
    }
  }
}

// What kernels on the host write and read.
TEST_F(CudaLayers, AppendsKeysAndValuesWhereTheHostWould) {
  for (const std::size_t head_dim : {2, 30, 100}) {
    constexpr std::size_t kTokens = 45, kHeads = 3, kFirst = 21, kCapacity = 70;
    const std::vector<float> keys = random_.floats(kTokens * kHeads * head_dim);
    const std::vector<float> values = random_.floats(keys.size());
    const std::size_t panel = key_elements(kCapacity, head_dim, DType::bf16), rows = kCapacity * head_dim;
    CudaBuffer<BFloat16> all_keys = CudaBuffer<BFloat16>::zeroed(kHeads * panel);
    CudaBuffer<BFloat16> all_values = CudaBuffer<BFloat16>::zeroed(kHeads * rows);
    const CudaBuffer<float> some_keys = on_gpu(keys), some_values = on_gpu(values);
    append_keys(exec(), some_keys.view<3>({kTokens, kHeads, head_dim}), {all_keys.data(), panel}, kFirst);
    append_values(exec(), some_values.view<3>({kTokens, kHeads, head_dim}), {all_values.data(), rows}, kFirst);
    std::vector<BFloat16> expected_keys(kHeads * panel), expected_values(kHeads * rows);
    for (std::size_t head = 0; head < kHeads; ++head) {
      write_keys(expected_keys.data() + head * panel, kFirst, keys.data() + head * head_dim, kHeads * head_dim, kTokens,
                 head_dim);
      for (std::size_t i = 0; i < kTokens * head_dim; ++i) {
        const std::size_t token = i / head_dim, d = i % head_dim;
        expected_values[head * rows + (kFirst + token) * head_dim + d] =
            from_float<BFloat16>(values[(token * kHeads + head) * head_dim + d]);
      }
    }
    EXPECT_EQ(back(all_keys), expected_keys) << head_dim;
    EXPECT_EQ(back(all_values), expected_values) << head_dim;
  }
}

TEST_F(CudaLayers, SayWhichAllocationFailed) {
  try {
    const CudaBuffer<float> huge(std::size_t{1} << 50);
    FAIL() << "expected a DeviceError";
  } catch (const DeviceError& error) {
    EXPECT_NE(std::string(error.what()).find("cudaMalloc of 4503599627370496 bytes"), std::string::npos)
        << error.what();
  }
  EXPECT_NO_THROW(on_gpu(std::vector<float>(10)));  // and nothing else does
}

}  // namespace
}  // namespace memlane::testing
