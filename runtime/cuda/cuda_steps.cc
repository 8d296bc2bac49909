#include "runtime/cuda/cuda_steps.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstring>

namespace memlane {

CudaSteps::CudaSteps(CudaExec& exec, StepCounts& counts, std::size_t vocab, bool on)
    : exec_(exec), counts_(counts), vocab_(vocab), on_(on && counts.refusal.empty()), graph_(exec) {}

/// Makes what steps read from and write to, once: none of it may be made while a step is recorded.
bool CudaSteps::prepare() {
  if (on_device_logits_.size() > 0) return true;
  try {
    numbers_ = PinnedBuffer<std::uint32_t>(kNumbers);
    logits_ = PinnedBuffer<float>(vocab_);
    on_device_numbers_ = CudaBuffer<std::uint32_t>(kNumbers);
    on_device_logits_ = CudaBuffer<float>(vocab_);
    return true;
  } catch (const DeviceError& error) {
    counts_.refusal = error.what();
    give_up();
    return false;
  }
}

void CudaSteps::set(const Numbers& numbers) {
  exec_.synchronize();  // a step that was stopped may not have read its own yet
  std::memcpy(numbers_.data(), &numbers, sizeof numbers);
}

void CudaSteps::send() {
  detail::copy_from_pinned(exec_, on_device_numbers_.data(), numbers_.data(), numbers_.bytes());
}

CudaSteps::OnDevice CudaSteps::on_device() {
  const std::uint32_t* numbers = on_device_numbers_.data();
  return {.ids = {reinterpret_cast<const std::int32_t*>(numbers), {1}},
          .sizes = numbers + 1,
          .logits = on_device_logits_.view<2>({1, vocab_})};
}

void CudaSteps::fetch() {
  detail::copy_to_pinned(exec_, logits_.data(), on_device_logits_.data(), logits_.bytes());
}

void CudaSteps::wait_for(View<float, 2> logits) {
  exec_.synchronize();
  if (logits.empty()) return;
  MEMLANE_EXPECTS(logits.size() == vocab_);
  std::memcpy(logits.data(), logits_.data(), logits_.bytes());
}

void CudaSteps::give_up() {
  if (!std::exchange(on_, false)) return;
  fmt::print(stderr,
             "memlane: cuda:{}: every kernel is launched by itself from here on, graphs are not to be had: {}\n",
             exec_.device(), counts_.refusal);
}

}  // namespace memlane
