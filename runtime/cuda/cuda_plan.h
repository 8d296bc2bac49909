#pragma once

#include <cstddef>
#include <limits>
#include <string>
#include <string_view>

#include "kernels/cuda/exec.h"
#include "kernels/weight_format.h"
#include "memory/cuda/cuda_memory.h"
#include "runtime/model_config.h"

namespace memlane {

/// What a session may take of a GPU.
struct CudaLimits {
  std::size_t bytes = std::numeric_limits<std::size_t>::max();  ///< of what is free beside the weights
  std::size_t piece = CudaBudget::kPiece;                       ///< of one layer's entries, attended to at once
};

/// How the memory of a GPU is divided for a session. All in bytes; weights are there already.
struct CudaPlan {
  std::size_t available = 0;  ///< free, or what the session may take of it
  std::size_t reserve = 0;    ///< of it, for the driver, cuBLASLt, kernels, tables and what allocation rounds up
  std::size_t window = 0;     ///< the local context
  std::size_t workspace = 0;  ///< of a pass
  std::size_t staging = 0;    ///< that entries are streamed through; 0 if there is no room to do so
  std::size_t resident = 0;   ///< of entries of memory that stay on the device, all that is left

  bool streams() const { return staging > 0; }
  /// Whether window and workspace fit.
  bool fits() const { return fixed() <= available; }
  /// Beside entries and staging.
  std::size_t fixed() const { return reserve + window + workspace; }
};

/// Divides needs.available: what is left beside what is fixed is for entries. Only if needs.staging fits there can
/// entries be streamed, and then it is set aside from the start: nobody knows how long a text will be.
CudaPlan divided(CudaPlan needs);

/// The plan of a session that sees `memory` and adds to it. Throws InputError, with the plan, if the window and the
/// work on it do not fit, or the memory is of a kind that a GPU does not have.
CudaPlan plan_session(const CudaExec& exec, const ModelConfig& config, const MemorySettings& settings,
                      Precision precision, const Memory& memory, const CudaLimits& limits);

/// A line for people: "cuda:0 (NVIDIA H200): 1.2 GiB for a window ...".
std::string plan_text(const CudaExec& exec, const CudaPlan& plan);

/// Throws InputError unless so many bytes are free beside what the driver and the libraries take. what: "the weights".
void require_device_memory(const CudaExec& exec, std::size_t bytes, std::string_view what);

}  // namespace memlane
