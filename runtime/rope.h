#pragma once

#include <cstddef>

#include "kernels/array.h"
#include "runtime/rope_scaling.h"

namespace memlane {

/// Cosines and sines of rotary position embedding for positions 0 ... positions - 1, times the attention factor.
///
/// angle = position * inv_freq_i, frequency and angle rounded to float32 as PyTorch implementations of Llama do (Su et
/// al. 2021; LlamaRotaryEmbedding).
class RopeTable {
 public:
  RopeTable(const RopeFrequencies& frequencies, std::size_t positions);

  View<const float, 2> cosines() const { return cosines_.view<2>({positions_, half_}); }  ///< [positions, head_dim / 2]
  View<const float, 2> sines() const { return sines_.view<2>({positions_, half_}); }      ///< [positions, head_dim / 2]

  static std::size_t bytes(std::size_t head_dim, std::size_t positions) { return positions * head_dim * sizeof(float); }

 private:
  std::size_t half_;
  std::size_t positions_;
  Buffer<float> cosines_;
  Buffer<float> sines_;
};

}  // namespace memlane
