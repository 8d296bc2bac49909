#include "runtime/rope.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

namespace memlane {

namespace {

/// Cosine and sine without a branch, so that a compiler makes vectors of a loop over angles. For 0 <= angle <
/// kGreatestAngle; both are off by less than two units in the last place, which rounding to float32 hides but once in
/// 10^8 times.
///
/// The angle less a multiple k of pi/2, in three parts of which k times the first two are exact (Cody and Waite 1980);
/// then Taylor's series on +-pi/4, up to terms below 2^-56.
struct CosineAndSine {
  double cosine, sine;
};
constexpr double kGreatestAngle = 0x1p19;

inline CosineAndSine cosine_and_sine(double angle) {
  constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
  constexpr double kFirst = 0x1.921fb544p+0, kSecond = 0x1.0b4611a6p-34, kThird = 0x1.3198a2e037073p-69;
  constexpr double kToInteger = 0x1.8p52;  // adding and subtracting it rounds to the nearest integer
  const double shifted = angle * kTwoOverPi + kToInteger;
  const double k = shifted - kToInteger;
  const double x = ((angle - k * kFirst) - k * kSecond) - k * kThird;
  const double y = x * x;
  double sine = -1.0 / 1307674368000.0, cosine = 1.0 / 20922789888000.0;
  for (const double term :
       {1.0 / 6227020800.0, -1.0 / 39916800.0, 1.0 / 362880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0}) {
    sine = sine * y + term;
  }
  for (const double term :
       {-1.0 / 87178291200.0, 1.0 / 479001600.0, -1.0 / 3628800.0, 1.0 / 40320.0, -1.0 / 720.0, 1.0 / 24.0}) {
    cosine = cosine * y + term;
  }
  sine = x + x * y * sine;
  cosine = 1 - (0.5 * y - y * y * cosine);
  const auto quarter = std::bit_cast<std::uint64_t>(shifted);
  const bool swapped = (quarter & 1) != 0;
  const double c = swapped ? sine : cosine, s = swapped ? cosine : sine;
  return {((quarter + 1) & 2) != 0 ? -c : c, (quarter & 2) != 0 ? -s : s};
}

}  // namespace

RopeTable::RopeTable(const RopeFrequencies& frequencies, std::size_t first, std::size_t end, ThreadPool* pool)
    : half_(frequencies.inv_freq.size()),
      positions_(end - first),
      cosines_(positions_ * half_),
      sines_(positions_ * half_) {
  std::vector<float> inv_freqs(half_);
  for (std::size_t i = 0; i < half_; ++i) inv_freqs[i] = static_cast<float>(frequencies.inv_freq[i]);
  const float greatest = half_ == 0 ? 0 : *std::max_element(inv_freqs.begin(), inv_freqs.end());
  const double factor = frequencies.attention_factor;
  const auto fill_row = [&](std::size_t row) {
    const auto position = static_cast<float>(first + row);
    float* const cosines = cosines_.data() + row * half_;
    float* const sines = sines_.data() + row * half_;
    if (static_cast<double>(position * greatest) < kGreatestAngle) {
      for (std::size_t i = 0; i < half_; ++i) {
        const CosineAndSine both = cosine_and_sine(static_cast<double>(position * inv_freqs[i]));
        cosines[i] = static_cast<float>(both.cosine * factor);
        sines[i] = static_cast<float>(both.sine * factor);
      }
      return;
    }
    for (std::size_t i = 0; i < half_; ++i) {
      const auto angle = static_cast<double>(position * inv_freqs[i]);
      cosines[i] = static_cast<float>(std::cos(angle) * factor);
      sines[i] = static_cast<float>(std::sin(angle) * factor);
    }
  };
  constexpr std::size_t kRowsPerItem = 64;
  const auto fill = [&](std::size_t item, std::size_t) {
    const std::size_t stop = std::min(positions_, (item + 1) * kRowsPerItem);
    for (std::size_t row = item * kRowsPerItem; row < stop; ++row) fill_row(row);
  };
  const std::size_t items = (positions_ + kRowsPerItem - 1) / kRowsPerItem;
  if (pool != nullptr) pool->run(items, fill);
  for (std::size_t item = 0; pool == nullptr && item < items; ++item) fill(item, 0);
}

}  // namespace memlane
