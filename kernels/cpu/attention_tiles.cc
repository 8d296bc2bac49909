#include "kernels/cpu/attention_tiles.h"

#include <algorithm>
#include <limits>

#include "kernels/cpu/tile_kernels.h"

namespace memlane {

TiledWorkspace::TiledWorkspace(ScratchLayout layout, const QueryRows& rows)
    : sum_stride((rows.head_dim + 31) / 32 * 32), queries(layout, rows) {
  const std::size_t count = (rows.max_rows() + 31) / 32 * 32;
  values = layout.take<std::uint32_t>(sum_stride * kTileAttendEntries / 2);
  seen_begin = layout.take<std::uint32_t>(count);
  seen_end = layout.take<std::uint32_t>(count);
  sum = layout.take<float>(count * sum_stride);
  max = layout.take<float>(count);
  weight = layout.take<float>(count);
  bytes = layout.bytes();
}

TiledWorkspace TiledWorkspace::of_worker(CpuExec& exec, std::size_t worker, const QueryRows& rows) {
  const std::size_t bytes = TiledWorkspace(ScratchLayout(nullptr), rows).bytes;
  return {ScratchLayout(exec.worker_scratch(worker, bytes)), rows};
}

void attend_block_tiled(const TileKernels& kernels, const QueryRows& rows, const QueryRows::Item& item,
                        const EntryBlock& block, float scale, Visibility visibility, const TiledWorkspace& work) {
  const std::size_t count = item.tokens * rows.group;
  std::fill_n(work.sum, count * work.sum_stride, 0.0F);
  std::fill_n(work.max, count, -std::numeric_limits<float>::infinity());
  std::fill_n(work.weight, count, 0.0F);
  // Both ends of what a query sees rise with its place, so the item's rows see nothing outside these two.
  const std::size_t first_seen = visibility.seen_by(item.first_token, block.count).begin;
  const std::size_t end = visibility.seen_by(item.first_token + item.tokens - 1, block.count).end;
  const std::size_t units = padded_head_dim(rows.head_dim, DType::bf16) / 2;
  for (std::size_t begin = first_seen / kTileAttendEntries * kTileAttendEntries; begin < end;
       begin += kTileAttendEntries) {
    const std::size_t entries = std::min(kTileAttendEntries, end - begin);
    for (std::size_t row = 0; row < count; ++row) {
      const auto [from, to] = visibility.seen_by(item.first_token + row / rows.group, block.count);
      work.seen_begin[row] = static_cast<std::uint32_t>(std::clamp(from, begin, begin + entries) - begin);
      work.seen_end[row] = static_cast<std::uint32_t>(std::clamp(to, begin, begin + entries) - begin);
    }
    const auto* values = static_cast<const std::uint16_t*>(block.values) + begin * rows.head_dim;
    const bool few = count <= kFewTileRows;
    if (!few) kernels.pack_values(values, entries, rows.head_dim, work.values);
    const auto* keys = static_cast<const std::uint32_t*>(block.keys) + begin * units;
    const auto attend = few ? kernels.attend_rows : kernels.attend;
    attend({count, rows.head_dim, work.queries.tiles, work.queries.few, keys, work.values, values, entries,
            work.seen_begin, work.seen_end, scale, work.sum, work.sum_stride, work.max, work.weight});
  }
}

}  // namespace memlane
