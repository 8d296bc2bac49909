#pragma once

// Slow, obvious, double-precision truth that fast code is compared with. Nothing here shares code with what it checks.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "kernels/scalar.h"

namespace memlane::reference {

using Row = std::vector<double>;
using Matrix = std::vector<Row>;

/// The greater of two errors, where a NaN is the greatest of all.
inline double worse(double worst, double error) {
  return std::isnan(error) || error > worst ? error : worst;
}

/// x rounded to the nearest value of a binary format with `digits` significant bits and normal exponents from
/// `min_exponent` to `max_exponent`, ties to even; larger values become infinite.
inline double rounded_to(double x, int digits, int min_exponent, int max_exponent) {
  if (x == 0 || !std::isfinite(x)) return x;
  const int exponent = std::max(std::ilogb(x), min_exponent);
  const double step = std::ldexp(1.0, exponent - digits + 1);  // between neighbours
  const double result = std::nearbyint(x / step) * step;
  const bool overflow = result != 0 && std::ilogb(result) > max_exponent;
  return overflow ? std::copysign(std::numeric_limits<double>::infinity(), x) : result;
}

inline double rounded(double x, DType dtype) {
  switch (dtype) {
    case DType::f16:
      return rounded_to(x, 11, -14, 15);
    case DType::bf16:
      return rounded_to(x, 8, -126, 127);
    case DType::f32:
      break;
  }
  return rounded_to(x, 24, -126, 127);
}

inline Row rounded(Row row, DType dtype) {
  for (double& x : row) x = rounded(x, dtype);
  return row;
}

inline double dot(const Row& a, const Row& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// Sum of |a_i b_i|: what the rounding error of a float dot product is proportional to.
inline double dot_of_magnitudes(const Row& a, const Row& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::abs(a[i] * b[i]);
  return sum;
}

inline Row sum(const Row& a, const Row& b) {
  Row result(a);
  for (std::size_t i = 0; i < a.size(); ++i) result[i] += b[i];
  return result;
}

}  // namespace memlane::reference
