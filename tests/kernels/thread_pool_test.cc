#include "kernels/thread_pool.h"

#include <gtest/gtest.h>

#include <numeric>
#include <stdexcept>

namespace memlane {
namespace {

class ThreadPools : public ::testing::TestWithParam<std::size_t> {
 protected:
  ThreadPool pool_{GetParam()};
};

TEST_P(ThreadPools, RunEveryItemOnceOnAWorkerThatExists) {
  for (const std::size_t items : {0, 1, 2, 3, 7, 10000}) {
    std::vector<std::atomic<int>> done(items);
    std::atomic<bool> known_workers{true};
    pool_.run(items, [&](std::size_t item, std::size_t worker) {
      done[item].fetch_add(1);
      if (worker >= pool_.threads()) known_workers = false;
    });
    for (const auto& count : done) EXPECT_EQ(count.load(), 1);
    EXPECT_TRUE(known_workers);
  }
}

TEST_P(ThreadPools, GiveEachWorkerToOneThreadAtATime) {
  std::vector<std::size_t> of_worker(
      pool_.threads());  // not atomic: a data race would be seen by ThreadSanitizer, or lose counts
  for (int round = 0; round < 50; ++round)
    pool_.run(100, [&](std::size_t, std::size_t worker) { ++of_worker[worker]; });
  EXPECT_EQ(std::accumulate(of_worker.begin(), of_worker.end(), std::size_t{0}), 5000U);
}

TEST_P(ThreadPools, SeeWhatEarlierRoundsWrote) {
  std::vector<std::size_t> values(64, 0);
  for (std::size_t round = 0; round < 2000; ++round) {
    pool_.run(values.size(), [&](std::size_t item, std::size_t) {
      if (values[item] == round) ++values[item];
    });
  }
  for (const std::size_t value : values) EXPECT_EQ(value, 2000U);
}

TEST_P(ThreadPools, RethrowTheExceptionOfABodyAndGoOnWorking) {
  for (int round = 0; round < 50; ++round) {
    EXPECT_THROW(pool_.run(100,
                           [&](std::size_t item, std::size_t) {
                             if (item % 10 == 3) throw std::runtime_error("item");
                           }),
                 std::runtime_error);
    std::atomic<std::size_t> done{0};
    EXPECT_NO_THROW(pool_.run(100, [&](std::size_t, std::size_t) { done.fetch_add(1); }));
    EXPECT_EQ(done.load(), 100U);
  }
}

TEST_P(ThreadPools, SurviveABodyThatAlwaysThrows) {
  for (int round = 0; round < 20; ++round) {
    EXPECT_THROW(pool_.run(8, [](std::size_t, std::size_t) { throw std::logic_error("always"); }), std::logic_error);
  }
}

INSTANTIATE_TEST_SUITE_P(Of, ThreadPools, ::testing::Values(1, 2, 3, 5), [](const auto& each) {
  return std::to_string(each.param) + (each.param == 1 ? "Thread" : "Threads");
});

TEST(ThreadPoolContract, NeedsAThread) {
  EXPECT_THROW(ThreadPool(0), std::logic_error);
}

TEST(ThreadPoolContract, StartsAndStopsWithoutWork) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(4);
}

TEST(ThreadPoolContract, MachineHasAThread) {
  EXPECT_GE(available_threads(), 1U);
}

}  // namespace
}  // namespace memlane
