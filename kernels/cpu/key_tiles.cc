#include "kernels/cpu/key_tiles.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/cpu/tile_kernels.h"

namespace memlane {

QueryRows::QueryRows(View<const float, 3> queries, std::size_t kv_heads_in, std::size_t rows_per_item)
    : tokens(queries.extent(0)), heads(queries.extent(1)), head_dim(queries.extent(2)), kv_heads(kv_heads_in) {
  MEMLANE_EXPECTS(kv_heads > 0 && heads % kv_heads == 0);
  group = heads / kv_heads;
  tokens_per_item = std::clamp<std::size_t>(rows_per_item / group, 1, std::max<std::size_t>(tokens, 1));
  items_per_head = (tokens + tokens_per_item - 1) / tokens_per_item;
}

QueryRows::Item QueryRows::item(std::size_t index_in_head, std::size_t kv_head) const {
  const std::size_t first = index_in_head * tokens_per_item;
  return {first, std::min(tokens_per_item, tokens - first), kv_head};
}

bool all_bf16(View<const EntryBlock, 2> blocks) {
  return std::ranges::all_of(blocks.flat(), [](const EntryBlock& block) { return block.dtype == DType::bf16; });
}

TiledQueries::TiledQueries(ScratchLayout& layout, const QueryRows& rows)
    : few(layout.take<float>(16 * padded_head_dim(rows.head_dim, DType::bf16))),
      tiles(layout.take<std::uint32_t>((rows.max_rows() + 31) / 32 * 2 * row_tile_units(rows.head_dim))) {}

void TiledQueries::gather(const TileKernels& kernels, View<const float, 3> queries, const QueryRows& rows,
                          const QueryRows::Item& item) const {
  const std::size_t count = item.tokens * rows.group;
  const std::size_t stride = padded_head_dim(rows.head_dim, DType::bf16);
  for (std::size_t first = 0; first < count; first += 16) {
    const std::size_t present = std::min<std::size_t>(16, count - first);
    std::uint32_t* to_tiles = tiles + first / 16 * row_tile_units(rows.head_dim);
    if (rows.group == 1 && count > kFewTileRows) {  // rows that are equally far apart are packed where they are
      const float* from = queries.data() + rows.flat_index(item, first) * rows.head_dim;
      kernels.pack(present, rows.head_dim, from, rows.heads * rows.head_dim, to_tiles);
      continue;
    }
    for (std::size_t row = 0; row < present; ++row) {
      float* to = few + row * stride;
      to[stride - 1] = 0;
      std::copy_n(queries.data() + rows.flat_index(item, first + row) * rows.head_dim, rows.head_dim, to);
    }
    kernels.pack(present, rows.head_dim, few, stride, to_tiles);
  }
}

void gather_queries(View<const float, 3> queries, const QueryRows& rows, const QueryRows::Item& item, float scale,
                    float* out) {
  for (std::size_t row = 0; row < item.tokens * rows.group; ++row) {
    const float* from = queries.data() + rows.flat_index(item, row) * rows.head_dim;
    for (std::size_t d = 0; d < rows.head_dim; ++d) out[row * rows.head_dim + d] = from[d] * scale;
  }
}

void score_tile(const MicroKernels& micro, const float* queries, std::size_t rows, std::size_t head_dim,
                const EntryBlock& block, std::size_t begin, float* widened, float* scores) {
  const std::size_t units = padded_head_dim(head_dim, block.dtype) * size_of(block.dtype) / 4;
  const auto* panels = static_cast<const std::uint32_t*>(block.keys);
  for (std::size_t column = 0; column < kTileEntries; column += kPanelEntries) {
    const std::size_t first = begin + column;
    float* out = scores + column;
    const std::size_t present = first < block.count ? std::min(kPanelEntries, block.count - first) : 0;
    if (present > 0) {
      const std::uint32_t* panel = panels + first / kPanelEntries * units * kPanelEntries;
      const float* keys = reinterpret_cast<const float*>(panel);
      if (block.dtype == DType::bf16) micro.widen_bf16_panel(panel, units, widened);
      if (block.dtype == DType::f16) micro.widen_f16_panel(panel, units, widened);
      if (block.dtype != DType::f32) keys = widened;
      micro.gemm_f32(rows, head_dim, queries, head_dim, keys, out, kTileEntries, false);
    }
    for (std::size_t row = 0; present < kPanelEntries && row < rows; ++row) {
      std::fill(out + row * kTileEntries + present, out + row * kTileEntries + kPanelEntries,
                -std::numeric_limits<float>::infinity());
    }
  }
}

void widen_value(const MicroKernels& micro, const EntryBlock& block, std::size_t entry, std::size_t head_dim,
                 float* out) {
  if (block.dtype == DType::f32) {
    std::memcpy(out, static_cast<const float*>(block.values) + entry * head_dim, head_dim * sizeof(float));
    return;
  }
  const auto* row = static_cast<const std::uint16_t*>(block.values) + entry * head_dim;
  if (block.dtype == DType::bf16) return micro.widen_bf16(row, head_dim, out);
  micro.widen_f16(row, head_dim, out);
}

void widen_values(const MicroKernels& micro, const EntryBlock& block, std::size_t begin, std::size_t end,
                  std::size_t head_dim, float* row, float* panels) {
  const std::size_t value_panels = (head_dim + 31) / 32;
  for (std::size_t entry = begin; entry < begin + kTileEntries; ++entry) {
    const bool present = entry < end;
    if (present) widen_value(micro, block, entry, head_dim, row);
    for (std::size_t panel = 0; panel < value_panels; ++panel) {
      float* out = panels + (panel * kTileEntries + entry - begin) * 32;
      const std::size_t columns = present ? std::min<std::size_t>(32, head_dim - panel * 32) : 0;
      if (columns > 0) std::memcpy(out, row + panel * 32, columns * sizeof(float));
      if (columns < 32) std::memset(out + columns, 0, (32 - columns) * sizeof(float));
    }
  }
}

}  // namespace memlane
