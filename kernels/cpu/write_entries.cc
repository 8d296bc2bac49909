#include "kernels/write_entries.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace memlane {

namespace {

// Vectors of the baseline of every 64-bit machine.
using Floats = float __attribute__((vector_size(16)));
using Units = std::uint32_t __attribute__((vector_size(16)));

constexpr std::size_t kChunk = 32;          // units of a key that are turned at a time
constexpr std::size_t kPanelsPerItem = 8;   // entries of an item, in panels
constexpr std::size_t kValuesPerItem = 64;  // the same, of values

Units load(const void* from) {
  Units units;
  std::memcpy(&units, from, sizeof units);
  return units;
}

/// Four floats to bfloat16 in the upper halves, as from_float<BFloat16> rounds.
Units rounded(Units bits) {
  const Units nearest = bits + 0x7fffU + ((bits >> 16) & 1U);
  return (bits & 0x7fffffffU) > 0x7f800000U ? (bits | 0x00400000U) : nearest;  // NaN stays NaN
}

/// A piece of a key as 32-bit units. The last unit of an odd number of 16-bit elements ends in a zero.
template <class T>
void to_units(const float* key, std::size_t elements, std::uint32_t* units) {
  constexpr std::size_t kUnit = 4 / sizeof(T);
  std::size_t done = 0;
  if constexpr (std::is_same_v<T, BFloat16>) {
    for (; done + 8 <= elements; done += 8) {
      const Units left = rounded(load(key + done));
      const Units right = rounded(load(key + done + 4));
      const Units even = __builtin_shufflevector(left, right, 0, 2, 4, 6);
      const Units odd = __builtin_shufflevector(left, right, 1, 3, 5, 7);
      const Units both = (even >> 16) | (odd & 0xffff0000U);
      std::memcpy(units + done / 2, &both, sizeof both);
    }
  }
  for (; done < elements; done += kUnit) {
    T unit[kUnit] = {};
    for (std::size_t i = 0; i < std::min(kUnit, elements - done); ++i) unit[i] = from_float<T>(key[done + i]);
    std::memcpy(units + done / kUnit, unit, sizeof unit);
  }
}

/// to[u][i] = from[i][u] for four keys and four units of each.
void turn(const std::uint32_t* from, std::uint32_t* to) {
  const Units a = load(from), b = load(from + kChunk), c = load(from + 2 * kChunk), d = load(from + 3 * kChunk);
  const Units ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Units cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  const Units rows[4] = {
      __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5), __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7),
      __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5), __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
  for (std::size_t u = 0; u < 4; ++u) std::memcpy(to + u * kPanelEntries, &rows[u], sizeof rows[u]);
}

/// Keys of one panel, `count` from lane `lane` on. panel: [units][32].
template <class T>
void write_panel(std::uint32_t* panel, std::size_t lane, const float* keys, std::size_t stride, std::size_t count,
                 std::size_t head_dim) {
  constexpr std::size_t kUnit = 4 / sizeof(T);
  alignas(16) std::uint32_t rows[kPanelEntries * kChunk];
  for (std::size_t begin = 0; begin < head_dim; begin += kChunk * kUnit) {
    const std::size_t elements = std::min(kChunk * kUnit, head_dim - begin);
    const std::size_t units = (elements + kUnit - 1) / kUnit;
    for (std::size_t i = 0; i < count; ++i) to_units<T>(keys + i * stride + begin, elements, rows + i * kChunk);
    std::uint32_t* to = panel + begin / kUnit * kPanelEntries + lane;
    const std::size_t whole_keys = count / 4 * 4, whole_units = units / 4 * 4;
    for (std::size_t i = 0; i < whole_keys; i += 4) {
      for (std::size_t u = 0; u < whole_units; u += 4) turn(rows + i * kChunk + u, to + u * kPanelEntries + i);
    }
    for (std::size_t i = 0; i < count; ++i) {
      for (std::size_t u = i < whole_keys ? whole_units : 0; u < units; ++u) {
        to[u * kPanelEntries + i] = rows[i * kChunk + u];
      }
    }
  }
}

}  // namespace

void write_key_panels(CpuExec& exec, DType dtype, std::byte* panels, std::size_t head_elements, std::size_t first,
                      View<const float, 3> keys) {
  const std::size_t count = keys.extent(0), heads = keys.extent(1), head_dim = keys.extent(2);
  if (count == 0) return;
  const std::size_t panel_units = kPanelEntries * padded_head_dim(head_dim, dtype) * size_of(dtype) / 4;
  const std::size_t first_panel = first / kPanelEntries;
  const std::size_t end_panel = panels_for(first + count);
  const std::size_t pieces = (end_panel - first_panel + kPanelsPerItem - 1) / kPanelsPerItem;
  exec.pool().run(heads * pieces, [&](std::size_t item, std::size_t) {
    const std::size_t head = item / pieces;
    const std::size_t begin = first_panel + item % pieces * kPanelsPerItem;
    auto* head_panels = reinterpret_cast<std::uint32_t*>(panels + head * head_elements * size_of(dtype));
    for (std::size_t panel = begin; panel < std::min(end_panel, begin + kPanelsPerItem); ++panel) {
      const std::size_t from = std::max(first, panel * kPanelEntries);
      const std::size_t to = std::min(first + count, (panel + 1) * kPanelEntries);
      with_type(dtype, [&](auto type) {
        write_panel<decltype(type)>(head_panels + panel * panel_units, from % kPanelEntries,
                                    keys.data() + ((from - first) * heads + head) * head_dim, heads * head_dim,
                                    to - from, head_dim);
      });
    }
  });
}

void write_values(CpuExec& exec, DType dtype, std::byte* rows, std::size_t head_elements, View<const float, 3> values) {
  const std::size_t count = values.extent(0), heads = values.extent(1), head_dim = values.extent(2);
  exec.pool().run((count + kValuesPerItem - 1) / kValuesPerItem, [&](std::size_t item, std::size_t) {
    const std::size_t begin = item * kValuesPerItem, end = std::min(count, begin + kValuesPerItem);
    for (std::size_t row = begin * heads; row < end * heads; ++row) {
      const float* from = values.data() + row * head_dim;
      std::byte* to = rows + (row % heads * head_elements + row / heads * head_dim) * size_of(dtype);
      if (dtype == DType::bf16) {
        exec.micro().narrow_bf16(from, head_dim, reinterpret_cast<std::uint16_t*>(to));
        continue;
      }
      with_type(dtype, [&](auto type) {
        using T = decltype(type);
        for (std::size_t d = 0; d < head_dim; ++d) reinterpret_cast<T*>(to)[d] = from_float<T>(from[d]);
      });
    }
  });
}

}  // namespace memlane
