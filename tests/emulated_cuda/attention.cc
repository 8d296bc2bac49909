// The kernels over entries, emulated block by block as kernels/cuda/attention.cu and top_k.cu launch them.

#include "kernels/cuda/attention.h"

#include "kernels/cuda/attend_block.h"
#include "kernels/cuda/selected_rows.h"
#include "kernels/cuda/top_k_block.h"
#include "kernels/cuda/visibility.h"
#include "tests/kernels/emulated_warp.h"

namespace memlane {

namespace {

using testing::EmulatedWarp;
using testing::run_block;

cuda::Rows rows_of(View<const float, 3, Cuda> queries, const cuda::Entries& entries) {
  MEMLANE_EXPECTS(queries.extent(1) % entries.kv_heads == 0 && queries.extent(2) % 2 == 0);
  const auto heads = static_cast<std::uint32_t>(queries.extent(1));
  return {static_cast<std::uint32_t>(queries.extent(0)), heads, heads / entries.kv_heads};
}

/// body(warp, shared, row block, kv head, piece) for every block of threads.
template <class Shape, class Body>
void for_blocks(const cuda::Rows& rows, std::uint32_t kv_heads, std::uint32_t splits, std::size_t shared_bytes,
                const Body& body) {
  for (std::uint32_t split = 0; split < splits; ++split) {
    for (std::uint32_t head = 0; head < kv_heads; ++head) {
      for (std::uint32_t block = 0; block * Shape::kRows < rows.count(); ++block) {
        run_block(Shape::kWarps, shared_bytes,
                  [&](EmulatedWarp& warp, std::uint32_t* shared) { body(warp, shared, block, head, split); });
      }
    }
  }
}

/// body(warp, row) for every row of [tokens, heads].
template <class Body>
void for_rows(std::size_t rows, const Body& body) {
  run_block(1, 0, [&](EmulatedWarp& warp, std::uint32_t*) {
    for (std::size_t row = 0; row < rows; ++row) body(warp, row);
  });
}

std::uint64_t wanted_blocks(const CudaExec& exec) {
  return 4 * exec.multiprocessors();
}

/// Pieces of the entries, as the launches choose them.
template <class Shape>
std::uint32_t splits_of(const CudaExec& exec, const cuda::Rows& rows, const cuda::Entries& entries) {
  const std::uint64_t row_blocks = (rows.count() + Shape::kRows - 1) / Shape::kRows;
  return cuda::splits_for(row_blocks * entries.kv_heads, entries.tiles, wanted_blocks(exec));
}

using ManyRows = cuda::TileShape<2, 4, 2>;

template <class Shape>
void emulate(CudaExec& exec, cuda::AttendTask task, const CudaPartial& out) {
  const std::size_t pairs = out.max.size(), sums = out.sum.size();
  task.splits = splits_of<Shape>(exec, task.rows, task.entries);
  task.sum = out.sum.data();
  task.max = out.max.data();
  task.weight = out.weight.data();
  if (task.splits > 1) {
    task.sum = reinterpret_cast<float*>(exec.scratch(task.splits * (sums + 2 * pairs) * sizeof(float)));
    task.max = task.sum + task.splits * sums;
    task.weight = task.max + task.splits * pairs;
  }
  for_blocks<Shape>(task.rows, task.entries.kv_heads, task.splits, cuda::AttendMemory<Shape>::kBytes,
                    [&](EmulatedWarp& warp, std::uint32_t* shared, auto block, auto head, auto split) {
                      cuda::attend_block<Shape>(warp, task, block, head, split, shared);
                    });
  if (task.splits == 1) return;
  for_rows(pairs, [&](EmulatedWarp& warp, std::size_t row) {
    cuda::merge_pieces(warp, task, row, out.sum.data(), out.max.data(), out.weight.data());
  });
}

template <class Shape>
void emulate(CudaExec& exec, cuda::TopKTask task, std::int32_t* ids, float* scores) {
  const std::size_t rows = static_cast<std::size_t>(task.rows.tokens) * task.rows.heads;
  task.splits = splits_of<Shape>(exec, task.rows, task.entries);
  const std::size_t lists = rows * task.splits;
  task.scores = reinterpret_cast<float*>(exec.scratch(lists * (2 * task.capacity + 1) * sizeof(float)));
  task.found = reinterpret_cast<std::uint32_t*>(task.scores + lists * task.capacity);
  task.counts = task.found + lists * task.capacity;
  for_blocks<Shape>(task.rows, task.entries.kv_heads, task.splits, cuda::TopKMemory<Shape>::kBytes,
                    [&](EmulatedWarp& warp, std::uint32_t* shared, auto block, auto head, auto split) {
                      cuda::top_k_block<Shape>(warp, task, block, head, split, shared);
                    });
  for_rows(rows, [&](EmulatedWarp& warp, std::size_t row) { cuda::select_row(warp, task, row, ids, scores); });
}

}  // namespace

CudaPartial CudaPartialBuffer::get(std::size_t tokens, std::size_t heads, std::size_t head_dim) {
  storage_.reserve_discarding(tokens * heads * (head_dim + 2));
  float* max = storage_.data() + tokens * heads * head_dim;
  return {
      {storage_.data(), {tokens, heads, head_dim}}, {max, {tokens, heads}}, {max + tokens * heads, {tokens, heads}}};
}

void attend(CudaExec& exec, View<const float, 3, Cuda> queries, const cuda::Entries& entries, float scale,
            Visibility visibility, CudaPartial out) {
  MEMLANE_EXPECTS((!visibility.banded && entries.limit == cuda::kAny) || entries.block_count == 1);
  MEMLANE_EXPECTS(queries.extent(2) <= 32);
  cuda::AttendTask task;
  task.queries = queries.data();
  task.rows = rows_of(queries, entries);
  task.head_dim = static_cast<std::uint32_t>(queries.extent(2));
  task.entries = entries;
  task.band = cuda::band_of(visibility);
  task.scale = scale;
  if (task.rows.count() <= 16) {
    emulate<cuda::TileShape<2, 1, 1>>(exec, task, out);
  } else {
    emulate<ManyRows>(exec, task, out);
  }
}

void attend_selected(CudaExec&, View<const float, 3, Cuda> queries, const cuda::Entries& entries,
                     View<const std::int32_t, 3, Cuda> ids, View<const float, 3, Cuda> scores, float scale,
                     CudaPartial out) {
  const cuda::Rows shape = rows_of(queries, entries);
  cuda::SelectedTask task;
  task.ids = ids.data();
  task.scores = scores.data();
  task.heads = shape.heads;
  task.group = shape.group;
  task.head_dim = static_cast<std::uint32_t>(queries.extent(2));
  task.k = static_cast<std::uint32_t>(ids.extent(2));
  task.entries = entries;
  task.scale = scale;
  task.sum = out.sum.data();
  task.max = out.max.data();
  task.weight = out.weight.data();
  for_rows(out.max.size(), [&](EmulatedWarp& warp, std::size_t row) { cuda::attend_selected_row<2>(warp, task, row); });
}

void attend_gathered(CudaExec&, View<const BFloat16, 4, Cuda> values, View<const std::int32_t, 3, Cuda> ids,
                     View<const float, 3, Cuda> scores, float scale, CudaPartial out) {
  MEMLANE_EXPECTS(values.size() == ids.size() * out.sum.extent(2));
  cuda::SelectedTask task;
  task.ids = ids.data();
  task.scores = scores.data();
  task.heads = static_cast<std::uint32_t>(out.sum.extent(1));
  task.group = 1;
  task.head_dim = static_cast<std::uint32_t>(out.sum.extent(2));
  task.k = static_cast<std::uint32_t>(ids.extent(2));
  task.gathered = reinterpret_cast<const std::uint32_t*>(values.data());
  task.scale = scale;
  task.sum = out.sum.data();
  task.max = out.max.data();
  task.weight = out.weight.data();
  for_rows(out.max.size(), [&](EmulatedWarp& warp, std::size_t row) { cuda::attend_selected_row<2>(warp, task, row); });
}

void merge(CudaExec&, CudaPartial into, CudaPartial from) {
  CpuExec cpu(1, InstructionSet::portable);
  const auto on_host = [](const CudaPartial& partial) {
    return AttentionPartial{{partial.sum.data(), partial.sum.extents()},
                            {partial.max.data(), partial.max.extents()},
                            {partial.weight.data(), partial.weight.extents()}};
  };
  merge(cpu, on_host(into), on_host(from));
}

void finish(CudaExec&, CudaPartial partial, View<float, 3, Cuda> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    out.data()[i] = partial.sum.data()[i] / partial.weight.data()[i / out.extent(2)];
  }
}

