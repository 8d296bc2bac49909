#include "kernels/cuda/attention.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/tasks.h"

namespace memlane {

namespace cuda {
namespace {

/// Few query rows: one warp, entries split. Many: four warps of 32 rows, or two where the GPU has less shared memory.
template <int Steps>
using FewRows = TileShape<Steps, 1, 1>;
template <int Steps>
using ManyRows = TileShape<Steps, 4, 2>;
template <int Steps>
using LessRows = TileShape<Steps, 2, 2>;

/// Shared memory that a block may have on every GPU of compute capability 8.0 or later; desktop GPUs have no more.
constexpr std::size_t kLeastShared = std::size_t{99} << 10;

template <class Shape>
__global__ void __launch_bounds__(Shape::kWarps * 32) attend_kernel(const AttendTask task) {
  extern __shared__ __align__(16) std::uint32_t shared[];
  GpuWarp warp;
  attend_block<Shape>(warp, task, blockIdx.x, blockIdx.y, blockIdx.z, shared);
}

__global__ void __launch_bounds__(kRowWarps * 32)
    merge_pieces_kernel(const AttendTask task, float* sum, float* max, float* weight) {
  GpuWarp warp;
  const std::size_t row = static_cast<std::size_t>(blockIdx.x) * kRowWarps + threadIdx.x / 32;
  if (row >= static_cast<std::size_t>(task.rows.tokens) * task.rows.heads) return;
  merge_pieces(warp, task, row, sum, max, weight);
}

template <class Shape>
void launch(CudaExec& exec, AttendTask task, CudaPartial out) {
  place_pieces<Shape>(exec, task, out);
  const std::size_t pairs = out.max.size();
  constexpr std::size_t kShared = AttendMemory<Shape>::kBytes;
  allow_shared(exec, attend_kernel<Shape>, kShared);
  const dim3 grid(row_blocks_of_head<Shape>(task.rows), task.entries.kv_heads, task.splits);
  attend_kernel<Shape><<<grid, Shape::kWarps * 32, kShared, exec.internals().stream>>>(task);
  MEMLANE_LAUNCHED("attend");
  if (task.splits == 1) return;
  merge_pieces_kernel<<<row_blocks(pairs), kRowWarps * 32, 0, exec.internals().stream>>>(
      task, out.sum.data(), out.max.data(), out.weight.data());
  MEMLANE_LAUNCHED("merge of pieces");
}

/// exp(x - max) for merging, where x may be -inf.
__device__ float weight_under(float x, float max) {
  return x == kNothing ? 0.0F : expf(x - max);
}

/// The arrays of a partial, as a kernel takes them.
struct PartialArrays {
  float *sum, *max, *weight;
};

PartialArrays arrays_of(const CudaPartial& partial) {
  return {partial.sum.data(), partial.max.data(), partial.weight.data()};
}

/// One warp a row.
__global__ void __launch_bounds__(kRowWarps * 32)
    merge_kernel(PartialArrays into, PartialArrays from, std::size_t rows, std::size_t head_dim) {
  const std::size_t row = static_cast<std::size_t>(blockIdx.x) * kRowWarps + threadIdx.x / 32;
  if (row >= rows) return;
  const float old_max = into.max[row], other_max = from.max[row];
  const float old_weight = into.weight[row], other_weight = from.weight[row];
  if (other_weight == 0) return;
  const float most = old_max > other_max ? old_max : other_max;
  const float keep = weight_under(old_max, most), take = weight_under(other_max, most);
  float* sum = into.sum + row * head_dim;
  const float* other = from.sum + row * head_dim;
  for (std::size_t d = threadIdx.x % 32; d < head_dim; d += 32) sum[d] = sum[d] * keep + other[d] * take;
  __syncwarp();  // all lanes have read the old maximum
  if (threadIdx.x % 32 != 0) return;
  into.weight[row] = old_weight * keep + other_weight * take;
  into.max[row] = most;
}

__global__ void __launch_bounds__(kRowWarps * 32)
    finish_kernel(const float* sum, const float* weight, std::size_t rows, std::size_t head_dim, float* out) {
  const std::size_t row = static_cast<std::size_t>(blockIdx.x) * kRowWarps + threadIdx.x / 32;
  if (row >= rows) return;
  const float inverse = 1.0F / weight[row];
  for (std::size_t d = threadIdx.x % 32; d < head_dim; d += 32) {
    out[row * head_dim + d] = sum[row * head_dim + d] * inverse;
  }
}

}  // namespace
}  // namespace cuda

CudaPartial CudaPartialBuffer::get(std::size_t tokens, std::size_t heads, std::size_t head_dim) {
  storage_.reserve_discarding(tokens * heads * (head_dim + 2));
  float* max = storage_.data() + tokens * heads * head_dim;
  using Sum = View<float, 3, Cuda>;
  using Scalar = View<float, 2, Cuda>;
  return {Sum(storage_.data(), {tokens, heads, head_dim}), Scalar(max, {tokens, heads}),
          Scalar(max + tokens * heads, {tokens, heads})};
}

void attend(CudaExec& exec, View<const float, 3, Cuda> queries, const cuda::Entries& entries, float scale,
            Visibility visibility, CudaPartial out) {
  MEMLANE_EXPECTS(queries.extents() == out.sum.extents());
  if (queries.empty()) return;
  const cuda::AttendTask task = cuda::attend_task(queries, entries, scale, visibility);
  cuda::with_steps(queries.extent(2), [&](auto steps) {
    constexpr std::size_t kShared = cuda::AttendMemory<cuda::ManyRows<steps()>>::kBytes;
    if (task.rows.count() <= cuda::FewRows<steps()>::kRows) {
      return cuda::launch<cuda::FewRows<steps()>>(exec, task, out);
    }
    if constexpr (kShared > cuda::kLeastShared) {
      static_assert(cuda::AttendMemory<cuda::LessRows<steps()>>::kBytes <= cuda::kLeastShared);
      if (kShared > exec.shared_bytes()) return cuda::launch<cuda::LessRows<steps()>>(exec, task, out);
    }
    cuda::launch<cuda::ManyRows<steps()>>(exec, task, out);
  });
}

std::size_t attend_scratch_bytes(const CudaExec& exec, std::size_t tokens, std::size_t heads, std::size_t head_dim) {
  const std::size_t rows = cuda::most_split_rows(tokens * heads, cuda::ManyRows<2>::kRows, cuda::wanted_blocks(exec));
  return rows * (head_dim + 2) * sizeof(float);
}

void merge(CudaExec& exec, CudaPartial into, CudaPartial from) {
  MEMLANE_EXPECTS(into.sum.extents() == from.sum.extents());
  const std::size_t rows = into.max.size();
  if (rows == 0) return;
  cuda::merge_kernel<<<cuda::row_blocks(rows), cuda::kRowWarps * 32, 0, exec.internals().stream>>>(
      cuda::arrays_of(into), cuda::arrays_of(from), rows, into.sum.extent(2));
  MEMLANE_LAUNCHED("merge");
}

void finish(CudaExec& exec, CudaPartial partial, View<float, 3, Cuda> out) {
  MEMLANE_EXPECTS(partial.sum.extents() == out.extents());
  const std::size_t rows = partial.max.size();
  if (rows == 0) return;
  cuda::finish_kernel<<<cuda::row_blocks(rows), cuda::kRowWarps * 32, 0, exec.internals().stream>>>(
      partial.sum.data(), partial.weight.data(), rows, out.extent(2), out.data());
  MEMLANE_LAUNCHED("finish");
}

}  // namespace memlane
