#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>

#include "kernels/cpu/list_catalogue.h"
#include "kernels/cpu/micro_kernels.h"
#include "kernels/exec.h"
#include "kernels/key_lists.h"

namespace memlane::list_search {

/// Which lists the rows of a search scan, where they do not scan all: first begin() for each row, then next() until it
/// has nothing more. What a row chooses depends on the row alone.
class ListChoice {
 public:
  struct Space {
    /// width: of a row's reaches; lists: that it may scan.
    Space(ScratchLayout& layout, std::size_t width, std::size_t rows, std::size_t lists)
        : most(filled(lists)),
          room(std::max(width, most) + kPanelEntries),
          reaches(layout.take<float>(rows * most)),
          open(layout.take<std::uint32_t>(rows * most)),
          counts(layout.take<std::size_t>(rows)),
          taken(layout.take<float>(rows)),
          weights(layout.take<float>(room)),
          places(layout.take<std::uint32_t>(room)),
          order(layout.take<std::int32_t>(room)) {}
    /// Of a row, for each list that it may scan.
    static constexpr std::size_t kListBytes = sizeof(float) + sizeof(std::uint32_t);
    std::size_t most, room;
    float* reaches;       // [rows][most]: of the lists that may be scanned
    std::uint32_t* open;  // [rows][most]: their places, rising
    std::size_t* counts;  // [rows]: of open
    float* taken;         // [rows]: lists that reach so far or farther are taken; NaN for none
    float* weights;       // [room], as all below
    std::uint32_t* places;
    std::int32_t* order;
  };

  ListChoice(const MicroKernels& micro, const Catalogue& catalogue, const ListSearch& search, const Space& space)
      : micro_(micro), catalogue_(catalogue), search_(search), space_(space) {}

  /// The lists that a row may scan, those that reach farthest: what they weigh together can be estimated, which of
  /// their keys stand out cannot. reach, expected: the greatest score that is expected of each list, never NaN, and the
  /// logarithm of its weight. panels: whose 32 lists these are each, of the catalogue's and rising; null: all in
  /// order. reach is overwritten; expected is read where search.mass is below 1, and then of all lists.
  void begin(std::size_t row, std::span<float> reach, const float* expected, const std::uint32_t* panels) {
    const std::size_t wanted = std::min(search_.probes, reach.size());
    std::size_t count = collect_best(reach, wanted);
    if (count > wanted) micro_.keep_best(wanted, count, space_.weights, space_.places, space_.order);
    count = std::min(count, wanted);
    if (search_.mass < 1) {
      std::copy_n(space_.weights, count, reach.data());
      count = keep_expected(expected, reach.data(), count);
      std::copy_n(reach.data(), count, space_.weights);
    }
    MEMLANE_EXPECTS(count <= space_.most);
    float* const reaches = space_.reaches + row * space_.most;
    std::copy_n(space_.weights, count, reaches);
    std::fill(reaches + count, reaches + filled(count), kNothing);  // collect() reads whole panels
    std::uint32_t* const open = space_.open + row * space_.most;
    std::copy_n(space_.places, count, open);
    for (std::size_t i = 0; i < count && panels != nullptr; ++i) {
      const std::uint32_t lane = open[i] % std::uint32_t{kPanelEntries};
      open[i] = panels[open[i] / kPanelEntries] * std::uint32_t{kPanelEntries} + lane;
    }
    space_.counts[row] = count;
    space_.taken[row] = std::numeric_limits<float>::quiet_NaN();
  }

  /// Calls take(place) for up to `most` of the lists that a row has not taken, those that reach farthest (and equals of
  /// the last), in the order of their places, as far as they reach at least to `found`. Of those that do not none is
  /// taken later.
  template <class Take>
  void next(std::size_t row, std::size_t most, float found, const Take& take) {
    float least = found;
    std::size_t count = collect_open(row, least);
    if (count > most) {
      least = micro_.keep_best(most, count, space_.weights, space_.places, space_.order);
      count = collect_open(row, least);
    }
    const std::uint32_t* const open = space_.open + row * space_.most;
    for (std::size_t i = 0; i < count; ++i) take(open[space_.places[i]]);
    space_.taken[row] = least;
  }

 private:
  static constexpr std::size_t kSampled = 16;       // reaches for each one of a sample
  static constexpr std::size_t kLeastSample = 128;  // of wanted ones

  /// The number before x: what is above it is at least x.
  static float below(float x) { return std::nextafter(x, kNothing); }

  /// Brings those of reach that hold the best `wanted` into weights and places, in order; returns how many. Of many
  /// lists they are more than wanted by little: above a bound that a sample gives, if that leaves enough.
  std::size_t collect_best(std::span<const float> reach, std::size_t wanted) {
    const std::size_t width = reach.size(), sample = width / kSampled;
    const std::size_t share = wanted * 5 / (4 * kSampled) + kLeastSample / 8;
    if (wanted >= kLeastSample && share < sample) {
      for (std::size_t i = 0; i < sample; ++i) space_.weights[i] = reach[i * kSampled + i % kSampled];
      std::iota(space_.places, space_.places + sample, 0U);
      const float bound = micro_.keep_best(share, sample, space_.weights, space_.places, space_.order);
      const std::size_t count = micro_.collect(reach.data(), width, below(bound), 0, space_.weights, space_.places);
      if (count >= wanted) return count;
    }
    return micro_.collect(reach.data(), width, kNothing, 0, space_.weights, space_.places);
  }

  /// Brings those of a row's lists that are not taken and reach at least to `least` into weights, with their numbers
  /// among them in places; returns how many.
  std::size_t collect_open(std::size_t row, float least) {
    const float taken = space_.taken[row];
    const std::size_t count = micro_.collect(space_.reaches + row * space_.most, space_.counts[row], below(least), 0,
                                             space_.weights, space_.places);
    if (std::isnan(taken)) return count;
    std::size_t left = 0;
    for (std::size_t i = 0; i < count; ++i) {
      space_.weights[left] = space_.weights[i];
      space_.places[left] = space_.places[i];
      left += space_.weights[i] >= taken ? 0 : 1;
    }
    return left;
  }

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
