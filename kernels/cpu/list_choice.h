#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "kernels/cpu/list_catalogue.h"
#include "kernels/cpu/micro_kernels.h"
#include "kernels/exec.h"
#include "kernels/key_lists.h"

namespace memlane::list_search {

/// Which lists the rows of a search scan, where they do not scan all: first begin() for each row, then next() until it
/// has nothing more. What a row chooses depends on the row alone.
class ListChoice {
 public:
  struct Reach {
    std::uint32_t place;
    float score;
  };
  struct Space {
    /// lists: that a row may scan.
    Space(ScratchLayout& layout, std::size_t width, std::size_t rows, std::size_t lists)
        : most(lists),
          open(layout.take<Reach>(rows * lists)),
          counts(layout.take<std::size_t>(rows)),
          weights(layout.take<float>(width)),
          places(layout.take<std::uint32_t>(width)),
          order(layout.take<std::int32_t>(width)) {}
    std::size_t most;
    Reach* open;          // [rows][most]: by place, those that may be taken
    std::size_t* counts;  // [rows]: of open
    float* weights;       // [width], as all below
    std::uint32_t* places;
    std::int32_t* order;
  };

  ListChoice(const MicroKernels& micro, const Catalogue& catalogue, const ListSearch& search, const Space& space)
      : micro_(micro), catalogue_(catalogue), search_(search), space_(space) {}

  /// The lists that a row may scan, those that reach farthest: what they weigh together can be estimated, which of
  /// their keys stand out cannot. reach, expected: [catalogue's width], the greatest score that is expected of each
  /// list and the logarithm of its weight. reach is overwritten; expected is read where search.mass is below 1.
  void begin(std::size_t row, float* reach, const float* expected) {
    const std::size_t width = catalogue_.width();
    std::iota(space_.places, space_.places + width, 0U);
    std::size_t chosen = std::min(search_.probes, width);
    micro_.keep_best(chosen, width, reach, space_.places, space_.order);
    if (search_.mass < 1) chosen = keep_expected(expected, reach, chosen);
    MEMLANE_EXPECTS(chosen <= space_.most);
    Reach* open = space_.open + row * space_.most;
    std::size_t& count = space_.counts[row] = 0;
    for (std::size_t i = 0; i < chosen; ++i) {
      if (reach[i] != kNothing) open[count++] = {space_.places[i], reach[i]};
    }
  }

  /// Calls take(place) for up to `most` of the lists that a row has not taken, those that reach farthest, in the order
  /// of their places, as far as they reach beyond `found`. Those that do not are not asked about again.
  template <class Take>
  void next(std::size_t row, std::size_t most, float found, const Take& take) {
    Reach* open = space_.open + row * space_.most;
    std::size_t count = 0;
    for (std::size_t i = 0; i < space_.counts[row]; ++i) {
      open[count] = open[i];
      count += open[i].score < found ? 0 : 1;
    }
    float least = kNothing;
    if (count > most) {
      for (std::size_t i = 0; i < count; ++i) space_.weights[i] = open[i].score;
      std::iota(space_.places, space_.places + count, 0U);
      least = micro_.keep_best(most, count, space_.weights, space_.places, space_.order);
    }
    // Of keys that are not finite the reach may be no number: such a list is scanned.
    std::size_t left = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const Reach each = open[i];
      const bool stays = each.score < least;
      if (!stays) take(each.place);
      open[left] = each;
      left += stays ? 1 : 0;
    }
    space_.counts[row] = left;
  }

 private:
  /// Cuts `count` space_.places, those that reach farthest first, where they are expected to have the share `mass` of
  /// all weight; returns how many are left, in order again.
  std::size_t keep_expected(const float* expected, float* reach, std::size_t count) {
    std::iota(space_.order, space_.order + count, 0);
    std::sort(space_.order, space_.order + count,
              [&](std::int32_t a, std::int32_t b) { return reach[a] != reach[b] ? reach[a] > reach[b] : a < b; });
    const float max = micro_.row_max(expected, catalogue_.width());
    std::copy_n(expected, catalogue_.width(), space_.weights);
    const double total = static_cast<double>(micro_.exp_row(space_.weights, catalogue_.width(), max));
    double sum = 0;
    std::size_t kept = 0;
    while (kept < count && sum < search_.mass * total)
      sum += static_cast<double>(space_.weights[space_.places[space_.order[kept++]]]);
    std::sort(space_.order, space_.order + kept);
    for (std::size_t i = 0; i < kept; ++i) {
      reach[i] = reach[space_.order[i]];
      space_.places[i] = space_.places[space_.order[i]];
    }
    return kept;
  }

  const MicroKernels& micro_;
  const Catalogue& catalogue_;
  const ListSearch& search_;
  const Space& space_;
};

}  // namespace memlane::list_search
