#pragma once

#include <cmath>
#include <cstddef>
#include <limits>

#include "kernels/entries.h"

namespace memlane {

// What the parts of ListIndex share.

inline constexpr std::size_t kTrainingKeys = 64;  // for each list, if there are so many
inline constexpr std::size_t kLeastKeys = 8;       // for each list: of fewer keys there are fewer lists
inline constexpr float kNone = -std::numeric_limits<float>::infinity();

/// Element d of list l in panels of 32 lists.
inline std::size_t in_panels(std::size_t list, std::size_t d, std::size_t head_dim) {
  return (list / kPanelEntries * head_dim + d) * kPanelEntries + list % kPanelEntries;
}
/// The same in panels of 32 elements.
inline std::size_t in_value_panels(std::size_t list, std::size_t d, std::size_t lists) {
  return (d / kPanelEntries * lists + list) * kPanelEntries + d % kPanelEntries;
}

}  // namespace memlane
