#pragma once

// Attention to chosen entries, one warp a row. Runs on the GPU (top_k.cu) and emulated in tests.

#include "kernels/cuda/tiles.h"
#include "kernels/cuda/warp.h"

namespace memlane::cuda {

/// A call of attend_selected: as on the CPU (kernels/attention.h), with ids of 32 bits.
struct SelectedTask {
  const std::int32_t* ids = nullptr;  // [tokens, heads, k]
  const float* scores = nullptr;      // likewise
  std::uint32_t heads = 0, group = 0, head_dim = 0, k = 0;
  Entries entries;
  const std::uint32_t* gathered = nullptr;  // [tokens, heads, k, head_dim]: their values, where not in `entries`
  float scale = 1;
  float* sum = nullptr;     // [tokens, heads, head_dim]
  float* max = nullptr;     // [tokens, heads]
  float* weight = nullptr;  // likewise
};

/// The value of an entry, counted through all blocks of its head.
MEMLANE_KERNEL const std::uint32_t* value_of(const SelectedTask& task, std::uint32_t kv_head, std::uint32_t entry) {
  const Block* blocks = task.entries.blocks + static_cast<std::size_t>(kv_head) * task.entries.block_count;
  const Block& block = blocks[block_of_entry(blocks, task.entries.block_count, entry)];
  return reinterpret_cast<const std::uint32_t*>(block.values) +
         static_cast<std::size_t>(entry - block.first_entry) * (task.head_dim / 2);
}

/// One row of [tokens, heads]; head_dim is even and at most 64 * Pairs.
template <int Pairs, class Warp>
MEMLANE_KERNEL void attend_selected_row(Warp& warp, const SelectedTask& task, std::size_t row) {
  const auto kv_head = static_cast<std::uint32_t>(row % task.heads) / task.group;
  const std::int32_t* ids = task.ids + row * task.k;
  const float* scores = task.scores + row * task.k;
  const std::uint32_t units = task.head_dim / 2;
  float most = kNothing;
  std::uint32_t count = 0;
  for (; count < task.k && ids[count] >= 0; ++count) {
    const float score = scores[count] * task.scale;
    most = score > most ? score : most;
  }
  typename Warp::template Lanes<float> low[Pairs], high[Pairs];
  warp.each([&](int lane) {
    MEMLANE_UNROLL
    for (int i = 0; i < Pairs; ++i) low[i][lane] = high[i][lane] = 0;
  });
  float total = 0;
  for (std::uint32_t begin = 0; begin < count; begin += 32) {
    typename Warp::template Lanes<const std::uint32_t*> values;
    typename Warp::template Lanes<float> weights;
    warp.each([&](int lane) {
      const std::uint32_t i = begin + static_cast<std::uint32_t>(lane);
      values[lane] = nullptr;
      weights[lane] = 0;
      if (i >= count) return;
      values[lane] = task.gathered != nullptr ? task.gathered + (row * task.k + i) * units
                                              : value_of(task, kv_head, static_cast<std::uint32_t>(ids[i]));
      weights[lane] = exponential(scores[i] * task.scale - most);
    });
    const std::uint32_t some = count - begin < 32 ? count - begin : 32;
    for (std::uint32_t j = 0; j < some; ++j) {
      const std::uint32_t* value = warp.broadcast(values, static_cast<int>(j));
      const float weight = warp.broadcast(weights, static_cast<int>(j));
      total += weight;
      warp.each([&](int lane) {
        MEMLANE_UNROLL
        for (int i = 0; i < Pairs; ++i) {
          const auto unit = static_cast<std::uint32_t>(lane + 32 * i);
          if (unit >= units) continue;
          low[i][lane] += weight * low_of(value[unit]);
          high[i][lane] += weight * high_of(value[unit]);
        }
      });
    }
  }
  warp.each([&](int lane) {
    MEMLANE_UNROLL
    for (int i = 0; i < Pairs; ++i) {
      const auto unit = static_cast<std::uint32_t>(lane + 32 * i);
      if (unit >= units) continue;
      task.sum[row * task.head_dim + 2 * unit] = low[i][lane];
      task.sum[row * task.head_dim + 2 * unit + 1] = high[i][lane];
    }
    if (lane != 0) return;
    task.max[row] = most;
    task.weight[row] = total;
  });
}

}  // namespace memlane::cuda
