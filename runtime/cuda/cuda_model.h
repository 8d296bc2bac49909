#pragma once

#include <memory>

#include "kernels/cuda/exec.h"
#include "runtime/cuda/cuda_weights.h"
#include "runtime/model.h"

namespace memlane {

/// A model's weights on a GPU, and what runs them there.
struct CudaModel {
  explicit CudaModel(int device) : exec(device) {}
  CudaExec exec;
  CudaWeights weights;
};

/// Throws InputError if the model does not fit on the device or cannot run on it in this precision.
std::shared_ptr<CudaModel> load_cuda_model(int device, const Checkpoint& checkpoint, const ModelConfig& config,
                                           Precision precision);

/// What a session takes of a GPU beside the weights, in bytes.
struct CudaPlan {
  std::size_t window = 0;     ///< the local context
  std::size_t workspace = 0;  ///< of a pass
  std::size_t memory = 0;     ///< entries of the documents that are seen
  std::size_t total() const { return window + workspace + memory; }
};

/// Of a session that sees `entries` entries.
CudaPlan cuda_plan(const ModelConfig& config, const MemorySettings& settings, DType compute, std::size_t entries);

/// Throws InputError, with the plan, if it does not fit on the device.
void require_device_memory(const CudaExec& exec, const CudaPlan& plan);

}  // namespace memlane
