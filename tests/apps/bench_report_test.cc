// What `bench run` writes: plots, tables, the page.

#include "tests/apps/bench_run_fixture.h"

namespace memlane {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

/// Results of every kind of bench, made up.
class BenchReport : public BenchRun {
 protected:
  json every_kind() const {
    json run_file = small();
    run_file["experiments"] = {
        {{"bench", "recall"},
         {"name", "keys"},
         {"depths", {0.1, 0.9}},
         {"lengths", {1024, 4096}},
         {"methods", {"none", "memory"}}},
        {{"bench", "perplexity"},
         {"name", "book"},
         {"texts", {"story"}},
         {"convention", "stride"},
         {"stride", 256},
         {"lengths", {1024, 4096}},
         {"methods", {"none", {{"label", "memory"}, {"lengths", {4096}}}}}},
        {{"bench", "cost"}, {"name", "cost"}, {"lengths", {1024, 4096}}, {"methods", {"none", "memory"}}},
        {{"bench", "tradeoff"}, {"name", "both"}, {"cost", "cost"}, {"against", {"keys", "book"}}}};
    return run_file;
  }
  void store(const std::string& name, const json& cells) const {
    std::filesystem::create_directories(path("out/cells"));
    const json record = {{"name", name},
                         {"command", json::array()},
                         {"inputs", json::object()},
                         {"status", "done"},
                         {"wall_seconds", 1.0},
                         {"cpu_seconds", 1.0},
                         {"peak_bytes", 4096},
                         {"output", {{"complete", true}, {"cells", cells}}}};
    write_text(path("out/cells/" + name + ".json"), record.dump());
  }
  void store_all() const {
    for (const std::string method : {"none", "memory"}) {
      for (const std::size_t length : {1024, 4096}) {
        const std::string end = "--" + method + "--" + std::to_string(length);
        const std::size_t correct = method == "memory" ? 9 : 0;
        json keys = json::array();
        for (const double depth : {0.1, 0.9}) {
          keys.push_back({{"depth", depth}, {"trials", 10}, {"correct", correct}, {"answer_logprob", -1.5}});
        }
        store("keys" + end, keys);
        const json curve = {{{"position", 128}, {"nll", 3.5}}, {{"position", 512}, {"nll", 3.0}}};
        store("book" + end + "--story", {{{"perplexity", 20.5}, {"targets", 512}, {"curve", curve}}});
        store("cost" + end, {{{"prefill_seconds_per_token", 1e-4},
                              {"decode_seconds_per_token", 1e-3},
                              {"peak_bytes", 1 << 27},
                              {"bytes_read_per_token", 1 << 24}}});
      }
    }
  }
};

TEST_F(BenchReport, DrawsEveryKindOfPlotAsWellFormedXml) {
  store_all();
  const Outcome outcome = bench(every_kind(), "out", {"--report-only"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  if (outcome.err.find("gnuplot is not installed") != std::string::npos) GTEST_SKIP() << "no gnuplot";
  const std::string report = read_text(path("out/report.html"));
  for (const char* plot : {"keys-heat", "keys-accuracy", "keys-logprob", "book-perplexity", "book-curve",
                           "cost-prefill", "cost-decode", "cost-memory", "cost-bytes", "both-keys-seconds",
                           "both-keys-memory", "both-book-seconds", "both-book-memory"}) {
    const std::string file = path("out/") + plot + ".svg";
    ASSERT_TRUE(std::filesystem::exists(file)) << plot;
    EXPECT_THAT(read_text(file), HasSubstr("</svg>")) << plot;
    EXPECT_EQ(xml_error(file), "") << plot;
  }
  EXPECT_EQ(xml_error(path("out/report.html")), "");
  EXPECT_THAT(report, HasSubstr("90 % (70–97)")) << "18 of 20, both depths together";
  EXPECT_THAT(report, Not(HasSubstr("src=\"http"))) << "the page needs the network";
}

TEST_F(BenchReport, NamesWhatIsMissing) {
  store_all();
  std::filesystem::remove(path("out/cells/cost--none--4096.json"));
  write_text(path("out/cells/keys--none--1024.json"), "{\"name\": \"keys--no");
  EXPECT_EQ(bench(every_kind(), "out", {"--report-only"}).exit_code, 0);
  const std::string report = read_text(path("out/report.html"));
  EXPECT_THAT(report, HasSubstr("Not measured yet: cost--none--4096"));
  EXPECT_THAT(report, HasSubstr("Not measured yet: keys--none--1024"));
}

TEST_F(BenchReport, ReadsTheRunFilesThatComeWithTheProgram) {
  std::filesystem::create_directories(path("out"));
  for (const auto& entry : std::filesystem::directory_iterator(source_dir() / "bench/runs")) {
    const Outcome outcome = run({"bench", "run", entry.path().string(), "--out", path("out"), "--report-only"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  }
}

TEST_F(BenchReport, KeepsNumbersWithOtherTargetsOutOfPlots) {
  json run_file = every_kind();
  json& methods = run_file["methods"];
  methods[0]["method"] = "dynamic-ntk:mode=consistent";
  methods[1]["method"] = "dynamic-ntk:mode=recompute";
  methods[1].erase("flags");
  json& book = run_file["experiments"][1];
  book["convention"] = "token-by-token";
  book["lengths"] = {4096};
  book["together"] = true;
  store("book--together--4096--story",
        {{{"method", "dynamic-ntk:mode=consistent"}, {"convention", "token-by-token"}, {"perplexity", 21.25}},
         {{"method", "dynamic-ntk:mode=recompute"}, {"convention", "recompute"}, {"perplexity", 34.5}}});
  EXPECT_EQ(bench(run_file, "out", {"--report-only"}).exit_code, 0);
  const std::string report = read_text(path("out/report.html"));
  EXPECT_THAT(report, HasSubstr("21.25"));
  EXPECT_THAT(report, Not(HasSubstr("34.5")));
}

TEST_F(BenchReport, NeedsAFolder) {
  expect_refused(words(every_kind(), "nowhere", {"--report-only"}), {"--out", "nowhere", "earlier results"});
}

}  // namespace
}  // namespace memlane
