#pragma once

// Attention of one block of threads: some query rows of one kv head over one piece of its entries, by online softmax
// (Milakov and Gimelshein 2018; tiled as in FlashAttention-2, Dao 2023). Runs on the GPU (attention.cu) and emulated
// in tests.

#include "kernels/cuda/tile_scores.h"

namespace memlane::cuda {

/// A call of attend. Pieces of the entries have partials of their own, one behind the other.
///
/// In a pass that may be replayed (entries.held), the entries' limit and the band's first position are counted from the
/// number on the device, and `splits` is for as many entries as there can be; as_it_is() is what it comes to.
struct AttendTask {
  const float* queries = nullptr;  // [tokens, heads, head_dim]
  Rows rows;
  std::uint32_t head_dim = 0;  // even
  Entries entries;
  Band band;
  float scale = 1;
  std::uint32_t splits = 1;
  std::uint32_t wanted_splits = 1;  // if there were tiles enough
  float* sum = nullptr;             // [splits][tokens, heads, head_dim]
  float* max = nullptr;             // [splits][tokens, heads]
  float* weight = nullptr;          // likewise
};

/// The task when it runs. What comes of it is the same, to the bit, as of a task that was made for this many entries.
MEMLANE_KERNEL AttendTask as_it_is(AttendTask task) {
  if (task.entries.held.on_device == nullptr) return task;
  const std::uint32_t held = *task.entries.held.on_device;
  task.entries.limit += held;
  task.entries.tiles = tiles_for(task.entries.limit);
  task.band.first_position += held;
  task.splits = splits_of_tiles(task.entries.tiles, task.wanted_splits);
  return task;
}

template <class Shape>
struct AttendMemory {
  static constexpr int kBufferWords = Shape::kKeyWords + Shape::kValueWords;
  static constexpr std::size_t kBytes = (Shape::kQueryWords + 2 * kBufferWords) * sizeof(std::uint32_t);
};

/// Starts to copy the values of a tile, all warps together. shared: [64][kValueStride], zeros beyond count and
/// head_dim.
template <class Shape, int PieceUnits, class Warp>
MEMLANE_KERNEL void fetch_values(Warp& warp, const Block& block, std::uint32_t first, std::uint32_t count,
                                 std::uint32_t head_dim, std::uint32_t* shared) {
  constexpr int kPieces = Shape::kUnits / PieceUnits;  // of a row
  const std::uint32_t units = head_dim / 2;
  const auto* rows = reinterpret_cast<const std::uint32_t*>(block.values);
  warp.each([&](int lane) {
    for (int i = warp.index() * 32 + lane; i < static_cast<int>(kTileEntries) * kPieces; i += Shape::kWarps * 32) {
      const auto entry = static_cast<std::uint32_t>(i / kPieces);
      const std::uint32_t unit = static_cast<std::uint32_t>(i % kPieces) * PieceUnits;
      const bool present = first + entry < count && unit < units;
      const std::uint32_t* from = rows + (present ? static_cast<std::size_t>(first + entry) * units + unit : 0);
      warp.template copy_async<PieceUnits * 4>(shared + entry * Shape::kValueStride + unit, from, present);
    }
  });
}

/// A tile of the walk into one of the two buffers.
template <class Shape, class Warp>
MEMLANE_KERNEL void fetch_tile(Warp& warp, const AttendTask& task, const Cursor& at, std::uint32_t* buffer) {
  const Block& block = at.get();
  const std::uint32_t first = at.first_entry();
  const std::uint32_t count = block.count < task.entries.limit ? block.count : task.entries.limit;
  fetch_keys<Shape>(warp, block, first, count, task.head_dim, buffer);
  std::uint32_t* values = buffer + Shape::kKeyWords;
  if (task.head_dim % 8 == 0) {  // rows start at multiples of 16 bytes
    fetch_values<Shape, 4>(warp, block, first, count, task.head_dim, values);
  } else if (task.head_dim % 4 == 0) {
    fetch_values<Shape, 2>(warp, block, first, count, task.head_dim, values);
  } else {
    fetch_values<Shape, 1>(warp, block, first, count, task.head_dim, values);
  }
}

/// What a warp has of its rows so far. A lane has rows g and g + 8 of each row tile, columns 2t and 2t + 1 of each
/// column tile; the weight of a row is the sum over the four lanes that share it.
template <class Shape, class Warp>
struct AttendState {
  using Floats = typename Warp::template Lanes<float>;
  Floats sum[Shape::kRowTiles][2 * Shape::kSteps][4];
  Floats max[Shape::kRowTiles][2];
  Floats weight[Shape::kRowTiles][2];
  typename Warp::template Lanes<Range> seen[Shape::kRowTiles][2];  // under a band: entries that the row sees

