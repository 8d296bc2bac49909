#pragma once

// Only for .cu sources: what launching the kernels over entries takes.

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/internals.h"

namespace memlane::cuda {

/// Calls function(std::integral_constant<int, steps>) with the fewest steps of 16 elements that hold head_dim.
template <class Function>
void with_steps(std::size_t head_dim, Function&& function) {
  if (head_dim <= 32) return function(std::integral_constant<int, 2>{});
  if (head_dim <= 64) return function(std::integral_constant<int, 4>{});
  if (head_dim <= 112) return function(std::integral_constant<int, 7>{});
  MEMLANE_EXPECTS(head_dim <= 128);
  return function(std::integral_constant<int, 8>{});
}

/// Lets a kernel have so much shared memory; above 48 KB a kernel has to ask.
template <class Kernel>
void allow_shared(CudaExec& exec, Kernel* kernel, std::size_t bytes) {
  MEMLANE_EXPECTS(bytes <= exec.shared_bytes());
  MEMLANE_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(bytes)));
}

/// One warp each for many rows, four warps a block.
inline constexpr unsigned kRowWarps = 4;
inline unsigned row_blocks(std::size_t rows) {
  return static_cast<unsigned>((rows + kRowWarps - 1) / kRowWarps);
}

}  // namespace memlane::cuda
