#pragma once

#include <algorithm>
#include <chrono>

namespace memlane {

/// Seconds that one call of `work` takes: the least of a few, after one to warm up.
template <class Work>
double seconds_of(const Work& work) {
  double best = 0;
  for (int round = 0; round < 4; ++round) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (round > 0) best = round == 1 ? seconds : std::min(best, seconds);
  }
  return best;
}

}  // namespace memlane
