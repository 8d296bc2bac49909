// The kernels over entries, emulated block by block as kernels/cuda/attention.cu and top_k.cu launch them.

#include "kernels/cuda/attention.h"

#include "kernels/cuda/tasks.h"
#include "tests/emulated_cuda/device.h"
#include "tests/kernels/emulated_warp.h"

namespace memlane {

namespace {

using testing::EmulatedWarp;
using testing::queue;
using testing::run_block;

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

using ManyRows = cuda::TileShape<2, 4, 2>;

template <class Shape>
void emulate(CudaExec& exec, cuda::AttendTask task, const CudaPartial& out) {
  cuda::place_pieces<Shape>(exec, task, out);
  queue(exec, [task, out] {
    for_blocks<Shape>(task.rows, task.entries.kv_heads, task.splits, cuda::AttendMemory<Shape>::kBytes,
                      [&](EmulatedWarp& warp, std::uint32_t* shared, auto block, auto head, auto split) {
                        cuda::attend_block<Shape>(warp, task, block, head, split, shared);
                      });
    if (task.splits == 1) return;
    for_rows(out.max.size(), [&](EmulatedWarp& warp, std::size_t row) {
      cuda::merge_pieces(warp, task, row, out.sum.data(), out.max.data(), out.weight.data());
    });
  });
}

template <class Shape>
void emulate(CudaExec& exec, cuda::TopKTask task, std::int32_t* ids, float* scores) {
  cuda::place_pieces<Shape>(exec, task);
  const std::size_t rows = static_cast<std::size_t>(task.rows.tokens) * task.rows.heads;
  queue(exec, [=] {
    for_blocks<Shape>(task.rows, task.entries.kv_heads, task.splits, cuda::TopKMemory<Shape>::kBytes,
                      [&](EmulatedWarp& warp, std::uint32_t* shared, auto block, auto head, auto split) {
                        cuda::top_k_block<Shape>(warp, task, block, head, split, shared);
                      });
    for_rows(rows, [&](EmulatedWarp& warp, std::size_t row) { cuda::select_row(warp, task, row, ids, scores); });
  });
}

void attend_to(CudaExec& exec, const cuda::SelectedTask& task, std::size_t rows) {
  queue(exec, [=] {
    for_rows(rows, [&](EmulatedWarp& warp, std::size_t row) { cuda::attend_selected_row<2>(warp, task, row); });
  });
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
  MEMLANE_EXPECTS(queries.extent(2) <= 32);
  const cuda::AttendTask task = cuda::attend_task(queries, entries, scale, visibility);
  if (task.rows.count() <= 16) {
    emulate<cuda::TileShape<2, 1, 1>>(exec, task, out);
  } else {
    emulate<ManyRows>(exec, task, out);
  }
}

void attend_selected(CudaExec& exec, View<const float, 3, Cuda> queries, const cuda::Entries& entries,
                     View<const std::int32_t, 3, Cuda> ids, View<const float, 3, Cuda> scores, float scale,
                     CudaPartial out) {
  const cuda::SelectedTask task = cuda::selected_task(queries, entries, ids, scores, scale, out);
  attend_to(exec, task, out.max.size());
}

void attend_gathered(CudaExec& exec, View<const BFloat16, 4, Cuda> values, View<const std::int32_t, 3, Cuda> ids,
                     View<const float, 3, Cuda> scores, float scale, CudaPartial out) {
  const cuda::SelectedTask task = cuda::gathered_task(values, ids, scores, scale, out);
  attend_to(exec, task, out.max.size());
}

void merge(CudaExec& exec, CudaPartial into, CudaPartial from) {
  queue(exec, [=] {
    CpuExec cpu(1, InstructionSet::portable);
    const auto on_host = [](const CudaPartial& partial) {
      return AttentionPartial{{partial.sum.data(), partial.sum.extents()},
                              {partial.max.data(), partial.max.extents()},
                              {partial.weight.data(), partial.weight.extents()}};
    };
    merge(cpu, on_host(into), on_host(from));
  });
}

void finish(CudaExec& exec, CudaPartial partial, View<float, 3, Cuda> out) {
  queue(exec, [=] {
    for (std::size_t i = 0; i < out.size(); ++i) {
      out.data()[i] = partial.sum.data()[i] / partial.weight.data()[i / out.extent(2)];
    }
  });
}

void top_k_scan(CudaExec& exec, View<const float, 3, Cuda> queries, const cuda::Entries& entries,
                View<std::int32_t, 3, Cuda> ids, View<float, 3, Cuda> scores) {
  const cuda::TopKTask task = cuda::top_k_task(queries, entries, ids.extent(2));
  if (task.rows.count() <= 16) {
    emulate<cuda::TileShape<2, 1, 1>>(exec, task, ids.data(), scores.data());
  } else {
    emulate<cuda::TileShape<2, 4, 1>>(exec, task, ids.data(), scores.data());
  }
}

void join_best(CudaExec& exec, View<std::int32_t, 3, Cuda> ids, View<float, 3, Cuda> scores,
               View<const std::int32_t, 3, Cuda> more, View<const float, 3, Cuda> more_scores, std::size_t base) {
  const cuda::JoinTask task = cuda::join_task(exec, ids, scores, more, more_scores, base);
  queue(exec, [task, rows = ids.extent(0) * ids.extent(1)] {
    for_rows(rows, [&](EmulatedWarp& warp, std::size_t row) { cuda::join_row(warp, task, row); });
  });
}

std::size_t top_k_row_bytes(std::size_t k) {
  constexpr std::size_t kMostPieces = 8;  // splits_for() of two multiprocessors
  return kMostPieces * (2 * cuda::candidate_space(static_cast<std::uint32_t>(k)) + 1) * sizeof(float);
}

std::size_t attend_scratch_bytes(const CudaExec& exec, std::size_t tokens, std::size_t heads, std::size_t head_dim) {
  return cuda::most_split_rows(tokens * heads, ManyRows::kRows, cuda::wanted_blocks(exec)) * (head_dim + 2) *
         sizeof(float);
}

}  // namespace memlane
