#include "kernels/cuda/launch.h"
#include "kernels/cuda/sampling.h"
#include "kernels/cuda/tasks.h"

namespace memlane {

namespace cuda {
namespace {

/// As many warps as a block can have: there is one block, and as much of a multiprocessor as possible should be in use.
constexpr int kSampleWarps = 32;

__global__ void __launch_bounds__(kSampleWarps * 32, 1) sample_kernel(const SampleTask task) {
  __shared__ SampleMemory memory;
  GpuWarp warp;
  sample_block<kSampleWarps>(warp, task, memory);
}

}  // namespace
}  // namespace cuda

void choose_token(CudaExec& exec, View<const float, 1, Cuda> logits, const Draw& draw,
                  View<const std::uint32_t, 1, Cuda> seen, View<const std::uint64_t, 1, Cuda> uniform,
                  View<std::int32_t, 1, Cuda> token) {
  const cuda::SampleTask task = cuda::sample_task(exec, logits, draw, seen, uniform, token);
  cuda::sample_kernel<<<1, cuda::kSampleWarps * 32, 0, exec.internals().stream>>>(task);
  MEMLANE_LAUNCHED("choose_token");
}

}  // namespace memlane
