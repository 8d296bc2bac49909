#pragma once

#include "kernels/cuda/layers.h"
#include "kernels/cuda/matmul.h"

namespace memlane {

/// The kernel of kernels/feed_forward.h on the GPU, under the same contract.
inline void feed_forward(CudaExec& exec, View<const float, 2, Cuda> a, const CudaMatrix& gate, const CudaMatrix& up,
                         const CudaMatrix& down, View<float, 2, Cuda> gates, View<float, 2, Cuda> ups,
                         View<float, 2, Cuda> space, View<float, 2, Cuda> x) {
  matmul(exec, a, {{gate, gates}, {up, ups}});
  swiglu(exec, gates, ups, gates);
  matmul_add(exec, gates, down, x, space);
}

}  // namespace memlane
