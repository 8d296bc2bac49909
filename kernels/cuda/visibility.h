#pragma once

#include <algorithm>
#include <cstddef>

#include "kernels/attention.h"
#include "kernels/cuda/tiles.h"

namespace memlane::cuda {

/// What is beyond 32 bits is no limit.
inline Band band_of(const Visibility& visibility) {
  const auto cut = [](std::size_t x) { return static_cast<std::uint32_t>(std::min<std::size_t>(x, kAny)); };
  MEMLANE_EXPECTS(visibility.first_position < (std::size_t{1} << 31));
  return {visibility.banded,
          cut(visibility.first_position),
          cut(visibility.min_distance),
          cut(visibility.max_distance),
          cut(visibility.first_entry),
          cut(visibility.end_entry)};
}

}  // namespace memlane::cuda
