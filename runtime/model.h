#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "kernels/exec.h"
#include "runtime/checkpoint.h"
#include "runtime/device.h"
#include "runtime/model_config.h"
#include "runtime/weights.h"

namespace memlane {

struct CudaModel;  // runtime/cuda/cuda_model.h; only where the program is built for GPUs

/// A model folder, loaded.
struct Model {
  std::filesystem::path folder;
  ModelConfig config;
  Checkpoint checkpoint;
  Precision precision = {};
  Weights weights = {};          ///< empty if the model is on a GPU
  std::string fingerprint = {};  ///< of every tensor and of what the config says about the maths; 32 hexadecimal digits
  std::shared_ptr<CudaModel> cuda = {};  ///< the model on a GPU; null if it is on the CPU
};

/// Loads a Hugging Face model folder. precision: by default what the checkpoint is in (F32: f32; BF16, F16: bf16).
/// device: where the weights go and sessions run; a GPU computes in bf16 alone. Throws InputError, also when the
/// weights would not fit in free memory.
Model load_model(CpuExec& exec, const std::filesystem::path& folder, std::optional<Precision> precision = std::nullopt,
                 DeviceChoice device = {});

/// What load_model would compute in by default.
DType default_compute(const Checkpoint& checkpoint);

/// A fingerprint of what the model computes: the same for every copy of a model, another for any changed bit of a
/// weight.
std::string model_fingerprint(CpuExec& exec, const ModelConfig& config, const Checkpoint& checkpoint);

}  // namespace memlane
