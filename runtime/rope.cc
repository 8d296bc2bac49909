#include "runtime/rope.h"

#include <algorithm>
#include <cmath>

namespace memlane {

RopeTable::RopeTable(const RopeFrequencies& frequencies, std::size_t first, std::size_t end, ThreadPool* pool)
    : half_(frequencies.inv_freq.size()),
      positions_(end - first),
      cosines_(positions_ * half_),
      sines_(positions_ * half_) {
  const auto fill_row = [&](std::size_t row) {
    for (std::size_t i = 0; i < half_; ++i) {
      const auto inv_freq = static_cast<float>(frequencies.inv_freq[i]);
      const auto angle = static_cast<double>(static_cast<float>(first + row) * inv_freq);
      cosines_.data()[row * half_ + i] = static_cast<float>(std::cos(angle) * frequencies.attention_factor);
      sines_.data()[row * half_ + i] = static_cast<float>(std::sin(angle) * frequencies.attention_factor);
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
