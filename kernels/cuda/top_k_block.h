#pragma once

// Exact search for the k best entries of each query row, in one pass over the keys. A block of threads scans one piece
// of the entries for some rows of a kv head; each row gathers candidates above its threshold in device memory, cut to
// the best k (which raises the threshold) whenever they fill their space. A small second kernel joins the pieces.
// Candidates stand in order of their entries throughout, so that of equal scores the older entry is kept. Runs on the
// GPU (top_k.cu) and emulated in tests.

#include "kernels/cuda/tile_scores.h"

namespace memlane::cuda {

/// A call of top_k_scan.
struct TopKTask {
  const float* queries = nullptr;  // [tokens, heads, head_dim]
  Rows rows;
  std::uint32_t head_dim = 0;  // even
  Entries entries;
  std::uint32_t k = 1;
  std::uint32_t capacity = 0;  // candidates of a row and piece, at least candidate_space(k)
  std::uint32_t splits = 1;
  float* scores = nullptr;          // [tokens, heads][splits][capacity]
  std::uint32_t* found = nullptr;   // their entries, counted through all blocks; likewise
  std::uint32_t* counts = nullptr;  // [tokens, heads][splits]
};

MEMLANE_BOTH constexpr std::uint32_t candidate_space(std::uint32_t k) {
  return 2 * k + 2 * kTileEntries;
}

template <class Shape>
struct TopKMemory {
  static constexpr int kScoreStride = static_cast<int>(kTileEntries) + 8;
  static constexpr int kScoreWords = Shape::kWarps * 16 * kScoreStride;  // of one row tile a warp
  static constexpr std::size_t kBytes =
      (Shape::kQueryWords + 2 * Shape::kKeyWords + kScoreWords + 2 * Shape::kRows) * sizeof(std::uint32_t);
};

/// How many of the scores are at least `least`, in that order.
template <class Warp>
MEMLANE_KERNEL std::uint32_t count_from(Warp& warp, const float* scores, std::uint32_t size, std::uint32_t least) {
  typename Warp::template Lanes<std::uint32_t> counts;
  warp.each([&](int lane) {
    std::uint32_t count = 0;
    for (std::uint32_t i = static_cast<std::uint32_t>(lane); i < size; i += 32) {
      count += ordered(scores[i]) >= least ? 1 : 0;
    }
    counts[lane] = count;
  });
  return warp.sum(counts);
}

/// Cuts size >= k candidates to the best k, of equal ones the first, keeping their order. Returns the worst score kept.
template <class Warp>
MEMLANE_KERNEL float keep_best(Warp& warp, float* scores, std::uint32_t* found, std::uint32_t size, std::uint32_t k) {
  std::uint32_t worst = 0;  // becomes the k-th largest, bit by bit
  for (std::uint32_t bit = 0x80000000U; bit != 0; bit >>= 1) {
    if (count_from(warp, scores, size, worst | bit) >= k) worst |= bit;
  }
  const std::uint32_t better = worst == 0xffffffffU ? 0 : count_from(warp, scores, size, worst + 1);
  std::uint32_t kept = 0;
  std::uint32_t equal = 0;  // so far
  for (std::uint32_t begin = 0; begin < size; begin += 32) {
    typename Warp::template Lanes<float> score;
    typename Warp::template Lanes<std::uint32_t> entry;
    typename Warp::template Lanes<bool> is_better, is_equal;
    warp.each([&](int lane) {
      const std::uint32_t i = begin + static_cast<std::uint32_t>(lane);
      score[lane] = i < size ? scores[i] : 0.0F;
      entry[lane] = i < size ? found[i] : 0;
      is_better[lane] = i < size && ordered(score[lane]) > worst;
      is_equal[lane] = i < size && ordered(score[lane]) == worst;
    });
    const std::uint32_t equal_lanes = warp.ballot(is_equal);
    const std::uint32_t room = k - better > equal ? k - better - equal : 0;  // for equal ones
    warp.sync();                                                             // all lanes have read before any writes
    typename Warp::template Lanes<bool> stays;
    warp.each([&](int lane) {
      const auto equal_before = static_cast<std::uint32_t>(bits_in(equal_lanes & ((1U << lane) - 1)));
      stays[lane] = is_better[lane] || (is_equal[lane] && equal_before < room);
    });
    const std::uint32_t staying = warp.ballot(stays);
    warp.each([&](int lane) {
      if (!stays[lane]) return;
      const std::uint32_t to = kept + static_cast<std::uint32_t>(bits_in(staying & ((1U << lane) - 1)));
      scores[to] = score[lane];
      found[to] = entry[lane];
    });
    kept += static_cast<std::uint32_t>(bits_in(staying));
    equal += static_cast<std::uint32_t>(bits_in(equal_lanes));
    warp.sync();
  }
  return unordered(worst);
}

/// The candidates of a warp's rows.
template <class Shape, class Warp>
class Candidates {
 public:
  using Floats = typename Warp::template Lanes<float>;

