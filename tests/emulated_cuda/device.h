#pragma once

#include <cstddef>

namespace memlane::testing {

/// The memory of the emulated GPU.
struct EmulatedDevice {
  static constexpr std::size_t kBytes = std::size_t{1} << 30;

  std::size_t bytes = kBytes;  ///< that there are; what does not fit is a DeviceError
  std::size_t used = 0;
  std::size_t peak = 0;  ///< the most that were in use since this was set last
};

EmulatedDevice& emulated_device();

}  // namespace memlane::testing
