#include "runtime/rope.h"

#include <cmath>

namespace memlane {

RopeTable::RopeTable(std::size_t head_dim, double theta, std::size_t positions)
    : half_(head_dim / 2), positions_(positions), cosines_(positions * half_), sines_(positions * half_) {
  for (std::size_t i = 0; i < half_; ++i) {
    const double exponent = static_cast<double>(2 * i) / static_cast<double>(head_dim);
    const auto inv_freq = static_cast<float>(1.0 / std::pow(theta, exponent));
    for (std::size_t position = 0; position < positions; ++position) {
      const float angle = static_cast<float>(position) * inv_freq;
      cosines_.data()[position * half_ + i] = static_cast<float>(std::cos(static_cast<double>(angle)));
      sines_.data()[position * half_ + i] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
}

}  // namespace memlane