  MEMLANE_KERNEL void clear(Warp& warp) {
    MEMLANE_UNROLL
    for (int m = 0; m < Shape::kRowTiles; ++m) {
      warp.each([&](int lane) {
        MEMLANE_UNROLL
        for (int n = 0; n < 2 * Shape::kSteps; ++n) {
          MEMLANE_UNROLL
          for (int i = 0; i < 4; ++i) sum[m][n][i][lane] = 0;
        }
        MEMLANE_UNROLL
        for (int half = 0; half < 2; ++half) {
          max[m][half][lane] = kNothing;
          weight[m][half][lane] = 0;
        }
      });
    }
  }

  /// first_row: of the warp.
  MEMLANE_KERNEL void look(Warp& warp, const AttendTask& task, std::uint32_t first_row) {
    MEMLANE_UNROLL
    for (int m = 0; m < Shape::kRowTiles; ++m) {
      warp.each([&](int lane) {
        MEMLANE_UNROLL
        for (int half = 0; half < 2; ++half) {
          const std::uint32_t row = first_row + static_cast<std::uint32_t>(m * 16 + half * 8 + lane / 4);
          seen[m][half][lane] = task.band.seen_by(task.rows.token(row), kAny);
        }
      });
    }
  }

  /// Turns the scores of half the rows of a row tile into weights under the new maximum, rescaling what is there.
  /// first, count: of the tile, of its block. weights: pairs of bfloat16, of each column tile.
  MEMLANE_KERNEL void weigh(Warp& warp, const AttendTask& task, std::uint32_t first, std::uint32_t count, int m,
                            int half, Floats (&scores)[Shape::kColumnTiles][4],
                            typename Warp::template Lanes<std::uint32_t> (&weights)[Shape::kColumnTiles][2]) {
    Floats most;
    warp.each([&](int lane) {
      const std::uint32_t begin = seen[m][half][lane].begin;
      const std::uint32_t end = seen[m][half][lane].end < count ? seen[m][half][lane].end : count;
      float best = kNothing;
      MEMLANE_UNROLL
      for (int n = 0; n < Shape::kColumnTiles; ++n) {
        MEMLANE_UNROLL
        for (int i = 0; i < 2; ++i) {
          const std::uint32_t entry = first + static_cast<std::uint32_t>(n * 8 + lane % 4 * 2 + i);
          float& score = scores[n][half * 2 + i][lane];
          score = entry >= begin && entry < end ? score * task.scale : kNothing;
          best = score > best ? score : best;
        }
      }
      most[lane] = best;
    });
    MEMLANE_UNROLL
    for (int mask = 1; mask < 4; mask *= 2) {
      const Floats other = warp.shuffle_xor(most, mask);
      warp.each([&](int lane) { most[lane] = other[lane] > most[lane] ? other[lane] : most[lane]; });
    }
    warp.each([&](int lane) {
      const float before = max[m][half][lane];
      const float now = most[lane] > before ? most[lane] : before;
      const float base = now == kNothing ? 0.0F : now;  // nothing seen yet: all weights are exp(-inf) = 0
      const float keep = exponential(before - base);
      max[m][half][lane] = now;
      float total = weight[m][half][lane] * keep;
      MEMLANE_UNROLL
      for (int n = 0; n < 2 * Shape::kSteps; ++n) {
        sum[m][n][half * 2][lane] *= keep;
        sum[m][n][half * 2 + 1][lane] *= keep;
      }
      MEMLANE_UNROLL
      for (int n = 0; n < Shape::kColumnTiles; ++n) {
        const std::uint32_t pair =
            bf16_pair(exponential(scores[n][half * 2][lane] - base), exponential(scores[n][half * 2 + 1][lane] - base));
        total += low_of(pair) + high_of(pair);  // as rounded, so that they are the weights of an average
        weights[n][half][lane] = pair;
      }
      weight[m][half][lane] = total;
    });
  }

