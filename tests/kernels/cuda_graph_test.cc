// When the steps of something that repeats itself are recorded, launched, or not done: on a model of a graph.

#include <gtest/gtest.h>

#include <functional>
#include <stdexcept>
#include <vector>

#include "kernels/cuda/graph.h"
#include "tests/reference/random_values.h"

namespace memlane::testing {
namespace {

/// Work that is done at once, or recorded; calls that are to fail do.
class ModelGraph {
 public:
  void queue(std::function<void()> work) {
    if (recording_) {
      recorded_.push_back(std::move(work));
    } else {
      work();
    }
  }
  void begin() {
    fail(fails_at_begin);
    ASSERT_FALSE(recording_ || !recorded_.empty());
    recording_ = true;
  }
  void end() {
    ASSERT_TRUE(recording_);
    recording_ = false;
    fail(fails_at_end);
    is_there_ = true;
  }
  void forget() noexcept {
    recording_ = is_there_ = false;
    recorded_.clear();
  }
  void launch() {
    ASSERT_TRUE(is_there_);
    fail(fails_at_launch);
    for (const auto& work : recorded_) work();
  }
  bool recording() const { return recording_; }

  bool fails_at_begin = false, fails_at_end = false, fails_at_launch = false;

 private:
  static void fail(bool does) {
    if (does) throw DeviceError("no graph today");
  }
  std::vector<std::function<void()>> recorded_;
  bool recording_ = false, is_there_ = false;
};

/// Steps that append `given` (by value: the key) + `on_device` (read when the work runs) to what was done.
struct Steps {
  /// What step() is expected to append; plainly if steps are not done.
  void step(int given, int number) {
    on_device = number;
    const bool did = replay.run(graph, given, counts, [&] {
      if (interrupts) throw Interrupted("stopped");
      graph.queue([this, given] { done.push_back(given + on_device); });
      if (fails_while_recording && graph.recording()) throw DeviceError("cannot be recorded");
    });
    if (!did) done.push_back(given + number);
    expected.push_back(given + number);
    ASSERT_EQ(done, expected);
    ASSERT_FALSE(graph.recording());
  }

  ModelGraph graph;
  StepReplay<ModelGraph, int> replay;
  StepCounts counts;
  int on_device = 0;
  bool interrupts = false, fails_while_recording = false;
  std::vector<int> done, expected;
};

TEST(CudaGraph, IsRecordedWithTheSecondStepAndLaunchedFromThenOn) {
  Steps steps;
  for (int i = 0; i < 5; ++i) steps.step(100, i);
  EXPECT_EQ(steps.counts.rehearsed, 1U);
  EXPECT_EQ(steps.counts.recorded, 1U);
  EXPECT_EQ(steps.counts.replayed, 4U);
}

TEST(CudaGraph, IsMadeAnewWhenWhatWasGivenByValueChanges) {
  Steps steps;
  for (const int given : {100, 100, 100, 200, 200, 100, 100, 100, 300, 100}) steps.step(given, given / 7);
  EXPECT_EQ(steps.counts.rehearsed, 5U);
  EXPECT_EQ(steps.counts.recorded, 3U);
  reference::Random random(1);
  for (int i = 0; i < 2000; ++i) {
    steps.step(static_cast<int>(random.size(0, 2)) * 100, static_cast<int>(random.size(0, 99)));
    ASSERT_FALSE(::testing::Test::HasFailure());
  }
}

TEST(CudaGraph, IsNotUsedAnyMoreOnceItCannotBeMadeOrLaunched) {
  for (bool ModelGraph::*failure :
       {&ModelGraph::fails_at_begin, &ModelGraph::fails_at_end, &ModelGraph::fails_at_launch}) {
    Steps steps;
    for (int i = 0; i < 2; ++i) steps.step(100, i);
    for (int i = 0; i < 2; ++i) {
      steps.graph.*failure = true;
      for (const int given : {100, 200, 200, 200}) steps.step(given, i);
      steps.graph.*failure = false;
    }
    EXPECT_EQ(steps.counts.refusal, "no graph today");
    EXPECT_LE(steps.counts.replayed, 2U);
  }
  Steps steps;
  steps.fails_while_recording = true;
  for (int i = 0; i < 4; ++i) steps.step(100, i);
  EXPECT_EQ(steps.counts.refusal, "cannot be recorded");
  EXPECT_EQ(steps.counts.replayed, 0U);
}

TEST(CudaGraph, SurvivesAStepThatIsStopped) {
  for (int at = 0; at < 3; ++at) {  // while rehearsed, while recorded, afterwards
    Steps steps;
    for (int i = 0; i < at; ++i) steps.step(100, i);
    steps.interrupts = true;
    if (at < 2) {
      EXPECT_THROW(steps.step(100, 7), Interrupted);
    }
    EXPECT_FALSE(steps.graph.recording());
    steps.interrupts = false;
    for (int i = 0; i < 4; ++i) steps.step(100, i);
    EXPECT_EQ(steps.counts.rehearsed, 1U);
    EXPECT_EQ(steps.counts.recorded, 1U);
    EXPECT_TRUE(steps.counts.refusal.empty());
  }
}

}  // namespace
}  // namespace memlane::testing
