#pragma once

#include <string>

namespace memlane {

/// What a model runs on.
struct DeviceChoice {
  int cuda = -1;  ///< the GPU's number; -1 for the CPU
  bool is_cpu() const { return cuda < 0; }
};

/// "cpu", "cuda" (the first GPU), "cuda:N", or "auto": the first GPU if this program was built for GPUs and the machine
/// has one, else the CPU. Throws InputError for another name, and for a GPU that the build or the machine has not.
DeviceChoice device_named(const std::string& name);

/// Whether this program was built for GPUs.
bool built_with_cuda();

}  // namespace memlane
