// Choosing a token, against sorting all of them.

#include "kernels/sampling.h"

#include <gtest/gtest.h>

#include "kernels/exec.h"
#include "tests/reference/random_values.h"
#include "tests/reference/sampling.h"

namespace memlane::testing {
namespace {

TEST(ChooseToken, ChoosesWhatSortingAllChooses) {
  CpuExec exec(1);
  reference::Random random(1);
  for (int round = 0; round < 20000; ++round) {
    const reference::RandomChoice of = reference::random_choice(random, 300);
    ASSERT_EQ(choose_token(exec, of.logits, of.draw, of.seen, of.uniform),
              reference::choose_token(of.logits, of.draw, of.seen, of.uniform))
        << "round " << round;
  }
  for (int round = 0; round < 30; ++round) {
    const reference::RandomChoice of = reference::random_choice(random, 100000);
    ASSERT_EQ(choose_token(exec, of.logits, of.draw, of.seen, of.uniform),
              reference::choose_token(of.logits, of.draw, of.seen, of.uniform))
        << "long round " << round;
  }
}

/// As uniform numbers rise, tokens come in their order, each as often as its probability says.
TEST(ChooseToken, GoesThroughTokensInTheirOrder) {
  CpuExec exec(1);
  const std::vector<float> logits = {0, 1, 0, 2};
  const std::vector<std::int32_t> expected_order = {3, 1, 0, 2};
  std::vector<std::int32_t> order;
  constexpr int kSteps = 4096;
  std::vector<int> counts(logits.size());
  for (std::uint64_t step = 0; step < kSteps; ++step) {
    const std::int32_t token = choose_token(exec, logits, {.temperature = 1}, {}, step << 52);
    if (order.empty() || order.back() != token) order.push_back(token);
    ++counts[static_cast<std::size_t>(token)];
  }
  EXPECT_EQ(order, expected_order);
  const double total = 2 + std::exp(1.0) + std::exp(2.0);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    EXPECT_NEAR(counts[i], kSteps * std::exp(static_cast<double>(logits[i])) / total, 1.01);
  }
}

TEST(ChooseToken, SaysThatALogitIsNoNumber) {
  CpuExec exec(1);
  for (const float temperature : {0.0F, 1.0F}) {
    for (const float nan : {NAN, -NAN}) {
      for (std::size_t at = 0; at < 3; ++at) {
        std::vector<float> logits = {1, INFINITY, -INFINITY};
        logits[at] = nan;
        EXPECT_EQ(choose_token(exec, logits, {.temperature = temperature}, {}, 0), kNotANumber);
      }
    }
  }
}

}  // namespace
}  // namespace memlane::testing
