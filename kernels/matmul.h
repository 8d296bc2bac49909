#pragma once

#include <cstddef>
#include <initializer_list>
#include <span>

#include "kernels/array.h"
#include "kernels/exec.h"
#include "kernels/input_rows.h"
#include "kernels/scalar.h"
#include "kernels/weight_format.h"

namespace memlane {

/// A weight matrix W [n, k] in the one layout that serves prefill and decode: panels of 32 output rows,
/// `[ceil(n/32)][ceil(k/u)][32][u]` with u = 4 / sizeof(element), zero beyond the end. A product streams through it
/// once, in order. Quantised matrices lie in panels of 32 rows as well (kernels/cpu/quantised_layout.h): int8 with a
/// scale for each row and 256 elements along k; int4 with, besides, a multiplier for each 32.
class PackedMatrix {
 public:
  PackedMatrix() = default;

  /// Packs W, rounding its elements. Throws InputError if they are to be quantised and one is not finite.
  /// rows: [n, k] row-major elements of `source`, at any alignment.
  PackedMatrix(CpuExec& exec, const std::byte* rows, DType source, std::size_t n, std::size_t k, WeightFormat format);
  /// compute: f32 or bf16.
  PackedMatrix(CpuExec& exec, const std::byte* rows, DType source, std::size_t n, std::size_t k, DType compute)
      : PackedMatrix(exec, rows, source, n, k, format_of(compute)) {}

  std::size_t n() const { return n_; }
  std::size_t k() const { return k_; }
  WeightFormat format() const { return format_; }
  /// 32-bit units along k; not of quantised matrices.
  std::size_t k_units() const { return format_ == WeightFormat::f32 ? k_ : (k_ + 1) / 2; }
  std::size_t bytes() const { return panels_.bytes(); }
  const std::uint32_t* panel(std::size_t index) const { return panels_.data() + index * panel_units_; }

  /// Row `row` as products see it, for tests and error measures. out: [k]
  void read_row(std::size_t row, std::span<float> out) const;

  /// The bytes that packing an [n, k] matrix takes.
  static std::size_t packed_bytes(std::size_t n, std::size_t k, WeightFormat format);

 private:
  std::size_t n_ = 0;
  std::size_t k_ = 0;
  WeightFormat format_ = WeightFormat::f32;
  std::size_t panel_units_ = 0;  // 32-bit units of a panel
  Buffer<std::uint32_t> panels_;
};

/// out = a W^T, accumulated in float32 in order of k. With a bf16 matrix, a is rounded to bf16 first; with a quantised
/// one, to int8 with one scale for each row and 256 elements along k (largest magnitude / 127), and 256 products at a
/// time are summed exactly. A row with NaN or infinity gives NaN then. a: [m, k], out: [m, n]. Each row of out depends
/// on its row of a alone, to the last bit.
void matmul(CpuExec& exec, const InputRows& a, const PackedMatrix& w, View<float, 2> out);

/// x += a W^T: the bits of matmul and of add (kernels/layers.h). x: [m, n], as is space, whose contents are unspecified
/// afterwards; a, x and space are three arrays.
void matmul_add(CpuExec& exec, const InputRows& a, const PackedMatrix& w, View<float, 2> x, View<float, 2> space);

/// One of several products of the same rows. out: [m, w.n()].
struct MatrixProduct {
  const PackedMatrix& w;
  View<float, 2> out;
};

/// Several such products, to the same bits; what all of them need of a is made once.
void matmul(CpuExec& exec, const InputRows& a, std::initializer_list<MatrixProduct> products);

}  // namespace memlane
