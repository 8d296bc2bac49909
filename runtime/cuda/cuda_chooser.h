#pragma once

#include <cstdint>

#include "kernels/cuda/exec.h"
#include "runtime/sampler.h"

namespace memlane {

/// Chooses tokens on a GPU, from logits that are there: what a choice takes goes there, the token alone comes back.
class CudaChooser {
 public:
  /// All of the below, waiting for the token. logits: [1, vocab].
  void choose(CudaExec& exec, View<const float, 2, Cuda> logits, TokenChoice& choice);

  /// What the next choice takes, for what is queued from here on. Makes all that queue() needs.
  void take(CudaExec& exec, const TokenChoice& choice, std::size_t vocab);
  /// Queues the choice, from copying what it takes to copying the token back: the same work for every choice of a Draw,
  /// so that it can be part of a graph.
  void queue(CudaExec& exec, View<const float, 2, Cuda> logits);
  /// The token, once all that was queued is done.
  void give(TokenChoice& choice) const { choice.token = *token_.data(); }

 private:
  Draw draw_;
  PinnedBuffer<std::uint64_t> numbers_;          // the uniform number, then the tokens seen
  CudaBuffer<std::uint64_t> on_device_numbers_;  // likewise
  PinnedBuffer<std::int32_t> token_;             // [1]
  CudaBuffer<std::int32_t> on_device_token_;     // likewise
};

}  // namespace memlane
