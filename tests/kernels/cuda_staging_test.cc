// The order of steps in which pieces are streamed to a GPU, on a model of its two queues that run as early or as late
// as the order allows, at random.

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <stdexcept>

#include "kernels/cuda/staging.h"
#include "tests/reference/random_values.h"

namespace memlane::testing {
namespace {

/// Queues whose steps run when `random` says so, each after those before it and after the marks that it waits for.
class ModelStaging {
 public:
  static constexpr std::size_t kBuffers = CudaStaging::kBuffers;

  explicit ModelStaging(std::uint64_t seed) : random_(seed), most_(seed % 4) {}

  std::byte* host(std::size_t buffer) { return &host_[buffer]; }
  const std::byte* device(std::size_t buffer) const { return &device_[buffer]; }

  void wait_until_sent(std::size_t buffer) {
    run_some();
    while (sent_[buffer].done < sent_[buffer].marked) run_one();
  }
  void hold_copies(std::size_t buffer) { hold(copies_, used_[buffer]); }
  void copy(std::size_t buffer, std::size_t) {
    queue(copies_, [this, buffer] { device_[buffer] = host_[buffer]; });
  }
  void mark_sent(std::size_t buffer) { mark(copies_, sent_[buffer]); }
  void hold_work(std::size_t buffer) { hold(work_, sent_[buffer]); }
  void mark_used(std::size_t buffer) { mark(work_, used_[buffer]); }
  void settle() noexcept {
    while (!copies_.empty() || !work_.empty()) run_one();
    ++settled;
  }
  void queue_work(std::function<void()> step) { queue(work_, std::move(step)); }

  int settled = 0;

 private:
  struct Step {
    std::function<bool()> ready;
    std::function<void()> run;
  };
  using Queue = std::deque<Step>;
  /// How often an event was recorded, and how many of those recordings have been reached.
  struct Mark {
    int marked = 0, done = 0;
  };

  void queue(Queue& to, std::function<void()> run) {
    to.push_back({[] { return true; }, std::move(run)});
    run_some();
  }
  void hold(Queue& queue, Mark& mark) {
    queue.push_back({[&mark, wanted = mark.marked] { return mark.done >= wanted; }, [] {}});
    run_some();
  }
  void mark(Queue& to, Mark& mark) {
    ++mark.marked;
    queue(to, [&mark] { ++mark.done; });
  }
  void run_some() {
    for (std::size_t i = random_.size(0, most_); i > 0; --i) run_one();
  }
  /// One step of one queue, if there is one that may run.
  void run_one() {
    Queue& first = random_.size(0, 1) == 0 ? copies_ : work_;
    Queue& second = &first == &copies_ ? work_ : copies_;
    for (Queue* queue : {&first, &second}) {
      if (queue->empty() || !queue->front().ready()) continue;
      const Step step = std::move(queue->front());
      queue->pop_front();
      return step.run();
    }
  }

  reference::Random random_;
  std::size_t most_;  // steps that run whenever the host does something: with none, as late as can be
  std::array<std::byte, kBuffers> host_{}, device_{};
  std::array<Mark, kBuffers> sent_, used_;
  Queue copies_, work_;
};

TEST(CudaStaging, ShowsEveryPieceToItsWorkHoweverTheQueuesRun) {
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    ModelStaging staging(seed);
    std::vector<int> seen;
    const std::size_t pieces = seed / 4 % 9;
    for (int round = 0; round < 2; ++round) {  // a second call finds the first one's work still under way
      stream_through(
          staging, pieces,
          [](std::size_t i, std::byte* host) {
            *host = static_cast<std::byte>(i + 1);
            return std::size_t{1};
          },
          [&](std::size_t, const std::byte* device) {
            for (int step = 0; step < 2; ++step) {  // kernels read it more than once
              staging.queue_work([&seen, device] { seen.push_back(static_cast<int>(*device)); });
            }
          });
    }
    staging.settle();
    std::vector<int> expected;
    for (std::size_t i = 0; i < 4 * pieces; ++i) expected.push_back(static_cast<int>(i % (2 * pieces) / 2) + 1);
    ASSERT_EQ(seen, expected) << "seed " << seed;
  }
}

TEST(CudaStaging, WaitsForWhatIsQueuedBeforeItPassesAnErrorOn) {
  for (const bool in_fill : {true, false}) {
    ModelStaging staging(1);
    int worked = 0;
    const auto stream = [&] {
      stream_through(
          staging, 4,
          [&](std::size_t i, std::byte*) -> std::size_t {
            if (in_fill && i == 2) throw std::runtime_error("no such page");
            return 1;
          },
          [&](std::size_t i, const std::byte*) {
            staging.queue_work([&] { ++worked; });
            if (!in_fill && i == 2) throw std::runtime_error("refused");
          });
    };
    EXPECT_THROW(stream(), std::runtime_error);
    EXPECT_EQ(staging.settled, 1);
    EXPECT_EQ(worked, in_fill ? 2 : 3);
  }
}

}  // namespace
}  // namespace memlane::testing
