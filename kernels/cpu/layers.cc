#include "kernels/layers.h"

#include <algorithm>
#include <cstring>

namespace memlane {

namespace {

constexpr std::size_t kRowsPerItem = 16;

/// Calls body(row) for every row, a few rows an item.
template <class Body>
void for_rows(CpuExec& exec, std::size_t rows, const Body& body) {
  exec.pool().run((rows + kRowsPerItem - 1) / kRowsPerItem, [&](std::size_t item, std::size_t) {
    for (std::size_t row = item * kRowsPerItem; row < std::min(rows, (item + 1) * kRowsPerItem); ++row) body(row);
  });
}

/// Rotates the pairs (x[i], x[i + half]), i < half, of a head. out: [2 * half], may be x. Written for vectors of every
/// 64-bit machine, as a compiler cannot know that x and out are the same or apart.
void rotate_row(const float* x, const float* cosines, const float* sines, std::size_t half, float* out) {
  using Floats = float __attribute__((vector_size(16)));
  constexpr std::size_t kLanes = sizeof(Floats) / sizeof(float);
  const auto load = [](const float* from) {
    Floats floats;
    std::memcpy(&floats, from, sizeof floats);
    return floats;
  };
  std::size_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const Floats a = load(x + i), b = load(x + half + i), cosine = load(cosines + i), sine = load(sines + i);
    const Floats first = a * cosine - b * sine, second = b * cosine + a * sine;
    std::memcpy(out + i, &first, sizeof first);
    std::memcpy(out + half + i, &second, sizeof second);
  }
  for (; i < half; ++i) {
    const float a = x[i], b = x[half + i];
    out[i] = a * cosines[i] - b * sines[i];
    out[half + i] = b * cosines[i] + a * sines[i];
  }
}

}  // namespace

void embed(CpuExec& exec, const std::byte* table, DType dtype, std::span<const std::int32_t> ids, View<float, 2> out) {
  const std::size_t hidden = out.extent(1);
  MEMLANE_EXPECTS(out.extent(0) == ids.size());
  for_rows(exec, ids.size(), [&](std::size_t row) {
    const std::byte* source = table + static_cast<std::size_t>(ids[row]) * hidden * size_of(dtype);
    with_type(dtype, [&](auto type) {
      for (std::size_t i = 0; i < hidden; ++i) {
        std::memcpy(&type, source + i * sizeof type, sizeof type);
        out.data()[row * hidden + i] = to_float(type);
      }
    });
  });
}

void rms_norm(CpuExec& exec, View<const float, 2> x, View<const float, 1> weight, float epsilon, View<float, 2> out) {
  const std::size_t hidden = x.extent(1);
  MEMLANE_EXPECTS(x.extents() == out.extents() && weight.extent(0) == hidden);
  for_rows(exec, x.extent(0), [&](std::size_t row) {
    exec.micro().rms_norm_row(x.data() + row * hidden, weight.data(), hidden, epsilon, out.data() + row * hidden);
  });
}

void swiglu(CpuExec& exec, View<const float, 2> gate, View<const float, 2> up, View<float, 2> out) {
  const std::size_t width = gate.extent(1);
  MEMLANE_EXPECTS(gate.extents() == up.extents() && gate.extents() == out.extents());
  for_rows(exec, gate.extent(0), [&](std::size_t row) {
    exec.micro().swiglu_row(gate.data() + row * width, up.data() + row * width, width, out.data() + row * width);
  });
}

void add(CpuExec& exec, View<float, 2> x, View<const float, 2> y) {
  MEMLANE_EXPECTS(x.extents() == y.extents());
  const std::size_t width = x.extent(1);
  for_rows(exec, x.extent(0), [&](std::size_t row) {
    float* to = x.data() + row * width;
    const float* from = y.data() + row * width;
    for (std::size_t i = 0; i < width; ++i) to[i] += from[i];
  });
}

void round_to_bf16(CpuExec& exec, std::span<float> x) {
  constexpr std::size_t kPiece = 16384;
  exec.pool().run((x.size() + kPiece - 1) / kPiece, [&](std::size_t item, std::size_t) {
    exec.micro().round_bf16(x.data() + item * kPiece, std::min(kPiece, x.size() - item * kPiece));
  });
}

void rope(CpuExec& exec, View<const float, 3> x, View<const float, 2> cosines, View<const float, 2> sines,
          std::size_t first, View<float, 3> out, std::size_t last) {
  const std::size_t tokens = x.extent(0);
  const std::size_t heads = x.extent(1);
  const std::size_t head_dim = x.extent(2);
  const std::size_t half = head_dim / 2;
  MEMLANE_EXPECTS(x.extents() == out.extents() && cosines.extents() == sines.extents());
  MEMLANE_EXPECTS(cosines.extent(1) == half && (last < cosines.extent(0) || first + tokens <= cosines.extent(0)));
  for_rows(exec, tokens, [&](std::size_t token) {
    const std::size_t position = std::min(first + token, last);
    const float* cos = cosines.data() + position * half;
    const float* sin = sines.data() + position * half;
    for (std::size_t head = 0; head < heads; ++head) {
      const std::size_t at = (token * heads + head) * head_dim;
      rotate_row(x.data() + at, cos, sin, half, out.data() + at);
    }
  });
}

}  // namespace memlane
