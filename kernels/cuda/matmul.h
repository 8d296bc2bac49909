#pragma once

#include <cstddef>
#include <initializer_list>

#include "kernels/cuda/exec.h"
#include "kernels/scalar.h"

namespace memlane {

/// A weight matrix W [n, k] on the device: bfloat16, row by row, which is how cuBLASLt reads it fastest (its "TN"
/// product).
class CudaMatrix {
 public:
  CudaMatrix() = default;

  /// Copies W, rounding its elements to bfloat16.
  /// rows: [n, k] row-major elements of `source`, at any alignment, on the host.
  CudaMatrix(CudaExec& exec, const std::byte* rows, DType source, std::size_t n, std::size_t k);

  std::size_t n() const { return n_; }
  std::size_t k() const { return k_; }
  std::size_t bytes() const { return elements_.bytes(); }
  View<const BFloat16, 2, Cuda> elements() const { return elements_.view<2>({n_, k_}); }

 private:
  std::size_t n_ = 0;
  std::size_t k_ = 0;
  CudaBuffer<BFloat16> elements_;
};

/// out = a W^T, accumulated in float32; a is rounded to bfloat16 first. a: [m, k], out: [m, n]. Large products go
/// through cuBLASLt, those of a few rows through a kernel that reads W once.
void matmul(CudaExec& exec, View<const float, 2, Cuda> a, const CudaMatrix& w, View<float, 2, Cuda> out);

/// One of several products of the same rows. out: [m, w.n()].
struct CudaMatrixProduct {
  const CudaMatrix& w;
  View<float, 2, Cuda> out;
};

inline void matmul(CudaExec& exec, View<const float, 2, Cuda> a, std::initializer_list<CudaMatrixProduct> products) {
  for (const auto& [w, out] : products) matmul(exec, a, w, out);
}

}  // namespace memlane
