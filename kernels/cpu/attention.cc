#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/block_begins.h"
#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/key_tiles.h"

namespace memlane {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNothing = -kInfinity;
constexpr float kNotANumber = std::numeric_limits<float>::quiet_NaN();

/// One row of a partial: a query token and head.
struct PartialRow {
  float* sum;  // [head_dim]
  float* max;
  float* weight;
};

PartialRow row_of(const AttentionPartial& partial, std::size_t flat_index) {
  const std::size_t head_dim = partial.sum.extent(2);
  return {partial.sum.data() + flat_index * head_dim, partial.max.data() + flat_index,
          partial.weight.data() + flat_index};
}

void clear(PartialRow row, std::size_t head_dim) {
  std::fill_n(row.sum, head_dim, 0.0F);
  *row.max = kNothing;
  *row.weight = 0;
}

/// exp(x - max) for merging, where x may be -inf.
float weight_under(float x, float max) {
  return x == kNothing ? 0.0F : std::exp(x - max);
}

void copy_row(PartialRow into, PartialRow from, std::size_t head_dim) {
  std::copy_n(from.sum, head_dim, into.sum);
  *into.max = *from.max;
  *into.weight = *from.weight;
}

void merge_row(PartialRow into, PartialRow from, std::size_t head_dim) {
  if (*from.weight == 0) return;
  const float max = std::max(*into.max, *from.max);
  const float keep = weight_under(*into.max, max);
  const float take = weight_under(*from.max, max);
  for (std::size_t d = 0; d < head_dim; ++d) into.sum[d] = into.sum[d] * keep + from.sum[d] * take;
  *into.weight = *into.weight * keep + *from.weight * take;
  *into.max = max;
}

/// A worker's space for one item. Rows of `sum` are padded to whole panels of 32.
struct Workspace {
  Workspace(ScratchLayout layout, const QueryRows& rows) : sum_stride((rows.head_dim + 31) / 32 * 32) {
    const std::size_t count = rows.max_rows();
    queries = layout.take<float>(count * rows.head_dim);
    widened = layout.take<float>((rows.head_dim + 1) * kPanelEntries);
    scores = layout.take<float>(count * kTileEntries);
    values = layout.take<float>(sum_stride * kTileEntries);
    value_row = layout.take<float>(rows.head_dim);
    sum = layout.take<float>(count * sum_stride);
    max = layout.take<float>(count);
    weight = layout.take<float>(count);
    bytes = layout.bytes();
  }
  static Workspace of_worker(CpuExec& exec, std::size_t worker, const QueryRows& rows) {
    const std::size_t bytes = Workspace(ScratchLayout(nullptr), rows).bytes;
    return {ScratchLayout(exec.worker_scratch(worker, bytes)), rows};
  }
  std::size_t sum_stride;
  float *queries, *widened, *scores, *values, *value_row, *sum, *max, *weight;
  std::size_t bytes;
};

/// Row `index` of a workspace.
template <class AnyWorkspace>
PartialRow row_of(const AnyWorkspace& work, std::size_t index) {
  return {work.sum + index * work.sum_stride, work.max + index, work.weight + index};
}

/// Turns scores of a tile into weights under each row's running maximum, rescaling what the row has so far.
void weigh_tile(const MicroKernels& micro, const Workspace& work, std::size_t rows) {
  for (std::size_t row = 0; row < rows; ++row) {
    float* scores = work.scores + row * kTileEntries;
    const float tile_max = micro.row_max(scores, kTileEntries);
    float& max = work.max[row];
    if (tile_max == kNothing) {  // nothing visible
      std::fill_n(scores, kTileEntries, 0.0F);
      continue;
    }
    if (tile_max == kInfinity) work.weight[row] = kNotANumber;  // no weights can be told: that has to show
    if (tile_max > max) {
      const float keep = weight_under(max, tile_max);
      micro.scale_row(work.sum + row * work.sum_stride, work.sum_stride, keep);
      work.weight[row] *= keep;
      max = tile_max;
    }
    work.weight[row] += micro.exp_row(scores, kTileEntries, max);
  }
}

/// The partial of one block for an item's rows, into the workspace.
void attend_block(const MicroKernels& micro, const QueryRows& rows, const QueryRows::Item& item,
                  const EntryBlock& block, Visibility visibility, const Workspace& work) {
  const std::size_t count = item.tokens * rows.group;
  std::fill_n(work.sum, count * work.sum_stride, 0.0F);
  std::fill_n(work.max, count, kNothing);
  std::fill_n(work.weight, count, 0.0F);
  // Both bounds of a band rise with the query token, so the item's rows see nothing outside these two.
  const std::size_t first_seen = visibility.seen_by(item.first_token, block.count).begin;
  const std::size_t end = visibility.seen_by(item.first_token + item.tokens - 1, block.count).end;
  for (std::size_t begin = first_seen / kTileEntries * kTileEntries; begin < end; begin += kTileEntries) {
    score_tile(micro, work.queries, count, rows.head_dim, block, begin, work.widened, work.scores);
    for (std::size_t row = 0; visibility.banded && row < count; ++row) {
      const Visibility::Range seen = visibility.seen_by(item.first_token + row / rows.group, block.count);
      float* scores = work.scores + row * kTileEntries;
      std::fill_n(scores, std::clamp(seen.begin, begin, begin + kTileEntries) - begin, kNothing);
      std::fill(scores + std::clamp(seen.end, begin, begin + kTileEntries) - begin, scores + kTileEntries, kNothing);
    }
    weigh_tile(micro, work, count);
    const std::size_t entries = std::min(kTileEntries, end - begin);
    widen_values(micro, block, begin, begin + entries, rows.head_dim, work.value_row, work.values);
    for (std::size_t column = 0; column < work.sum_stride; column += 32) {
      micro.gemm_f32(count, entries, work.scores, kTileEntries, work.values + column * kTileEntries, work.sum + column,
                     work.sum_stride, true);
    }
  }
}

/// How the rows of a call are cut. With TileKernels, twice as many share what packing the values takes where that
/// leaves items enough; no row's bits depend on it.
QueryRows cut_rows(const CpuExec& exec, View<const float, 3> queries, std::size_t kv_heads, bool tiled) {
  if (!tiled) return {queries, kv_heads};
  const QueryRows twice(queries, kv_heads, 2 * kTiledQueryRows);
  if (twice.kv_heads * twice.items_per_head >= 4 * exec.threads()) return twice;
  return {queries, kv_heads, kTiledQueryRows};
}

/// Whether there are too few rows to occupy the threads, so that blocks are taken one by one and merged.
bool splits(const CpuExec& exec, const QueryRows& rows, std::size_t blocks) {
  return blocks > 1 && rows.kv_heads * rows.items_per_head < 4 * exec.threads();
}

/// A call of attend, item by item.
struct Items {
  CpuExec& exec;
  View<const float, 3> queries;
  View<const EntryBlock, 2> blocks;
  float scale;
  Visibility visibility;
  const TileKernels* tiles;  // null where they do not apply
  const QueryRows& rows;

