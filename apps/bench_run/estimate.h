#pragma once

#include <cstddef>
#include <map>
#include <string>

#include "apps/bench_run/cells.h"

namespace memlane {

/// How long cells take: at first what the models' sizes and the machine's speed suggest, then that times the factor by
/// which finished cells of the same kind missed it.
class RunEstimate {
 public:
  void learn(const RunCell& cell, double seconds);
  /// Seconds.
  double of(const RunCell& cell) const;

 private:
  struct Sum {
    double work = 0, seconds = 0;
  };
  /// From the most alike (same method in the same experiment) over the same experiment to all.
  std::map<std::string, Sum> sums_;
};

}  // namespace memlane
