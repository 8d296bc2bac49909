#pragma once

#include <cstddef>
#include <vector>

#include "kernels/array.h"
#include "kernels/cpu/micro_kernels.h"
#include "kernels/stage_clock.h"
#include "kernels/thread_pool.h"

namespace memlane {

/// Where and how kernels run on the CPU: the threads, the instruction set, scratch space. Not for use by two threads at
/// once.
class CpuExec {
 public:
  explicit CpuExec(std::size_t threads = available_threads(), InstructionSet set = detect_instruction_set())
      : micro_(&micro_kernels(set)), pool_(threads), worker_scratch_(threads) {}

  const MicroKernels& micro() const { return *micro_; }
  ThreadPool& pool() { return pool_; }
  std::size_t threads() const { return pool_.threads(); }

  /// The clock that calls are timed with by stage; null, and so it is at first, for none.
  StageClock* stage_clock() const { return stage_clock_; }
  void set_stage_clock(StageClock* clock) { stage_clock_ = clock; }

  /// Scratch space of one worker, kept between kernels; contents are unspecified.
  std::byte* worker_scratch(std::size_t worker, std::size_t bytes) {
    worker_scratch_[worker].reserve_discarding(bytes);
    return worker_scratch_[worker].data();
  }
  /// Scratch space shared by the workers of one kernel.
  std::byte* shared_scratch(std::size_t bytes) {
    shared_scratch_.reserve_discarding(bytes);
    return shared_scratch_.data();
  }

 private:
  const MicroKernels* micro_;
  ThreadPool pool_;
  std::vector<Buffer<std::byte>> worker_scratch_;
  Buffer<std::byte> shared_scratch_;
  StageClock* stage_clock_ = nullptr;
};

/// Hands out aligned pieces of a scratch space. The first pass, over a null base, only measures.
class ScratchLayout {
 public:
  explicit ScratchLayout(std::byte* base) : base_(base) {}

  template <class T>
  T* take(std::size_t count) {
    T* piece = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (count * sizeof(T) + 63) / 64 * 64;
    return piece;
  }
  std::size_t bytes() const { return used_; }

 private:
  std::byte* base_;
  std::size_t used_ = 0;
};

}  // namespace memlane
