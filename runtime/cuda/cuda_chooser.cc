#include "runtime/cuda/cuda_chooser.h"

#include <cstring>

#include "kernels/cuda/sampling.h"

namespace memlane {

void CudaChooser::choose(CudaExec& exec, View<const float, 2, Cuda> logits, TokenChoice& choice) {
  take(exec, choice, logits.size());
  queue(exec, logits);
  exec.synchronize();
  give(choice);
}

void CudaChooser::take(CudaExec& exec, const TokenChoice& choice, std::size_t vocab) {
  const std::size_t size = 1 + (vocab + 63) / 64;
  if (numbers_.size() < size) {
    token_ = PinnedBuffer<std::int32_t>(1);
    on_device_numbers_ = CudaBuffer<std::uint64_t>(size);
    on_device_token_ = CudaBuffer<std::int32_t>(1);
    numbers_ = PinnedBuffer<std::uint64_t>(size);  // last: it says that all are there
  }
  exec.synchronize();  // a step that was stopped may not have read its own yet
  draw_ = choice.draw;
  *numbers_.data() = choice.uniform;
  if (!choice.seen.empty()) std::memcpy(numbers_.data() + 1, choice.seen.data(), choice.seen.size_bytes());
}

void CudaChooser::queue(CudaExec& exec, View<const float, 2, Cuda> logits) {
  const std::size_t vocab = logits.size();
  const std::size_t words = draw_.repetition_penalty == 1 ? 0 : token_set_words(vocab);
  if (draw_.temperature > 0 || words > 0) {
    detail::copy_from_pinned(exec, on_device_numbers_.data(), numbers_.data(),
                             sizeof(std::uint64_t) + words * sizeof(std::uint32_t));
  }
  const auto* seen = reinterpret_cast<const std::uint32_t*>(on_device_numbers_.data() + 1);
  choose_token(exec, logits.flat(), draw_, {seen, {words}}, on_device_numbers_.view<1>({1}),
               on_device_token_.view<1>({1}));
  detail::copy_to_pinned(exec, token_.data(), on_device_token_.data(), token_.bytes());
}

}  // namespace memlane
