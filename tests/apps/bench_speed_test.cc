// What `memlane bench speed` prints and refuses; the times themselves depend on the machine.

#include <algorithm>
#include <csignal>

#include "tests/apps/command_test.h"

namespace memlane {
namespace {

class SpeedCommand : public CommandTest {
 protected:
  static Words speed(const Words& rest) {
    return Words{"bench", "speed", "--threads", "1", "--window", "64", "--ring-mib", "2"} + rest;
  }
  static Words tiny(const Words& rest) {
    const Words defaults = {"--layers",   "3", "--hidden",   "32", "--ffn",   "48", "--heads",  "4",
                            "--kv-heads", "2", "--head-dim", "8",  "--vocab", "50", "--rounds", "3"};
    Words words;
    for (std::size_t i = 0; i < defaults.size(); i += 2) {
      if (std::count(rest.begin(), rest.end(), defaults[i]) == 0) words = words + Words{defaults[i], defaults[i + 1]};
    }
    return speed(words + rest);
  }
};

TEST_F(SpeedCommand, MeasuresEveryCaseBesideItsFloorWithoutAModel) {
  const nlohmann::json report = json_of(tiny({"--memory", "0,2048", "--json"}));
  EXPECT_EQ(report.at("bench"), "speed");
  EXPECT_EQ(report.at("complete"), true);
  EXPECT_EQ(report.at("model"), "random");
  EXPECT_EQ(report.at("shape").at("mem_layers"), nlohmann::json({1}));
  EXPECT_GT(report.at("weight_bytes"), 0);
  EXPECT_GT(report.at("peak_bytes"), report.at("weight_bytes"));
  ASSERT_EQ(report.at("cells").size(), 7U);  // prefill; decode and ingest with no memory, dense, exact
  for (const auto& cell : report.at("cells")) {
    EXPECT_EQ(cell.at("rounds").size(), 3U);
    EXPECT_GT(cell.at("seconds"), 0);
    EXPECT_GT(cell.at("floor_seconds"), 0);
    EXPECT_NEAR(cell.at("floor_share").get<double>() * cell.at("seconds").get<double>(),
                cell.at("floor_seconds").get<double>(), 1e-9);
    EXPECT_GT(cell.at("limits").at("read_bytes_per_second"), 0);
    EXPECT_GT(cell.at("limits").at("f32_flops"), 0);
    EXPECT_GT(cell.at("stage_seconds").at("matmul"), 0);
    const bool remembers = cell.at("memory") > 0;
    // Reading stops at the keys and values of the one memory layer here, before it attends.
    const bool attends = remembers && cell.at("what") == "decode";
    EXPECT_EQ(cell.at("stage_seconds").at("memory attention") > 0, attends);
    EXPECT_EQ(cell.at("stage_seconds").at("search") > 0, attends && cell.at("lookup") == "exact");
  }
}

TEST_F(SpeedCommand, StagesAddUpToTheTimeOfTheRounds) {
  const nlohmann::json report = json_of(tiny({"--memory", "0", "--what", "prefill", "--json"}));
  const auto& cell = report.at("cells").at(0);
  double stages = 0, rounds = 0;
  for (const auto& [name, seconds] : cell.at("stage_seconds").items()) stages += seconds.get<double>();
  for (const double seconds : cell.at("rounds")) rounds += seconds / 3;
  EXPECT_NEAR(stages, rounds, 0.2 * rounds);
}

TEST_F(SpeedCommand, MeasuresAModelAndPrintsATable) {
  const Outcome outcome = run(speed({"--model", stories(), "--mem-layers", "2,3", "--memory", "0,2048", "--lookups",
                                     "exact,int8,ivf", "--what", "decode"}));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  for (const char* lookup : {"exact", "int8", "ivf"}) EXPECT_THAT(outcome.out, ::testing::HasSubstr(lookup));
  EXPECT_THAT(outcome.err, ::testing::HasSubstr("memory layers 2,3"));
  EXPECT_THAT(outcome.out, ::testing::HasSubstr("floor ms"));
  EXPECT_THAT(outcome.out, ::testing::HasSubstr("machine: f32 "));
}

TEST_F(SpeedCommand, RefusesWhatCannotBe) {
  expect_refused(tiny({"--shape", "c"}), {"--shape c", "expected a or b"});
  expect_refused(tiny({"--model", stories()}), {"--model", "--shape"});
  expect_refused(tiny({"--what", "sleep"}), {"--what sleep", "prefill"});
  expect_refused(tiny({"--lookups", "HNSW32"}), {"--lookups HNSW32", "dense, exact, int8 or ivf"});
  expect_refused(tiny({"--lookup", "exact"}), {"--lookups"});
  expect_refused(tiny({"--memory", "100"}), {"--memory 100", "2048"});
  expect_refused(tiny({"--heads", "3"}), {"--kv-heads 2", "3 heads"});
  expect_refused(tiny({"--head-dim", "7"}), {"--head-dim 7", "even"});
  expect_refused(tiny({"--rounds", "0"}), {"--rounds", "1 to"});
  expect_refused(tiny({"--decode-tokens", "64"}), {"--decode-tokens 64", "window"});
  expect_refused(tiny({"--memory", "2048", "--what", "prefill"}), {"nothing to measure"});
}

TEST_F(SpeedCommand, RefusesWhatDoesNotFitInMemory) {
  const Outcome outcome = run(speed({"--shape", "a", "--memory", "1073739776"}));
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, ::testing::HasSubstr("are free"));
  EXPECT_THAT(outcome.err, ::testing::HasSubstr("--memory"));
}

}  // namespace
}  // namespace memlane
