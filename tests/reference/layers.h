#pragma once

#include "tests/reference/numbers.h"

namespace memlane::reference {

/// W x. w: [n][k].
inline Row matmul(const Matrix& w, const Row& x) {
  Row result;
  for (const Row& row : w) result.push_back(dot(row, x));
  return result;
}

inline Row rms_norm(const Row& x, const Row& weight, double epsilon) {
  const double mean_square = dot(x, x) / static_cast<double>(x.size());
  Row result(x);
  for (std::size_t i = 0; i < x.size(); ++i) result[i] = x[i] / std::sqrt(mean_square + epsilon) * weight[i];
  return result;
}

/// silu(x) = x / (1 + e^-x), without overflow.
inline double silu(double x) {
  return x >= 0 ? x / (1 + std::exp(-x)) : x * std::exp(x) / (1 + std::exp(x));
}

inline Row swiglu(const Row& gate, const Row& up) {
  Row result(gate);
  for (std::size_t i = 0; i < gate.size(); ++i) result[i] = silu(gate[i]) * up[i];
  return result;
}

/// Rotates one head to `position`. Angles are rounded to float as PyTorch implementations of Llama do: at position 2000
/// an exact angle would differ by more than the tolerances here. frequencies: radians per token, one for each pair;
/// factor: that cosines and sines are multiplied by.
inline Row rope(const Row& x, std::size_t position, const Row& frequencies, double factor) {
  const std::size_t half = x.size() / 2;
  Row result(x);
  for (std::size_t i = 0; i < half; ++i) {
    const double inv_freq = rounded(frequencies[i], DType::f32);
    const double angle = rounded(static_cast<double>(position) * inv_freq, DType::f32);
    result[i] = factor * (x[i] * std::cos(angle) - x[i + half] * std::sin(angle));
    result[i + half] = factor * (x[i + half] * std::cos(angle) + x[i] * std::sin(angle));
  }
  return result;
}

inline Row rope(const Row& x, std::size_t position, double theta) {
  Row frequencies;
  for (std::size_t i = 0; i < x.size() / 2; ++i) {
    frequencies.push_back(1 / std::pow(theta, static_cast<double>(2 * i) / static_cast<double>(x.size())));
  }
  return rope(x, position, frequencies, 1);
}

}  // namespace memlane::reference