  /// The partial of an item's rows over some of its blocks. Rows of bfloat16 values go by tiles, if there are any: that
  /// depends on the row alone, and in one call rows are nearly always of one kind.
  void run(std::size_t row_item, std::size_t worker, std::size_t first_block, std::size_t end_block,
           AttentionPartial to) const {
    const QueryRows::Item item = rows.item(row_item % rows.items_per_head, row_item / rows.items_per_head);
    const EntryBlock* head_blocks = blocks.data() + item.kv_head * blocks.extent(1);
    const std::span<const EntryBlock> item_blocks(head_blocks + first_block, head_blocks + end_block);
    const std::size_t count = item.tokens * rows.group;
    std::size_t tiled_rows = 0;
    for (std::size_t row = 0; row < count; ++row) tiled_rows += is_tiled(item, row) ? 1 : 0;
    const bool mixed = tiled_rows > 0 && tiled_rows < count;
    if (tiled_rows > 0) {
      const TiledWorkspace work = TiledWorkspace::of_worker(exec, worker, rows);
      work.queries.gather(*tiles, queries, rows, item);
      run_rows(true, mixed, item, item_blocks, to, work, [&](const EntryBlock& block) {
        attend_block_tiled(*tiles, rows, item, block, scale, visibility, work);
      });
    }
    if (tiled_rows < count) {
      const Workspace work = Workspace::of_worker(exec, worker, rows);
      gather_queries(queries, rows, item, scale, work.queries);
      run_rows(false, mixed, item, item_blocks, to, work,
               [&](const EntryBlock& block) { attend_block(exec.micro(), rows, item, block, visibility, work); });
    }
  }

