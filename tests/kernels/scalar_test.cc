// Scalar conversions, exhaustively where there are few values, against an independent definition of rounding.

#include <bit>
#include <cmath>
#include <limits>

#include "tests/kernels/kernel_fixture.h"

namespace memlane::testing {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::size_t kPatterns = 65536;

/// The value of a 16-bit pattern by the definition of the format; NaN patterns excluded.
double value_of(std::uint32_t bits, int exponent_bits) {
  const int fraction_bits = 15 - exponent_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double sign = (bits & 0x8000U) != 0 ? -1 : 1;
  const int exponent = static_cast<int>((bits & 0x7fffU) >> fraction_bits);
  const double fraction = std::ldexp(bits & ((1U << fraction_bits) - 1), -fraction_bits);
  if (exponent == (1 << exponent_bits) - 1) return sign * std::numeric_limits<double>::infinity();
  return exponent == 0 ? sign * std::ldexp(fraction, 1 - bias) : sign * std::ldexp(1 + fraction, exponent - bias);
}

template <class T>
bool is_nan_pattern(std::uint32_t bits) {
  const std::uint32_t infinity = std::is_same_v<T, BFloat16> ? 0x7f80U : 0x7c00U;
  return (bits & 0x7fffU) > infinity;
}

template <class T>
void expect_every_pattern_survives(int exponent_bits) {
  for (std::uint32_t bits = 0; bits < kPatterns; ++bits) {
    const T stored{static_cast<std::uint16_t>(bits)};
    const float wide = to_float(stored);
    if (is_nan_pattern<T>(bits)) {
      EXPECT_TRUE(std::isnan(wide)) << bits;
      EXPECT_TRUE(is_nan_pattern<T>(from_float<T>(wide).bits)) << bits;
      continue;
    }
    EXPECT_EQ(wide, value_of(bits, exponent_bits)) << bits;
    EXPECT_EQ(std::signbit(wide), (bits & 0x8000U) != 0) << bits;
    EXPECT_EQ(from_float<T>(wide).bits, bits);
  }
}

TEST(BFloat16Conversion, WidensEveryPatternToItsValueAndBack) {
  expect_every_pattern_survives<BFloat16>(8);
}
TEST(Float16Conversion, WidensEveryPatternToItsValueAndBack) {
  expect_every_pattern_survives<Float16>(5);
}

/// Values where rounding goes wrong first: every value of the format, halfway points between neighbours and their float
/// neighbours.
template <class T>
std::vector<float> hard_values() {
  std::vector<float> values = {0.0F,
                               -0.0F,
                               kInfinity,
                               -kInfinity,
                               std::numeric_limits<float>::max(),
                               -std::numeric_limits<float>::max(),
                               std::numeric_limits<float>::min(),
                               std::numeric_limits<float>::denorm_min(),
                               65504,
                               65519.996F,
                               65520,
                               65536};
  for (std::uint32_t bits = 0; bits + 1 < kPatterns; ++bits) {
    const float low = to_float(T{static_cast<std::uint16_t>(bits)});
    const float high = to_float(T{static_cast<std::uint16_t>(bits + 1)});
    const float middle = low / 2 + high / 2;  // exact for both formats, in float
    if (!std::isfinite(low) || !std::isfinite(high)) continue;
    values.insert(values.end(), {middle, std::nextafter(middle, kInfinity), std::nextafter(middle, -kInfinity)});
  }
  reference::Random random(17);
  for (int i = 0; i < 100000; ++i) values.push_back(std::bit_cast<float>(random.bits()));
  return values;
}

template <class T>
void expect_rounds_to_nearest_even() {
  for (const float x : hard_values<T>()) {
    const float found = to_float(from_float<T>(x));
    if (std::isnan(x)) {
      EXPECT_TRUE(std::isnan(found));
      continue;
    }
    ASSERT_EQ(found, reference::rounded(x, dtype_of<T>)) << x;
    ASSERT_EQ(std::signbit(found), std::signbit(x)) << x;
  }
}

TEST(BFloat16Conversion, RoundsToNearestTiesToEven) {
  expect_rounds_to_nearest_even<BFloat16>();
}
TEST(Float16Conversion, RoundsToNearestTiesToEven) {
  expect_rounds_to_nearest_even<Float16>();
}

TEST(DTypes, HaveTheNamesOfConfigFiles) {
  EXPECT_EQ(name_of(DType::f32), "float32");
  EXPECT_EQ(name_of(DType::f16), "float16");
  EXPECT_EQ(name_of(DType::bf16), "bfloat16");
}

using VectorConversion = KernelTest;

TEST_P(VectorConversion, WidensEveryPatternAsTheScalarOneDoes) {
  const MicroKernels& micro = micro_kernels(GetParam());
  std::vector<std::uint16_t> patterns(kPatterns);
  for (std::uint32_t bits = 0; bits < kPatterns; ++bits) patterns[bits] = static_cast<std::uint16_t>(bits);
  std::vector<float> bf16(kPatterns), f16(kPatterns);
  micro.widen_bf16(patterns.data(), kPatterns, bf16.data());
  micro.widen_f16(patterns.data(), kPatterns, f16.data());
  for (std::uint32_t bits = 0; bits < kPatterns; ++bits) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(bf16[bits]), bits << 16);
    const float expected = to_float(Float16{patterns[bits]});
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(f16[bits])) << bits;
    } else {
      EXPECT_EQ(std::bit_cast<std::uint32_t>(f16[bits]), std::bit_cast<std::uint32_t>(expected)) << bits;
    }
  }
}