  /// thresholds, counts: of the warp's rows in shared memory, [kWarpRows]; scores: scratch [16][kScoreStride].
  MEMLANE_KERNEL Candidates(const TopKTask& task, std::uint32_t kv_head, std::uint32_t split, std::uint32_t first_row,
                            float* thresholds, std::uint32_t* counts, float* scores)
      : task_(task),
        kv_head_(kv_head),
        split_(split),
        first_row_(first_row),
        thresholds_(thresholds),
        counts_(counts),
        scores_(scores) {}

  MEMLANE_KERNEL void clear(Warp& warp) {
    warp.each([&](int lane) {
      for (int row = lane; row < Shape::kWarpRows; row += 32) {
        thresholds_[row] = kNothing;
        counts_[row] = 0;
      }
    });
    warp.sync();
  }

  /// Takes the scores of one row tile that are above their rows' thresholds. first: the tile's first entry of all
  /// blocks; present: its entries.
  MEMLANE_KERNEL void take(Warp& warp, int m, const Floats (&tile)[Shape::kColumnTiles][4], std::uint32_t first,
                           std::uint32_t present) {
    if (!has_any(warp, m, tile, present)) return;
    warp.each([&](int lane) {
      MEMLANE_UNROLL
      for (int n = 0; n < Shape::kColumnTiles; ++n) {
        MEMLANE_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int row = lane / 4 + i / 2 * 8;
          scores_[row * TopKMemory<Shape>::kScoreStride + n * 8 + lane % 4 * 2 + i % 2] = tile[n][i][lane];
        }
      }
    });
    warp.sync();
    for (int i = 0; i < 16; ++i) {
      if (first_row_ + static_cast<std::uint32_t>(m * 16 + i) >= task_.rows.count()) break;
      take_row(warp, m * 16 + i, scores_ + i * TopKMemory<Shape>::kScoreStride, first, present);
    }
  }

  /// Cuts every row to its best k and says how many there are.
  MEMLANE_KERNEL void finish(Warp& warp) {
    for (int row = 0; row < Shape::kWarpRows; ++row) {
      if (first_row_ + static_cast<std::uint32_t>(row) >= task_.rows.count()) break;
      const std::size_t list = list_of(row);
      std::uint32_t count = counts_[row];
      if (count > task_.k) {
        keep_best(warp, task_.scores + list * task_.capacity, task_.found + list * task_.capacity, count, task_.k);
        count = task_.k;
      }
      warp.each([&](int lane) {
        if (lane == 0) task_.counts[list] = count;
      });
    }
  }

 private:
  MEMLANE_KERNEL bool has_any(Warp& warp, int m, const Floats (&tile)[Shape::kColumnTiles][4], std::uint32_t present) {
    typename Warp::template Lanes<bool> any;
    warp.each([&](int lane) {
      bool some = false;
      MEMLANE_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int row = m * 16 + half * 8 + lane / 4;
        const bool exists = first_row_ + static_cast<std::uint32_t>(row) < task_.rows.count();
        const float threshold = thresholds_[row];
        MEMLANE_UNROLL
        for (int n = 0; n < Shape::kColumnTiles; ++n) {
          MEMLANE_UNROLL
          for (int i = 0; i < 2; ++i) {
            const auto entry = static_cast<std::uint32_t>(n * 8 + lane % 4 * 2 + i);
            some |= exists && entry < present && tile[n][half * 2 + i][lane] > threshold;
          }
        }
      }
      any[lane] = some;
    });
    return warp.ballot(any) != 0;
  }

  MEMLANE_KERNEL void take_row(Warp& warp, int row, const float* scores, std::uint32_t first, std::uint32_t present) {
    const std::size_t list = list_of(row);
    float* candidate_scores = task_.scores + list * task_.capacity;
    std::uint32_t* candidates = task_.found + list * task_.capacity;
    std::uint32_t count = counts_[row];
    float threshold = thresholds_[row];
    if (count + kTileEntries > task_.capacity) {
      threshold = keep_best(warp, candidate_scores, candidates, count, task_.k);
      count = task_.k;
    }
    for (std::uint32_t begin = 0; begin < kTileEntries; begin += 32) {
      typename Warp::template Lanes<bool> passes;
      warp.each([&](int lane) {
        const std::uint32_t entry = begin + static_cast<std::uint32_t>(lane);
        passes[lane] = entry < present && scores[entry] > threshold;
      });
      const std::uint32_t passing = warp.ballot(passes);
      warp.each([&](int lane) {
        if (!passes[lane]) return;
        const std::uint32_t entry = begin + static_cast<std::uint32_t>(lane);
        const std::uint32_t to = count + static_cast<std::uint32_t>(bits_in(passing & ((1U << lane) - 1)));
        candidate_scores[to] = scores[entry];
        candidates[to] = first + entry;
      });
      count += static_cast<std::uint32_t>(bits_in(passing));
    }
    warp.sync();  // all lanes have read the row's state
    warp.each([&](int lane) {
      if (lane != 0) return;
      counts_[row] = count;
      thresholds_[row] = threshold;
    });
    warp.sync();
  }

  MEMLANE_KERNEL std::size_t list_of(int row) const {
    return task_.rows.flat(first_row_ + static_cast<std::uint32_t>(row), kv_head_) * task_.splits + split_;
  }

  const TopKTask& task_;
  std::uint32_t kv_head_, split_, first_row_;
  float* thresholds_;
  std::uint32_t* counts_;
  float* scores_;
};

