#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/layers.h"

namespace memlane {

/// The inputs of products of kernels/input_rows.h on the GPU: made at once, in `space`.

inline View<const float, 2, Cuda> normed(CudaExec& exec, View<const float, 2, Cuda> x,
                                         View<const float, 1, Cuda> weight, float epsilon, View<float, 2, Cuda> space) {
  rms_norm(exec, x, weight, epsilon, space);
  return space;
}

inline View<const float, 2, Cuda> finished(CudaExec& exec, CudaPartial partial, View<float, 2, Cuda> space) {
  finish(exec, partial, space.reshape<3>(partial.sum.extents()));
  return space;
}

}  // namespace memlane
