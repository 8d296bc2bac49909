#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "kernels/cuda/graph.h"
#include "kernels/sampling.h"

namespace memlane {

/// Steps of decoding on a GPU, passes of one token that end in its logits or the next token: recorded as a graph and
/// launched as a whole, which takes the host a few microseconds instead of some for each kernel.
class CudaSteps {
 public:
  /// Everything that the launches of a step are given by value and that may change from one step to another, beside
  /// what the settings of a session decide. What changes with every token is in Numbers instead.
  struct Key {
    const void* local = nullptr;    ///< the local context
    bool sees_far = false;          ///< whether its plain layers make a second partial (LocalAttention)
    const void* memory = nullptr;   ///< the memory
    std::uint64_t version = 0;      ///< of its tables, 0 while it is empty (CudaMemory)
    std::optional<Draw> draw = {};  ///< how the next token is chosen; none if logits are copied to the host instead
    std::uint64_t allocations = 0;  ///< device_allocations(): all arrays are where they were. Made by CudaSteps
    friend bool operator==(const Key&, const Key&) = default;
  };
  /// What changes with every token: on the device, in this order.
  struct Numbers {
    std::int32_t id = 0;
    std::array<std::uint32_t, 2> sizes{};  ///< of the local context: of plain layers, of memory layers
  };
  /// Where a step that is queued finds them, and where it leaves its logits.
  struct OnDevice {
    View<const std::int32_t, 1, Cuda> ids;  ///< [1]
    const std::uint32_t* sizes = nullptr;   ///< [2]
    View<float, 2, Cuda> logits;            ///< [1, vocab]
  };

  /// exec: must outlive this; counts: likewise. on: whether there are graphs at all.
  CudaSteps(CudaExec& exec, StepCounts& counts, std::size_t vocab, bool on);

  /// Does a step and waits for it; false if graphs are not used (any more), then nothing has been done.
  /// logits: the step's, [1, vocab]; empty if they stay on the device. queue(on_device): queues the step but for the
  /// copies of numbers and logits. When a graph turns out not to be had, a line on standard error says why, and
  /// sessions that start later have none.
  template <class Queue>
  bool run(Key key, const Numbers& numbers, View<float, 2> logits, const Queue& queue) {
    if (!on_ || !prepare()) return false;
    key.allocations = detail::device_allocations();
    set(numbers);
    const bool did = replay_.run(graph_, key, counts_, [&] {
      send();
      queue(on_device());
      if (!logits.empty()) fetch();
    });
    if (!did) {
      give_up();
      return false;
    }
    wait_for(logits);
    return true;
  }

 private:
  static constexpr std::size_t kNumbers = sizeof(Numbers) / sizeof(std::uint32_t);

  bool prepare();
  void set(const Numbers& numbers);
  void send();
  OnDevice on_device();
  void fetch();
  void wait_for(View<float, 2> logits);
  void give_up();

  CudaExec& exec_;
  StepCounts& counts_;
  std::size_t vocab_;
  bool on_;
  PinnedBuffer<std::uint32_t> numbers_;          // [kNumbers]
  CudaBuffer<std::uint32_t> on_device_numbers_;  // likewise
  PinnedBuffer<float> logits_;                   // [vocab]
  CudaBuffer<float> on_device_logits_;           // likewise
  CudaGraph graph_;
  StepReplay<CudaGraph, Key> replay_;
};

}  // namespace memlane
