#include "kernels/cuda/attention.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/tasks.h"

namespace memlane {

namespace cuda {
namespace {

template <int Steps>
using FewRows = TileShape<Steps, 1, 1>;
template <int Steps>
using ManyRows = TileShape<Steps, 4, 1>;

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
  place_pieces<Shape>(exec, task);
  const std::size_t rows = static_cast<std::size_t>(task.rows.tokens) * task.rows.heads;
  constexpr std::size_t kShared = TopKMemory<Shape>::kBytes;
  static_assert(kShared <= std::size_t{99} << 10);  // what a block may have on every GPU
  allow_shared(exec, top_k_kernel<Shape>, kShared);
  const dim3 grid(row_blocks_of_head<Shape>(task.rows), task.entries.kv_heads, task.splits);
  top_k_kernel<Shape><<<grid, Shape::kWarps * 32, kShared, exec.internals().stream>>>(task);
  MEMLANE_LAUNCHED("top_k_scan");
  select_kernel<<<row_blocks(rows), kRowWarps * 32, 0, exec.internals().stream>>>(task, rows, ids, scores);
  MEMLANE_LAUNCHED("selection of top_k_scan");
}

}  // namespace
}  // namespace cuda

void top_k_scan(CudaExec& exec, View<const float, 3, Cuda> queries, const cuda::Entries& entries,
                View<std::int32_t, 3, Cuda> ids, View<float, 3, Cuda> scores) {
  MEMLANE_EXPECTS(ids.extents() == scores.extents());
  if (queries.empty()) return;
  const cuda::TopKTask task = cuda::top_k_task(queries, entries, ids.extent(2));
  cuda::with_steps(queries.extent(2), [&](auto steps) {
    if (task.rows.count() <= cuda::FewRows<steps()>::kRows) {
      cuda::launch<cuda::FewRows<steps()>>(exec, task, ids.data(), scores.data());
    } else {
      cuda::launch<cuda::ManyRows<steps()>>(exec, task, ids.data(), scores.data());
    }
  });
}

std::size_t top_k_row_bytes(std::size_t k) {
  return cuda::kMostSearchPieces * (2 * (2 * k + 2 * cuda::kTileEntries) + 1) * sizeof(float);
}

void join_best(CudaExec& exec, View<std::int32_t, 3, Cuda> ids, View<float, 3, Cuda> scores,
               View<const std::int32_t, 3, Cuda> more, View<const float, 3, Cuda> more_scores, std::size_t base) {
  if (ids.empty()) return;
  const cuda::JoinTask task = cuda::join_task(exec, ids, scores, more, more_scores, base);
  const std::size_t rows = ids.extent(0) * ids.extent(1);
  cuda::join_kernel<<<cuda::row_blocks(rows), cuda::kRowWarps * 32, 0, exec.internals().stream>>>(task, rows);
  MEMLANE_LAUNCHED("join_best");
}

void attend_selected(CudaExec& exec, View<const float, 3, Cuda> queries, const cuda::Entries& entries,
                     View<const std::int32_t, 3, Cuda> ids, View<const float, 3, Cuda> scores, float scale,
                     CudaPartial out) {
  if (queries.empty()) return;
  cuda::launch_selected(exec, cuda::selected_task(queries, entries, ids, scores, scale, out), out.max.size());
}

void attend_gathered(CudaExec& exec, View<const BFloat16, 4, Cuda> values, View<const std::int32_t, 3, Cuda> ids,
                     View<const float, 3, Cuda> scores, float scale, CudaPartial out) {
  if (ids.empty()) return;
  cuda::launch_selected(exec, cuda::gathered_task(values, ids, scores, scale, out), out.max.size());
}

}  // namespace memlane
