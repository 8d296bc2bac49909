#pragma once

#include <array>
#include <chrono>
#include <cstddef>

namespace memlane {

/// What a pass spends its time on.
enum class Stage {
  matmul,            ///< matrix products, with norms of their inputs where they make them
  local_attention,   ///< attention over the local context, the rotation of its queries
  memory_attention,  ///< attention over memory, but not
  search,            ///< the choice of entries
  append,            ///< keys and values to the local context and to segments
  other              ///< other norms, activations, embedding, merging, rounding
};
inline constexpr std::size_t kStages = 6;
inline constexpr const char* kStageNames[kStages] = {"matmul", "local attention", "memory attention",
                                                     "search", "append",          "other"};

/// Wall-clock time by stage, of the thread that calls the kernels. Every moment counts for the innermost StageScope.
class StageClock {
 public:
  using Seconds = std::array<double, kStages>;

  void restart() {
    seconds_ = {};
    stage_ = Stage::other;
    since_ = Clock::now();
  }
  /// Changes the stage; returns the one before.
  Stage enter(Stage stage) {
    const Clock::time_point now = Clock::now();
    seconds_[static_cast<std::size_t>(stage_)] += std::chrono::duration<double>(now - since_).count();
    since_ = now;
    const Stage before = stage_;
    stage_ = stage;
    return before;
  }
  /// The time of each stage since restart().
  const Seconds& read() {
    enter(stage_);
    return seconds_;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Seconds seconds_ = {};
  Stage stage_ = Stage::other;
  Clock::time_point since_ = Clock::now();
};

/// A part of the program that counts as one stage; without a clock (the usual case) it does nothing.
class StageScope {
 public:
  StageScope(StageClock* clock, Stage stage) : clock_(clock) {
    if (clock_ != nullptr) before_ = clock_->enter(stage);
  }
  ~StageScope() {
    if (clock_ != nullptr) clock_->enter(before_);
  }
  StageScope(const StageScope&) = delete;
  StageScope& operator=(const StageScope&) = delete;

 private:
  StageClock* clock_;
  Stage before_ = Stage::other;
};

}  // namespace memlane
