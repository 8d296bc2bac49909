#pragma once

// What the host gives to the kernels over entries and to the choice of a token: their tasks, filled from views, and
// where their pieces go. Shared by the launches (attention.cu, top_k.cu, sampling.cu) and the tests that emulate them.

#include <algorithm>
#include <cstddef>

#include "kernels/cuda/attend_block.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/sample_block.h"
#include "kernels/cuda/sampling.h"
#include "kernels/cuda/selected_rows.h"
#include "kernels/cuda/top_k_block.h"
#include "kernels/cuda/visibility.h"

namespace memlane::cuda {

/// Blocks of threads that a launch should have at least: a few for each multiprocessor.
inline std::uint64_t wanted_blocks(const CudaExec& exec) {
  return 4 * exec.multiprocessors();
}

/// Pieces of the entries that a search is split into at most: each adds k candidates to the last selection.
inline constexpr std::uint32_t kMostSearchPieces = 16;

inline Rows rows_of(View<const float, 3, Cuda> queries, const Entries& entries) {
  const std::size_t tokens = queries.extent(0), heads = queries.extent(1), head_dim = queries.extent(2);
  MEMLANE_EXPECTS(entries.kv_heads > 0 && heads % entries.kv_heads == 0 && head_dim % 2 == 0 && tokens < (1U << 24));
  return {static_cast<std::uint32_t>(tokens), static_cast<std::uint32_t>(heads),
          static_cast<std::uint32_t>(heads / entries.kv_heads)};
}

/// Blocks of threads that the rows of one kv head take.
template <class Shape>
std::uint32_t row_blocks_of_head(const Rows& rows) {
  return (rows.count() + Shape::kRows - 1) / Shape::kRows;
}

/// Blocks of threads that all rows take, over one piece of the entries.
template <class Shape>
std::uint64_t blocks_of_piece(const Rows& rows, const Entries& entries) {
  return static_cast<std::uint64_t>(row_blocks_of_head<Shape>(rows)) * entries.kv_heads;
}

/// A call of attend, but for its pieces.
inline AttendTask attend_task(View<const float, 3, Cuda> queries, const Entries& entries, float scale,
                              const Visibility& visibility) {
  MEMLANE_EXPECTS((!visibility.banded && entries.limit == kAny) || entries.block_count == 1);
  AttendTask task;
  task.queries = queries.data();
  task.rows = rows_of(queries, entries);
  task.head_dim = static_cast<std::uint32_t>(queries.extent(2));
  task.entries = entries;
  task.band = band_of(visibility);
  task.scale = scale;
  if (entries.held.on_device != nullptr) {  // counted from there
    MEMLANE_EXPECTS(visibility.banded && visibility.first_position == entries.held.now);
    MEMLANE_EXPECTS(entries.held.now < entries.limit && entries.limit <= entries.held.room);
    task.entries.limit -= entries.held.now;
    task.band.first_position = 0;
  }
  return task;
}

/// The partial of a single piece is the call's; those of several are in scratch space, to be merged. A pass that may be
/// replayed has pieces for as many entries as there can be.
template <class Shape>
void place_pieces(CudaExec& exec, AttendTask& task, const CudaPartial& out) {
  const Entries& entries = task.entries;
  task.wanted_splits = wanted_splits(blocks_of_piece<Shape>(task.rows, entries), wanted_blocks(exec));
  task.splits = splits_of_tiles(entries.held.on_device != nullptr ? tiles_for(entries.held.room) : entries.tiles,
                                task.wanted_splits);
  task.sum = out.sum.data();
  task.max = out.max.data();
  task.weight = out.weight.data();
  if (task.splits == 1) return;
  const std::size_t pairs = out.max.size(), sums = out.sum.size();
  task.sum = reinterpret_cast<float*>(exec.scratch(task.splits * (sums + 2 * pairs) * sizeof(float)));
  task.max = task.sum + task.splits * sums;
  task.weight = task.max + task.splits * pairs;
}

/// A call of top_k_scan, but for its pieces.
inline TopKTask top_k_task(View<const float, 3, Cuda> queries, const Entries& entries, std::size_t k) {
  MEMLANE_EXPECTS(k >= 1 && k <= kCudaMostBest && entries.limit == kAny && entries.held.on_device == nullptr);
  TopKTask task;
  task.queries = queries.data();
  task.rows = rows_of(queries, entries);
  task.head_dim = static_cast<std::uint32_t>(queries.extent(2));
  task.entries = entries;
  task.k = static_cast<std::uint32_t>(k);
  task.capacity = candidate_space(task.k);
  return task;
}

/// Candidates are in scratch space.
template <class Shape>
void place_pieces(CudaExec& exec, TopKTask& task) {
  const std::uint64_t blocks = blocks_of_piece<Shape>(task.rows, task.entries);
  task.splits = std::min(kMostSearchPieces, splits_for(blocks, task.entries.tiles, wanted_blocks(exec)));
  const std::size_t lists = static_cast<std::size_t>(task.rows.tokens) * task.rows.heads * task.splits;
  task.scores = reinterpret_cast<float*>(exec.scratch(lists * (2 * task.capacity + 1) * sizeof(float)));
  task.found = reinterpret_cast<std::uint32_t*>(task.scores + lists * task.capacity);
  task.counts = task.found + lists * task.capacity;
}

/// A call of join_best; what it joins is first in scratch space.
inline JoinTask join_task(CudaExec& exec, View<std::int32_t, 3, Cuda> ids, View<float, 3, Cuda> scores,
                          View<const std::int32_t, 3, Cuda> more, View<const float, 3, Cuda> more_scores,
                          std::size_t base) {
  MEMLANE_EXPECTS(ids.extents() == scores.extents() && ids.extents() == more.extents());
  MEMLANE_EXPECTS(more.extents() == more_scores.extents() && base < (std::size_t{1} << 31));
  JoinTask task;
  task.ids = ids.data();
  task.scores = scores.data();
  task.more = more.data();
  task.more_scores = more_scores.data();
  task.base = static_cast<std::uint32_t>(base);
  task.k = static_cast<std::uint32_t>(ids.extent(2));
  task.both_scores = reinterpret_cast<float*>(exec.scratch(4 * ids.size() * sizeof(float)));
  task.both = reinterpret_cast<std::uint32_t*>(task.both_scores + 2 * ids.size());
  return task;
}

/// What attend_selected and attend_gathered have in common.
inline SelectedTask selected_task(View<const std::int32_t, 3, Cuda> ids, View<const float, 3, Cuda> scores, float scale,
                                  const CudaPartial& out) {
  MEMLANE_EXPECTS(ids.extents() == scores.extents());
  MEMLANE_EXPECTS(out.sum.extent(2) % 2 == 0 && out.sum.extent(2) <= kCudaMostHeadDim);
  SelectedTask task;
  task.ids = ids.data();
  task.scores = scores.data();
  task.heads = static_cast<std::uint32_t>(out.sum.extent(1));
  task.group = 1;
  task.head_dim = static_cast<std::uint32_t>(out.sum.extent(2));
  task.k = static_cast<std::uint32_t>(ids.extent(2));
  task.scale = scale;
  task.sum = out.sum.data();
  task.max = out.max.data();
  task.weight = out.weight.data();
  return task;
}

inline SelectedTask selected_task(View<const float, 3, Cuda> queries, const Entries& entries,
                                  View<const std::int32_t, 3, Cuda> ids, View<const float, 3, Cuda> scores, float scale,
                                  const CudaPartial& out) {
  MEMLANE_EXPECTS(queries.extents() == out.sum.extents());
  SelectedTask task = selected_task(ids, scores, scale, out);
  task.group = rows_of(queries, entries).group;
  task.entries = entries;
  return task;
}

inline SelectedTask gathered_task(View<const BFloat16, 4, Cuda> values, View<const std::int32_t, 3, Cuda> ids,
                                  View<const float, 3, Cuda> scores, float scale, const CudaPartial& out) {
  MEMLANE_EXPECTS(values.size() == ids.size() * out.sum.extent(2));
  SelectedTask task = selected_task(ids, scores, scale, out);  // no kv head is asked for
  task.gathered = reinterpret_cast<const std::uint32_t*>(values.data());
  return task;
}

/// A call of choose_token.
inline SampleTask sample_task(CudaExec& exec, View<const float, 1, Cuda> logits, const Draw& draw,
                              View<const std::uint32_t, 1, Cuda> seen, View<const std::uint64_t, 1, Cuda> uniform,
                              View<std::int32_t, 1, Cuda> token) {
  const std::size_t vocab = logits.size();
  MEMLANE_EXPECTS(vocab >= 1 && vocab <= (std::size_t{1} << 24) && token.size() == 1);
  MEMLANE_EXPECTS(draw.temperature == 0 || uniform.size() == 1);
  MEMLANE_EXPECTS(draw.repetition_penalty == 1 || seen.size() == token_set_words(vocab));
  SampleTask task;
  task.logits = logits.data();
  task.vocab = static_cast<std::uint32_t>(vocab);
  task.temperature = draw.temperature;
  task.top_k = draw.top_k < vocab ? static_cast<std::uint32_t>(draw.top_k) : 0;
  task.top_p = draw.top_p < 1 ? in_64_bits(draw.top_p) : 0;
  task.repetition_penalty = draw.repetition_penalty;
  task.seen = seen.data();
  task.uniform = uniform.data();
  task.chosen = token.data();
  if (draw.temperature > 0) task.lists = reinterpret_cast<std::uint64_t*>(exec.scratch(choose_token_bytes(vocab)));
  return task;
}

}  // namespace memlane::cuda
