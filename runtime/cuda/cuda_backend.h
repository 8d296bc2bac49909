#pragma once

#include "kernels/cuda/feed_forward.h"
#include "kernels/cuda/input_rows.h"
#include "memory/cuda/cuda_memory.h"
#include "runtime/backend.h"
#include "runtime/cuda/cuda_chooser.h"
#include "runtime/cuda/cuda_local_cache.h"
#include "runtime/cuda/cuda_model.h"
#include "runtime/cuda/cuda_steps.h"

namespace memlane {

/// RopeTable on the GPU.
class CudaRopeTable {
 public:
  CudaRopeTable() = default;
  CudaRopeTable(CudaExec& exec, const RopeFrequencies& frequencies, std::size_t first, std::size_t end);

  std::size_t positions() const { return positions_; }
  View<const float, 2, Cuda> cosines() const { return cosines_.view<2>({positions_, half_}); }
  View<const float, 2, Cuda> sines() const { return sines_.view<2>({positions_, half_}); }

 private:
  std::size_t half_ = 0;
  std::size_t positions_ = 0;
  CudaBuffer<float> cosines_;
  CudaBuffer<float> sines_;
};

template <>
struct Backend<CudaExec> {
  using Device = Cuda;
  template <class T>
  using Array = CudaBuffer<T>;
  using Partial = CudaPartial;
  using Partials = CudaPartialBuffer;
  using Blocks = cuda::Entries;
  using Cache = CudaLocalCache;
  using Rotations = CudaRopeTable;
  using Input = View<const float, 2, Cuda>;
  using Position = cuda::Position;
  using LayerWeights = CudaLayerWeights;
  using Weights = CudaWeights;
  using Steps = CudaSteps;
  using Chooser = CudaChooser;
  using SeenMemory = CudaMemory;
  using MemorySight = CudaMemory;

  static Cache make_cache(CudaExec& exec, const ModelConfig& config, const MemorySettings& settings, DType compute) {
    MEMLANE_EXPECTS(compute == DType::bf16);
    return {exec, config, settings};
  }
  static Rotations make_rotations(CudaExec& exec, const RopeFrequencies& frequencies, std::size_t first,
                                  std::size_t end) {
    return {exec, frequencies, first, end};
  }
  static Steps make_steps(CudaExec& exec, const Model& model) {
    return {exec, model.cuda->steps, model.config.vocab_size, model.cuda->graphs};
  }
  static Position position(const Cache& cache, LayerKind kind) { return cache.position(kind); }
  static const Weights& weights(const Model& model) { return model.cuda->weights; }
};

}  // namespace memlane
