#include "kernels/top_k.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/cpu/key_tiles.h"

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

/// The best k of a stream of candidates: they gather in a list that is cut to k whenever it doubles.
class BestK {
 public:
  void reset(std::size_t k) {
    k_ = k;
    candidates_.clear();
    threshold_ = kNothing;
  }
  float threshold() const { return threshold_; }
  void offer(Candidate candidate) {
    candidates_.push_back(candidate);
    if (candidates_.size() >= 2 * k_ + kTileEntries) cut();
  }
  std::span<Candidate> finish() {
    cut();
    return candidates_;
  }

 private:
  void cut() {
    if (candidates_.size() < k_) return;
    const auto kth = candidates_.begin() + static_cast<std::ptrdiff_t>(k_ - 1);
    std::nth_element(candidates_.begin(), kth, candidates_.end(), better);
    threshold_ = kth->score;
    candidates_.resize(k_);
  }

  std::size_t k_ = 0;
  std::vector<Candidate> candidates_;
  float threshold_ = kNothing;  // nothing below it can be among the best
};

/// Writes candidates in order of their ids, then fills up with none. ids, scores: [k].
void write_by_id(std::span<Candidate> best, std::size_t k, std::int64_t* ids, float* scores) {
  std::sort(best.begin(), best.end(), [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  for (std::size_t i = 0; i < k; ++i) {
    ids[i] = i < best.size() ? best[i].id : -1;
    scores[i] = i < best.size() ? best[i].score : kNothing;
  }
}

/// Offers every entry of a block to its row's list.
void scan_block(const MicroKernels& micro, const EntryBlock& block, std::int64_t block_begin, const float* queries,
                std::size_t rows, std::size_t head_dim, float* widened, float* scores, std::vector<BestK>& best) {
  for (std::size_t begin = 0; begin < block.count; begin += kTileEntries) {
    score_tile(micro, queries, rows, head_dim, block, begin, widened, scores);
    const std::size_t entries = std::min(kTileEntries, block.count - begin);
    for (std::size_t row = 0; row < rows; ++row) {
      const float* s = scores + row * kTileEntries;
      if (micro.row_max(s, kTileEntries) < best[row].threshold()) continue;
      for (std::size_t i = 0; i < entries; ++i) {
        if (s[i] >= best[row].threshold()) best[row].offer({s[i], block_begin + static_cast<std::int64_t>(begin + i)});
      }
    }
  }
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

std::vector<std::int64_t> block_begins(View<const EntryBlock, 2> blocks) {
  std::vector<std::int64_t> begins(blocks.extent(1) + 1, 0);
  for (std::size_t block = 0; block < blocks.extent(1); ++block) {
    begins[block + 1] = begins[block] + static_cast<std::int64_t>(blocks.data()[block].count);
  }
  return begins;
}

}  // namespace

void top_k_scan(CpuExec& exec, View<const float, 3> queries, View<const EntryBlock, 2> blocks,
                View<std::int64_t, 3> ids, View<float, 3> scores) {
  const QueryRows rows(queries, blocks.extent(0));
  const std::size_t k = ids.extent(2);
  const std::size_t block_count = blocks.extent(1);
  MEMLANE_EXPECTS(k >= 1 && ids.extents() == scores.extents());
  const std::vector<std::int64_t> begins = block_begins(blocks);
  const std::size_t row_items = rows.kv_heads * rows.items_per_head;
  const std::size_t wanted_parts = (4 * exec.threads() + row_items - 1) / row_items;
  const std::vector<Span> parts =
      cut_blocks(block_count, std::clamp<std::size_t>(wanted_parts, 1, std::max<std::size_t>(block_count, 1)));

  // Few query rows: the blocks are cut into parts, each with its own best k, joined afterwards.
  const std::size_t n = k * parts.size();
  std::vector<std::int64_t> part_ids(parts.size() > 1 ? rows.tokens * rows.heads * n : 0);
  std::vector<float> part_scores(part_ids.size());
  std::vector<std::vector<BestK>> best_of_worker(exec.threads());

  exec.pool().run(row_items * parts.size(), [&](std::size_t index, std::size_t worker) {
    const std::size_t part = index % parts.size();
    const std::size_t row_item = index / parts.size();
    const QueryRows::Item item = rows.item(row_item % rows.items_per_head, row_item / rows.items_per_head);
    const std::size_t count = item.tokens * rows.group;
    const auto lay_out = [&](ScratchLayout& layout) {
      struct {
        float *queries, *widened, *scores;
      } space{layout.take<float>(count * rows.head_dim), layout.take<float>((rows.head_dim + 1) * kPanelEntries),
              layout.take<float>(count * kTileEntries)};
      return space;
    };
    ScratchLayout measure(nullptr);
    lay_out(measure);
    ScratchLayout layout(exec.worker_scratch(worker, measure.bytes()));
    const auto space = lay_out(layout);

    std::vector<BestK>& best = best_of_worker[worker];
    if (best.size() < count) best.resize(count);
    for (BestK& list : best) list.reset(k);
    gather_queries(queries, rows, item, 1.0F, space.queries);
    for (std::size_t block = parts[part].begin; block < parts[part].end; ++block) {
      scan_block(exec.micro(), blocks.data()[item.kv_head * block_count + block], begins[block], space.queries, count,
                 rows.head_dim, space.widened, space.scores, best);
    }
    for (std::size_t row = 0; row < count; ++row) {
      const std::size_t flat = rows.flat_index(item, row);
      if (parts.size() == 1) {
        write_by_id(best[row].finish(), k, ids.data() + flat * k, scores.data() + flat * k);
      } else {
        const std::size_t at = flat * n + part * k;
        write_by_id(best[row].finish(), k, part_ids.data() + at, part_scores.data() + at);
      }
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
  const std::vector<std::int64_t> begins = block_begins(blocks);
  exec.pool().run(rows.tokens * rows.heads, [&](std::size_t flat, std::size_t worker) {
    auto* key = reinterpret_cast<float*>(exec.worker_scratch(worker, rows.head_dim * sizeof(float)));
    const float* query = queries.data() + flat * rows.head_dim;
    const std::size_t kv_head = flat % rows.heads / rows.group;
    for (std::size_t i = flat * k; i < (flat + 1) * k; ++i) {
      const std::int64_t id = ids.data()[i];
      scores.data()[i] = kNothing;
      if (id < 0) continue;
      const auto after = std::upper_bound(begins.begin(), begins.end(), id);
      MEMLANE_EXPECTS(after != begins.end());
      const auto block = static_cast<std::size_t>(after - begins.begin()) - 1;
      read_key(blocks.data()[kv_head * blocks.extent(1) + block], static_cast<std::size_t>(id - begins[block]),
               rows.head_dim, key);
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
