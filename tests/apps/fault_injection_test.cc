// Commands whose calls on files fail: every call, one after the other, below everything that memlane does itself.

#include "tests/apps/memory_state.h"

namespace memlane {
namespace {

using ::testing::HasSubstr;

class FaultInjection : public CommandTest {
 protected:
  FaultInjection() : model_(copy_of_stories("model")) {}

  void SetUp() override {
    if (kThreadSanitized) GTEST_SKIP() << "ThreadSanitizer cannot be loaded after another library";
  }

  Words ingest(const std::string& memory, const Words& rest) const {
    return Words{"ingest", "--model", model_, "--memory", path(memory), "--threads", "1", "--quiet"} + rest;
  }
  /// Two windows and an end.
  Words settings() const { return {"--mem-layers", "3", "--window", "16"}; }
  void prepare(const std::string& memory, const Words& documents) const {
    const Outcome outcome = run(ingest(memory, settings() + documents));
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  }

  /// The files of the folder, the model's apart.
  std::map<std::string, std::string> files() const {
    std::map<std::string, std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(folder())) {
      if (entry.is_regular_file()) found[entry.path().string()] = read_text(entry.path());
    }
    return found;
  }
  void restore(const std::map<std::string, std::string>& before) const {
    for (const auto& [name, bytes] : files()) std::filesystem::remove(name);
    for (const auto& [name, bytes] : before) write_text(name, bytes);
  }

  enum class Between { part_of_the_work, nothing };

  /// Runs a command that changes `memory`, with every one of its calls failing in every way, each time from the same
  /// start: it must say so, leave a state between, and lead to the same end when it is run again.
  void expect_survival(const Words& command, const std::string& memory, Between between) const {
    const auto before = files();
    const std::optional<MemoryState> start = state_of(path(memory));
    const long calls = calls_of(command, folder());
    const std::optional<MemoryState> end = state_of(path(memory));
    const auto after = files();
    ASSERT_TRUE(end.has_value() && start != end);
    EXPECT_GE(calls, 10);
    // What a full disk does, a failing one, and one that fills up in the middle of a write.
    std::size_t runs = 0;
    std::size_t failures = 0;
    for (const auto& [how, error, for_ever] :
         {std::tuple("fail", ENOSPC, false), std::tuple("fail", EIO, true), std::tuple("half", ENOSPC, true)}) {
      for (long call = 0; call < calls; call += kSanitized ? 7 : 1) {
        SCOPED_TRACE(
            fmt::format("{} call {} of {}: {}{}", command[0], call, calls, how, for_ever ? " and all after it" : ""));
        restore(before);
        ++runs;
        const Outcome outcome = run(struck(command, folder(), {how, call, for_ever ? kForEver : call, error}));
        const std::optional<MemoryState> found = state_of(path(memory));
        if (outcome.exit_code == 0) {
          EXPECT_EQ(found, end) << "it said that all was well";
        } else {
          ++failures;
          EXPECT_EQ(outcome.exit_code, 2) << outcome.err << " signal " << outcome.signal;
          EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
          EXPECT_THAT(outcome.err, HasSubstr(folder().string())) << "no file is named";
          const bool whole = found == start || found == end;
          const bool part = between == Between::part_of_the_work && found && found->leads_to(*end) &&
                            (!start || start->leads_to(*found));
          EXPECT_TRUE(whole || part) << "after: " << outcome.err;
        }
        const bool done = found == end && outcome.exit_code != 0 && between == Between::nothing;
        const Outcome again = run(command);
        EXPECT_TRUE(again.exit_code == 0 || done) << again.err;
        EXPECT_EQ(state_of(path(memory)), end);
        EXPECT_EQ(files().size(), after.size()) << "something was left behind";
        if (HasFailure()) return;
      }
    }
    EXPECT_GT(3 * failures, runs) << "the failures hardly ever mattered";
  }

  std::string model_;
};

TEST_F(FaultInjection, OfANewFileAndItsDocumentLosesNothing) {
  expect_survival(ingest("m", settings() + Words{write("a.txt", story(9, 1))}), "m", Between::part_of_the_work);
}

TEST_F(FaultInjection, OfAnotherDocumentWithAnIndexLosesNothing) {
  const Words with_index = {"--index", "Flat", "--top-k", "4"};
  const Words first = {write("a.txt", story(9, 1))};
  ASSERT_EQ(run(ingest("m", settings() + with_index + first)).exit_code, 0);
  expect_survival(ingest("m", {write("b.txt", story(9, 2))}), "m", Between::part_of_the_work);
}

TEST_F(FaultInjection, OfAJointIndexLosesNothing) {
  prepare("m", {write("a.txt", story(9, 1)), write("b.txt", story(9, 2))});
  expect_survival({"memory", "index", path("m"), "--quiet"}, "m", Between::nothing);
}

TEST_F(FaultInjection, OfDroppingLosesNothing) {
  prepare("m", {write("a.txt", story(9, 1)), write("b.txt", story(9, 2))});
  expect_survival({"memory", "drop", path("m"), "a.txt", "--json"}, "m", Between::nothing);
}

TEST_F(FaultInjection, OfMergingLosesNothing) {
  prepare("m", {write("a.txt", story(9, 1))});
  prepare("n", {write("b.txt", story(9, 2)), write("c.txt", story(9, 3))});
  expect_survival({"memory", "merge", path("m"), path("n"), "--quiet"}, "m", Between::part_of_the_work);
}

TEST_F(FaultInjection, OfMergingIntoANewFileLosesNothing) {
  prepare("n", {write("b.txt", story(9, 2))});
  expect_survival({"memory", "merge", path("m"), path("n"), "--quiet"}, "m", Between::part_of_the_work);
}

TEST_F(FaultInjection, OfCompactingLosesNothing) {
  prepare("m", {write("a.txt", story(9, 1)), write("b.txt", story(9, 2))});
  ASSERT_EQ(run({"memory", "drop", path("m"), "a.txt"}).exit_code, 0);
  expect_survival({"memory", "compact", path("m"), "--quiet"}, "m", Between::nothing);
}

}  // namespace
}  // namespace memlane