  bool is_tiled(const QueryRows::Item& item, std::size_t row) const {
    return tiles != nullptr &&
           exec.micro().is_bf16(queries.data() + rows.flat_index(item, row) * rows.head_dim, rows.head_dim);
  }

  /// Those of an item's rows that are `tiled`: all, unless they are mixed.
  template <class AnyWorkspace, class AttendOne>
  void run_rows(bool tiled, bool mixed, const QueryRows::Item& item, std::span<const EntryBlock> item_blocks,
                AttentionPartial to, const AnyWorkspace& work, const AttendOne& attend_one) const {
    const std::size_t count = item.tokens * rows.group;
    const auto for_each = [&](const auto& body) {
      for (std::size_t row = 0; row < count; ++row) {
        if (!mixed || is_tiled(item, row) == tiled) body(row_of(to, rows.flat_index(item, row)), row);
      }
    };
    if (item_blocks.empty()) for_each([&](PartialRow into, std::size_t) { clear(into, rows.head_dim); });
    for (const EntryBlock& block : item_blocks) {
      attend_one(block);
      const bool first = &block == item_blocks.data();
      for_each([&](PartialRow into, std::size_t row) {
        (first ? copy_row : merge_row)(into, row_of(work, row), rows.head_dim);
      });
    }
  }
};

/// The partials of single blocks side by side.
class SplitPartials {
 public:
  SplitPartials(CpuExec& exec, std::size_t blocks, const QueryRows& rows) : rows_(rows), per_block_(floats_of(rows)) {
    base_ = reinterpret_cast<float*>(exec.shared_scratch(blocks * per_block_ * sizeof(float)));
  }
  /// Floats of a block.
  static std::size_t floats_of(const QueryRows& rows) { return rows.tokens * rows.heads * (rows.head_dim + 2); }
  AttentionPartial of(std::size_t block) const {
    const std::size_t pairs = rows_.tokens * rows_.heads;
    float* sum = base_ + block * per_block_;
    float* max = sum + pairs * rows_.head_dim;
    return {{sum, {rows_.tokens, rows_.heads, rows_.head_dim}},
            {max, {rows_.tokens, rows_.heads}},
            {max + pairs, {rows_.tokens, rows_.heads}}};
  }

 private:
  const QueryRows& rows_;
  std::size_t per_block_;
  float* base_;
};

}  // namespace

AttentionPartial PartialBuffer::get(std::size_t tokens, std::size_t heads, std::size_t head_dim) {
  storage_.reserve_discarding(tokens * heads * (head_dim + 2));
  float* max = storage_.data() + tokens * heads * head_dim;
  return {
      {storage_.data(), {tokens, heads, head_dim}}, {max, {tokens, heads}}, {max + tokens * heads, {tokens, heads}}};
}

