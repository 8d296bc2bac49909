#include "runtime/resident_limit.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "memory/mapped_file.h"
#include "runtime/resources.h"
#include "tests/runtime/test_files.h"
#include "tests/sanitized.h"
#include "tests/temporary_folder.h"

namespace memlane {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

/// Touches every page; slowly enough to be looked at.
std::uint64_t sum_of_pages(const MappedFile& file, std::uint64_t& most) {
  std::uint64_t sum = 0;
  for (std::size_t at = 0; at < file.bytes().size(); at += 4096) {
    sum += static_cast<std::uint64_t>(file.bytes()[at]);
    if (at % kMiB != 0) continue;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    most = std::max(most, ResidentMemory().bytes());
  }
  return sum;
}

class ResidentLimits : public ::testing::Test {
 protected:
  void SetUp() override {
    if (kSanitized) GTEST_SKIP() << "sanitizers hold memory of their own";
    std::string text(128 * kMiB, '\0');
    for (std::size_t at = 0; at < text.size(); at += 4096) text[at] = static_cast<char>(at / 4096 % 251);
    write_text(folder_.path() / "file", text);
  }
  TemporaryFolder folder_;
};

TEST_F(ResidentLimits, GiveBackPagesOfFilesThatAreRead) {
  const MappedFile file(folder_.path() / "file", "file");
  const std::uint64_t before = ResidentMemory().bytes();
  std::uint64_t most = 0, sum = 0;
  {
    const ResidentLimit limit(before + 32 * kMiB);
    sum = sum_of_pages(file, most);
    EXPECT_EQ(sum_of_pages(file, most), sum);
    EXPECT_LT(most, before + 64 * kMiB);
    EXPECT_GT(most, before + 16 * kMiB) << "more than a few pages stay";
  }
  EXPECT_EQ(sum_of_pages(file, most), sum);
  EXPECT_GT(most, before + 96 * kMiB) << "nobody gives them back any more";
}

TEST_F(ResidentLimits, LetMappingsGoWhileTheyLook) {
  const ResidentLimit limit(1);  // always exceeded
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < 3; ++thread) {
    threads.emplace_back([&] {
      for (int round = 0; round < 40; ++round) {
        const MappedFile file(folder_.path() / "file", "file");
        // What takes the addresses of a mapping that went must not lose its contents.
        std::vector<std::uint64_t> own(kMiB, 7);
        std::uint64_t sum = 0;
        for (std::size_t at = 0; at < file.bytes().size(); at += 256 * 4096) {
          sum += static_cast<std::uint64_t>(file.bytes()[at]);
        }
        EXPECT_GT(sum, 0U);
        for (const std::uint64_t each : own) ASSERT_EQ(each, 7U);
      }
    });
  }
}

TEST(ResidentLimitMargins, AreAnEighthWithinBounds) {
  EXPECT_EQ(ResidentLimit::margin(1), 16 * kMiB);
  EXPECT_EQ(ResidentLimit::margin(800 * kMiB), 100 * kMiB);
  EXPECT_EQ(ResidentLimit::margin(std::uint64_t{1} << 40), 256 * kMiB);
}

}  // namespace
}  // namespace memlane
