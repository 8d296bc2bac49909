#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/cpu/key_tiles.h"
#include "kernels/cpu/micro_kernels.h"
#include "kernels/cpu/quantised_kernels.h"
#include "kernels/cpu/tile_kernels.h"
#include "kernels/exec.h"

namespace memlane {

/// The best k of each row's stream of scores: those above the least of the best so far gather in a list, which is cut
/// to the best k when it is full. Ids rise along the stream, so a later score must be greater to displace one.
class BestLists {
 public:
  BestLists(ScratchLayout& layout, std::size_t k, std::size_t rows)
      : k_(k), capacity_((full() + kMost + 31) / 32 * 32) {
    scores_ = layout.take<float>(rows * capacity_);
    ids_ = layout.take<std::uint32_t>(rows * capacity_);
    places_ = layout.take<std::int32_t>(capacity_);
    sizes_ = layout.take<std::size_t>(rows);
    thresholds_ = layout.take<float>(rows);
  }
  void clear(std::size_t rows) const {
    std::fill_n(sizes_, rows, std::size_t{0});
    std::fill_n(thresholds_, rows, -std::numeric_limits<float>::infinity());
  }
  static constexpr std::size_t kMost = std::max(kTileEntries, kTileAttendEntries);  ///< scores offered at once
  void offer(const MicroKernels& micro, std::size_t row, const float* scores, std::size_t count,
             std::uint32_t first_id) const {
    std::size_t& size = sizes_[row];
    const std::size_t at = row * capacity_ + size;
    size += micro.collect(scores, count, thresholds_[row], first_id, scores_ + at, ids_ + at);
    if (size >= full()) cut(micro, row);
  }
  /// Where scores of a row whose first key has `first_id` are collected by the scans of QuantisedKernels and
  /// TileKernels, kMost keys at a time.
  FoundScores collected(std::size_t row, std::uint32_t first_id) const {
    return {thresholds_[row], first_id, scores_ + row * capacity_, ids_ + row * capacity_, sizes_[row]};
  }
  /// After so many keys: cuts the row's list where it is full.
  void took(const MicroKernels& micro, std::size_t row, std::size_t keys, FoundScores& found) const {
    found.first_id += static_cast<std::uint32_t>(keys);
    sizes_[row] = found.count;
    if (found.count < full()) return;
    cut(micro, row);
    found.count = sizes_[row];
    found.threshold = thresholds_[row];
  }
  /// The least score of a row's best k so far; -inf while there are fewer.
  float least(const MicroKernels& micro, std::size_t row) const {
    if (sizes_[row] >= k_) cut(micro, row);
    return thresholds_[row];
  }
  /// A row's best, fewer if there were fewer, in order of their ids; then none. ids, scores: [k].
  void write(const MicroKernels& micro, std::size_t row, std::int64_t* ids, float* scores) const {
    if (sizes_[row] > k_) cut(micro, row);
    const std::size_t kept = sizes_[row];
    std::copy_n(ids_ + row * capacity_, kept, ids);
    std::copy_n(scores_ + row * capacity_, kept, scores);
    std::fill(ids + kept, ids + k_, -1);
    std::fill(scores + kept, scores + k_, -std::numeric_limits<float>::infinity());
  }

 private:
  std::size_t full() const { return k_ + std::max<std::size_t>(k_, 128); }
  void cut(const MicroKernels& micro, std::size_t row) const {
    const std::size_t at = row * capacity_;
    thresholds_[row] = micro.keep_best(k_, sizes_[row], scores_ + at, ids_ + at, places_);
    sizes_[row] = k_;
  }

  std::size_t k_, capacity_;
  float* scores_;
  std::uint32_t* ids_;
  std::int32_t* places_;
  std::size_t* sizes_;
  float* thresholds_;  // -inf until a list was cut
};

}  // namespace memlane