TEST_P(VectorConversion, WidensEveryPatternInPanels) {
  const MicroKernels& micro = micro_kernels(GetParam());
  constexpr std::size_t kPairs = kPatterns / 64;
  std::vector<std::uint32_t> panel(kPatterns / 2);
  for (std::uint32_t unit = 0; unit < panel.size(); ++unit) panel[unit] = 2 * unit | (2 * unit + 1) << 16;
  std::vector<float> bf16(kPatterns), f16(kPatterns);
  micro.widen_bf16_panel(panel.data(), kPairs, bf16.data());
  micro.widen_f16_panel(panel.data(), kPairs, f16.data());
  for (std::uint32_t bits = 0; bits < kPatterns; ++bits) {
    const std::uint32_t pair = bits / 2 / 32;
    const std::uint32_t at = (2 * pair + bits % 2) * 32 + bits / 2 % 32;
    EXPECT_EQ(std::bit_cast<std::uint32_t>(bf16[at]), bits << 16);
    const float expected = to_float(Float16{static_cast<std::uint16_t>(bits)});
    EXPECT_TRUE(f16[at] == expected || (std::isnan(expected) && std::isnan(f16[at]))) << bits;
  }
}

TEST_P(VectorConversion, NarrowsAsTheScalarOneDoesAtEveryLength) {
  const MicroKernels& micro = micro_kernels(GetParam());
  std::vector<float> values = hard_values<BFloat16>();
  values.push_back(std::numeric_limits<float>::quiet_NaN());
  std::vector<std::uint16_t> found(values.size());
  micro.narrow_bf16(values.data(), values.size(), found.data());
  for (std::size_t i = 0; i < values.size(); ++i)
    ASSERT_EQ(found[i], from_float<BFloat16>(values[i]).bits) << values[i];
  for (std::size_t length = 0; length < 70; ++length) {  // nothing is written beyond the end
    std::vector<std::uint16_t> out(length + 1, 0xabcdU);
    micro.narrow_bf16(values.data(), length, out.data());
    EXPECT_EQ(out[length], 0xabcdU);
  }
}

TEST_P(VectorConversion, RoundsInPlaceAndKnowsWhatIsRounded) {
  const MicroKernels& micro = micro_kernels(GetParam());
  std::vector<float> values = hard_values<BFloat16>();
  values.push_back(std::numeric_limits<float>::quiet_NaN());
  values.push_back(-std::numeric_limits<float>::infinity());
  std::vector<float> rounded = values;
  micro.round_bf16(rounded.data(), rounded.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(std::bit_cast<std::uint32_t>(rounded[i]), std::uint32_t{from_float<BFloat16>(values[i]).bits} << 16);
  }
  for (std::size_t length = 0; length < 70; ++length) {
    std::vector<float> all(length + 1, 1.5F);
    all[length] = 1 + 0x1p-20F;  // beyond the end
    EXPECT_TRUE(micro.is_bf16(all.data(), length));
    EXPECT_FALSE(micro.is_bf16(all.data(), length + 1));
    for (std::size_t i = 0; i < length; ++i) {
      all[i] += 0x1p-20F;
      EXPECT_FALSE(micro.is_bf16(all.data(), length)) << i;
      all[i] = 1.5F;
    }
    micro.round_bf16(all.data(), length);
    EXPECT_EQ(all[length], 1 + 0x1p-20F);
  }
}

MEMLANE_ON_EVERY_INSTRUCTION_SET(VectorConversion);

}  // namespace
}  // namespace memlane::testing