/// The block of threads for rows [row_block * kRows, ...) of a kv head and one piece of the entries.
/// shared: TopKMemory<Shape>::kBytes, aligned to 16.
template <class Shape, class Warp>
MEMLANE_KERNEL void top_k_block(Warp& warp, const TopKTask& task, std::uint32_t row_block, std::uint32_t kv_head,
                                std::uint32_t split, std::uint32_t* shared) {
  const std::uint32_t first_row = row_block * Shape::kRows;
  const int warp_row = warp.index() * Shape::kWarpRows;
  const Range tiles = piece_of({0, task.entries.tiles}, split, task.splits);
  const std::uint32_t* queries = shared + warp_row * Shape::kQueryStride;
  std::uint32_t* buffers = shared + Shape::kQueryWords;
  std::uint32_t* scratch = buffers + 2 * Shape::kKeyWords;
  std::uint32_t* state = scratch + TopKMemory<Shape>::kScoreWords;
  Candidates<Shape, Warp> candidates(
      task, kv_head, split, first_row + static_cast<std::uint32_t>(warp_row),
      reinterpret_cast<float*>(state + warp_row), state + Shape::kRows + warp_row,
      reinterpret_cast<float*>(scratch) + warp.index() * 16 * TopKMemory<Shape>::kScoreStride);
  candidates.clear(warp);
  if (tiles.begin < tiles.end) {
    load_queries<Shape>(warp, task.queries, task.rows, kv_head, task.head_dim, first_row, shared);
    Cursor at(task.entries, kv_head, tiles.begin);
    Cursor next = at;
    fetch_keys<Shape>(warp, next.get(), next.first_entry(), next.get().count, task.head_dim, buffers);
    warp.commit();
    for (std::uint32_t tile = tiles.begin; tile < tiles.end; ++tile) {
      const std::uint32_t buffer = (tile - tiles.begin) % 2;
      if (tile + 1 < tiles.end) {
        next.advance();
        fetch_keys<Shape>(warp, next.get(), next.first_entry(), next.get().count, task.head_dim,
                          buffers + (1 - buffer) * Shape::kKeyWords);
      }
      warp.commit();  // perhaps of nothing
      warp.template wait_but<1>();
      warp.barrier();
      TileScores<Warp, Shape> scores;
      warp.each([&](int lane) {
        MEMLANE_UNROLL
        for (int m = 0; m < Shape::kRowTiles; ++m) {
          MEMLANE_UNROLL
          for (int n = 0; n < Shape::kColumnTiles; ++n) {
            MEMLANE_UNROLL
            for (int i = 0; i < 4; ++i) scores[m][n][i][lane] = 0;
          }
        }
      });
      score_tile<Shape>(warp, queries, buffers + buffer * Shape::kKeyWords, scores);
      const std::uint32_t first = at.first_entry();
      const std::uint32_t left = at.get().count - first;
      MEMLANE_UNROLL
      for (int m = 0; m < Shape::kRowTiles; ++m) {
        candidates.take(warp, m, scores[m], at.get().first_entry + first, left < kTileEntries ? left : kTileEntries);
      }
      warp.barrier();  // before the next round overwrites this buffer
      at = next;
    }
  }
  candidates.finish(warp);
}

