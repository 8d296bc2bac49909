#pragma once

#include <cstddef>

#include "kernels/array.h"
#include "kernels/exec.h"
#include "kernels/scalar.h"

namespace memlane {

/// A weight matrix W [n, k] in the one layout that serves prefill and decode: panels of 32 output rows,
/// `[ceil(n/32)][ceil(k/u)][32][u]` with u = 4 / sizeof(element), zero beyond the end. A product streams through it
/// once, in order.
class PackedMatrix {
 public:
  PackedMatrix() = default;

  /// Packs W, rounding its elements to `compute` (f32 or bf16).
  /// rows: [n, k] row-major elements of `source`, at any alignment.
  PackedMatrix(CpuExec& exec, const std::byte* rows, DType source, std::size_t n, std::size_t k, DType compute);

  std::size_t n() const { return n_; }
  std::size_t k() const { return k_; }
  DType dtype() const { return dtype_; }
  /// 32-bit units along k.
  std::size_t k_units() const { return dtype_ == DType::f32 ? k_ : (k_ + 1) / 2; }
  std::size_t bytes() const { return panels_.bytes(); }
  const std::uint32_t* panel(std::size_t index) const { return panels_.data() + index * k_units() * 32; }

  /// The bytes that packing an [n, k] matrix takes.
  static std::size_t packed_bytes(std::size_t n, std::size_t k, DType compute);

 private:
  std::size_t n_ = 0;
  std::size_t k_ = 0;
  DType dtype_ = DType::f32;
  Buffer<std::uint32_t> panels_;
};

/// out = a W^T, accumulated in float32 in order of k. With a bf16 matrix, a is rounded to bf16 first.
/// a: [m, k], out: [m, n]. Each row of out depends on its row of a alone, to the last bit.
void matmul(CpuExec& exec, View<const float, 2> a, const PackedMatrix& w, View<float, 2> out);

}  // namespace memlane
