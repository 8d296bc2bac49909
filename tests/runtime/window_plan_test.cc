#include "runtime/window_plan.h"

#include <gtest/gtest.h>

namespace memlane {
namespace {

TEST(WindowPlan, CutsThePrefixIntoWindowsAndKeepsTheTail) {
  const WindowPlan plan = plan_windows(75, 32, 16);
  EXPECT_EQ(plan.prefix, (std::vector<TokenRange>{{0, 32}, {32, 59}}));
  EXPECT_EQ(plan.tail, (TokenRange{59, 75}));
}

TEST(WindowPlan, HasNoPrefixForACallThatFitsTheLastContext) {
  for (const std::size_t tokens : {1, 15, 16}) {
    const WindowPlan plan = plan_windows(tokens, 32, 16);
    EXPECT_TRUE(plan.prefix.empty());
    EXPECT_EQ(plan.tail, (TokenRange{0, tokens}));
  }
}

TEST(WindowPlan, CoversEveryTokenOnceInOrder) {
  for (std::size_t tokens = 1; tokens < 40; ++tokens) {
    for (std::size_t window = 1; window < 9; ++window) {
      for (std::size_t last = 1; last <= window; ++last) {
        const WindowPlan plan = plan_windows(tokens, window, last);
        std::size_t at = 0;
        for (const TokenRange& range : plan.prefix) {
          EXPECT_EQ(range.begin, at);
          EXPECT_TRUE(range.size() == window || range.end == plan.tail.begin);
          EXPECT_GT(range.size(), 0U);
          at = range.end;
        }
        EXPECT_EQ(plan.tail.begin, at);
        EXPECT_EQ(plan.tail.end, tokens);
        EXPECT_EQ(plan.tail.size(), std::min(tokens, last));
      }
    }
  }
}

TEST(WindowPlan, CountsTheWindowsOfADocument) {
  EXPECT_EQ(windows_for(0, 8), 0U);
  EXPECT_EQ(windows_for(1, 8), 1U);
  EXPECT_EQ(windows_for(8, 8), 1U);
  EXPECT_EQ(windows_for(9, 8), 2U);
}

}  // namespace
}  // namespace memlane
