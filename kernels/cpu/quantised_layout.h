#pragma once

#include <algorithm>
#include <cstddef>

#include "kernels/cpu/quantised_kernels.h"
#include "kernels/weight_format.h"

namespace memlane {

// Panels of quantised weights. A panel holds 32 output rows, group after group of 256 elements along k:
//
//   int8:  32 float32 scales; [length / 4][32] units of four int8, -127 ... 127
//   int4:  32 float32 scales; [length / 32][32] multipliers, bytes 1 ... 17;
//          [length / 8][32] units of eight int4: byte j holds elements j (low half) and 4 + j, plus 8; -7 ... 7
//
// A weight is scale * int8, or scale * (multiplier * int4): multiplier * int4 is again an int8, so that an int4 panel
// expands to an int8 panel of the very same weights, and both share their products. The last group is as long as k
// filled up to a multiple of 64 says.

inline constexpr std::size_t kPanelRows = 32;
inline constexpr std::size_t kLeastTileRows = 8;  ///< of inputs; fewer are faster as rows
inline constexpr std::size_t kScalesBytes = kPanelRows * sizeof(float);
inline constexpr int kLargestInt4 = 7;
inline constexpr int kLargestMultiplier = 17;

constexpr std::size_t filled_k(std::size_t k) {
  return (k + kQuantStep - 1) / kQuantStep * kQuantStep;
}

constexpr std::size_t group_count(std::size_t k) {
  return (k + kQuantGroup - 1) / kQuantGroup;
}

/// Elements of group `group`, filled up.
constexpr std::size_t group_length(std::size_t k, std::size_t group) {
  return std::min(kQuantGroup, filled_k(k) - group * kQuantGroup);
}

/// Bytes of a panel's group. format: int8 or int4.
constexpr std::size_t group_bytes(WeightFormat format, std::size_t length) {
  const std::size_t multipliers = length / kQuantSubgroup * kPanelRows;
  return kScalesBytes + (format == WeightFormat::int8 ? length * kPanelRows : multipliers + length / 2 * kPanelRows);
}

constexpr std::size_t quantised_panel_bytes(WeightFormat format, std::size_t k) {
  const std::size_t length = filled_k(k), rest = length % kQuantGroup;
  return length / kQuantGroup * group_bytes(format, kQuantGroup) + (rest > 0 ? group_bytes(format, rest) : 0);
}

}  // namespace memlane
