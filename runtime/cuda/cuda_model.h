#pragma once

#include <memory>

#include "kernels/cuda/exec.h"
#include "kernels/cuda/graph.h"
#include "runtime/cuda/cuda_plan.h"
#include "runtime/cuda/cuda_weights.h"
#include "runtime/model.h"

namespace memlane {

/// A model's weights on a GPU, and what runs them there.
struct CudaModel {
  explicit CudaModel(int device) : exec(device) {}
  CudaExec exec;
  CudaWeights weights;
  CudaLimits limits;   ///< of sessions that start from here on
  bool graphs = true;  ///< whether those launch steps of decoding as graphs
  StepCounts steps;    ///< of all sessions
};

/// Throws InputError if the model does not fit on the device or cannot run on it in this precision.
/// cpu: quantises the weights, if they are to be.
std::shared_ptr<CudaModel> load_cuda_model(int device, CpuExec& cpu, const Checkpoint& checkpoint,
                                           const ModelConfig& config, Precision precision);

}  // namespace memlane
