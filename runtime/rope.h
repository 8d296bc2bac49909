#pragma once

#include <cstddef>

#include "kernels/array.h"
#include "kernels/thread_pool.h"
#include "runtime/rope_scaling.h"

namespace memlane {

/// Cosines and sines of rotary position embedding for positions first ... end - 1, times the attention factor.
///
/// angle = position * inv_freq_i, frequency and angle rounded to float32 as PyTorch implementations of Llama do (Su et
/// al. 2021; LlamaRotaryEmbedding).
class RopeTable {
 public:
  RopeTable() = default;
  /// pool: to share the work among; null for none.
  RopeTable(const RopeFrequencies& frequencies, std::size_t first, std::size_t end, ThreadPool* pool = nullptr);

  std::size_t positions() const { return positions_; }
  View<const float, 2> cosines() const { return cosines_.view<2>({positions_, half_}); }  ///< [positions, head_dim / 2]
  View<const float, 2> sines() const { return sines_.view<2>({positions_, half_}); }      ///< [positions, head_dim / 2]

  static std::size_t bytes(std::size_t head_dim, std::size_t positions) { return positions * head_dim * sizeof(float); }

 private:
  std::size_t half_ = 0;
  std::size_t positions_ = 0;
  Buffer<float> cosines_;
  Buffer<float> sines_;
};

}  // namespace memlane