std::size_t attend_split_bytes(const CpuExec& exec, std::array<std::size_t, 3> queries, std::size_t kv_heads,
                               std::size_t blocks, DType entries) {
  const bool tiled = exec.micro().tiles != nullptr && entries == DType::bf16;
  const QueryRows rows = cut_rows(exec, {nullptr, queries}, kv_heads, tiled);
  return splits(exec, rows, blocks) ? blocks * SplitPartials::floats_of(rows) * sizeof(float) : 0;
}

void attend(CpuExec& exec, View<const float, 3> queries, View<const EntryBlock, 2> blocks, float scale,
            Visibility visibility, AttentionPartial out) {
  MEMLANE_EXPECTS(queries.extents() == out.sum.extents());
  const TileKernels* tiles = scale > 0 && all_bf16(blocks) ? exec.micro().tiles : nullptr;
  const QueryRows rows = cut_rows(exec, queries, blocks.extent(0), tiles != nullptr);
  const std::size_t block_count = blocks.extent(1);
  MEMLANE_EXPECTS(!visibility.banded || block_count == 1);
  const std::size_t row_items = rows.kv_heads * rows.items_per_head;
  const Items items{exec, queries, blocks, scale, visibility, tiles, rows};

  if (!splits(exec, rows, block_count)) {
    exec.pool().run(row_items,
                    [&](std::size_t item, std::size_t worker) { items.run(item, worker, 0, block_count, out); });
    return;
  }
  const SplitPartials partials(exec, block_count, rows);
  exec.pool().run(row_items * block_count, [&](std::size_t item, std::size_t worker) {
    const std::size_t block = item % block_count;
    items.run(item / block_count, worker, block, block + 1, partials.of(block));
  });
  exec.pool().run(rows.tokens * rows.heads, [&](std::size_t pair, std::size_t) {
    copy_row(row_of(out, pair), row_of(partials.of(0), pair), rows.head_dim);
    for (std::size_t block = 1; block < block_count; ++block) {
      merge_row(row_of(out, pair), row_of(partials.of(block), pair), rows.head_dim);
    }
  });
}

namespace {

/// A worker's space for the chosen entries of one row.
struct SelectedScratch {
  SelectedScratch(ScratchLayout layout, std::size_t k, std::size_t head_dim)
      : weights(layout.take<float>(panels_for(k) * kPanelEntries)),
        values(layout.take<const std::uint16_t*>(k)),
        value(layout.take<float>(head_dim)),
        bytes(layout.bytes()) {}
  float* weights;                ///< [k, filled up to a multiple of 32]
  const std::uint16_t** values;  ///< [k]
  float* value;                  ///< [head_dim]
  std::size_t bytes;
};

}  // namespace

