#pragma once

// Products with int8 and int4 weights, in the panels that the CPU packs (kernels/cpu/quantised_layout.h): of 32 rows of
// W, side by side in units of 32 bits along k, so that what a warp reads lies together. The weights alone are
// quantised; inputs are rounded to bfloat16. Few rows of inputs are multiplied as the panels are read, once; for many,
// panels become rows of bfloat16 first. Runs on the GPU (matmul.cu) and emulated in tests.

#include "kernels/cpu/quantised_layout.h"
#include "kernels/cuda/tiles.h"
#include "kernels/cuda/warp.h"

namespace memlane::cuda {

/// Warps of a block of the kernel for few rows: each takes some groups of 256 elements along k.
inline constexpr int kQuantisedWarps = 8;

/// out = a W^T for few rows of a.
struct QuantisedTask {
  const float* a = nullptr;           // [rows, k]
  const std::byte* panels = nullptr;  // [ceil(n / 32)]
  std::uint32_t n = 0, k = 0;
  float* out = nullptr;  // [rows, n]
};

/// What is read from a panel at once.
struct alignas(16) FourWords {
  std::uint32_t word[4];
};

/// Bytes of shared memory for `rows` rows: those of a, and a sum of each warp.
constexpr std::size_t quantised_shared_bytes(std::size_t rows, std::size_t k) {
  return rows * (filled_k(k) * 2 + kQuantisedWarps * kPanelRows * sizeof(float));
}

/// Rows of a as pairs of bfloat16, all warps together. shared: [Rows][filled_k / 2], zeros beyond k.
template <int Rows, class Warp>
MEMLANE_KERNEL void load_inputs(Warp& warp, const QuantisedTask& task, std::uint32_t* shared) {
  const auto words = static_cast<std::uint32_t>(filled_k(task.k) / 2);
  warp.each([&](int lane) {
    for (auto i = static_cast<std::uint32_t>(warp.index() * 32 + lane); i < Rows * words; i += kQuantisedWarps * 32) {
      const float* row = task.a + static_cast<std::size_t>(i / words) * task.k;
      const std::uint32_t first = i % words * 2;
      shared[i] = bf16_pair(first < task.k ? row[first] : 0.0F, first + 1 < task.k ? row[first + 1] : 0.0F);
    }
  });
}

MEMLANE_KERNEL float int8_at(std::uint32_t word, int byte) {
  return static_cast<float>(static_cast<std::int8_t>(word >> (8 * byte)));
}
MEMLANE_KERNEL float byte_at(std::uint32_t word, int byte) {
  return static_cast<float>(word >> (8 * byte) & 255U);
}
/// half: 0 for the lower four bits of the byte, 1 for the upper.
MEMLANE_KERNEL float int4_at(std::uint32_t word, int byte, int half) {
  return static_cast<float>(static_cast<int>(word >> (8 * byte + 4 * half) & 15U) - 8);
}

/// The products of one lane with a group of int8, without its scales: 4 rows of W from `column` on, every fourth unit
/// from `unit` on. inputs: [Rows][stride] words, of the group.
template <int Rows>
MEMLANE_KERNEL void multiply_int8(const std::byte* group, std::uint32_t length, std::uint32_t column,
                                  std::uint32_t unit, const std::uint32_t* inputs, std::uint32_t stride,
                                  float (&sums)[Rows][4]) {
  const std::byte* units = group + kScalesBytes;
  MEMLANE_UNROLL
  for (; unit < length / 4; unit += 4) {
    const FourWords weights = *reinterpret_cast<const FourWords*>(units + (unit * kPanelRows + column) * 4);
    MEMLANE_UNROLL
    for (int row = 0; row < Rows; ++row) {
      const std::uint32_t low = inputs[row * stride + unit * 2], high = inputs[row * stride + unit * 2 + 1];
      MEMLANE_UNROLL
      for (int j = 0; j < 4; ++j) {
        const std::uint32_t word = weights.word[j];
        sums[row][j] += int8_at(word, 0) * low_of(low) + int8_at(word, 1) * high_of(low) +
                        int8_at(word, 2) * low_of(high) + int8_at(word, 3) * high_of(high);
      }
    }
  }
}

/// The same of int4: the four units that lanes take together share their multipliers.
template <int Rows>
MEMLANE_KERNEL void multiply_int4(const std::byte* group, std::uint32_t length, std::uint32_t column,
                                  std::uint32_t unit, const std::uint32_t* inputs, std::uint32_t stride,
                                  float (&sums)[Rows][4]) {
  const std::byte* multipliers = group + kScalesBytes;
  const std::byte* units = multipliers + length / kQuantSubgroup * kPanelRows;
  MEMLANE_UNROLL
  for (; unit < length / 8; unit += 4) {
    const FourWords weights = *reinterpret_cast<const FourWords*>(units + (unit * kPanelRows + column) * 4);
    const std::uint32_t factors = *reinterpret_cast<const std::uint32_t*>(multipliers + unit / 4 * kPanelRows + column);
    MEMLANE_UNROLL
    for (int row = 0; row < Rows; ++row) {
      const std::uint32_t* from = inputs + row * stride + unit * 4;  // elements 0 ... 3, then 4 ... 7
      MEMLANE_UNROLL
      for (int j = 0; j < 4; ++j) {
        float sum = 0;
        MEMLANE_UNROLL
        for (int half = 0; half < 2; ++half) {
          const std::uint32_t low = from[2 * half], high = from[2 * half + 1];
          const std::uint32_t word = weights.word[j];
          sum += int4_at(word, 0, half) * low_of(low) + int4_at(word, 1, half) * high_of(low) +
                 int4_at(word, 2, half) * low_of(high) + int4_at(word, 3, half) * high_of(high);
        }
        sums[row][j] += byte_at(factors, j) * sum;
      }
    }
  }
}

/// The block of threads for one panel: Rows rows of a times its 32 rows of W. Groups go to the warps in turn, and what
/// they make of them is added up in the warps' order.
/// shared: quantised_shared_bytes(Rows, k), aligned to 16.
template <WeightFormat Format, int Rows, class Warp>
MEMLANE_KERNEL void quantised_rows_block(Warp& warp, const QuantisedTask& task, std::uint32_t panel,
                                         std::uint32_t* shared) {
  const auto stride = static_cast<std::uint32_t>(filled_k(task.k) / 2);
  auto* of_warps = reinterpret_cast<float*>(shared + Rows * stride);  // [warps][Rows][32]
  load_inputs<Rows>(warp, task, shared);
  warp.barrier();

  typename Warp::template Lanes<float> totals[Rows][4];
  const std::byte* panel_begin = task.panels + panel * quantised_panel_bytes(Format, task.k);
  warp.each([&](int lane) {
    const auto column = static_cast<std::uint32_t>(lane % 8 * 4), unit = static_cast<std::uint32_t>(lane / 8);
    float total[Rows][4] = {};
    for (auto index = static_cast<std::size_t>(warp.index()); index < group_count(task.k); index += kQuantisedWarps) {
      const std::byte* group = panel_begin + index * group_bytes(Format, kQuantGroup);
      const auto length = static_cast<std::uint32_t>(group_length(task.k, index));
      const std::uint32_t* inputs = shared + index * (kQuantGroup / 2);
      float sums[Rows][4] = {};
      if constexpr (Format == WeightFormat::int8) {
        multiply_int8<Rows>(group, length, column, unit, inputs, stride, sums);
      } else {
        multiply_int4<Rows>(group, length, column, unit, inputs, stride, sums);
      }
      const float* scales = reinterpret_cast<const float*>(group) + column;
      MEMLANE_UNROLL
      for (int row = 0; row < Rows; ++row) {
        MEMLANE_UNROLL
        for (int j = 0; j < 4; ++j) total[row][j] += sums[row][j] * scales[j];
      }
    }
    MEMLANE_UNROLL
    for (int row = 0; row < Rows; ++row) {
      MEMLANE_UNROLL
      for (int j = 0; j < 4; ++j) totals[row][j][lane] = total[row][j];
    }
  });
  MEMLANE_UNROLL
  for (int row = 0; row < Rows; ++row) {
    MEMLANE_UNROLL
    for (int j = 0; j < 4; ++j) {
      MEMLANE_UNROLL
      for (int mask = 8; mask < 32; mask *= 2) {  // the lanes that have the same rows of W
        const auto other = warp.shuffle_xor(totals[row][j], mask);
        warp.each([&](int lane) { totals[row][j][lane] += other[lane]; });
      }
      warp.each([&](int lane) {
        if (lane < 8) of_warps[(warp.index() * Rows + row) * 32 + lane * 4 + j] = totals[row][j][lane];
      });
    }
  }
  warp.barrier();
  for (int row = warp.index(); row < Rows; row += kQuantisedWarps) {
    warp.each([&](int lane) {
      const std::uint32_t column = panel * static_cast<std::uint32_t>(kPanelRows) + static_cast<std::uint32_t>(lane);
      if (column >= task.n) return;
      float sum = 0;
      for (int i = 0; i < kQuantisedWarps; ++i) sum += of_warps[(i * Rows + row) * 32 + lane];
      task.out[static_cast<std::size_t>(row) * task.n + column] = sum;
    });
  }
}

/// A group of a panel as rows of bfloat16, one warp. k: a multiple of 8. out: [rows of W from the panel's first on][k],
/// aligned to 16; `rows` of them are written.
template <WeightFormat Format, class Warp>
MEMLANE_KERNEL void dequantise_group(Warp& warp, const std::byte* panel, std::uint32_t k, std::uint32_t index,
                                     std::uint32_t rows, std::uint16_t* out) {
  constexpr std::uint32_t kElements = Format == WeightFormat::int8 ? 4 : 8;  // of a unit
  const auto length = static_cast<std::uint32_t>(group_length(k, index));
  const std::byte* group = panel + index * group_bytes(Format, kQuantGroup);
  const auto* scales = reinterpret_cast<const float*>(group);
  const std::byte* multipliers = group + kScalesBytes;
  const std::byte* units = multipliers + (Format == WeightFormat::int8 ? 0 : length / kQuantSubgroup * kPanelRows);
  warp.each([&](int lane) {  // four units of eight rows at a time: whole sectors of memory are read and written
    for (auto row = static_cast<std::uint32_t>(lane / 4); row < rows && row < kPanelRows; row += 8) {
      for (auto unit = static_cast<std::uint32_t>(lane % 4); unit < length / kElements; unit += 4) {
        const std::uint32_t first = index * static_cast<std::uint32_t>(kQuantGroup) + unit * kElements;
        if (first >= k) break;
        const auto word = *reinterpret_cast<const std::uint32_t*>(units + (unit * kPanelRows + row) * 4);
        auto* to = reinterpret_cast<std::uint32_t*>(out + static_cast<std::size_t>(row) * k + first);
        if constexpr (Format == WeightFormat::int8) {
          const float scale = scales[row];
          to[0] = bf16_pair(int8_at(word, 0) * scale, int8_at(word, 1) * scale);
          to[1] = bf16_pair(int8_at(word, 2) * scale, int8_at(word, 3) * scale);
        } else {
          const float factor = static_cast<float>(static_cast<std::uint8_t>(multipliers[unit / 4 * kPanelRows + row]));
          const float scale = scales[row];
          MEMLANE_UNROLL
          for (int half = 0; half < 2; ++half) {
            to[2 * half] = bf16_pair(int4_at(word, 0, half) * factor * scale, int4_at(word, 1, half) * factor * scale);
            to[2 * half + 1] =
                bf16_pair(int4_at(word, 2, half) * factor * scale, int4_at(word, 3, half) * factor * scale);
          }
        }
      }
    }
  });
}

}  // namespace memlane::cuda