  /// sum += weights * values of the tile, for one row tile. values: [64][kValueStride].
  MEMLANE_KERNEL void add_values(
      Warp& warp, int m, const std::uint32_t* values,
      const typename Warp::template Lanes<std::uint32_t> (&weights)[Shape::kColumnTiles][2]) {
    MEMLANE_UNROLL
    for (int step = 0; step < static_cast<int>(kTileEntries) / 16; ++step) {
      const typename Warp::template Lanes<std::uint32_t> a[4] = {weights[2 * step][0], weights[2 * step][1],
                                                                 weights[2 * step + 1][0], weights[2 * step + 1][1]};
      MEMLANE_UNROLL
      for (int n = 0; n < Shape::kSteps; ++n) {  // 16 columns: tiles (entries 0-7 and 8-15) of columns 0-7, then 8-15
        typename Warp::template Lanes<const std::uint32_t*> rows;
        warp.each([&](int lane) {
          const int entry = step * 16 + lane / 8 % 2 * 8 + lane % 8;
          rows[lane] = values + entry * Shape::kValueStride + n * 8 + lane / 16 * 4;
        });
        typename Warp::template Lanes<std::uint32_t> b[4];
        warp.load_transposed(b, rows);
        warp.mma(sum[m][2 * n], a, b[0], b[1]);
        warp.mma(sum[m][2 * n + 1], a, b[2], b[3]);
      }
    }
  }

