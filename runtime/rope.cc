#include "runtime/rope.h"

#include <cmath>

namespace memlane {

RopeTable::RopeTable(const RopeFrequencies& frequencies, std::size_t positions)
    : half_(frequencies.inv_freq.size()),
      positions_(positions),
      cosines_(positions * half_),
      sines_(positions * half_) {
  const double factor = frequencies.attention_factor;
  for (std::size_t i = 0; i < half_; ++i) {
    const auto inv_freq = static_cast<float>(frequencies.inv_freq[i]);
    for (std::size_t position = 0; position < positions; ++position) {
      const float angle = static_cast<float>(position) * inv_freq;
      cosines_.data()[position * half_ + i] = static_cast<float>(std::cos(static_cast<double>(angle)) * factor);
      sines_.data()[position * half_ + i] = static_cast<float>(std::sin(static_cast<double>(angle)) * factor);
    }
  }
}

}  // namespace memlane
