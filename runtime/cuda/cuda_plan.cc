#include "runtime/cuda/cuda_plan.h"

#include <algorithm>

#include "kernels/cuda/sampling.h"
#include "runtime/cuda/cuda_backend.h"
#include "runtime/decoder.h"
#include "runtime/local_attention.h"
#include "runtime/local_settings.h"
#include "runtime/resources.h"

namespace memlane {

namespace {

/// What the driver, cuBLASLt, kernels, graphs and the tables of blocks take, and what arrays of the window are rounded
/// up by.
constexpr std::size_t kReserve = std::size_t{512} << 20;

/// Entries of the largest window that a session sees or makes.
std::size_t largest_window(const MemorySettings& settings, const Memory& memory) {
  std::size_t largest = settings.memory_window;
  for (const DocumentMemory* document : memory.documents()) {
    for (const Segment& segment : document->segments()) largest = std::max(largest, segment.count());
  }
  return largest;
}

/// Of weights that are made bfloat16 for a pass over many tokens, at most.
std::size_t dequantised_bytes(const ModelConfig& config, WeightFormat format) {
  if (!is_quantised(format)) return 0;
  const std::size_t hidden = config.hidden_size, q_size = config.num_heads * config.head_dim;
  const auto bytes = [](std::size_t n, std::size_t k) { return dequantised_rows(n, k) * k * sizeof(BFloat16); };
  return std::max({bytes(q_size, hidden), bytes(hidden, q_size), bytes(config.intermediate_size, hidden),
                   bytes(hidden, config.intermediate_size), bytes(config.vocab_size, hidden)});
}

/// Of passes over `tokens` tokens: the decoder's arrays, logits of all of them and of a step, what the next token is
/// chosen with, what memory is attended to with, and the segment that a window becomes.
std::size_t work_bytes(const CudaExec& exec, const ModelConfig& config, const MemorySettings& settings,
                       Precision precision, const Memory& memory, std::size_t tokens) {
  const EntryShape& shape = memory.shape();
  const std::size_t segment = shape.layers.empty() ? 0 : shape.segment_bytes(settings.memory_window);
  const std::size_t moved = keeps_unrotated_keys(config, settings)  // by CudaLocalCache::keep(), a layer at a time
                                ? local_capacity(settings, LayerKind::plain) * config.num_kv_heads * config.head_dim
                                : 0;
  return Decoder<CudaExec>::workspace_bytes(config, tokens) +
         (tokens + 1) * config.vocab_size * sizeof(float) +  // and those of steps, apart
         choose_token_bytes(config.vocab_size) + config.vocab_size / 8 +
         CudaMemory::workspace_bytes(exec, shape, memory.lookup(), config.num_heads, tokens) +
         attend_scratch_bytes(exec, tokens, config.num_heads, config.head_dim) + segment + moved * sizeof(float) +
         dequantised_bytes(config, precision.weights);
}

}  // namespace

CudaPlan divided(CudaPlan needs) {
  const std::size_t left = needs.available - std::min(needs.available, needs.fixed());
  if (left < needs.staging) needs.staging = 0;
  needs.resident = left - needs.staging;
  return needs;
}

CudaPlan plan_session(const CudaExec& exec, const ModelConfig& config, const MemorySettings& settings,
                      Precision precision, const Memory& memory, const CudaLimits& limits) {
  CudaMemory::require_supported(memory.shape(), memory.lookup());
  const std::size_t tokens = longest_pass(settings), free = exec.free_bytes();
  CudaPlan needs;
  needs.reserve = kReserve;
  needs.available = limits.bytes < free - std::min(free, kReserve) ? limits.bytes + kReserve : free;
  needs.window = LocalAttention<CudaExec>::bytes(config, settings, precision.compute, tokens);
  needs.workspace = work_bytes(exec, config, settings, precision, memory, tokens);
  needs.staging = CudaMemory::staging_bytes(memory.shape(), memory.lookup(), config.num_heads,
                                            largest_window(settings, memory), limits.piece);
  const CudaPlan plan = divided(needs);
  if (!plan.fits()) {
    input_error(
        "--device cuda:{}: expected {} free on {} for a window ({}), the work on it ({}) and the driver ({}), found "
        "{} of {}; use --device cpu or a smaller --window",
        exec.device(), bytes_text(plan.fixed()), exec.name(), bytes_text(plan.window), bytes_text(plan.workspace),
        bytes_text(plan.reserve), bytes_text(plan.available), bytes_text(exec.total_bytes()));
  }
  return plan;
}

std::string plan_text(const CudaExec& exec, const CudaPlan& plan) {
  const std::string beyond =
      plan.streams() ? fmt::format("more of them are streamed from the host through {}", bytes_text(plan.staging))
                     : "more of them are refused: there is no room to stream them through";
  return fmt::format(
      "cuda:{} ({}): beside the weights {} for the window, {} for the work on it, {} for the driver, {} for entries of "
      "memory; {}\n",
      exec.device(), exec.name(), bytes_text(plan.window), bytes_text(plan.workspace), bytes_text(plan.reserve),
      bytes_text(plan.resident), beyond);
}

void require_device_memory(const CudaExec& exec, std::size_t bytes, std::string_view what) {
  const std::size_t free = exec.free_bytes();
  if (bytes + kReserve <= free) return;
  input_error("--device cuda:{}: expected {} free on {} for {} and {} for the driver, found {} of {}; use --device cpu",
              exec.device(), bytes_text(bytes), exec.name(), what, bytes_text(kReserve), bytes_text(free),
              bytes_text(exec.total_bytes()));
}

}  // namespace memlane