/// Joins the pieces of one row of [tokens, heads]: the best k in order of their entries, then -1.
/// ids, scores: [tokens, heads, k].
template <class Warp>
MEMLANE_KERNEL void select_row(Warp& warp, const TopKTask& task, std::size_t row, std::int32_t* ids, float* scores) {
  float* all_scores = task.scores + row * task.splits * task.capacity;
  std::uint32_t* all = task.found + row * task.splits * task.capacity;
  std::uint32_t total = 0;
  for (std::uint32_t split = 0; split < task.splits; ++split) {  // move the lists up behind each other
    const std::uint32_t count = task.counts[row * task.splits + split];
    for (std::uint32_t begin = 0; begin < count; begin += 32) {
      typename Warp::template Lanes<float> score;
      typename Warp::template Lanes<std::uint32_t> entry;
      warp.each([&](int lane) {
        const std::uint32_t i = begin + static_cast<std::uint32_t>(lane);
        const std::size_t from = static_cast<std::size_t>(split) * task.capacity + i;
        score[lane] = i < count ? all_scores[from] : 0.0F;
        entry[lane] = i < count ? all[from] : 0;
      });
      warp.sync();
      warp.each([&](int lane) {
        const std::uint32_t i = begin + static_cast<std::uint32_t>(lane);
        if (i >= count) return;
        all_scores[total + i] = score[lane];
        all[total + i] = entry[lane];
      });
      warp.sync();
    }
    total += count;
  }
  if (total > task.k) {
    keep_best(warp, all_scores, all, total, task.k);
    total = task.k;
  }
  warp.each([&](int lane) {
    for (std::uint32_t i = static_cast<std::uint32_t>(lane); i < task.k; i += 32) {
      ids[row * task.k + i] = i < total ? static_cast<std::int32_t>(all[i]) : -1;
      scores[row * task.k + i] = i < total ? all_scores[i] : kNothing;
    }
  });
}

/// A call of join_best: rows of two lists of k, each in order of its entries with what is missing (-1) last. Entries of
/// the second are counted from `base`, which is above all of the first.
struct JoinTask {
  std::int32_t* ids = nullptr;         // [rows, k]; the first list, then the joined one
  float* scores = nullptr;             // likewise
  const std::int32_t* more = nullptr;  // [rows, k]
  const float* more_scores = nullptr;  // likewise
  std::uint32_t base = 0, k = 1;
  float* both_scores = nullptr;   // scratch: [rows, 2 k]
  std::uint32_t* both = nullptr;  // likewise
};

/// How many of the ids there are before the first -1.
template <class Warp>
MEMLANE_KERNEL std::uint32_t count_present(Warp& warp, const std::int32_t* ids, std::uint32_t k) {
  typename Warp::template Lanes<std::uint32_t> counts;
  warp.each([&](int lane) {
    std::uint32_t count = 0;
    for (std::uint32_t i = static_cast<std::uint32_t>(lane); i < k; i += 32) count += ids[i] >= 0 ? 1 : 0;
    counts[lane] = count;
  });
  return warp.sum(counts);
}

/// Joins one row: the best k of both lists in order of their entries, then -1.
template <class Warp>
MEMLANE_KERNEL void join_row(Warp& warp, const JoinTask& task, std::size_t row) {
  std::int32_t* ids = task.ids + row * task.k;
  float* scores = task.scores + row * task.k;
  const std::int32_t* more = task.more + row * task.k;
  const float* more_scores = task.more_scores + row * task.k;
  std::uint32_t* both = task.both + row * 2 * task.k;
  float* both_scores = task.both_scores + row * 2 * task.k;
  const std::uint32_t first = count_present(warp, ids, task.k);
  const std::uint32_t second = count_present(warp, more, task.k);
  warp.each([&](int lane) {
    for (std::uint32_t i = static_cast<std::uint32_t>(lane); i < first; i += 32) {
      both[i] = static_cast<std::uint32_t>(ids[i]);
      both_scores[i] = scores[i];
    }
    for (std::uint32_t i = static_cast<std::uint32_t>(lane); i < second; i += 32) {
      both[first + i] = task.base + static_cast<std::uint32_t>(more[i]);
      both_scores[first + i] = more_scores[i];
    }
  });
  warp.sync();  // a lane reads what others wrote
  std::uint32_t total = first + second;
  if (total > task.k) {
    keep_best(warp, both_scores, both, total, task.k);
    total = task.k;
  }
  warp.each([&](int lane) {
    for (std::uint32_t i = static_cast<std::uint32_t>(lane); i < task.k; i += 32) {
      ids[i] = i < total ? static_cast<std::int32_t>(both[i]) : -1;
      scores[i] = i < total ? both_scores[i] : kNothing;
    }
  });
}

}  // namespace memlane::cuda