void attend_selected(CpuExec& exec, View<const float, 3> queries, View<const EntryBlock, 2> blocks,
                     View<const std::int64_t, 3> ids, View<const float, 3> scores, float scale, AttentionPartial out) {
  const QueryRows rows(queries, blocks.extent(0));
  const std::size_t k = ids.extent(2);
  MEMLANE_EXPECTS(ids.extents() == scores.extents() && queries.extents() == out.sum.extents());
  const MicroKernels& micro = exec.micro();
  const bool by_rows = all_bf16(blocks) && rows.head_dim % 2 == 0;
  const BlockBegins begins(blocks);
  const auto attend_one = [&](std::size_t flat, const SelectedScratch& scratch) {
    const EntryBlock* head_blocks = blocks.data() + flat % rows.heads / rows.group * blocks.extent(1);
    const PartialRow row = row_of(out, flat);
    clear(row, rows.head_dim);
    const float* s = scores.data() + flat * k;
    const std::int64_t* id = ids.data() + flat * k;
    const auto count = static_cast<std::size_t>(std::find(id, id + k, -1) - id);
    if (count == 0) return;
    const std::size_t filled = panels_for(count) * kPanelEntries;
    for (std::size_t i = 0; i < count; ++i) scratch.weights[i] = s[i] * scale;
    std::fill_n(scratch.weights + count, filled - count, kNothing);
    *row.max = micro.row_max(scratch.weights, filled);
    if (by_rows) {
      *row.weight = micro.exp_row(scratch.weights, filled, *row.max);
    } else {  // rounds no more than the entries do
      for (std::size_t i = 0; i < count; ++i) {
        *row.weight += scratch.weights[i] = std::exp(scratch.weights[i] - *row.max);
      }
    }
    if (!(*row.max < kInfinity)) *row.weight = kNotANumber;  // as where all entries are attended to
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t block = begins.block_of(static_cast<std::size_t>(id[i]));
      const std::size_t entry = static_cast<std::size_t>(id[i]) - begins[block];
      if (by_rows) {
        scratch.values[i] = static_cast<const std::uint16_t*>(head_blocks[block].values) + entry * rows.head_dim;
      } else {
        widen_value(micro, head_blocks[block], entry, rows.head_dim, scratch.value);
        for (std::size_t d = 0; d < rows.head_dim; ++d) row.sum[d] += scratch.weights[i] * scratch.value[d];
      }
    }
    if (by_rows) micro.add_values_bf16(count, scratch.weights, scratch.values, rows.head_dim, row.sum);
  };
  // Tokens next to each other often choose the same entries: a head's rows are taken one after the other.
  const std::size_t tokens = std::clamp<std::size_t>(rows.tokens * rows.heads / (16 * exec.threads()), 1, 16);
  const std::size_t items = (rows.tokens + tokens - 1) / tokens;
  exec.pool().run(rows.heads * items, [&](std::size_t item, std::size_t worker) {
    SelectedScratch scratch(ScratchLayout(nullptr), k, rows.head_dim);
    scratch = SelectedScratch(ScratchLayout(exec.worker_scratch(worker, scratch.bytes)), k, rows.head_dim);
    const std::size_t first = item % items * tokens, end = std::min(rows.tokens, first + tokens);
    for (std::size_t token = first; token < end; ++token) attend_one(token * rows.heads + item / items, scratch);
  });
}

namespace {

/// Calls body(token) for every token, a few an item.
template <class Body>
void for_tokens(CpuExec& exec, const AttentionPartial& partial, const Body& body) {
  constexpr std::size_t kTokensPerItem = 16;
  const std::size_t tokens = partial.sum.extent(0);
  exec.pool().run((tokens + kTokensPerItem - 1) / kTokensPerItem, [&](std::size_t item, std::size_t) {
    const std::size_t first = item * kTokensPerItem, end = std::min(tokens, first + kTokensPerItem);
    for (std::size_t token = first; token < end; ++token) body(token);
  });
}

}  // namespace

void merge(CpuExec& exec, AttentionPartial into, AttentionPartial from) {
  MEMLANE_EXPECTS(into.sum.extents() == from.sum.extents());
  const std::size_t heads = into.sum.extent(1), head_dim = into.sum.extent(2);
  for_tokens(exec, into, [&](std::size_t token) {
    for (std::size_t pair = token * heads; pair < (token + 1) * heads; ++pair) {
      merge_row(row_of(into, pair), row_of(from, pair), head_dim);
    }
  });
}

void finish(CpuExec& exec, AttentionPartial partial, View<float, 3> out) {
  MEMLANE_EXPECTS(partial.sum.extents() == out.extents());
  for_tokens(exec, partial,
             [&](std::size_t token) { finish_token(partial, token, out.data() + token * out.row_size()); });
}

void finish_token(const AttentionPartial& partial, std::size_t token, float* out) {
  const std::size_t heads = partial.sum.extent(1), head_dim = partial.sum.extent(2);
  for (std::size_t head = 0; head < heads; ++head, out += head_dim) {
    const PartialRow row = row_of(partial, token * heads + head);
    const float inverse = 1.0F / *row.weight;
    for (std::size_t d = 0; d < head_dim; ++d) out[d] = row.sum[d] * inverse;
  }
}

}  // namespace memlane
