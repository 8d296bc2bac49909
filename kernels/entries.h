#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/array.h"
#include "kernels/scalar.h"

namespace memlane {

/// Keys and values of consecutive entries of one key/value head: what a source of attention is made of.
///
/// Keys lie in panels of 32 entries, `[ceil(count / 32)][ceil(head_dim / u)][32][u]` with u = 4 / sizeof(T): one 32-bit
/// unit holds one float32 or two 16-bit elements of a key, and a row of a panel holds that unit of 32 keys. Scores of
/// 32 keys then come from one stream with no sums across lanes, for one query or many. Entries and elements beyond the
/// end are zero. Values are rows, `[count][head_dim]`.
struct EntryBlock {
  const void* keys = nullptr;
  const void* values = nullptr;
  std::size_t count = 0;
  DType dtype = DType::f32;
};

inline constexpr std::size_t kPanelEntries = 32;

constexpr std::size_t panels_for(std::size_t count) {
  return (count + kPanelEntries - 1) / kPanelEntries;
}

/// Elements of one key in a panel, padding included.
constexpr std::size_t padded_head_dim(std::size_t head_dim, DType dtype) {
  const std::size_t unit = 4 / size_of(dtype);
  return (head_dim + unit - 1) / unit * unit;
}

/// Elements that the key panels of `count` entries take.
constexpr std::size_t key_elements(std::size_t count, std::size_t head_dim, DType dtype) {
  return panels_for(count) * kPanelEntries * padded_head_dim(head_dim, dtype);
}

/// Where element `d` of key `entry` lies in its panels.
constexpr std::size_t key_offset(std::size_t entry, std::size_t d, std::size_t head_dim, DType dtype) {
  const std::size_t unit = 4 / size_of(dtype);
  const std::size_t panel = entry / kPanelEntries;
  return (panel * padded_head_dim(head_dim, dtype) + d / unit * unit) * kPanelEntries + entry % kPanelEntries * unit +
         d % unit;
}

/// Writes keys, rounded to T, into panels that start at entry `first`: what write_key_panels (kernels/write_entries.h)
/// is held against. keys: [count][head_dim], rows `stride` elements
/// apart.
template <class T>
void write_keys(T* panels, std::size_t first, const float* keys, std::size_t stride, std::size_t count,
                std::size_t head_dim) {
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t d = 0; d < head_dim; ++d) {
      panels[key_offset(first + i, d, head_dim, dtype_of<T>)] = from_float<T>(keys[i * stride + d]);
    }
  }
}

/// Reads key `entry` of a block back as a row of floats. out: [head_dim].
inline void read_key(const EntryBlock& block, std::size_t entry, std::size_t head_dim, float* out) {
  with_type(block.dtype, [&](auto type) {
    const auto* panels = static_cast<const decltype(type)*>(block.keys);
    for (std::size_t d = 0; d < head_dim; ++d) out[d] = to_float(panels[key_offset(entry, d, head_dim, block.dtype)]);
  });
}

}  // namespace memlane
