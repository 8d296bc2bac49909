#pragma once

#include <cstddef>

#include "kernels/array.h"
#include "kernels/exec.h"

namespace memlane {

/// What this machine can do with the threads and the instruction set of an Exec, at best.
struct MachineLimits {
  double f32 = 0;   ///< operations a second (a multiply-add is two) in registers or matrix tiles
  double bf16 = 0;  ///< the same of bfloat16 products, f32 sums; of f32 where the set has none
  double int8 = 0;  ///< of 8-bit products, 32-bit sums; 0 where the set has none
  double read = 0;  ///< bytes a second, read in order by all threads
};

/// Measures the limits, a little at a time, so that it can be done between measurements.
class LimitsProbe {
 public:
  /// ring_bytes: memory to read from, several times the last cache.
  LimitsProbe(CpuExec& exec, std::size_t ring_bytes);

  /// One measurement, of about a tenth of a second each.
  MachineLimits measure();

 private:
  double peak(PeakKind kind);
  double read();

  CpuExec& exec_;
  Buffer<std::uint32_t> ring_;
};

}  // namespace memlane
