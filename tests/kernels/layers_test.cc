#include "kernels/layers.h"

#include "tests/kernels/kernel_fixture.h"
#include "tests/reference/layers.h"

namespace memlane::testing {
namespace {

constexpr std::size_t kThreads[] = {1, 2, 3, 5};
constexpr float kInfinity = std::numeric_limits<float>::infinity();

using Layers = KernelTest;

TEST_P(Layers, EmbedTakesRowsOfTablesOfEveryTypeAtAnyAlignment) {
  constexpr std::size_t kVocab = 11, kHidden = 37, kTokens = 40;
  reference::Random random(1);
  const std::vector<float> table = random.floats(kVocab * kHidden);
  const std::vector<std::int32_t> ids = random.ids(kTokens, kVocab);
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const std::size_t shift : {0, 1, 3}) {
      CpuExec exec(2, GetParam());
      std::vector<std::byte> bytes = narrowed(table, dtype);
      bytes.insert(bytes.begin(), shift, std::byte{0});
      std::vector<float> out(kTokens * kHidden);
      embed(exec, bytes.data() + shift, dtype, ids, {out.data(), {kTokens, kHidden}});
      for (std::size_t i = 0; i < out.size(); ++i) {
        const std::size_t from = static_cast<std::size_t>(ids[i / kHidden]) * kHidden + i % kHidden;
        ASSERT_EQ(out[i], reference::rounded(table[from], dtype));
      }
    }
  }
}

TEST_P(Layers, RmsNormEqualsTheReference) {
  reference::Random random(2);
  double worst = 0;
  for (const std::size_t hidden : {1, 2, 7, 15, 16, 17, 31, 33, 64, 100, 257, 3200}) {
    for (const double amplitude : {1e-6, 1.0, 1e6}) {
      const std::size_t tokens = random.size(1, 35);
      CpuExec exec(3, GetParam());
      const std::vector<float> x = random.floats(tokens * hidden, amplitude), weight = random.floats(hidden, 2);
      std::vector<float> out(x.size());
      rms_norm(exec, View<const float, 2>(x.data(), {tokens, hidden}), View<const float, 1>(weight.data(), {hidden}),
               1e-6F, {out.data(), {tokens, hidden}});
      for (std::size_t token = 0; token < tokens; ++token) {
        const auto expected =
            reference::rms_norm(row_of(x.data() + token * hidden, hidden), row_of(weight.data(), hidden), 1e-6);
        for (std::size_t i = 0; i < hidden; ++i) {
          worst = reference::worse(worst,
                                   std::abs(out[token * hidden + i] - expected[i]) / (std::abs(expected[i]) + 1e-30));
        }
      }
    }
  }
  EXPECT_LE(worst, 4e-6);  // of float sums of up to 3200 squares
  RecordProperty("largest_relative_error", fmt::format("{:.3g}", worst));
}

TEST_P(Layers, SwigluEqualsTheReferenceForEveryWidth) {
  reference::Random random(3);
  double worst = 0;
  for (std::size_t width = 1; width < 70; ++width) {
    CpuExec exec(2, GetParam());
    const std::size_t tokens = random.size(1, 20);
    std::vector<float> gate = random.floats(tokens * width, width % 2 == 0 ? 4 : 100);
    const std::vector<float> up = random.floats(tokens * width, 10);
    const auto expected = reference::swiglu(row_of(gate.data(), gate.size()), row_of(up.data(), up.size()));
    swiglu(exec, View<const float, 2>(gate.data(), {tokens, width}), View<const float, 2>(up.data(), {tokens, width}),
           {gate.data(), {tokens, width}});
    for (std::size_t i = 0; i < gate.size(); ++i) {
      worst = reference::worse(worst, std::abs(gate[i] - expected[i]) / (std::abs(expected[i]) + 1e-24));
    }
  }
  EXPECT_LE(worst, 1e-6);
  RecordProperty("largest_relative_error", fmt::format("{:.3g}", worst));
}

TEST_P(Layers, SwigluOfExtremeGatesIsTheLimit) {
  CpuExec exec(1, GetParam());
  const std::vector<float> gate = {100,    -100,      80,         -80,  88,    -88,    1e4F,    -1e4F, 1e38F,
                                   -1e38F, kInfinity, -kInfinity, 0.0F, -0.0F, 1e-30F, -1e-30F, NAN};
  const std::vector<float> up(gate.size(), 1.0F);
  std::vector<float> out(gate.size());
  swiglu(exec, View<const float, 2>(gate.data(), {1, gate.size()}), View<const float, 2>(up.data(), {1, gate.size()}),
         {out.data(), {1, gate.size()}});
  for (std::size_t i = 0; i + 1 < gate.size(); ++i) {
    if (gate[i] > 1) {
      EXPECT_EQ(out[i], gate[i]);
    } else if (gate[i] < -1) {
      EXPECT_NEAR(out[i], 0.0F, 1e-30F) << gate[i];
    } else {
      EXPECT_FLOAT_EQ(out[i], gate[i] / 2);
    }
  }
  EXPECT_TRUE(std::isnan(out.back()));
}

