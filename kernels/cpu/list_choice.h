#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/cpu/list_catalogue.h"
#include "kernels/cpu/micro_kernels.h"
#include "kernels/exec.h"
#include "kernels/key_lists.h"

namespace memlane::list_search {

/// Which lists the rows of a search scan, where they do not scan all: first begin() for each row, then next() until it
/// has nothing more. What a row chooses depends on the row alone.
class ListChoice {
 public:
  ListChoice(const MicroKernels& micro, const Catalogue& catalogue, const ListSearch& search)
      : micro_(micro), catalogue_(catalogue), search_(search) {}
  void lay_out(ScratchLayout& layout) {
    weights_ = layout.take<float>(catalogue_.width());
    places_ = layout.take<std::uint32_t>(catalogue_.width());
    order_ = layout.take<std::int32_t>(catalogue_.width());
  }
  void clear(std::size_t rows) { open_.assign(rows, {}); }

  /// The lists that a row may scan, those that reach farthest: what they weigh together can be estimated, which of
  /// their keys stand out cannot. reach, expected: [catalogue's width], the greatest score that is expected of each
  /// list and the logarithm of its weight. reach is overwritten; expected is read where search.mass is below 1.
  void begin(std::size_t row, float* reach, const float* expected) {
    const std::size_t width = catalogue_.width();
    std::iota(places_, places_ + width, 0U);
    micro_.keep_best(search_.probes, width, reach, places_, order_);
    std::size_t chosen = search_.probes;
    if (search_.mass < 1) chosen = keep_expected(expected, reach, chosen);
    open_[row].reserve(chosen);
    for (std::size_t i = 0; i < chosen; ++i) {
      if (reach[i] != kNothing) open_[row].push_back({places_[i], reach[i]});
    }
  }

  /// Calls take(place) for up to `most` of the lists that a row has not taken, those that reach farthest, in the order
  /// of their places, as far as they reach beyond `found`. Those that do not are not asked about again.
  template <class Take>
  void next(std::size_t row, std::size_t most, float found, const Take& take) {
    std::vector<Reach>& open = open_[row];
    std::erase_if(open, [&](const Reach& each) { return each.score < found; });
    float least = kNothing;
    if (open.size() > most) {
      std::transform(open.begin(), open.end(), weights_, [](const Reach& each) { return each.score; });
      std::iota(places_, places_ + open.size(), 0U);
      least = micro_.keep_best(most, open.size(), weights_, places_, order_);
    }
    // Of keys that are not finite the reach may be no number: such a list is scanned, so that it shows in the result.
    const auto is_taken = [&](const Reach& each) { return !(each.score < least); };
    for (const Reach& each : open) {
      if (is_taken(each)) take(each.place);
    }
    std::erase_if(open, is_taken);
  }

 private:
  struct Reach {
    std::uint32_t place;
    float score;
  };

  /// Cuts `count` places_, those that reach farthest first, where they are expected to have the share `mass` of all
  /// weight; returns how many are left, in order again.
  std::size_t keep_expected(const float* expected, float* reach, std::size_t count) {
    std::iota(order_, order_ + count, 0);
    std::sort(order_, order_ + count,
              [&](std::int32_t a, std::int32_t b) { return reach[a] != reach[b] ? reach[a] > reach[b] : a < b; });
    const float max = micro_.row_max(expected, catalogue_.width());
    std::copy_n(expected, catalogue_.width(), weights_);
    const double total = static_cast<double>(micro_.exp_row(weights_, catalogue_.width(), max));
    double sum = 0;
    std::size_t kept = 0;
    while (kept < count && sum < search_.mass * total) sum += static_cast<double>(weights_[places_[order_[kept++]]]);
    std::sort(order_, order_ + kept);
    for (std::size_t i = 0; i < kept; ++i) {
      reach[i] = reach[order_[i]];
      places_[i] = places_[order_[i]];
    }
    return kept;
  }

  const MicroKernels& micro_;
  const Catalogue& catalogue_;
  const ListSearch& search_;
  float* weights_ = nullptr;
  std::uint32_t* places_ = nullptr;
  std::int32_t* order_ = nullptr;
  std::vector<std::vector<Reach>> open_;  // [rows]: by place, those that may be taken
};

}  // namespace memlane::list_search
