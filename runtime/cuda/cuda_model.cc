#include "runtime/cuda/cuda_model.h"

#include "runtime/cuda/cuda_backend.h"
#include "runtime/decoder.h"
#include "runtime/local_attention.h"
#include "runtime/resources.h"

namespace memlane {

namespace {

/// What the driver, cuBLASLt and kernels keep for themselves.
constexpr std::size_t kReserve = std::size_t{512} << 20;

void require_free(const CudaExec& exec, std::size_t bytes, const std::string& what) {
  const std::size_t free = exec.free_bytes();
  if (bytes + kReserve <= free) return;
  input_error(
      "--device cuda:{}: expected {} free on {} for {} and {} for the driver, found {} of {}; use --device cpu, a "
      "smaller --window or less memory",
      exec.device(), bytes_text(bytes), exec.name(), what, bytes_text(kReserve), bytes_text(free),
      bytes_text(exec.total_bytes()));
}

}  // namespace

std::shared_ptr<CudaModel> load_cuda_model(int device, const Checkpoint& checkpoint, const ModelConfig& config,
                                           Precision precision) {
  if (precision.compute != DType::bf16) {
    input_error("--compute {}: expected bfloat16, the only type that a GPU computes in; use it, or --device cpu",
                name_of(precision.compute));
  }
  if (precision.weights != WeightFormat::bf16) {
    input_error("--weights {}: expected bfloat16, the only format of weights on a GPU; use it, or --device cpu",
                name_of(precision.weights));
  }
  if (config.head_dim > kCudaMostHeadDim) {
    input_error("head_dim {}: expected at most {} on a GPU; use --device cpu", config.head_dim, kCudaMostHeadDim);
  }
  auto model = std::make_shared<CudaModel>(device);
  require_free(model->exec, cuda_weight_bytes(config), "the weights");
  model->weights = load_cuda_weights(model->exec, checkpoint, config);
  return model;
}

CudaPlan cuda_plan(const ModelConfig& config, const MemorySettings& settings, DType compute, std::size_t entries) {
  const std::size_t tokens = longest_pass(settings);
  const EntryShape shape{settings.mem_layers, config.num_kv_heads, config.head_dim, settings.mem_dtype};
  return {LocalAttention<CudaExec>::bytes(config, settings, compute, tokens),
          Decoder<CudaExec>::workspace_bytes(config, tokens),
          CudaMemory::bytes(shape, entries, settings.memory_window)};
}

void require_device_memory(const CudaExec& exec, const CudaPlan& plan) {
  require_free(exec, plan.total(),
               fmt::format("a window ({}), the work on it ({}) and entries of memory ({})", bytes_text(plan.window),
                           bytes_text(plan.workspace), bytes_text(plan.memory)));
}

CudaRopeTable::CudaRopeTable(CudaExec& exec, const RopeFrequencies& frequencies, std::size_t first, std::size_t end)
    : half_(frequencies.inv_freq.size()), positions_(end - first) {
  const RopeTable table(frequencies, first, end);
  cosines_ = uploaded(exec, table.cosines().data(), table.cosines().size());
  sines_ = uploaded(exec, table.sines().data(), table.sines().size());
  exec.synchronize();  // the table on the host goes away
}

}  // namespace memlane
