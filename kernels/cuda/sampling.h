#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/exec.h"
#include "kernels/sampling.h"

namespace memlane {

/// The kernel of kernels/sampling.h on the GPU, under the same contract; with what changes from token to token on the
/// device. seen: [token_set_words(vocab)]; uniform, token: [1].
void choose_token(CudaExec& exec, View<const float, 1, Cuda> logits, const Draw& draw,
                  View<const std::uint32_t, 1, Cuda> seen, View<const std::uint64_t, 1, Cuda> uniform,
                  View<std::int32_t, 1, Cuda> token);

/// Scratch space that it takes.
constexpr std::size_t choose_token_bytes(std::size_t vocab) {
  return 2 * vocab * sizeof(std::uint64_t);
}

}  // namespace memlane
