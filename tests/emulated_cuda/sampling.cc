// The choice of a token, emulated as kernels/cuda/sampling.cu launches it, with fewer warps.

#include "kernels/cuda/sampling.h"

#include "kernels/cuda/tasks.h"
#include "tests/emulated_cuda/device.h"
#include "tests/kernels/emulated_warp.h"

namespace memlane {

void choose_token(CudaExec& exec, View<const float, 1, Cuda> logits, const Draw& draw,
                  View<const std::uint32_t, 1, Cuda> seen, View<const std::uint64_t, 1, Cuda> uniform,
                  View<std::int32_t, 1, Cuda> token) {
  constexpr int kWarps = 2;
  testing::queue(exec, [task = cuda::sample_task(exec, logits, draw, seen, uniform, token)] {
    testing::run_block(kWarps, sizeof(cuda::SampleMemory), [&](testing::EmulatedWarp& warp, std::uint32_t* shared) {
      cuda::sample_block<kWarps>(warp, task, *reinterpret_cast<cuda::SampleMemory*>(shared));
    });
  });
}

}  // namespace memlane
