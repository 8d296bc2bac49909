#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>

#include "apps/bench_run/cells.h"
#include "apps/bench_run/report.h"
#include "apps/bench_run/run_file.h"
#include "apps/bench_run/runner.h"
#include "apps/bench_run/store.h"
#include "apps/commands.h"
#include "apps/interrupt.h"
#include "kernels/error.h"

namespace memlane {

namespace {

struct RunOptions {
  std::string file;
  std::string out;
  bool plan = false;
  bool report_only = false;
  bool quiet = false;
};

void say(const RunOptions& options, const std::string& line) {
  if (!options.quiet) fmt::print(stderr, "{}\n", line);
}

int finish(const RunOptions& options, const RunFile& run, const std::vector<RunCell>& cells,
           const ResultsFolder& results) {
  const std::string problem = write_report(run, cells, results);
  if (!problem.empty()) fmt::print(stderr, "memlane: {}\n", problem);
  say(options, fmt::format("wrote {}", (results.path() / "report.html").string()));
  return problem.empty() || problem.starts_with("gnuplot is not installed") ? 0 : 1;
}

int bench_run(const RunOptions& options) {
  interrupt_flag();
  const RunFile run = read_run_file(options.file);
  std::vector<RunCell> cells = expand(run);
  using Use = ResultsFolder::Use;
  if (options.report_only) {
    if (!std::filesystem::is_directory(options.out)) {
      input_error("--out {}: expected the folder of earlier results, since --report-only measures nothing",
                  options.out);
    }
    return finish(options, run, cells, ResultsFolder(options.out, Use::write));
  }
  check_inputs(run);
  take_fingerprints(run, cells);
  estimate_work(run, cells);
  if (options.plan) {
    print_plan(run, cells, ResultsFolder(options.out, Use::look));
    return 0;
  }
  ResultsFolder results(options.out, Use::write);
  if (!options.quiet) print_plan(run, cells, results);
  const RunOutcome outcome = run_cells(run, cells, results, options.quiet);
  if (outcome.stopped) {
    fmt::print(stderr, "stopped after {} of {} cells; what is measured is kept, run the same command again to go on\n",
               outcome.done, cells.size());
    return 1;
  }
  const int code = finish(options, run, cells, results);
  if (outcome.failed > 0) {
    fmt::print(stderr, "memlane: {} of {} cells failed, the report says why; the same command tries them again\n",
               outcome.failed, cells.size());
    return 1;
  }
  return code;
}

}  // namespace

Subcommand add_bench_run(CLI::App& bench) {
  CLI::App* app =
      bench.add_subcommand("run", "Measure everything a run file names, resumably, and write a report with plots");
  const auto options = std::make_shared<RunOptions>();
  app->add_option("file", options->file, "Run file (JSON): models, texts, methods, lengths, seeds; see docs/results")
      ->required();
  app->add_option("--out", options->out, "Folder of results; finished cells in it are not measured again")->required();
  app->add_flag("--plan", options->plan, "Only say what there is to do, and about how long it takes");
  app->add_flag("--report-only", options->report_only, "Measure nothing; write the report from what is there");
  app->add_flag("--quiet", options->quiet, "No plan and no progress");
  return {app, [options] { return bench_run(*options); }};
}

}  // namespace memlane
