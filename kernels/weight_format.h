#pragma once

#include <cstdint>
#include <string_view>

#include "kernels/scalar.h"

namespace memlane {

/// How the elements of a weight matrix are held. What the quantised ones mean: kernels/cpu/quantised_layout.h.
enum class WeightFormat : std::uint8_t { f32, bf16, int8, int4 };

/// The names of command line flags and memory files: "float32", "bfloat16", "int8", "int4".
constexpr std::string_view name_of(WeightFormat format) {
  switch (format) {
    case WeightFormat::f32:
      return "float32";
    case WeightFormat::bf16:
      return "bfloat16";
    case WeightFormat::int8:
      return "int8";
    case WeightFormat::int4:
      return "int4";
  }
  return "unknown";
}

constexpr bool is_quantised(WeightFormat format) {
  return format == WeightFormat::int8 || format == WeightFormat::int4;
}

/// Elements that are not quantised, in `compute` (f32 or bf16).
constexpr WeightFormat format_of(DType compute) {
  return compute == DType::f32 ? WeightFormat::f32 : WeightFormat::bf16;
}

/// What a model computes in: the type of keys, values and queries, and the format of weight matrices, which also says
/// what their inputs are rounded to.
struct Precision {
  DType compute = DType::f32;  ///< f32 or bf16
  WeightFormat weights = WeightFormat::f32;

  Precision() = default;
  /// Weights as computed in.
  Precision(DType type) : compute(type), weights(format_of(type)) {}  // NOLINT: a type is a precision
  Precision(DType type, WeightFormat format) : compute(type), weights(format) {}
};

}  // namespace memlane
