#include "memory/eviction.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace memlane {
namespace {

using Counts = std::vector<std::size_t>;
using Indexes = std::vector<std::uint32_t>;
using Rule = EvictionPolicy::Rule;
using testing::HasSubstr;

constexpr std::size_t kWindow = 4;

TEST(EvictionPolicy, IsTheTextThatItWrites) {
  for (const EvictionPolicy policy : {EvictionPolicy{Rule::oldest, 8192}, EvictionPolicy{Rule::least_attended, 1}}) {
    EXPECT_EQ(eviction_policy(to_text(policy)), policy);
  }
  EXPECT_EQ(to_text({Rule::oldest, 8192}), "oldest, 8192 entries");
  EXPECT_EQ(to_text({Rule::least_attended, 4096}), "least attended, 4096 entries");
}

TEST(EvictionPolicy, IsNoOtherText) {
  for (const char* text :
       {"", "oldest", "oldest, ", "oldest, 0 entries", "least attended, 0 entries", "least attended, -4 entries",
        "least attended, 4", "least attended,  4 entries", "Least attended, 4 entries", "newest, 4 entries",
        "least attended, 04 entries", "least attended, 99999999999999999999 entries"}) {
    EXPECT_FALSE(eviction_policy(text)) << text;
  }
}

/// Windows of kWindow entries that are read one after the other.
class Attended : public testing::Test {
 protected:
  /// A window is read that gives the windows it sees these shares of its attention.
  static void read(AttendedWindows& windows, std::uint32_t index, const std::vector<double>& shares) {
    constexpr std::size_t kTokens = 10;
    std::vector<double> sums;
    for (const double share : shares) sums.insert(sums.end(), kWindow, share * kTokens / kWindow);
    windows.read(index, Counts{kWindow}, sums, kTokens);
  }
  static Indexes indexes(const AttendedWindows& windows) {
    Indexes result;
    for (const SeenWindow& window : windows.seen()) result.push_back(window.index);
    return result;
  }
};

TEST_F(Attended, WindowsStayAsLongAsThereIsRoom) {
  AttendedWindows windows(3 * kWindow);
  read(windows, 0, {});
  read(windows, 1, {0});
  read(windows, 2, {0, 0});
  EXPECT_EQ(indexes(windows), (Indexes{0, 1, 2}));
}

TEST_F(Attended, WindowsThatGotTheLeastAreEvicted) {
  AttendedWindows windows(3 * kWindow);
  read(windows, 0, {});
  read(windows, 1, {0.5});
  read(windows, 2, {0.5, 0.1});
  read(windows, 3, {0.5, 0.1, 0.2});
  EXPECT_EQ(indexes(windows), (Indexes{0, 2, 3}));
  EXPECT_EQ((Counts{windows.places().begin(), windows.places().end()}), (Counts{0, 2, 3}));
  read(windows, 4, {0, 0.2, 0.3});
  EXPECT_EQ(indexes(windows), (Indexes{0, 3, 4})) << "it has 0.25 from before";
  read(windows, 5, {0, 0.2, 0.3});
  EXPECT_EQ(indexes(windows), (Indexes{3, 4, 5})) << "what it had counts less and less";
}

TEST_F(Attended, WeightIsTheMeanOfWhatItWasAndTheNewShare) {
  AttendedWindows windows(9 * kWindow);
  read(windows, 0, {});
  EXPECT_EQ(windows.seen()[0], (SeenWindow{0, 0, 0}));
  read(windows, 1, {0.5});
  EXPECT_EQ(windows.seen()[0], (SeenWindow{0, 1, 0.5}));
  read(windows, 2, {0.25, 0.125});
  EXPECT_EQ(windows.seen()[0], (SeenWindow{0, 2, 0.375}));
  EXPECT_EQ(windows.seen()[1], (SeenWindow{1, 1, 0.125}));
}

TEST_F(Attended, TheNewestWindowIsSafeAndTheOlderOfEqualsGoes) {
  AttendedWindows windows(2 * kWindow);
  read(windows, 0, {});
  read(windows, 1, {0.125});
  read(windows, 2, {0.125, 0.125});
  EXPECT_EQ(indexes(windows), (Indexes{1, 2}));
  AttendedWindows one(kWindow);
  read(one, 0, {});
  read(one, 1, {1});
  EXPECT_EQ(indexes(one), (Indexes{1}));
}

TEST_F(Attended, PartsOfWindowsCompeteByWhatAnEntryGot) {
  AttendedWindows windows(8);
  windows.read(0, Counts{3, 1}, {}, 4);
  // While parts of a window are read they see those before them, which does not count.
  windows.read(2, Counts{3, 1}, std::vector<double>{0.6, 0.6, 0.6, 1, 9, 9, 9}, 4);
  EXPECT_EQ(indexes(windows), (Indexes{0, 1, 2, 3}));
  windows.read(4, Counts{3, 1}, std::vector<double>{0.6, 0.6, 0.6, 1, 0, 0, 0, 0}, 4);
  EXPECT_EQ(indexes(windows), (Indexes{0, 1, 4, 5}));
  windows.read(6, Counts{3, 1}, std::vector<double>{0.6, 0.6, 0.6, 1, 0.7, 0.7, 0.7, 0}, 4);
  EXPECT_EQ(indexes(windows), (Indexes{1, 4, 6, 7}));
}

TEST_F(Attended, SharesBeyondOneAreRounding) {
  AttendedWindows windows(2 * kWindow);
  read(windows, 0, {});
  read(windows, 1, {1 + 1e-6});
  EXPECT_EQ(windows.seen()[0].weight, 1);
}

TEST_F(Attended, WhatIsNoNumberIsNoWeight) {
  AttendedWindows windows(3 * kWindow);
  read(windows, 0, {});
  read(windows, 1, {std::numeric_limits<double>::quiet_NaN()});
  read(windows, 2, {std::numeric_limits<double>::infinity(), -1});
  EXPECT_EQ(windows.seen()[0].weight, 0.5);
  EXPECT_EQ(windows.seen()[1].weight, 0);
}

TEST_F(Attended, GoesOnFromAStoredStateAsIfItHadNotStopped) {
  std::mt19937_64 random(1);
  AttendedWindows windows(5 * kWindow);
  std::vector<SeenWindow> before;
  Counts counts;
  for (std::uint32_t index = 0; index < 50; ++index) {
    AttendedWindows resumed(5 * kWindow);
    resumed.resume(windows.seen(), Counts(windows.seen().size(), kWindow));
    std::vector<double> shares;
    for (std::size_t i = 0; i < windows.seen().size(); ++i) shares.push_back(static_cast<double>(random() % 100) / 1e3);
    read(windows, index, shares);
    read(resumed, index, shares);
    ASSERT_TRUE(std::ranges::equal(windows.seen(), resumed.seen()));
    ASSERT_TRUE(std::ranges::equal(windows.places(), resumed.places()));
    counts.push_back(kWindow);
    EXPECT_EQ(fault_of(windows.seen(), before, index, counts, 5 * kWindow), "");
    before.assign(windows.seen().begin(), windows.seen().end());
  }
}

TEST(SeenWindows, ThatCannotBeAreFound) {
  const Counts counts(6, kWindow);
  const std::vector<SeenWindow> before = {{0, 4, 0.5}, {2, 2, 0.25}, {3, 1, 0}, {4, 0, 0}};
  using Seen = std::vector<SeenWindow>;
  const auto fault = [&](const Seen& seen) { return fault_of(seen, before, 5, counts, 3 * kWindow); };
  EXPECT_EQ(fault({{0, 5, 0.5}, {4, 1, 0.1}, {5, 0, 0}}), "");
  EXPECT_EQ(fault({{5, 0, 0}}), "");
  EXPECT_THAT(fault({}), HasSubstr("newest"));
  EXPECT_THAT(fault({{0, 5, 0.5}}), HasSubstr("newest"));
  EXPECT_THAT(fault({{2, 3, 0.5}, {0, 5, 0.5}, {5, 0, 0}}), HasSubstr("out of order"));
  EXPECT_THAT(fault({{0, 5, 0.5}, {0, 5, 0.5}, {5, 0, 0}}), HasSubstr("out of order"));
  EXPECT_THAT(fault({{5, 0, 0}, {6, 0, 0}}), HasSubstr("out of order"));
  EXPECT_THAT(fault({{5, 0, 0}, {std::numeric_limits<std::uint32_t>::max(), 0, 0}}), HasSubstr("out of order"));
  EXPECT_THAT(fault({{1, 4, 0.5}, {5, 0, 0}}), HasSubstr("seen again"));
  EXPECT_THAT(fault({{0, 4, 0.5}, {5, 0, 0}}), HasSubstr("more or less often"));
  EXPECT_THAT(fault({{4, 0, 0}, {5, 0, 0}}), HasSubstr("more or less often"));
  EXPECT_THAT(fault({{5, 1, 0}}), HasSubstr("before it is seen"));
  EXPECT_THAT(fault({{5, 0, 0.5}}), HasSubstr("before it is seen"));
  EXPECT_THAT(fault({{0, 5, 0}, {2, 3, 0}, {3, 2, 0}, {5, 0, 0}}), HasSubstr("more entries"));
  for (const double weight : {-0.5, 1.5, std::numeric_limits<double>::quiet_NaN(),
                              std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()}) {
    EXPECT_THAT(fault({{0, 5, weight}, {5, 0, 0}}), HasSubstr("from 0 to 1")) << weight;
  }
}

}  // namespace
}  // namespace memlane
