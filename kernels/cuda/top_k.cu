#include "kernels/cuda/attention.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/selected_rows.h"
#include "kernels/cuda/top_k_block.h"

namespace memlane {

namespace cuda {
namespace {

template <int Steps>
using FewRows = TileShape<Steps, 1, 1>;
template <int Steps>
using ManyRows = TileShape<Steps, 4, 1>;

/// Pieces of the entries that a search is split into at most: each adds k candidates to the last selection.
constexpr std::uint32_t kMostPieces = 16;

template <class Shape>
__global__ void __launch_bounds__(Shape::kWarps * 32) top_k_kernel(const TopKTask task) {
  extern __shared__ __align__(16) std::uint32_t shared[];
  GpuWarp warp;
  top_k_block<Shape>(warp, task, blockIdx.x, blockIdx.y, blockIdx.z, shared);
}

__global__ void __launch_bounds__(kRowWarps * 32)
    select_kernel(const TopKTask task, std::size_t rows, std::int32_t* ids, float* scores) {
  GpuWarp warp;
  const std::size_t row = static_cast<std::size_t>(blockIdx.x) * kRowWarps + threadIdx.x / 32;
  if (row < rows) select_row(warp, task, row, ids, scores);
}

__global__ void __launch_bounds__(kRowWarps * 32) selected_kernel(const SelectedTask task, std::size_t rows) {
  GpuWarp warp;
  const std::size_t row = static_cast<std::size_t>(blockIdx.x) * kRowWarps + threadIdx.x / 32;
  if (row < rows) attend_selected_row<2>(warp, task, row);
}

__global__ void __launch_bounds__(kRowWarps * 32) join_kernel(const JoinTask task, std::size_t rows) {
  GpuWarp warp;
  const std::size_t row = static_cast<std::size_t>(blockIdx.x) * kRowWarps + threadIdx.x / 32;
  if (row < rows) join_row(warp, task, row);
}

void launch_selected(CudaExec& exec, const SelectedTask& task, std::size_t rows) {
  selected_kernel<<<row_blocks(rows), kRowWarps * 32, 0, exec.internals().stream>>>(task, rows);
  MEMLANE_LAUNCHED("attend_selected");
}

template <class Shape>
void launch(CudaExec& exec, TopKTask task, std::int32_t* ids, float* scores) {
  const std::uint32_t row_blocks_of_head = (task.rows.count() + Shape::kRows - 1) / Shape::kRows;
  const std::uint64_t blocks = static_cast<std::uint64_t>(row_blocks_of_head) * task.entries.kv_heads;
  const std::size_t rows = static_cast<std::size_t>(task.rows.tokens) * task.rows.heads;
  task.splits = std::min(kMostPieces, splits_for(blocks, task.entries.tiles, wanted_blocks(exec)));
  const std::size_t lists = rows * task.splits;
  task.scores = reinterpret_cast<float*>(exec.scratch(lists * (2 * task.capacity + 1) * sizeof(float)));
  task.found = reinterpret_cast<std::uint32_t*>(task.scores + lists * task.capacity);
  task.counts = task.found + lists * task.capacity;
  constexpr std::size_t kShared = TopKMemory<Shape>::kBytes;
  allow_shared(exec, top_k_kernel<Shape>, kShared);
  const dim3 grid(row_blocks_of_head, task.entries.kv_heads, task.splits);
  top_k_kernel<Shape><<<grid, Shape::kWarps * 32, kShared, exec.internals().stream>>>(task);
  MEMLANE_LAUNCHED("top_k_scan");
  select_kernel<<<row_blocks(rows), kRowWarps * 32, 0, exec.internals().stream>>>(task, rows, ids, scores);
  MEMLANE_LAUNCHED("selection of top_k_scan");
}

}  // namespace
}  // namespace cuda

void top_k_scan(CudaExec& exec, View<const float, 3, Cuda> queries, const cuda::Entries& entries,
                View<std::int32_t, 3, Cuda> ids, View<float, 3, Cuda> scores) {
  const std::size_t k = ids.extent(2);
  MEMLANE_EXPECTS(k >= 1 && k <= kCudaMostBest && ids.extents() == scores.extents() && entries.limit == cuda::kAny);
  if (queries.empty()) return;
  cuda::TopKTask task;
  task.queries = queries.data();
  task.rows = cuda::rows_of(queries, entries);
  task.head_dim = static_cast<std::uint32_t>(queries.extent(2));
  task.entries = entries;
  task.k = static_cast<std::uint32_t>(k);
  task.capacity = cuda::candidate_space(task.k);
  cuda::with_steps(queries.extent(2), [&](auto steps) {
    if (task.rows.count() <= cuda::FewRows<steps()>::kRows) {
      cuda::launch<cuda::FewRows<steps()>>(exec, task, ids.data(), scores.data());
    } else {
      cuda::launch<cuda::ManyRows<steps()>>(exec, task, ids.data(), scores.data());
    }
  });
}

std::size_t top_k_row_bytes(std::size_t k) {
  return cuda::kMostPieces * (2 * (2 * k + 2 * cuda::kTileEntries) + 1) * sizeof(float);
}

void join_best(CudaExec& exec, View<std::int32_t, 3, Cuda> ids, View<float, 3, Cuda> scores,
               View<const std::int32_t, 3, Cuda> more, View<const float, 3, Cuda> more_scores, std::size_t base) {
  MEMLANE_EXPECTS(ids.extents() == scores.extents() && ids.extents() == more.extents());
  MEMLANE_EXPECTS(more.extents() == more_scores.extents() && base < (std::size_t{1} << 31));
  if (ids.empty()) return;
  const std::size_t rows = ids.extent(0) * ids.extent(1);
  cuda::JoinTask task;
  task.ids = ids.data();
  task.scores = scores.data();
  task.more = more.data();
  task.more_scores = more_scores.data();
  task.base = static_cast<std::uint32_t>(base);
  task.k = static_cast<std::uint32_t>(ids.extent(2));
  task.both_scores = reinterpret_cast<float*>(exec.scratch(4 * ids.size() * sizeof(float)));
  task.both = reinterpret_cast<std::uint32_t*>(task.both_scores + 2 * ids.size());
  cuda::join_kernel<<<cuda::row_blocks(rows), cuda::kRowWarps * 32, 0, exec.internals().stream>>>(task, rows);
  MEMLANE_LAUNCHED("join_best");
}

void attend_selected(CudaExec& exec, View<const float, 3, Cuda> queries, const cuda::Entries& entries,
                     View<const std::int32_t, 3, Cuda> ids, View<const float, 3, Cuda> scores, float scale,
                     CudaPartial out) {
  MEMLANE_EXPECTS(ids.extents() == scores.extents() && queries.extents() == out.sum.extents());
  MEMLANE_EXPECTS(queries.extent(2) <= kCudaMostHeadDim);
  if (queries.empty()) return;
  const cuda::Rows shape = cuda::rows_of(queries, entries);
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
  cuda::launch_selected(exec, task, out.max.size());
}

void attend_gathered(CudaExec& exec, View<const BFloat16, 4, Cuda> values, View<const std::int32_t, 3, Cuda> ids,
                     View<const float, 3, Cuda> scores, float scale, CudaPartial out) {
  MEMLANE_EXPECTS(ids.extents() == scores.extents() && values.size() == ids.size() * out.sum.extent(2));
  MEMLANE_EXPECTS(out.sum.extent(2) % 2 == 0 && out.sum.extent(2) <= kCudaMostHeadDim);
  if (ids.empty()) return;
  cuda::SelectedTask task;
  task.ids = ids.data();
  task.scores = scores.data();
  task.heads = static_cast<std::uint32_t>(out.sum.extent(1));
  task.group = 1;  // no kv head is asked for
  task.head_dim = static_cast<std::uint32_t>(out.sum.extent(2));
  task.k = static_cast<std::uint32_t>(ids.extent(2));
  task.gathered = reinterpret_cast<const std::uint32_t*>(values.data());
  task.scale = scale;
  task.sum = out.sum.data();
  task.max = out.max.data();
  task.weight = out.weight.data();
  cuda::launch_selected(exec, task, out.max.size());
}

}  // namespace memlane
