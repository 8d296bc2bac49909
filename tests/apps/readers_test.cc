// Programs that read a memory file while another writes it.

#include <atomic>
#include <thread>

#include "tests/apps/memory_state.h"

namespace memlane {
namespace {

using ::testing::HasSubstr;

constexpr int kAtOnce = 3;

class Readers : public CommandTest {
 protected:
  Words words(const std::string& memory) const {
    return ingest_words(memory, {"--mem-layers", "2,3", "--window", "16", path("a.txt"), path("b.txt")});
  }

  /// One look through the eyes of `memory list`: tokens in memory of all documents.
  std::size_t listed_tokens() const {
    const Outcome outcome = run({"memory", "list", path("m"), "--json"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    std::size_t tokens = 0;
    const auto report = nlohmann::json::parse(outcome.out, nullptr, false);
    for (const auto& document : report.at("documents")) tokens += document.at("tokens_in_memory").get<std::size_t>();
    return tokens;
  }
};

TEST_F(Readers, SeeCompleteEarlierStatesWhileIngestRuns) {
  write("a.txt", story(kSanitized ? 200 : 600, 11));
  write("b.txt", story(100, 12));
  ASSERT_EQ(run(words("whole")).exit_code, 0);
  const MemoryState whole = *state_of(path("whole"));
  Program writer(Invocation{.arguments = words("m")});
  ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(path("m")); }));
  std::atomic<bool> done = false;
  std::atomic<int> looks = 0;
  std::vector<std::jthread> readers;
  for (int reader = 0; reader < kAtOnce; ++reader) {
    readers.emplace_back([&, reader] {
      std::size_t tokens = 0;
      std::size_t windows = 0;
      for (bool last = false; !last; ++looks) {
        last = done;  // and look once more
        const std::optional<MemoryState> state = state_of(path("m"));
        ASSERT_TRUE(state && state->leads_to(whole)) << "no state that ever was";
        std::size_t count = 0;
        for (const auto& document : state->documents) count += document.windows.size();
        EXPECT_GE(count, windows);
        windows = count;
        const std::size_t listed = listed_tokens();
        EXPECT_GE(listed, tokens);
        tokens = listed;
        if (reader > 0 || windows == 0) continue;
        const Outcome asked = run(ask_words("m", "Once upon"));
        EXPECT_EQ(asked.exit_code, 0) << asked.err;
      }
    });
  }
  const Outcome outcome = writer.finish();
  done = true;
  readers.clear();
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(state_of(path("m")), whole);
  EXPECT_GT(looks, 2 * kAtOnce);
}

TEST_F(Readers, SeeOneStateOrTheOtherWhileDocumentsAreDroppedAndCompactedAway) {
  write("a.txt", story(100, 1));
  write("b.txt", story(100, 2));
  ASSERT_EQ(run(words("m")).exit_code, 0);
  std::atomic<bool> done = false;
  std::vector<std::jthread> readers;
  for (int reader = 0; reader < kAtOnce; ++reader) {
    readers.emplace_back([&] {
      while (!done) {
        const std::optional<MemoryState> state = state_of(path("m"));
        ASSERT_TRUE(state.has_value());
        for (const auto& document : state->documents) {
          EXPECT_TRUE(document.dropped || document.windows.size() * 16 <= document.tokens + 15);
          EXPECT_TRUE(document.dropped || !document.complete || !document.windows.empty());
        }
        EXPECT_GE(listed_tokens(), 100U);  // b.txt is never dropped
      }
    });
  }
  for (int round = 0; round < (kSanitized ? 2 : 5); ++round) {
    EXPECT_EQ(run({"memory", "drop", path("m"), "a.txt"}).exit_code, 0);
    EXPECT_EQ(run({"memory", "compact", path("m"), "--quiet"}).exit_code, 0);
    EXPECT_EQ(run(words("m")).exit_code, 0);
  }
  done = true;
}

TEST_F(Readers, AndWritersAreNotHeldUpByOnesThatDied) {
  write("a.txt", story(900, 11));
  write("b.txt", story(100, 12));
  {
    Program writer(Invocation{.arguments = words("m")});
    ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(path("m")); }));
    writer.send(SIGSTOP);
    EXPECT_THAT(run(words("m")).err, HasSubstr("another memlane is writing"));
    writer.send(SIGKILL);
    writer.finish();
  }
  EXPECT_EQ(run(words("m")).exit_code, 0);
}

}  // namespace
}  // namespace memlane
