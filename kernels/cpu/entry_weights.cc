#include "kernels/entry_weights.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/block_begins.h"
#include "kernels/cpu/key_tiles.h"

namespace memlane {

namespace {

/// Scratch space for an item's rows.
struct WeightSpace {
  WeightSpace(ScratchLayout layout, const QueryRows& rows) {
    queries = layout.take<float>(rows.max_rows() * rows.head_dim);
    widened = layout.take<float>((rows.head_dim + 1) * kPanelEntries);
    scores = layout.take<float>(rows.max_rows() * kTileEntries);
    bytes = layout.bytes();
  }
  float *queries, *widened, *scores;
  std::size_t bytes;
};

/// The weights of an item's rows for the entries of a block. sums: of the block.
void add_block(const MicroKernels& micro, const QueryRows& rows, const QueryRows::Item& item, const EntryBlock& block,
               const float* max, const float* weight, double factor, const WeightSpace& space, double* sums) {
  const std::size_t count = item.tokens * rows.group;
  for (std::size_t begin = 0; begin < block.count; begin += kTileEntries) {
    score_tile(micro, space.queries, count, rows.head_dim, block, begin, space.widened, space.scores);
    std::array<double, kTileEntries> tile{};
    for (std::size_t row = 0; row < count; ++row) {
      const std::size_t flat = rows.flat_index(item, row);
      float* scores = space.scores + row * kTileEntries;
      micro.exp_row(scores, kTileEntries, max[flat]);
      const double share = factor / static_cast<double>(weight[flat]);
      for (std::size_t i = 0; i < kTileEntries; ++i) tile[i] += share * static_cast<double>(scores[i]);
    }
    const std::size_t entries = std::min(kTileEntries, block.count - begin);
    for (std::size_t i = 0; i < entries; ++i) sums[begin + i] += tile[i];
  }
}

}  // namespace

void add_entry_weights(CpuExec& exec, View<const float, 3> queries, View<const EntryBlock, 2> blocks, float scale,
                       View<const float, 2> max, View<const float, 2> weight, double factor, std::span<double> sums) {
  const QueryRows rows(queries, blocks.extent(0));
  const std::size_t block_count = blocks.extent(1);
  const BlockBegins begins(blocks);
  MEMLANE_EXPECTS(sums.size() == begins.entries());
  MEMLANE_EXPECTS(max.extent(0) == rows.tokens && max.extent(1) == rows.heads && weight.extents() == max.extents());
  // One item a block: nobody else adds to its entries, and always in the same order.
  exec.pool().run(block_count, [&](std::size_t index, std::size_t worker) {
    const std::size_t bytes = WeightSpace(ScratchLayout(nullptr), rows).bytes;
    const WeightSpace space(ScratchLayout(exec.worker_scratch(worker, bytes)), rows);
    for (std::size_t kv_head = 0; kv_head < rows.kv_heads; ++kv_head) {
      for (std::size_t i = 0; i < rows.items_per_head; ++i) {
        const QueryRows::Item item = rows.item(i, kv_head);
        gather_queries(queries, rows, item, scale, space.queries);
        add_block(exec.micro(), rows, item, blocks.data()[kv_head * block_count + index], max.data(), weight.data(),
                  factor, space, sums.data() + begins[index]);
      }
    }
  });
}

void add_selected_weights(View<const std::int64_t, 3> ids, View<const float, 3> scores, float scale,
                          View<const float, 2> max, View<const float, 2> weight, double factor,
                          std::span<double> sums) {
  const std::size_t k = ids.extent(2);
  MEMLANE_EXPECTS(ids.extents() == scores.extents() && max.size() * k == ids.size() && weight.size() == max.size());
  for (std::size_t pair = 0; pair < max.size(); ++pair) {
    const double share = factor / static_cast<double>(weight.data()[pair]);
    for (std::size_t i = pair * k; i < (pair + 1) * k && ids.data()[i] >= 0; ++i) {
      const auto entry = static_cast<std::size_t>(ids.data()[i]);
      MEMLANE_EXPECTS(entry < sums.size());
      sums[entry] += share * static_cast<double>(std::exp(scores.data()[i] * scale - max.data()[pair]));
    }
  }
}

}  // namespace memlane
