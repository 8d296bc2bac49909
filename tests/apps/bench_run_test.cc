// `bench run`: what it measures, what it does not measure again, how it stops.

#include <fcntl.h>
#include <sys/file.h>

#include <csignal>

#include "tests/apps/bench_run_fixture.h"

namespace memlane {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(BenchRun, MeasuresEveryCellAndReports) {
  const Outcome outcome = bench(small(), "out");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("4 of 4 cells to measure"));
  const json written = results("out");
  ASSERT_EQ(written["cells"].size(), 4);
  EXPECT_EQ(written["run_file"], small());
  EXPECT_EQ(written["cells"][0]["name"], "keys--none--384");
  EXPECT_EQ(written["cells"][3]["name"], "keys--memory--512");
  for (const json& record : written["cells"]) {
    EXPECT_EQ(record["status"], "done");
    EXPECT_GT(record["wall_seconds"], 0.0);
    EXPECT_GT(record["peak_bytes"], 1 << 20);
    EXPECT_EQ(record["output"]["cells"][0]["trials"], 2);
  }
  const std::string report = read_text(path("out/report.html"));
  EXPECT_THAT(report, HasSubstr("A &lt;small&gt; run &amp; its report"));
  EXPECT_THAT(report, HasSubstr("What the plot shows."));
  EXPECT_THAT(report, Not(HasSubstr("<script")));
  EXPECT_THAT(report, Not(HasSubstr(folder().string() + "/out"))) << "the report names where it was made";
}

TEST_F(BenchRun, DoesNotMeasureFinishedCellsAgain) {
  ASSERT_EQ(bench(small(), "out").exit_code, 0);
  mark("out", "keys--none--384");
  mark("out", "keys--memory--512");
  std::filesystem::remove(path("out/cells/keys--none--512.json"));
  std::filesystem::remove(path("out/results.json"));
  const Outcome again = bench(small(), "out");
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_THAT(again.err, HasSubstr("1 of 4 cells to measure"));
  EXPECT_TRUE(marked("out", "keys--none--384"));
  EXPECT_TRUE(marked("out", "keys--memory--512"));
  EXPECT_EQ(cell("out", "keys--none--512")["status"], "done");
}

TEST_F(BenchRun, FindsFinishedCellsInTheResultsAlone) {
  ASSERT_EQ(bench(small(), "out").exit_code, 0);
  std::filesystem::remove_all(path("out/cells"));
  EXPECT_THAT(bench(small(), "out", {"--plan"}).err, HasSubstr("0 of 4 cells to measure"));
}

TEST_F(BenchRun, MeasuresChangedCellsAgainAndSaysWhy) {
  ASSERT_EQ(bench(small(), "out").exit_code, 0);
  json changed = small();
  changed["experiments"][0]["trials"] = {{"384", 2}, {"512", 1}};
  mark("out", "keys--none--384");
  const Outcome command = bench(changed, "out");
  EXPECT_EQ(command.exit_code, 0) << command.err;
  EXPECT_THAT(command.err, HasSubstr("again: keys--none--512 (its command line changed)"));
  EXPECT_THAT(command.err, HasSubstr("2 of 4 cells to measure"));
  EXPECT_EQ(cell("out", "keys--none--512")["output"]["cells"][0]["trials"], 1);
  EXPECT_TRUE(marked("out", "keys--none--384"));

  changed["texts"]["story"] = write("story.txt", story(2000, 6));
  const Outcome text = run({"bench", "run", write("run.json", changed.dump()), "--out", path("out")});
  EXPECT_THAT(text.err, HasSubstr("again: keys--none--384 (its text changed)"));
  EXPECT_FALSE(marked("out", "keys--none--384"));
}

TEST_F(BenchRun, NoticesAnotherModelUnderTheSameName) {
  json run_file = small();
  run_file["models"]["stories"] = "model";  // relative to the run file
  copy_of_stories("model");
  ASSERT_EQ(bench(run_file, "out").exit_code, 0);
  std::string config = read_text(path("model/config.json"));
  write_text(path("model/config.json"), config + "\n");
  EXPECT_THAT(bench(run_file, "out", {"--plan"}).err, HasSubstr("(its model changed)"));
}

TEST_F(BenchRun, GivesTheSameNumbersForTheSameSeed) {
  const auto numbers = [&](const std::string& out) {
    EXPECT_EQ(bench(small(), out).exit_code, 0);
    json cells = results(out)["cells"];
    for (json& record : cells) {
      for (const char* measured : {"wall_seconds", "cpu_seconds", "peak_bytes"}) record.erase(measured);
      for (json& each : record["output"]["cells"]) each.erase("seconds_per_trial");
    }
    return cells;
  };
  EXPECT_EQ(numbers("one"), numbers("two"));
}

