#pragma once

#include <cstddef>
#include <functional>

#include "kernels/cuda/exec.h"

namespace memlane::testing {

/// The memory of the emulated GPU.
struct EmulatedDevice {
  static constexpr std::size_t kBytes = std::size_t{1} << 30;

  std::size_t bytes = kBytes;  ///< that there are; what does not fit is a DeviceError
  std::size_t used = 0;
  std::size_t peak = 0;      ///< the most that were in use since this was set last
  bool makes_graphs = true;  ///< else a graph that was recorded is refused
};

EmulatedDevice& emulated_device();

/// Runs the work of a kernel, or, while a graph is recorded, keeps it for every launch of the graph. What it is given
/// by value is what it was then; what is in memory is read when it runs.
void queue(CudaExec& exec, std::function<void()> work);

}  // namespace memlane::testing
