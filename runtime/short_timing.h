#pragma once

#include <cstddef>
#include <vector>

#include "kernels/stopwatch.h"
#include "runtime/median.h"

namespace memlane {

/// Seconds that one call of `work` takes: the median of a few, or of as many as there are in some milliseconds, after
/// one to warm up. What takes long takes more than the least of them.
template <class Work>
double seconds_of(const Work& work) {
  constexpr std::size_t kLeastRounds = 3;
  constexpr double kLeastSeconds = 0.005;
  std::vector<double> rounds;
  work();
  for (double all = 0; rounds.size() < kLeastRounds || all < kLeastSeconds; all += rounds.back()) {
    rounds.push_back(seconds_once(work));
  }
  return median(rounds);
}

}  // namespace memlane
