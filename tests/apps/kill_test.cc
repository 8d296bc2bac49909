// Ingest killed at 200 moments, and continued.
//
// Half of the kills are spread over its calls on files, which are counted first: before a call, when half of a write is
// done, or right after it, from the making of the file to the storing of the index. The other half come at random
// times, uniform over the time that a whole run was measured to take; they find it wherever it spends its time:
// starting, reading the model, computing, building the index.

#include <chrono>
#include <set>
#include <thread>

#include "tests/apps/memory_state.h"

namespace memlane {
namespace {

using ::testing::Not;
using Clock = std::chrono::steady_clock;

constexpr int kKills = kSanitized ? 20 : 200;

class Killed : public CommandTest {
 protected:
  Words words(const std::string& memory) const {
    return Words{"ingest",  "--model",   stories(),      "--memory", path(memory),  "--threads",
                 "1",       "--quiet",   "--mem-layers", "2,3",      "--window",    "16",
                 "--index", "IVF2,Flat", "--top-k",      "8",        path("a.txt"), path("b.txt")};
  }

  void prepare() const {
    write("a.txt", story(100, 1));
    write("b.txt", story(70, 2));
  }

  /// The file is a part of the whole one, whenever its writer was killed.
  void expect_part_of(const MemoryState& whole) const {
    const std::optional<MemoryState> found = state_of(path("m"));
    EXPECT_TRUE(!found || found->leads_to(whole));
  }

  /// How far a job has come.
  std::size_t windows() const {
    std::size_t count = 0;
    if (const auto state = state_of(path("m"))) {
      for (const auto& document : state->documents) count += document.windows.size();
    }
    return count;
  }

  /// Runs a job until its end, and compares with one that was never killed.
  void finish(const std::string& whole) const {
    const Outcome outcome = run(words("m"));
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(state_of(path("m")), state_of(path(whole)));
    EXPECT_EQ(MemoryFile::open(path("m")).commit().digest, MemoryFile::open(path(whole)).commit().digest);
    EXPECT_FALSE(std::filesystem::exists(path("m.new")));
    std::filesystem::remove(path("m"));
  }
};

TEST_F(Killed, AtAnyCallItContinuesToTheSameFile) {
  if (kThreadSanitized) GTEST_SKIP() << "ThreadSanitizer cannot be loaded after another library";
  prepare();
  const long calls = calls_of(words("whole"), folder());
  const MemoryState whole = *state_of(path("whole"));
  const char* const ways[] = {"kill-before", "kill-half", "kill-after"};
  int kills = 0;
  for (int i = 0; kills < kKills / 2; ++i) {
    // From the first call to the last; where a job is killed again it has fewer calls left.
    const long call = i * calls / (kKills / 2) % calls;
    SCOPED_TRACE(fmt::format("{} call {} of {}", ways[i % 3], call, calls));
    const Outcome killed = run(struck(words("m"), folder(), {ways[i % 3], call, call}));
    ASSERT_EQ(killed.signal, SIGKILL) << killed.err;
    ++kills;
    expect_part_of(whole);
    const Outcome again = run(struck(words("m"), folder(), {ways[(i + 1) % 3], (i * 7 + 3) % 40, kForEver}));
    if (again.signal == SIGKILL) ++kills;
    expect_part_of(whole);
    finish("whole");
    if (HasFailure()) return;
  }
}

TEST_F(Killed, AtAnyTimeItContinuesToTheSameFile) {
  prepare();
  ASSERT_EQ(run(words("whole")).exit_code, 0);
  const MemoryState whole = *state_of(path("whole"));
  std::vector<double> times;
  for (int round = 0; round < 3; ++round) {
    const auto start = Clock::now();
    ASSERT_EQ(run(words("m")).exit_code, 0);
    times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    std::filesystem::remove(path("m"));
  }
  std::sort(times.begin(), times.end());
  std::mt19937 random(5);
  std::uniform_real_distribution<double> delay(0, times[1]);
  int kills = 0;
  std::set<std::size_t> found;  // how far the jobs had come when they were killed
  for (int rounds = 0; kills < kKills / 2 && rounds < 10 * kKills; ++rounds) {
    Program program(Invocation{.arguments = words("m")});
    std::this_thread::sleep_for(std::chrono::duration<double>(delay(random)));
    program.send(SIGKILL);
    const Outcome outcome = program.finish();
    if (outcome.signal == SIGKILL) {
      ++kills;
      expect_part_of(whole);
      found.insert(windows());
    }
    // Now and then a job is killed again and again.
    if (outcome.exit_code == 0 || random() % 3 == 0) finish("whole");
    if (HasFailure()) return;
  }
  EXPECT_EQ(kills, kKills / 2);
  EXPECT_GT(found.size(), static_cast<std::size_t>(kKills / 20)) << "the kills came too close together";
}

}  // namespace
}  // namespace memlane