void top_k_scan(CudaExec& exec, View<const float, 3, Cuda> queries, const cuda::Entries& entries,
                View<std::int32_t, 3, Cuda> ids, View<float, 3, Cuda> scores) {
  cuda::TopKTask task;
  task.queries = queries.data();
  task.rows = rows_of(queries, entries);
  task.head_dim = static_cast<std::uint32_t>(queries.extent(2));
  task.entries = entries;
  task.k = static_cast<std::uint32_t>(ids.extent(2));
  task.capacity = cuda::candidate_space(task.k);
  if (task.rows.count() <= 16) {
    emulate<cuda::TileShape<2, 1, 1>>(exec, task, ids.data(), scores.data());
  } else {
    emulate<cuda::TileShape<2, 4, 1>>(exec, task, ids.data(), scores.data());
  }
}

void join_best(CudaExec& exec, View<std::int32_t, 3, Cuda> ids, View<float, 3, Cuda> scores,
               View<const std::int32_t, 3, Cuda> more, View<const float, 3, Cuda> more_scores, std::size_t base) {
  cuda::JoinTask task;
  task.ids = ids.data();
  task.scores = scores.data();
  task.more = more.data();
  task.more_scores = more_scores.data();
  task.base = static_cast<std::uint32_t>(base);
  task.k = static_cast<std::uint32_t>(ids.extent(2));
  task.both_scores = reinterpret_cast<float*>(exec.scratch(4 * ids.size() * sizeof(float)));
  task.both = reinterpret_cast<std::uint32_t*>(task.both_scores + 2 * ids.size());
  for_rows(ids.extent(0) * ids.extent(1),
           [&](EmulatedWarp& warp, std::size_t row) { cuda::join_row(warp, task, row); });
}

std::size_t top_k_row_bytes(std::size_t k) {
  constexpr std::size_t kMostPieces = 8;  // splits_for() of two multiprocessors
  return kMostPieces * (2 * cuda::candidate_space(static_cast<std::uint32_t>(k)) + 1) * sizeof(float);
}

std::size_t attend_scratch_bytes(const CudaExec& exec, std::size_t tokens, std::size_t heads, std::size_t head_dim) {
  return cuda::most_split_rows(tokens * heads, ManyRows::kRows, wanted_blocks(exec)) * (head_dim + 2) * sizeof(float);
}

}  // namespace memlane
