#include "kernels/top_k.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/block_begins.h"
#include "kernels/cpu/best_lists.h"
#include "kernels/cpu/key_tiles.h"
#include "kernels/cpu/tile_kernels.h"

namespace memlane {

namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();

struct Candidate {
  float score;
  std::int64_t id;
};

/// A total order, so that the best k are one set however the entries are visited.
bool better(const Candidate& a, const Candidate& b) {
  return a.score != b.score ? a.score > b.score : a.id < b.id;
}

/// Writes candidates in order of their ids, then fills up with none. ids, scores: [k].
void write_by_id(std::span<Candidate> best, std::size_t k, std::int64_t* ids, float* scores) {
  std::sort(best.begin(), best.end(), [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  for (std::size_t i = 0; i < k; ++i) {
    ids[i] = i < best.size() ? best[i].id : -1;
    scores[i] = i < best.size() ? best[i].score : kNothing;
  }
}

/// A worker's space for one item's scan on the vector units.
struct VectorScan {
  VectorScan(ScratchLayout& layout, const QueryRows& rows) {
    queries = layout.take<float>(rows.max_rows() * rows.head_dim);
    widened = layout.take<float>((rows.head_dim + 1) * kPanelEntries);
    scores = layout.take<float>(rows.max_rows() * kTileEntries);
  }
  /// Offers every entry of a block to the lists of all rows.
  void scan(const MicroKernels& micro, const EntryBlock& block, std::uint32_t first_id, const QueryRows& rows,
            std::size_t count, const BestLists& best) const {
    for (std::size_t begin = 0; begin < block.count; begin += kTileEntries) {
      score_tile(micro, queries, count, rows.head_dim, block, begin, widened, scores);
      const std::size_t entries = std::min(kTileEntries, block.count - begin);
      const auto id = static_cast<std::uint32_t>(first_id + begin);
      for (std::size_t row = 0; row < count; ++row) best.offer(micro, row, scores + row * kTileEntries, entries, id);
    }
  }
  float *queries, *widened, *scores;
};

/// The same of bfloat16 numbers.
struct TileScan {
  TileScan(ScratchLayout& layout, const QueryRows& rows) : queries(layout, rows) {}
  void scan(const MicroKernels& micro, const EntryBlock& block, std::uint32_t first_id, const QueryRows& rows,
            std::size_t count, const BestLists& best) const {
    const TileKernels& tiles = *micro.tiles;
    const std::size_t units = padded_head_dim(rows.head_dim, DType::bf16) / 2;
    const bool few = count <= kFewTileRows;
    if (!few) tiles.shape();
    for (std::size_t begin = 0; begin < block.count; begin += kTileAttendEntries) {
      const std::size_t entries = std::min(kTileAttendEntries, block.count - begin);
      const std::uint32_t* keys = static_cast<const std::uint32_t*>(block.keys) + begin * units;
      const auto id = static_cast<std::uint32_t>(first_id + begin);
      for (std::size_t first = 0; first < count; first += kMostScannedRows) {
        const std::size_t some = std::min(kMostScannedRows, count - first);
        const std::uint32_t* rows_of_tiles = queries.tiles + first / 16 * TiledQueries::row_tile_units(rows.head_dim);
        std::array<FoundScores, kMostScannedRows> found;
        for (std::size_t r = 0; r < some; ++r) found[r] = best.collected(first + r, id);
        if (few) tiles.scan_rows(some, rows.head_dim, queries.tiles, queries.few, keys, entries, found.data());
        if (!few) tiles.scan(some, rows.head_dim, rows_of_tiles, keys, entries, found.data());
        for (std::size_t r = 0; r < some; ++r) best.took(micro, first + r, entries, found[r]);
      }
    }
    if (!few) tiles.release();
  }
  TiledQueries queries;
};

/// A scan's space and its lists, in a worker's scratch.
template <class Scan>
std::pair<Scan, BestLists> in_worker_scratch(CpuExec& exec, std::size_t worker, const QueryRows& rows, std::size_t k) {
  const auto take = [&](ScratchLayout& layout) {
    const Scan scan(layout, rows);
    return std::pair(scan, BestLists(layout, k, rows.max_rows()));
  };
  ScratchLayout measure(nullptr);
  take(measure);
  ScratchLayout layout(exec.worker_scratch(worker, measure.bytes()));
  return take(layout);
}

/// Consecutive blocks that one item scans.
struct Span {
  std::size_t begin, end;
};

std::vector<Span> cut_blocks(std::size_t blocks, std::size_t parts) {
  std::vector<Span> spans;
  for (std::size_t part = 0; part < parts; ++part)
    spans.push_back({blocks * part / parts, blocks * (part + 1) / parts});
  return spans;
}

}  // namespace

void top_k_scan(CpuExec& exec, View<const float, 3> queries, View<const EntryBlock, 2> blocks,
                View<std::int64_t, 3> ids, View<float, 3> scores) {
  const MicroKernels& micro = exec.micro();
  const bool tiled = micro.tiles != nullptr && all_bf16(blocks);
  const QueryRows rows(queries, blocks.extent(0), tiled ? kTiledQueryRows : kQueryRows);
  const std::size_t k = ids.extent(2);
  const std::size_t block_count = blocks.extent(1);
  MEMLANE_EXPECTS(k >= 1 && ids.extents() == scores.extents());
  const BlockBegins begins(blocks);
  MEMLANE_EXPECTS(begins.entries() <= std::numeric_limits<std::uint32_t>::max());
  const std::size_t row_items = rows.kv_heads * rows.items_per_head;
  const std::size_t wanted_parts = (4 * exec.threads() + row_items - 1) / row_items;
  const std::vector<Span> parts =
      cut_blocks(block_count, std::clamp<std::size_t>(wanted_parts, 1, std::max<std::size_t>(block_count, 1)));

  // Few query rows: the blocks are cut into parts, each with its own best k, joined afterwards.
  const std::size_t n = k * parts.size();
  std::vector<std::int64_t> part_ids(parts.size() > 1 ? rows.tokens * rows.heads * n : 0);
  std::vector<float> part_scores(part_ids.size());

  exec.pool().run(row_items * parts.size(), [&](std::size_t index, std::size_t worker) {
    const std::size_t part = index % parts.size();
    const std::size_t row_item = index / parts.size();
    const QueryRows::Item item = rows.item(row_item % rows.items_per_head, row_item / rows.items_per_head);
    const std::size_t count = item.tokens * rows.group;
    // Rows of bfloat16 values go by tiles, if there are any: that depends on the row alone.
    const auto is_tiled = [&](std::size_t row) {
      return tiled && micro.is_bf16(queries.data() + rows.flat_index(item, row) * rows.head_dim, rows.head_dim);
    };
    const auto scan_rows = [&](const auto& scan, const BestLists& best, bool of_tiled) {
      best.clear(count);
      for (std::size_t block = parts[part].begin; block < parts[part].end; ++block) {
        scan.scan(micro, blocks.data()[item.kv_head * block_count + block], static_cast<std::uint32_t>(begins[block]),
                  rows, count, best);
      }
      for (std::size_t row = 0; row < count; ++row) {
        if (is_tiled(row) != of_tiled) continue;
        const std::size_t flat = rows.flat_index(item, row);
        const std::size_t at = parts.size() == 1 ? flat * k : flat * n + part * k;
        best.write(micro, row, (parts.size() == 1 ? ids.data() : part_ids.data()) + at,
                   (parts.size() == 1 ? scores.data() : part_scores.data()) + at);
      }
    };
    std::size_t tiled_rows = 0;
    for (std::size_t row = 0; row < count; ++row) tiled_rows += is_tiled(row) ? 1 : 0;
    if (tiled_rows > 0) {
      const auto [scan, best] = in_worker_scratch<TileScan>(exec, worker, rows, k);
      scan.queries.gather(*micro.tiles, queries, rows, item);
      scan_rows(scan, best, true);
    }
    if (tiled_rows < count) {
      const auto [scan, best] = in_worker_scratch<VectorScan>(exec, worker, rows, k);
      gather_queries(queries, rows, item, 1.0F, scan.queries);
      scan_rows(scan, best, false);
    }
  });
  if (parts.size() > 1) {
    select_best(exec, {part_ids.data(), {rows.tokens, rows.heads, n}},
                {part_scores.data(), {rows.tokens, rows.heads, n}}, ids, scores);
  }
}

void score_entries(CpuExec& exec, View<const float, 3> queries, View<const EntryBlock, 2> blocks,
                   View<const std::int64_t, 3> ids, View<float, 3> scores) {
  const QueryRows rows(queries, blocks.extent(0));
  const std::size_t k = ids.extent(2);
  MEMLANE_EXPECTS(ids.extents() == scores.extents());
  const BlockBegins begins(blocks);
  exec.pool().run(rows.tokens * rows.heads, [&](std::size_t flat, std::size_t worker) {
    auto* key = reinterpret_cast<float*>(exec.worker_scratch(worker, rows.head_dim * sizeof(float)));
    const float* query = queries.data() + flat * rows.head_dim;
    const std::size_t kv_head = flat % rows.heads / rows.group;
    for (std::size_t i = flat * k; i < (flat + 1) * k; ++i) {
      const std::int64_t id = ids.data()[i];
      scores.data()[i] = kNothing;
      if (id < 0) continue;
      const auto entry = static_cast<std::size_t>(id);
      const std::size_t block = begins.block_of(entry);
      read_key(blocks.data()[kv_head * blocks.extent(1) + block], entry - begins[block], rows.head_dim, key);
      float score = 0;
      for (std::size_t d = 0; d < rows.head_dim; ++d) score += query[d] * key[d];
      scores.data()[i] = score;
    }
  });
}

void select_best(CpuExec& exec, View<const std::int64_t, 3> proposed_ids, View<const float, 3> proposed_scores,
                 View<std::int64_t, 3> ids, View<float, 3> scores) {
  const std::size_t n = proposed_ids.extent(2);
  const std::size_t k = ids.extent(2);
  MEMLANE_EXPECTS(proposed_ids.extents() == proposed_scores.extents() && ids.extents() == scores.extents());
  std::vector<std::vector<Candidate>> candidates_of_worker(exec.threads());
  exec.pool().run(ids.extent(0) * ids.extent(1), [&](std::size_t flat, std::size_t worker) {
    std::vector<Candidate>& candidates = candidates_of_worker[worker];
    candidates.clear();
    for (std::size_t i = flat * n; i < (flat + 1) * n; ++i) {
      if (proposed_ids.data()[i] >= 0) candidates.push_back({proposed_scores.data()[i], proposed_ids.data()[i]});
    }
    const std::size_t kept = std::min(k, candidates.size());
    std::partial_sort(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(kept), candidates.end(),
                      better);
    write_by_id(std::span(candidates).first(kept), k, ids.data() + flat * k, scores.data() + flat * k);
  });
}

}  // namespace memlane
