#include "kernels/cpu/quantise_weights.h"

#include <array>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/quantised_layout.h"

namespace memlane {

namespace {

using Group = std::array<float, kQuantGroup>;

float largest_magnitude(const float* x, std::size_t count) {
  float largest = 0;
  for (std::size_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(x[i]));
  return largest;
}

bool all_finite(const float* x, std::size_t count) {
  float poison = 0;
  for (std::size_t i = 0; i < count; ++i) poison += x[i] * 0.0F;  // NaN for what is not finite
  return poison == 0.0F;
}

/// 0 for a group below the normal numbers, whose inverse may not exist.
float scale_for(float largest, int levels) {
  const float scale = largest / static_cast<float>(levels);
  return scale >= FLT_MIN ? scale : 0.0F;
}

float nearest(float x) {
  constexpr float kRounds = 12582912.0F;  // 1.5 * 2^23: adding it rounds to a whole number
  return (x + kRounds) - kRounds;
}

/// The squared error of a subgroup, x in units of the group's scale, with steps of `multiplier`.
float subgroup_error(const float* x, float multiplier) {
  const float inverse = 1.0F / multiplier;
  constexpr auto kLargest = static_cast<float>(kLargestInt4);
  float error = 0;
  for (std::size_t i = 0; i < kQuantSubgroup; ++i) {
    const float level = std::min(std::max(nearest(x[i] * inverse), -kLargest), kLargest);
    const float difference = x[i] - level * multiplier;
    error += difference * difference;
  }
  return error;
}

/// The multiplier with the least squared error. Beyond the one that represents the largest element, smaller ones are
/// tried: they cut it off, and represent the many small ones better.
int best_multiplier(const float* x) {
  const float largest = largest_magnitude(x, kQuantSubgroup);
  const int widest = std::clamp(static_cast<int>(std::ceil(largest / kLargestInt4)), 1, kLargestMultiplier);
  int best = widest;
  float least = subgroup_error(x, static_cast<float>(widest));
  for (int multiplier = widest - 1; multiplier >= 1 && 10 * multiplier >= 6 * widest; --multiplier) {
    const float error = subgroup_error(x, static_cast<float>(multiplier));
    if (error >= least) continue;
    least = error;
    best = multiplier;
  }
  return best;
}

/// Writes row `row` of a group whose elements are `x`, `length` of them.
void quantise_int8(const Group& x, std::size_t length, std::size_t row, std::byte* group) {
  const float scale = scale_for(largest_magnitude(x.data(), length), kLargestQuant);
  std::memcpy(group + row * sizeof(float), &scale, sizeof scale);
  const float inverse = scale > 0 ? 1.0F / scale : 0.0F;
  auto* units = reinterpret_cast<std::int8_t*>(group + kScalesBytes);
  for (std::size_t i = 0; i < length; ++i) {
    units[(i / 4 * kPanelRows + row) * 4 + i % 4] = static_cast<std::int8_t>(nearest(x[i] * inverse));
  }
}

void quantise_int4(const Group& x, std::size_t length, std::size_t row, std::byte* group) {
  const float scale = scale_for(largest_magnitude(x.data(), length), kLargestInt4 * kLargestMultiplier);
  std::memcpy(group + row * sizeof(float), &scale, sizeof scale);
  const float inverse = scale > 0 ? 1.0F / scale : 0.0F;
  auto* multipliers = reinterpret_cast<std::uint8_t*>(group + kScalesBytes);
  auto* units = reinterpret_cast<std::uint8_t*>(group + kScalesBytes + length / kQuantSubgroup * kPanelRows);
  for (std::size_t begin = 0; begin < length; begin += kQuantSubgroup) {
    std::array<float, kQuantSubgroup> scaled{};
    for (std::size_t i = 0; i < kQuantSubgroup; ++i) scaled[i] = x[begin + i] * inverse;
    const int multiplier = best_multiplier(scaled.data());
    multipliers[begin / kQuantSubgroup * kPanelRows + row] = static_cast<std::uint8_t>(multiplier);
    for (std::size_t i = 0; i < kQuantSubgroup; ++i) {
      const auto level = static_cast<int>(nearest(scaled[i] / static_cast<float>(multiplier)));
      const auto held = static_cast<std::uint8_t>(std::clamp(level, -kLargestInt4, kLargestInt4) + 8);
      std::uint8_t& byte = units[((begin + i) / 8 * kPanelRows + row) * 4 + i % 4];
      byte = i % 8 < 4 ? held : static_cast<std::uint8_t>(byte | (held << 4));
    }
  }
}

template <class Source>
bool quantise_rows(const std::byte* rows, std::size_t count, std::size_t k, WeightFormat format, std::byte* panel) {
  bool finite = true;
  for (std::size_t g = 0; g < group_count(k); ++g) {
    const std::size_t length = group_length(k, g);
    for (std::size_t row = 0; row < kPanelRows; ++row) {
      Group x{};
      for (std::size_t i = 0; row < count && i < std::min(kQuantGroup, k - g * kQuantGroup); ++i) {
        Source element;
        std::memcpy(&element, rows + (row * k + g * kQuantGroup + i) * sizeof element, sizeof element);
        x[i] = to_float(element);
      }
      if (!all_finite(x.data(), length)) {
        finite = false;
        continue;
      }
      if (format == WeightFormat::int8) {
        quantise_int8(x, length, row, panel);
      } else {
        quantise_int4(x, length, row, panel);
      }
    }
    panel += group_bytes(format, length);
  }
  return finite;
}

}  // namespace

bool quantise_panel(const std::byte* rows, DType source, std::size_t count, std::size_t k, WeightFormat format,
                    std::byte* panel) {
  return with_type(source, [&](auto type) { return quantise_rows<decltype(type)>(rows, count, k, format, panel); });
}

void read_quantised_row(const std::byte* panel, WeightFormat format, std::size_t row, std::size_t k, float* out) {
  for (std::size_t i = 0; i < k; ++i) {
    const std::size_t length = group_length(k, i / kQuantGroup), at = i % kQuantGroup;
    const std::byte* group = panel + i / kQuantGroup * group_bytes(format, kQuantGroup);
    float scale = 0;
    std::memcpy(&scale, group + row * sizeof scale, sizeof scale);
    int level = 0;
    if (format == WeightFormat::int8) {
      level = static_cast<std::int8_t>(group[kScalesBytes + (at / 4 * kPanelRows + row) * 4 + at % 4]);
    } else {
      const std::byte* units = group + kScalesBytes + length / kQuantSubgroup * kPanelRows;
      const auto byte = static_cast<int>(units[(at / 8 * kPanelRows + row) * 4 + at % 4]);
      const auto multiplier = static_cast<int>(group[kScalesBytes + at / kQuantSubgroup * kPanelRows + row]);
      level = ((at % 8 < 4 ? byte & 15 : byte >> 4) - 8) * multiplier;
    }
    out[i] = static_cast<float>(level) * scale;
  }
}

}  // namespace memlane