TEST_P(Layers, RopeEqualsTheReferenceAtEveryPosition) {
  constexpr std::size_t kPositions = 50, kHeads = 3;
  reference::Random random(4);
  for (const std::size_t head_dim : {2, 6, 64, 100}) {
    std::vector<float> cosines, sines;
    for (std::size_t position = 0; position < kPositions; ++position) {
      reference::Row one(head_dim, 0.0);
      std::fill_n(one.begin(), head_dim / 2, 1.0);
      const reference::Row turned = reference::rope(one, position, 10000);
      cosines.insert(cosines.end(), turned.begin(), turned.begin() + static_cast<std::ptrdiff_t>(head_dim / 2));
      sines.insert(sines.end(), turned.begin() + static_cast<std::ptrdiff_t>(head_dim / 2), turned.end());
    }
    for (const std::size_t first : {0, 1, 17}) {
      CpuExec exec(2, GetParam());
      const std::size_t tokens = kPositions - first;
      std::vector<float> x = random.floats(tokens * kHeads * head_dim);
      const std::vector<float> before = x;
      const View<float, 3> view(x.data(), {tokens, kHeads, head_dim});
      rope(exec, view, View<const float, 2>(cosines.data(), {kPositions, head_dim / 2}),
           View<const float, 2>(sines.data(), {kPositions, head_dim / 2}), first, view);
      for (std::size_t row = 0; row < tokens * kHeads; ++row) {
        const auto expected =
            reference::rope(row_of(before.data() + row * head_dim, head_dim), first + row / kHeads, 10000);
        for (std::size_t i = 0; i < head_dim; ++i) ASSERT_NEAR(x[row * head_dim + i], expected[i], 3e-7);
      }
    }
  }
}

TEST_P(Layers, RopeStopsAtTheLastPosition) {
  constexpr std::size_t kTokens = 9, kLast = 4, kHalf = 3;
  reference::Random random(7);
  CpuExec exec(2, GetParam());
  const std::vector<float> x = random.floats(kTokens * 2 * kHalf), cosines = random.floats((kLast + 1) * kHalf),
                           sines = random.floats((kLast + 1) * kHalf);
  const View<const float, 2> cos(cosines.data(), {kLast + 1, kHalf}), sin(sines.data(), {kLast + 1, kHalf});
  const View<const float, 3> in(x.data(), {kTokens, 1, 2 * kHalf});
  std::vector<float> out(x.size()), alone(2 * kHalf);
  rope(exec, in, cos, sin, 1, {out.data(), in.extents()}, kLast);
  for (std::size_t token = 0; token < kTokens; ++token) {
    rope(exec, in.slice(token, token + 1), cos, sin, std::min(token + 1, kLast), {alone.data(), {1, 1, 2 * kHalf}});
    EXPECT_EQ(0, std::memcmp(alone.data(), out.data() + token * 2 * kHalf, alone.size() * sizeof(float)));
  }
  EXPECT_THROW(rope(exec, in, cos, sin, 1, {out.data(), in.extents()}), std::logic_error);
}

TEST_P(Layers, AddAndRoundDoWhatTheySay) {
  reference::Random random(5);
  for (const std::size_t width : {1, 33, 4096, 9000}) {
    CpuExec exec(3, GetParam());
    const std::size_t tokens = random.size(1, 5);
    std::vector<float> x = random.floats(tokens * width), before = x;
    const std::vector<float> y = random.floats(tokens * width);
    add(exec, {x.data(), {tokens, width}}, View<const float, 2>(y.data(), {tokens, width}));
    for (std::size_t i = 0; i < x.size(); ++i) ASSERT_EQ(x[i], before[i] + y[i]);
    before = x;
    round_to_bf16(exec, x);
    for (std::size_t i = 0; i < x.size(); ++i) ASSERT_EQ(x[i], reference::rounded(before[i], DType::bf16));
  }
}

TEST_P(Layers, GiveTheSameBitsForAnyNumberOfThreadsAndForARowAlone) {
  constexpr std::size_t kTokens = 50, kWidth = 77;
  reference::Random random(6);
  const std::vector<float> x = random.floats(kTokens * kWidth, 3), y = random.floats(kTokens * kWidth),
                           weight = random.floats(kWidth);
  const auto run = [&](std::size_t threads, std::size_t first, std::size_t tokens) {
    CpuExec exec(threads, GetParam());
    std::vector<float> normed(tokens * kWidth), gated(tokens * kWidth);
    const View<const float, 2> a(x.data() + first * kWidth, {tokens, kWidth}),
        b(y.data() + first * kWidth, {tokens, kWidth});
    rms_norm(exec, a, View<const float, 1>(weight.data(), {kWidth}), 1e-5F, {normed.data(), {tokens, kWidth}});
    swiglu(exec, a, b, {gated.data(), {tokens, kWidth}});
    normed.insert(normed.end(), gated.begin(), gated.end());
    return normed;
  };
  const std::vector<float> expected = run(1, 0, kTokens);
  for (const std::size_t threads : kThreads)
    EXPECT_TRUE(same_bits(run(threads, 0, kTokens), expected)) << threads << " threads";
  for (const std::size_t row : {0, 15, 16, 49}) {
    const std::vector<float> alone = run(2, row, 1);
    EXPECT_EQ(0, std::memcmp(alone.data(), expected.data() + row * kWidth, kWidth * sizeof(float)));
    EXPECT_EQ(0,
              std::memcmp(alone.data() + kWidth, expected.data() + (kTokens + row) * kWidth, kWidth * sizeof(float)));
  }
}

MEMLANE_ON_EVERY_INSTRUCTION_SET(Layers);

}  // namespace
}  // namespace memlane::testing
