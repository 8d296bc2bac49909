#pragma once

#include <cstddef>
#include <variant>

#include "kernels/array.h"
#include "kernels/attention.h"
#include "kernels/exec.h"

namespace memlane {

/// The input of products, [m, k]: an array, or rows that are made where a product takes them. One that has a layout of
/// its own for them makes them one by one and stores no more than that; others ask for all().
class InputRows {
 public:
  /// Rows that are there. Not explicit: every array is an input.
  InputRows(View<const float, 2> rows) : InputRows(rows, Stored{}) {}
  InputRows(View<float, 2> rows) : InputRows(View<const float, 2>(rows)) {}
  InputRows(const float* data, View<const float, 2>::Extents extents) : InputRows({data, extents}, Stored{}) {}

  std::size_t extent(int axis) const { return rows_.extent(axis); }
  bool stored() const { return std::holds_alternative<Stored>(source_); }
  /// The first element where they are stored, or would be.
  const float* data() const { return rows_.data(); }

  /// Row `index`: where it is stored, or made in space. space: [k]
  const float* row(const MicroKernels& micro, std::size_t index, float* space) const;
  /// All rows, made now if they are not stored.
  View<const float, 2> all(CpuExec& exec) const;

  friend InputRows normed(CpuExec& exec, View<const float, 2> x, View<const float, 1> weight, float epsilon,
                          View<float, 2> space);
  friend InputRows finished(CpuExec& exec, AttentionPartial partial, View<float, 2> space);

 private:
  struct Stored {};
  struct Normed {
    View<const float, 2> x;
    View<const float, 1> weight;
    float epsilon;
    View<float, 2> space;
  };
  struct Finished {
    AttentionPartial partial;
    View<float, 2> space;
  };
  using Source = std::variant<Stored, Normed, Finished>;

  InputRows(View<const float, 2> rows, Source source) : rows_(rows), source_(source) {}

  View<const float, 2> rows_;
  Source source_;
};

/// What rms_norm (kernels/layers.h) gives, for products that are made before x changes. x: [tokens, hidden]; weight:
/// [hidden]; space: as x, whose contents are unspecified from now on, for products that need all rows at once.
InputRows normed(CpuExec& exec, View<const float, 2> x, View<const float, 1> weight, float epsilon,
                 View<float, 2> space);

/// What finish (kernels/attention.h) gives, likewise. space: [tokens, heads * head_dim].
InputRows finished(CpuExec& exec, AttentionPartial partial, View<float, 2> space);

}  // namespace memlane