  /// first_row: of the warp; split: whose partial this is.
  MEMLANE_KERNEL void store(Warp& warp, const AttendTask& task, std::uint32_t first_row, std::uint32_t kv_head,
                            std::uint32_t split) {
    const std::size_t base = static_cast<std::size_t>(split) * task.rows.tokens * task.rows.heads;
    MEMLANE_UNROLL
    for (int m = 0; m < Shape::kRowTiles; ++m) {
      MEMLANE_UNROLL
      for (int half = 0; half < 2; ++half) {
        Floats total = weight[m][half];
        MEMLANE_UNROLL
        for (int mask = 1; mask < 4; mask *= 2) {
          const Floats other = warp.shuffle_xor(total, mask);
          warp.each([&](int lane) { total[lane] += other[lane]; });
        }
        warp.each([&](int lane) {
          const std::uint32_t row = first_row + static_cast<std::uint32_t>(m * 16 + half * 8 + lane / 4);
          if (row >= task.rows.count()) return;
          const std::size_t flat = base + task.rows.flat(row, kv_head);
          MEMLANE_UNROLL
          for (int n = 0; n < 2 * Shape::kSteps; ++n) {
            const std::uint32_t d = static_cast<std::uint32_t>(n * 8 + lane % 4 * 2);
            if (d >= task.head_dim) continue;  // even, so d + 1 is inside as well
            task.sum[flat * task.head_dim + d] = sum[m][n][half * 2][lane];
            task.sum[flat * task.head_dim + d + 1] = sum[m][n][half * 2 + 1][lane];
          }
          if (lane % 4 != 0) return;
          task.max[flat] = max[m][half][lane];
          task.weight[flat] = total[lane];
        });
      }
    }
  }
};

/// A tile that has arrived.
template <class Shape, class Warp>
MEMLANE_KERNEL void attend_tile(Warp& warp, const AttendTask& task, const Cursor& at, const std::uint32_t* queries,
                                const std::uint32_t* buffer, AttendState<Shape, Warp>& state) {
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
  score_tile<Shape>(warp, queries, buffer, scores);
  const std::uint32_t count = at.get().count < task.entries.limit ? at.get().count : task.entries.limit;
  MEMLANE_UNROLL
  for (int m = 0; m < Shape::kRowTiles; ++m) {
    typename Warp::template Lanes<std::uint32_t> weights[Shape::kColumnTiles][2];
    MEMLANE_UNROLL
    for (int half = 0; half < 2; ++half) {
      state.weigh(warp, task, at.first_entry(), count, m, half, scores[m], weights);
    }
    state.add_values(warp, m, buffer + Shape::kKeyWords, weights);
  }
}

/// The block of threads for rows [row_block * kRows, ...) of a kv head and one piece of the entries.
/// shared: AttendMemory<Shape>::kBytes, aligned to 16.
template <class Shape, class Warp>
MEMLANE_KERNEL void attend_block(Warp& warp, const AttendTask& made, std::uint32_t row_block, std::uint32_t kv_head,
                                 std::uint32_t split, std::uint32_t* shared) {
  const AttendTask task = as_it_is(made);
  if (split >= task.splits) return;  // the whole block: there are fewer entries than there can be
  const std::uint32_t first_row = row_block * Shape::kRows;
  const std::uint32_t end_row =
      first_row + Shape::kRows < task.rows.count() ? first_row + Shape::kRows : task.rows.count();
  const std::uint32_t warp_row = first_row + static_cast<std::uint32_t>(warp.index() * Shape::kWarpRows);
  const Range tiles = piece_of(seen_tiles(task.entries, task.band, task.rows, first_row, end_row), split, task.splits);
  const std::uint32_t* queries = shared + warp.index() * Shape::kWarpRows * Shape::kQueryStride;
  std::uint32_t* buffers = shared + Shape::kQueryWords;

  AttendState<Shape, Warp> state;
  state.clear(warp);
  state.look(warp, task, warp_row);
  if (tiles.begin < tiles.end) {
    load_queries<Shape>(warp, task.queries, task.rows, kv_head, task.head_dim, first_row, shared);
    Cursor at(task.entries, kv_head, tiles.begin);
    Cursor next = at;
    fetch_tile<Shape>(warp, task, next, buffers);
    warp.commit();
    for (std::uint32_t tile = tiles.begin; tile < tiles.end; ++tile) {
      const std::uint32_t buffer = (tile - tiles.begin) % 2;
      if (tile + 1 < tiles.end) {
        next.advance();
        fetch_tile<Shape>(warp, task, next, buffers + (1 - buffer) * AttendMemory<Shape>::kBufferWords);
      }
      warp.commit();  // perhaps of nothing
      warp.template wait_but<1>();
      warp.barrier();
      attend_tile<Shape>(warp, task, at, queries, buffers + buffer * AttendMemory<Shape>::kBufferWords, state);
      warp.barrier();  // before the next round overwrites this buffer
      at = next;
    }
  }
  state.store(warp, task, warp_row, kv_head, split);
}

/// Merges the partials of the pieces of one row, in their order: out is [tokens, heads ...] as in the task. That of a
/// single piece keeps its bits.
template <class Warp>
MEMLANE_KERNEL void merge_pieces(Warp& warp, const AttendTask& made, std::size_t flat, float* sum, float* max,
                                 float* weight) {
  const AttendTask task = as_it_is(made);
  const std::size_t pairs = static_cast<std::size_t>(task.rows.tokens) * task.rows.heads;
  float most = kNothing;
  for (std::uint32_t split = 0; split < task.splits; ++split) {
    const float other = task.max[split * pairs + flat];
    most = other > most ? other : most;
  }
  const float base = most == kNothing ? 0.0F : most;
  float total = task.weight[flat] * exponential(task.max[flat] - base);
  for (std::uint32_t split = 1; split < task.splits; ++split) {
    total += task.weight[split * pairs + flat] * exponential(task.max[split * pairs + flat] - base);
  }
  warp.each([&](int lane) {
    for (std::uint32_t d = static_cast<std::uint32_t>(lane); d < task.head_dim; d += 32) {
      float element = task.sum[flat * task.head_dim + d] * exponential(task.max[flat] - base);
      for (std::uint32_t split = 1; split < task.splits; ++split) {
        const std::size_t at = split * pairs + flat;
        element += task.sum[at * task.head_dim + d] * exponential(task.max[at] - base);
      }
      sum[flat * task.head_dim + d] = element;
    }
    if (lane != 0) return;
    max[flat] = most;
    weight[flat] = total;
  });
}

}  // namespace memlane::cuda
