// What the benches print, and what they refuse. That the numbers are right is tested below, on the library.

#include <csignal>
#include <set>
#include <thread>

#include "tests/apps/command_test.h"

namespace memlane {
namespace {

using ::testing::HasSubstr;

class BenchCommand : public CommandTest {
 protected:
  Words bench(const std::string& name, const Words& rest) const {
    const Words settings = {"--threads", "1", "--mem-layers", "2,3", "--window", "64", "--quiet", "--json"};
    return Words{"bench", name, "--model", stories()} + settings + rest;
  }
};

class RecallCommand : public BenchCommand {};

TEST_F(RecallCommand, HasACellForEveryLengthDepthAndMethod) {
  const nlohmann::json report = json_of(bench("recall", {"--lengths", "300,400", "--depths", "0.1,0.9", "--methods",
                                                         "memory,none,yarn:factor=2", "--trials", "2"}));
  EXPECT_EQ(report.at("bench"), "recall");
  EXPECT_EQ(report.at("complete"), true);
  ASSERT_EQ(report.at("cells").size(), 12U);
  std::set<std::string> places;
  for (const auto& cell : report.at("cells")) {
    places.insert(cell.at("method").get<std::string>() + cell.at("depth").dump() + cell.at("length").dump());
    EXPECT_EQ(cell.at("trials"), 2);
    EXPECT_EQ(cell.at("task"), "passkey");
    EXPECT_LT(cell.at("answer_logprob"), 0);
    EXPECT_LE(cell.at("wilson_low"), cell.at("accuracy"));
    EXPECT_GE(cell.at("wilson_high"), cell.at("accuracy"));
  }
  EXPECT_EQ(places.size(), 12U);
}

TEST_F(RecallCommand, GivesTheSameNumbersForTheSameSeedAndARandomDepthByDefault) {
  for (const char* task : {"keyvalue", "needle"}) {
    const auto numbers = [&](const char* seed) {
      const nlohmann::json report = json_of(bench(
          "recall", {"--task", task, "--lengths", "300", "--trials", "2", "--methods", "memory", "--seed", seed}));
      EXPECT_TRUE(report.at("cells").at(0).at("depth").is_null());
      return report.at("cells").at(0).at("answer_logprob").get<double>();
    };
    EXPECT_EQ(numbers("5"), numbers("5"));
    EXPECT_NE(numbers("5"), numbers("6"));
  }
}

TEST_F(RecallCommand, RefusesWhatCannotBe) {
  expect_refused(bench("recall", {"--methods", "magic"}), {"method magic", "expected memory"});
  expect_refused(bench("recall", {"--methods", "yarn:factr=4"}), {"method yarn:factr=4", "key factr"});
  expect_refused(bench("recall", {"--methods", "none,none"}), {"--methods", "none twice"});
  expect_refused(bench("recall", {"--depths", "1.5"}), {"--depths 1.5", "0 to 1"});
  expect_refused(bench("recall", {"--depths", "-0.5"}), {"--depths -0.5"});
  expect_refused(bench("recall", {"--depths", "nan"}), {"--depths", "'nan'"});
  expect_refused(bench("recall", {"--lengths", "1"}), {"--lengths 1"});
  expect_refused(bench("recall", {"--lengths", "99999999999"}), {"--lengths", "99999999999"});
  expect_refused(bench("recall", {"--trials", "0"}), {"--trials", "from 1", "'0'"});
  for (const char* task : {"foo", "2"}) {
    expect_refused(bench("recall", {"--task", task}), {"--task", "passkey", "needle", std::string("'") + task + "'"});
  }
  expect_refused(bench("recall", {"--filler", "1"}), {"--filler", "book or repeated", "'1'"});
  expect_refused(bench("recall", {"--depths", "half"}), {"--depths", "a number", "'half'"});
  expect_refused(bench("recall", {"--lengths", "60", "--task", "multikey"}), {"length 60"});
  expect_refused({"bench", "recall", "--model", stories(), "--methods", "memory"}, {"method memory", "--mem-layers"});
}

// A method that cannot be costs no other method its numbers.
TEST_F(RecallCommand, RefusesWhatALaterCellCannotDoBeforeTheFirst) {
  const Words words = bench("recall", {"--lengths", "300,400", "--trials", "1"});
  for (const char* method : {"memory:window=20", "none:window=20", "yarn:window=20"}) {
    expect_refused(words + Words{"--methods", std::string("none,") + method},
                   {std::string("method ") + method + " at 300 tokens", "window of 20", "room for a question"});
  }
  expect_refused(words + Words{"--methods", "none,memory", "--index", "garbage"}, {"index 'garbage'"});
  expect_refused(bench("recall", {"--lengths", "400,30", "--trials", "1"}), {"length 30"});
}

TEST_F(RecallCommand, TakesListsOfLongrope) {
  const nlohmann::json report =
      json_of(bench("recall", {"--lengths", "300", "--trials", "1", "--methods",
                               "longrope:short-factor=1;1;1;1:long-factor=1;1;1;2:original-length=128,none"}));
  EXPECT_EQ(report.at("cells").size(), 2U);
}

class PerplexityCommand : public BenchCommand {
 protected:
  std::string text() const { return write("text.txt", story(1200, 3)); }
};

TEST_F(PerplexityCommand, MeasuresTheSameTokensAsMemoryGrows) {
  const nlohmann::json report =
      json_of(bench("perplexity", {"--text", text(), "--start", "256", "--targets", "128", "--memory", "0,64,256"}));
  EXPECT_EQ(report.at("convention"), "memory");
  ASSERT_EQ(report.at("cells").size(), 3U);
  for (const auto& cell : report.at("cells")) {
    EXPECT_EQ(cell.at("tokens"), 2 * 63);
    EXPECT_EQ(cell.at("length"), cell.at("memory_tokens"));
    EXPECT_NEAR(std::log(cell.at("perplexity").get<double>()), cell.at("nll").get<double>() / 126, 1e-9);
  }
  EXPECT_NE(report.at("cells").at(0).at("nll"), report.at("cells").at(2).at("nll"));
}

TEST_F(PerplexityCommand, OfOnePassIsThatOfTokenByTokenForStaticMethods) {
  const Words words = {"--text",    text(),    "--methods",   "none:window=full,yarn,memory",
                       "--lengths", "200,300", "--convention"};
  const nlohmann::json at_once = json_of(bench("perplexity", words + Words{"one-pass", "--curve", "5"}));
  const nlohmann::json singly = json_of(bench("perplexity", words + Words{"token-by-token", "--curve", "5"}));
  ASSERT_EQ(at_once.at("cells").size(), 6U);
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(at_once.at("cells").at(i).at("nll"), singly.at("cells").at(i).at("nll"));
    EXPECT_EQ(at_once.at("cells").at(i).at("curve"), singly.at("cells").at(i).at("curve"));
    EXPECT_EQ(at_once.at("cells").at(i).at("curve").size(), 5U);
    EXPECT_EQ(at_once.at("cells").at(i).at("tokens"), i % 2 == 0 ? 199 : 299);
  }
}

TEST_F(PerplexityCommand, OfAStrideHasTheSameTargetsForEveryLength) {
  const Words words = {"--text", text(), "--methods", "none:window=full", "--targets", "128", "--start", "400"};
  const nlohmann::json report = json_of(bench("perplexity", words + Words{"--lengths", "100,400", "--stride", "32"}));
  EXPECT_EQ(report.at("convention"), "stride");
  ASSERT_EQ(report.at("cells").size(), 2U);
  for (const auto& cell : report.at("cells")) EXPECT_EQ(cell.at("tokens"), 128);
  // Of one window whose length is the stride and one more, every token but the first two: BOS sees none before it.
  const nlohmann::json one =
      json_of(bench("perplexity", Words{"--text", text(), "--methods", "none:window=full"} +
                                      Words{"--targets", "99", "--stride", "99", "--start", "1", "--lengths", "100"}));
  const nlohmann::json pass =
      json_of(bench("perplexity", Words{"--text", text(), "--methods", "none:window=full"} +
                                      Words{"--convention", "one-pass", "--lengths", "100", "--start", "1"}));
  EXPECT_EQ(one.at("cells").at(0).at("nll"), pass.at("cells").at(0).at("nll"));
}

TEST_F(PerplexityCommand, OfSeveralTextsHasACellForEach) {
  const std::string other = write("other.txt", story(1200, 4));
  const nlohmann::json report = json_of(bench("perplexity", {"--text", text(), "--text", other, "--lengths", "100",
                                                             "--convention", "one-pass", "--methods", "none"}));
  ASSERT_EQ(report.at("cells").size(), 2U);
  EXPECT_EQ(report.at("cells").at(1).at("text"), other);
  EXPECT_NE(report.at("cells").at(0).at("nll"), report.at("cells").at(1).at("nll"));
}

TEST_F(PerplexityCommand, RefusesWhatCannotBe) {
  const Words words = bench("perplexity", {"--text", text()});
  const auto refuse = [&](const Words& rest, const Words& named) { expect_refused(words + rest, named); };
  refuse({"--convention", "best"}, {"--convention", "one-pass", "'best'"});
  refuse({"--convention", "1"}, {"--convention", "one-pass", "'1'"});
  refuse({"--memory", "64", "--lengths", "64"}, Words{"--lengths"});
  refuse({"--start", "64", "--targets", "100", "--memory", "0"}, {"--targets 100", "64"});
  refuse({"--start", "64", "--targets", "64", "--memory", "128"}, {"--memory 128", "--start"});
  refuse({"--start", "64", "--targets", "64", "--memory", "10"}, {"--memory 10"});
  refuse({"--start", "64", "--targets", "64", "--memory", "64", "--methods", "none"}, {"method none", "memory layers"});
  refuse({"--memory", "0", "--methods", "yarn"}, {"method yarn", "window"});
  refuse({"--lengths", "100", "--stride", "100", "--targets", "100"}, {"--stride 100", "--lengths 100"});
  refuse({"--lengths", "100", "--stride", "10", "--targets", "15"}, {"--targets 15", "--stride"});
  refuse({"--lengths", "100", "--start", "20", "--stride", "10", "--targets", "20"}, {"--start 20", "90"});
  refuse({"--lengths", "100000", "--convention", "one-pass"}, {path("text.txt"), "100000", "--lengths"});
  refuse({"--lengths", "1"}, {"--lengths 1"});
  refuse({"--curve", "0"}, {"--curve"});
  refuse({"--targets", "0"}, {"--targets", "from 1"});
  refuse({"--start", "64", "--targets", "64", "--memory", "0", "--methods", "none,memory", "--index", "garbage"},
         {"index 'garbage'"});
  expect_refused({"bench", "perplexity", "--model", stories(), "--mem-layers", "2", "--text", text(), "--window", "1",
                  "--start", "64", "--targets", "64", "--memory", "0"},
                 {"method memory", "window of at least 2"});
  expect_refused(bench("perplexity", {"--text", path("missing")}), {path("missing")});
}

TEST_F(PerplexityCommand, RefusesWhatTheConventionDoesNotUse) {
  const auto refuse = [&](const Words& rest, const Words& named) {
    expect_refused(bench("perplexity", {"--text", text()}) + rest, named);
  };
  for (const char* convention : {"one-pass", "token-by-token"}) {
    const Words words = {"--convention", convention, "--lengths", "100", "--methods", "none"};
    refuse(words + Words{"--stride", "16"}, {"--stride", convention, "mode=recompute"});
    refuse(words + Words{"--targets", "64"}, {"--targets", convention});
    refuse(words + Words{"--memory", "0"}, {"--memory", convention, "--lengths"});
  }
  refuse({"--start", "64", "--targets", "64", "--memory", "0", "--stride", "8"}, {"--stride", "convention memory"});
  refuse({"--lengths", "100", "--memory", "0"}, {"--memory", "convention stride"});
  refuse({"--lengths", "100", "--methods", "dynamic-ntk:mode=recompute"}, {"key mode", "found stride"});
  refuse({"--lengths", "100", "--methods", "memory:last-context=9"}, {"key last-context", "no question"});
  refuse({"--convention", "recompute", "--lengths", "100", "--methods", "memory"}, {"method memory", "recompute"});
  const nlohmann::json report =
      json_of(bench("perplexity", {"--text", text(), "--convention", "one-pass", "--lengths", "100", "--stride", "50",
                                   "--methods", "dynamic-ntk:mode=recompute,dynamic-ntk:mode=consistent"}));
  EXPECT_EQ(report.at("cells").at(0).at("tokens"), 1);
  EXPECT_EQ(report.at("cells").at(1).at("tokens"), 99);
}

TEST_F(PerplexityCommand, SaysWhatItHasWhenInterrupted) {
  const std::string long_text = write("long.txt", story(20000, 3));
  Program program(
      Invocation{.arguments = bench("perplexity", {"--text", long_text, "--methods", "none,yarn:factor=2", "--lengths",
                                                   "64,9000", "--convention", "token-by-token"})});
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  if (program.ended()) GTEST_SKIP() << "this machine is too fast";
  program.send(SIGINT);
  const Outcome outcome = program.finish();
  EXPECT_EQ(outcome.exit_code, 1) << outcome.signal;
  if (outcome.out.empty()) GTEST_SKIP() << "this machine is too slow: nothing was complete";
  const nlohmann::json report = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(report.at("complete"), false);
  EXPECT_LT(report.at("cells").size(), 4U);
}

class CostCommand : public BenchCommand {};

TEST_F(CostCommand, MeasuresEveryMethodAndLengthInAProcessOfItsOwn) {
  const nlohmann::json report =
      json_of(bench("cost", {"--methods", "none,memory,none:window=full", "--lengths", "128,2000", "--decode", "4"}));
  EXPECT_EQ(report.at("bench"), "cost");
  ASSERT_EQ(report.at("cells").size(), 6U);
  std::map<std::string, nlohmann::json> cells;
  for (const auto& cell : report.at("cells")) {
    cells[cell.at("method").get<std::string>() + " " + cell.at("length").dump()] = cell;
    EXPECT_GT(cell.at("prefill_seconds_per_token"), 0);
    EXPECT_GT(cell.at("decode_seconds_per_token"), 0);
    EXPECT_GT(cell.at("peak_bytes"), 1 << 20);
  }
  EXPECT_EQ(report.at("model_fingerprint").get<std::string>().size(), 32U);
  EXPECT_EQ(cells["none 2000"].at("tokens"), 60) << "the end that leaves room for four more";
  EXPECT_EQ(cells["memory 2000"].at("memory_tokens"), 1968);
  EXPECT_EQ(cells["memory 2000"].at("local_tokens"), 32);
  EXPECT_EQ(cells["none:window=full 2000"].at("local_tokens"), 2000);
  // Two float32 vectors of 4 * 8 for each token and layer more than the 60 of the model's own window.
  EXPECT_EQ(cells["none:window=full 2000"].at("bytes_read_per_token").get<double>() -
                cells["none 2000"].at("bytes_read_per_token").get<double>(),
            1940.0 * 2 * 32 * 4 * 5);
  EXPECT_EQ(cells["memory 2000"].at("bytes_read_per_token").get<double>() -
                cells["none 2000"].at("bytes_read_per_token").get<double>(),
            1968.0 * 2 * 32 * 2 * 2 - 28.0 * 2 * 32 * 4 * 5);
}

TEST_F(CostCommand, RefusesWhatCannotBe) {
  expect_refused(bench("cost", {"--methods", "magic"}), {"method magic"});
  expect_refused(bench("cost", {"--decode", "0"}), {"--decode"});
  expect_refused(bench("cost", {"--lengths", "0"}), {"--lengths 0"});
  expect_refused(bench("cost", {"--methods", "memory", "--decode", "60", "--lengths", "100"}),
                 {"method memory at 100 tokens", "window of 64"});
  expect_refused(bench("cost", {"--methods", "none,none:window=40", "--lengths", "100"}),
                 {"method none:window=40 at 100 tokens", "window of 40"});
  expect_refused(bench("cost", {"--index", "garbage"}), {"index 'garbage'"});
  expect_refused(bench("cost", {"--instruction-set", "mmx"}), {"mmx"});
}

TEST_F(CostCommand, KeepsWhatIsFinishedWhenAProcessIsKilled) {
  const Invocation invocation = {
      .arguments = bench("cost", {"--methods", "none:window=full", "--lengths", "64,400000", "--decode", "1"}),
      .limits = {{RLIMIT_CPU, 4}}};  // of each process
  const Outcome outcome = run(invocation);
  EXPECT_EQ(outcome.exit_code, 1) << outcome.signal;
  EXPECT_THAT(outcome.err, ::testing::StartsWith("memlane: method none:window=full at 400000 tokens: signal "));
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  const nlohmann::json report = nlohmann::json::parse(outcome.out, nullptr, false);
  ASSERT_TRUE(report.is_object()) << outcome.out;
  EXPECT_EQ(report.at("complete"), false);
  ASSERT_EQ(report.at("cells").size(), 1U);
  EXPECT_EQ(report.at("cells").at(0).at("length"), 64);
}

}  // namespace
}  // namespace memlane
