// Ingest stopped, killed, run twice at once; standard input.

#include <chrono>
#include <csignal>
#include <thread>

#include "kernels/error.h"
#include "tests/apps/command_test.h"

namespace memlane {
namespace {

using ::testing::HasSubstr;

/// Windows in a file; 0 if it is not there yet.
std::size_t stored_windows(const std::string& path) {
  try {
    std::size_t windows = 0;
    const MemoryFile file = MemoryFile::open(path);
    for (const StoredDocument& document : file.documents()) windows += document.windows.size();
    return windows;
  } catch (const InputError&) {
    return 0;
  }
}

class Interruption : public CommandTest {
 protected:
  /// Long enough that a program is stopped somewhere inside.
  static std::string long_story() { return story(900, 11); }

  Words words(const std::string& memory, const Words& rest) const {
    return Words{"ingest", "--model", stories(), "--memory", path(memory), "--threads", "1", "--quiet"} +
           Words{"--mem-layers", "2,3"} + window_ + rest;
  }

  Words window_ = {"--window", "16"};

  /// Starts the program, sends a signal once it has stored a few more windows, and returns how it ended.
  Outcome stop(const Invocation& invocation, const std::string& memory, int signal) const {
    const std::size_t before = stored_windows(path(memory));
    Program program(invocation);
    EXPECT_TRUE(wait_until([&] { return program.ended() || stored_windows(path(memory)) > before + 2; }));
    program.send(signal);
    return program.finish();
  }

  /// Documents, ids and entries, bit for bit.
  void expect_same_contents(const std::string& left_name, const std::string& right_name) const {
    const MemoryFile left = MemoryFile::open(path(left_name));
    const MemoryFile right = MemoryFile::open(path(right_name));
    EXPECT_EQ(left.header(), right.header());
    ASSERT_EQ(left.documents().size(), right.documents().size());
    for (std::size_t d = 0; d < left.documents().size(); ++d) {
      const StoredDocument& a = left.documents()[d];
      const StoredDocument& b = right.documents()[d];
      EXPECT_EQ(a.info.text_fingerprint, b.info.text_fingerprint);
      EXPECT_EQ(a.info.tokens, b.info.tokens);
      EXPECT_EQ(a.complete, b.complete);
      ASSERT_EQ(a.windows.size(), b.windows.size());
      for (std::size_t w = 0; w < a.windows.size(); ++w) {
        ASSERT_TRUE(std::equal(a.windows[w].ids.begin(), a.windows[w].ids.end(), b.windows[w].ids.begin(),
                               b.windows[w].ids.end()));
        const std::size_t bytes = left.header().shape.segment_bytes(a.windows[w].count);
        ASSERT_TRUE(std::equal(a.windows[w].entries, a.windows[w].entries + bytes, b.windows[w].entries))
            << "window " << w;
      }
    }
  }

  /// The stored indexes, too.
  void expect_same_indexes(const std::string& left_name, const std::string& right_name) const {
    const MemoryFile left = MemoryFile::open(path(left_name));
    const MemoryFile right = MemoryFile::open(path(right_name));
    ASSERT_EQ(left.documents().size(), right.documents().size());
    for (std::size_t d = 0; d < left.documents().size(); ++d) {
      const StoredIndexes& a = left.documents()[d].indexes;
      const StoredIndexes& b = right.documents()[d].indexes;
      EXPECT_EQ(a.entries_covered, b.entries_covered);
      ASSERT_FALSE(a.blobs.empty());
      ASSERT_EQ(a.blobs.size(), b.blobs.size());
      for (std::size_t i = 0; i < a.blobs.size(); ++i) {
        ASSERT_TRUE(std::equal(a.blobs[i].begin(), a.blobs[i].end(), b.blobs[i].begin(), b.blobs[i].end()))
            << "index " << i;
      }
    }
  }