TEST_F(BenchRun, RecordsAFailingCellAndGoesOn) {
  json run_file = small();
  run_file["methods"][0]["flags"] = {"--window", "0"};
  const Outcome outcome = bench(run_file, "out");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("2 of 4 cells failed"));
  const json failed = cell("out", "keys--none--384");
  EXPECT_EQ(failed["status"], "failed");
  EXPECT_THAT(failed["error"].get<std::string>(), HasSubstr("--window"));
  EXPECT_EQ(cell("out", "keys--memory--512")["status"], "done");
  EXPECT_THAT(read_text(path("out/report.html")), HasSubstr("Failed: keys--none--384"));
  const Outcome again = bench(small(), "out");
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(cell("out", "keys--none--384")["status"], "done");
}

TEST_F(BenchRun, StopsAndGoesOnWhereItStopped) {
  json run_file = small();
  run_file["experiments"][0]["trials"] = {{"384", 1}, {"512", kSanitized ? 200 : 2000}};
  Program program(Invocation{.arguments = words(run_file, "out")});
  ASSERT_TRUE(
      wait_until([&] { return program.ended() || std::filesystem::exists(path("out/cells/keys--none--512.out")); }));
  program.send(SIGINT);
  const Outcome stopped = program.finish();
  EXPECT_EQ(stopped.exit_code, 1) << stopped.err;
  EXPECT_THAT(stopped.err, HasSubstr("stopped after 2 of 4 cells"));
  EXPECT_THAT(stopped.err, HasSubstr("the same command again"));
  for (const auto& entry : std::filesystem::directory_iterator(path("out/cells"))) {
    EXPECT_EQ(entry.path().extension(), ".json") << entry.path();
  }
  mark("out", "keys--memory--384");
  run_file["experiments"][0]["trials"] = {{"384", 1}, {"512", 1}};
  EXPECT_EQ(bench(run_file, "out").exit_code, 0);
  EXPECT_TRUE(marked("out", "keys--memory--384"));
  EXPECT_EQ(results("out")["cells"].size(), 4);
}

TEST_F(BenchRun, MeasuresTheSameCommandOnce) {
  json run_file = small();
  json twin = run_file["experiments"][0];
  twin["name"] = "twin";
  run_file["experiments"].push_back(twin);
  const Outcome outcome = bench(run_file, "out");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("twin--none--384  as keys--none--384"));
  EXPECT_EQ(cell("out", "twin--none--384")["wall_seconds"], cell("out", "keys--none--384")["wall_seconds"]);
}

TEST_F(BenchRun, PlansWithoutTouchingAnything) {
  const Words planned = words(small(), "out", {"--plan"});
  const auto before = contents_of(folder());
  const Outcome outcome = run(planned);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("keys: 4 recall cells, 0 done"));
  EXPECT_TRUE(contents_of(folder()) == before);
}

TEST_F(BenchRun, WritesEverythingButPlotsWithoutGnuplot) {
  const Outcome outcome = run(Invocation{.arguments = words(small(), "out"), .environment = {{"PATH", "/nowhere"}}});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("gnuplot is not installed"));
  EXPECT_THAT(read_text(path("out/report.html")), HasSubstr("Pass keys"));
  EXPECT_FALSE(std::filesystem::exists(path("out/keys-accuracy.svg")));
}

TEST_F(BenchRun, RefusesAFolderThatAnotherRunIsWritingTo) {
  std::filesystem::create_directories(path("out/cells"));
  const int held = ::open(path("out").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(::flock(held, LOCK_EX), 0);
  expect_refused(words(small(), "out", {"--quiet"}), {"--out", "another run"});
  ::close(held);
}

TEST_F(BenchRun, RunsTheExample) {
  json run_file = json::parse(read_text(source_dir() / "bench/runs/quick.json"));
  for (const char* kind : {"models", "texts"}) {
    for (json& each : run_file[kind]) each = (source_dir() / "bench/runs" / each.get<std::string>()).string();
  }
  for (json& experiment : run_file["experiments"]) {
    if (experiment.contains("lengths")) experiment["lengths"] = {512};
    if (experiment.contains("trials")) experiment["trials"] = 1;
  }
  const Outcome outcome = bench(run_file, "out");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  const json found = results("out");
  for (const json& record : found["cells"]) {
    EXPECT_EQ(record["status"], "done") << record["name"];
    EXPECT_EQ(record["output"]["cells"].size(), record["output"]["bench"] == "recall" ? 2 : 1);
  }
  EXPECT_THAT(read_text(path("out/report.html")), Not(HasSubstr("Not measured yet")));
}

}  // namespace
}  // namespace memlane
