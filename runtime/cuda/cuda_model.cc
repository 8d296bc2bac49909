#include "runtime/cuda/cuda_model.h"

#include "runtime/cuda/cuda_backend.h"

namespace memlane {

std::shared_ptr<CudaModel> load_cuda_model(int device, CpuExec& cpu, const Checkpoint& checkpoint,
                                           const ModelConfig& config, Precision precision) {
  if (precision.compute != DType::bf16) {
    input_error("--compute {}: expected bfloat16, the only type that a GPU computes in; use it, or --device cpu",
                name_of(precision.compute));
  }
  if (precision.weights == WeightFormat::f32) {
    input_error("--weights {}: expected bfloat16, int8 or int4 on a GPU; use one of them, or --device cpu",
                name_of(precision.weights));
  }
  if (config.head_dim > kCudaMostHeadDim) {
    input_error("head_dim {}: expected at most {} on a GPU; use --device cpu", config.head_dim, kCudaMostHeadDim);
  }
  auto model = std::make_shared<CudaModel>(device);
  require_device_memory(model->exec, cuda_weight_bytes(config, precision.weights), "the weights");
  model->weights = load_cuda_weights(model->exec, cpu, checkpoint, config, precision.weights);
  return model;
}

CudaRopeTable::CudaRopeTable(CudaExec& exec, const RopeFrequencies& frequencies, std::size_t first, std::size_t end)
    : half_(frequencies.inv_freq.size()), positions_(end - first) {
  const RopeTable table(frequencies, first, end);
  cosines_ = uploaded(exec, table.cosines().data(), table.cosines().size());
  sines_ = uploaded(exec, table.sines().data(), table.sines().size());
  exec.synchronize();  // the table on the host goes away
}

}  // namespace memlane