  void expect_ctrl_c_continues(const Words& lookup) const {
    const Words rest = lookup + Words{path("a.txt")};
    ASSERT_EQ(run(words("whole", rest)).exit_code, 0);
    const Outcome stopped = stop(Invocation{.arguments = words("m", rest)}, "m", SIGINT);
    EXPECT_EQ(stopped.exit_code, 1) << stopped.err;
    EXPECT_THAT(stopped.err, HasSubstr("same command continues"));
    {
      const MemoryFile file = MemoryFile::open(path("m"));
      ASSERT_EQ(file.documents().size(), 1U);
      EXPECT_FALSE(file.documents()[0].complete);
      EXPECT_FALSE(file.has_uncommitted_tail());
    }
    const Outcome continued = run(words("m", rest));
    EXPECT_EQ(continued.exit_code, 0) << continued.err;
    expect_same_contents("m", "whole");
    EXPECT_EQ(ask("m", "Once upon"), ask("whole", "Once upon"));
  }
};

TEST_F(Interruption, ByCtrlCKeepsWindowsAndTheSameCommandContinuesBitForBit) {
  write("a.txt", long_story());
  expect_ctrl_c_continues({"--index", "dense"});
}

// A window is stored with all of its sub-windows or not at all.
TEST_F(Interruption, ByCtrlCContinuesLongWindowsBitForBit) {
  window_ = {"--window", "40", "--memory-window", "16", "--rope", "linear:factor=1.5"};
  write("a.txt", long_story());
  expect_ctrl_c_continues({"--index", "dense"});
  const MemoryFile file = MemoryFile::open(path("whole"));
  const std::vector<StoredWindow>& windows = file.documents()[0].windows;
  EXPECT_EQ(windows[1].count, 16U);
  EXPECT_EQ(windows[2].count, 8U);
  EXPECT_EQ(windows[3].count, 16U);
  EXPECT_EQ(file.header().settings.at("memory window"), "16");
  expect_refused(ask_words("whole", "Once", {"--memory-window", "8"}), {"memory window 16 in the file", "8 asked for"});
}

TEST_F(Interruption, AskAndIngestTakeAWholeLongMemoryWindowFromTheFile) {
  window_ = {"--window", "600", "--memory-window", "600", "--rope", "none"};
  ASSERT_EQ(run(words("whole", {write("a.txt", long_story())})).exit_code, 0);
  EXPECT_FALSE(ask("whole", "Once upon").empty());
}

TEST_F(Interruption, ByCtrlCContinuesAnExactMemoryBitForBit) {
  write("a.txt", long_story());
  expect_ctrl_c_continues({"--index", "exact", "--top-k", "16"});
}

TEST_F(Interruption, ByCtrlCContinuesAStoredIndexBitForBit) {
  write("a.txt", story(900, 11));
  expect_ctrl_c_continues({"--index", "IVF4,Flat", "--top-k", "16"});
}

// An index that is not stored is made again as it was: it trains on the same keys and takes the others in the same
// steps.
TEST_F(Interruption, ByAKillChangesNoIndex) {
  for (const char* index : {"IVF4,Flat", "HNSW4"}) {
    for (const Words& window :
         {Words{"--window", "16"}, Words{"--window", "40", "--memory-window", "16", "--rope", "linear:factor=1.5"}}) {
      SCOPED_TRACE(index + window.back());
      std::filesystem::remove(path("m"));
      std::filesystem::remove(path("whole"));
      window_ = window;
      const Words rest = {"--index", index, "--top-k", "16", write("a.txt", long_story())};
      ASSERT_EQ(run(words("whole", rest)).exit_code, 0);
      {
        Program program(Invocation{.arguments = words("m", rest)});
        EXPECT_TRUE(wait_until([&] { return program.ended() || stored_windows(path("m")) > 20; }));  // it has trained
        program.send(SIGKILL);
        program.finish();
      }
      ASSERT_EQ(run(words("m", rest)).exit_code, 0);
      expect_same_contents("m", "whole");
      expect_same_indexes("m", "whole");
    }
  }
}

TEST_F(Interruption, ByKillsLosesNoStoredWindow) {
  const Words rest = {write("a.txt", long_story())};
  ASSERT_EQ(run(words("whole", rest)).exit_code, 0);
  for (int round = 0; round < 4; ++round) {
    const std::size_t before = stored_windows(path("m"));
    const Outcome killed = stop(Invocation{.arguments = words("m", rest)}, "m", SIGKILL);
    EXPECT_GT(stored_windows(path("m")), before);
    if (killed.signal != SIGKILL) break;  // it was done
  }
  EXPECT_EQ(run(words("m", rest)).exit_code, 0);
  expect_same_contents("m", "whole");
}

TEST_F(Interruption, LetsAskSeeWhatHasBeenRead) {
  const Words rest = {write("a.txt", long_story())};
  stop(Invocation{.arguments = words("m", rest)}, "m", SIGTERM);
  const Outcome asked = run(ask_words("m", "Once upon"));
  EXPECT_EQ(asked.exit_code, 0);
  EXPECT_THAT(asked.err, HasSubstr("tokens of 'a.txt' have been read"));
}

TEST_F(Interruption, OfAnAnswerKeepsWhatWasSaid) {
  // Nothing tells when the first token is there; on a busy machine that takes longer.
  Outcome outcome;
  for (int seconds = 1; outcome.out.empty() && seconds < 60; seconds *= 2) {
    Program program({.arguments = {"generate", "--model", stories(), "--prompt", "Once upon a time", "--ignore-eos",
                                   "--max-tokens", "10000000", "--json", "--threads", "1"}});
    std::this_thread::sleep_for(std::chrono::seconds(seconds));
    program.send(SIGINT);
    outcome = program.finish();
    EXPECT_NE(outcome.exit_code, 0) << outcome.err;
  }
  EXPECT_EQ(outcome.exit_code, 1) << outcome.err;
  const nlohmann::json report = nlohmann::json::parse(outcome.out, nullptr, false);
  ASSERT_TRUE(report.is_object()) << outcome.out;
  EXPECT_EQ(report.at("stop"), "interrupted");
  EXPECT_NE(report.at("text"), "");
}

TEST_F(Interruption, IsNotNeededForASecondWriter) {
  const Words rest = {write("a.txt", long_story())};
  Program first(Invocation{.arguments = words("m", rest)});
  ASSERT_TRUE(wait_until([&] { return stored_windows(path("m")) > 0; }));
  first.send(SIGSTOP);
  const Outcome second = run(words("m", rest));
  EXPECT_EQ(second.exit_code, 2);
  EXPECT_THAT(second.err, HasSubstr(path("m") + ": another memlane is writing"));
  first.send(SIGCONT);
  EXPECT_EQ(first.finish().exit_code, 0);
  EXPECT_EQ(run(words("m", rest)).exit_code, 0);
}

class StandardInput : public Interruption {};

TEST_F(StandardInput, IsReadLikeAFileAndItsCopyRemoved) {
  const std::string text = story(200, 4);
  const Outcome piped = run(Invocation{.arguments = words("m", {"-"}), .input = text});
  EXPECT_EQ(piped.exit_code, 0) << piped.err;
  EXPECT_EQ(contents_of(folder()).size(), 1U);
  ASSERT_EQ(run(words("file", {write("a.txt", text)})).exit_code, 0);
  expect_same_contents("m", "file");
  EXPECT_EQ(MemoryFile::open(path("m")).documents()[0].info.name, "stdin");
  EXPECT_EQ(run(Invocation{.arguments = words("m", {"-"}), .input = text}).exit_code, 0) << "again: it is there";
  EXPECT_EQ(run(Invocation{.arguments = words("m", {path("a.txt"), "-"}), .input = text}).exit_code, 0);
  EXPECT_EQ(contents_of(folder()).size(), 3U) << "no copy is left";
}

TEST_F(StandardInput, IsKeptWhenInterruptedAndContinuedByTheSameCommand) {
  const std::string text = long_story();
  ASSERT_EQ(run(Invocation{.arguments = words("whole", {"-"}), .input = text}).exit_code, 0);
  const Invocation invocation = {.arguments = words("m", {"-"}), .input = text};
  const Outcome stopped = stop(invocation, "m", SIGINT);
  EXPECT_EQ(stopped.exit_code, 1);
  EXPECT_THAT(stopped.err, HasSubstr("kept in " + path("m.stdin")));
  EXPECT_EQ(read_text(path("m.stdin")), text);
  for (const std::string& other : {story(100, 5), text + ".", text.substr(0, 1000)}) {
    expect_refused(Invocation{.arguments = invocation.arguments, .input = other}, {path("m.stdin"), "another text"});
  }
  EXPECT_EQ(run(invocation).exit_code, 0);
  EXPECT_FALSE(std::filesystem::exists(path("m.stdin")));
  expect_same_contents("m", "whole");
}

TEST_F(StandardInput, IsContinuedFromItsCopy) {
  const Invocation invocation = {.arguments = words("m", {"-"}), .input = long_story()};
  stop(invocation, "m", SIGKILL);
  ASSERT_TRUE(std::filesystem::exists(path("m.stdin")));
  EXPECT_EQ(run(words("m", {path("m.stdin")})).exit_code, 0);
  EXPECT_FALSE(std::filesystem::exists(path("m.stdin")));
  EXPECT_EQ(MemoryFile::open(path("m")).documents().size(), 1U);
}

TEST_F(StandardInput, StopsWaitingOnCtrlC) {
  Program program(Invocation{.arguments = words("m", {"-"}), .open_input = true});
  ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(path("m.stdin.new")); }));
  program.send(SIGINT);
  const Outcome outcome = program.finish();
  EXPECT_EQ(outcome.exit_code, 1) << outcome.signal;
  EXPECT_TRUE(contents_of(folder()).empty());
}

TEST_F(StandardInput, ThatIsNoTextLeavesNothing) {
  const auto refuse = [&](const std::string& input, const Words& named) {
    expect_refused(Invocation{.arguments = words("m", {"-"}), .input = input}, named);
  };
  refuse("", {"standard input", "expected a text"});
  refuse("abc\xff", {"m.stdin", "offset 3"});
  refuse("   ", {"m.stdin", "spaces"});
  expect_refused(Invocation{.arguments = words("m", {"-", "-"}), .input = "a"}, {"standard input once"});
  expect_refused(Invocation{.arguments = words("m", {"-", path("missing")}), .input = "a"}, {path("missing")});
}

}  // namespace
}  // namespace memlane
