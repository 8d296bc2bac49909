#pragma once

#include <chrono>

namespace memlane {

/// Seconds since it was made, or restarted.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  void restart() { start_ = Clock::now(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

/// Seconds that one call of `work` takes.
template <class Work>
double seconds_once(const Work& work) {
  const Stopwatch watch;
  work();
  return watch.seconds();
}

}  // namespace memlane
