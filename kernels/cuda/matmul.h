#pragma once

#include <algorithm>
#include <cstddef>
#include <initializer_list>

#include "kernels/cpu/quantised_layout.h"
#include "kernels/cuda/exec.h"
#include "kernels/cuda/layers.h"
#include "kernels/scalar.h"

namespace memlane {

/// A weight matrix W [n, k] on the device: bfloat16, row by row, which is how cuBLASLt reads it fastest (its "TN"
/// product), or int8 or int4 in the panels of the CPU (kernels/cpu/quantised_layout.h).
class CudaMatrix {
 public:
  CudaMatrix() = default;

  /// Copies W, rounding its elements to bfloat16.
  /// rows: [n, k] row-major elements of `source`, at any alignment, on the host.
  CudaMatrix(CudaExec& exec, const std::byte* rows, DType source, std::size_t n, std::size_t k);

  /// Copies W as PackedMatrix packs it. format: int8 or int4; panels: on the host, all of them.
  CudaMatrix(CudaExec& exec, const std::byte* panels, WeightFormat format, std::size_t n, std::size_t k)
      : n_(n),
        k_(k),
        format_(format),
        panels_(uploaded(exec, panels, (n + kPanelRows - 1) / kPanelRows * quantised_panel_bytes(format, k))) {
    exec.synchronize();  // the host's panels may go away
  }

  std::size_t n() const { return n_; }
  std::size_t k() const { return k_; }
  WeightFormat format() const { return format_; }
  std::size_t bytes() const { return elements_.bytes() + panels_.bytes(); }
  /// Of a bfloat16 matrix.
  View<const BFloat16, 2, Cuda> elements() const { return elements_.view<2>({n_, k_}); }
  /// Of a quantised one.
  const std::byte* panels() const { return panels_.data(); }

 private:
  std::size_t n_ = 0;
  std::size_t k_ = 0;
  WeightFormat format_ = WeightFormat::bf16;
  CudaBuffer<BFloat16> elements_;
  CudaBuffer<std::byte> panels_;
};

/// Rows of a that are multiplied as quantised weights are read; more have them made bfloat16 first. Panels are read
/// once for every four rows: up to here that is less than to read them, write bfloat16, and read that.
inline constexpr std::size_t kQuantisedFewRows = 16;

/// Rows of a quantised W [n, k] that there is scratch space for when they are made bfloat16: whole panels, perhaps more
/// than n.
constexpr std::size_t dequantised_rows(std::size_t n, std::size_t k) {
  constexpr std::size_t kBytes = std::size_t{64} << 20;
  const std::size_t panels = std::max<std::size_t>(1, kBytes / (kPanelRows * k * sizeof(BFloat16)));
  return std::min((n + kPanelRows - 1) / kPanelRows, panels) * kPanelRows;
}

/// out = a W^T, accumulated in float32; a is rounded to bfloat16 first. a: [m, k], out: [m, n]. Large products go
/// through cuBLASLt, those of a few rows through a kernel that reads W once. Quantised weights count as what they stand
/// for, rounded to bfloat16 where there are more than kQuantisedFewRows rows; unlike on the CPU, a is not quantised.
void matmul(CudaExec& exec, View<const float, 2, Cuda> a, const CudaMatrix& w, View<float, 2, Cuda> out);

/// x += a W^T. x: [m, n], as is space, whose contents are unspecified afterwards; a, x and space are three arrays.
inline void matmul_add(CudaExec& exec, View<const float, 2, Cuda> a, const CudaMatrix& w, View<float, 2, Cuda> x,
                       View<float, 2, Cuda> space) {
  matmul(exec, a, w, space);
  add(exec, x, space);
}

/// One of several products of the same rows. out: [m, w.n()].
struct CudaMatrixProduct {
  const CudaMatrix& w;
  View<float, 2, Cuda> out;
};

inline void matmul(CudaExec& exec, View<const float, 2, Cuda> a, std::initializer_list<CudaMatrixProduct> products) {
  for (const auto& [w, out] : products) matmul(exec, a, w, out);
}

}  // namespace memlane
