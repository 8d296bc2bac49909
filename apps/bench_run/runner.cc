#include "apps/bench_run/runner.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>

#include "apps/bench_run/child.h"
#include "apps/bench_run/estimate.h"
#include "apps/interrupt.h"
#include "apps/progress.h"
#include "kernels/error.h"

namespace memlane {

namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

std::string text_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void erase(const std::filesystem::path& file) {
  std::error_code ignored;
  std::filesystem::remove(file, ignored);
}

/// The last line that says something.
std::string last_line(const std::string& text) {
  const std::size_t end = text.find_last_not_of("\r\n ");
  if (end == std::string::npos) return "";
  const std::size_t begin = text.find_last_of("\r\n", end);
  return text.substr(begin == std::string::npos ? 0 : begin + 1,
                     end - (begin == std::string::npos ? 0 : begin + 1) + 1);
}

/// Whether a command's output is the whole result of its cell.
bool is_complete(const json& output) {
  return output.is_object() && output.contains("cells") && output["cells"].is_array() && !output["cells"].empty() &&
         output.contains("complete") && output["complete"] == true;
}

std::string error_of(const ChildResult& result, const std::string& said) {
  if (!said.empty()) return said;
  if (result.signal != 0) return fmt::format("ended by signal {}", result.signal);
  if (result.exit_code != 0) return fmt::format("exit code {}", result.exit_code);
  return "it did not print a complete result";
}

/// The line that shows how far a run is: on a terminal it redraws itself, elsewhere there is one line a cell.
class Status {
 public:
  Status(std::size_t cells, bool quiet) : cells_(cells), quiet_(quiet), terminal_(::isatty(STDERR_FILENO) == 1) {}

  void running(std::size_t number, const std::string& name, double elapsed, double left) const {
    if (quiet_ || !terminal_) return;
    fmt::print(stderr, "\r[{}/{}] {}  {}  {} left\x1b[K", number, cells_, name, duration_text(elapsed),
               duration_text(left));
    std::fflush(stderr);
  }
  void ended(std::size_t number, const std::string& name, const std::string& how, double left) const {
    if (quiet_) return;
    fmt::print(stderr, "{}[{}/{}] {}  {}  {} left{}\n", terminal_ ? "\r" : "", number, cells_, name, how,
               duration_text(left), terminal_ ? "\x1b[K" : "");
  }

 private:
  std::size_t cells_;
  bool quiet_;
  bool terminal_;
};

/// What there is to measure, and how long that takes.
class Queue {
 public:
  Queue(const std::vector<RunCell>& cells, const ResultsFolder& results) {
    for (const RunCell& cell : cells) {
      const CellRecord* record = results.record(cell.name);
      if (record != nullptr && outdated(*record, cell).empty()) {
        estimate.learn(cell, record->at("wall_seconds").get<double>());
      } else {
        left.push_back(&cell);
      }
    }
  }
  /// To measure the cells from this one on.
  double seconds_from(std::size_t index) const {
    double seconds = 0;
    for (std::size_t i = index; i < left.size(); ++i) seconds += estimate.of(*left[i]);
    return seconds;
  }

  std::vector<const RunCell*> left;
  RunEstimate estimate;
};

class Runner {
 public:
  Runner(const RunFile& run, const std::vector<RunCell>& cells, ResultsFolder& results, bool quiet)
      : run_(run), results_(results), status_(cells.size(), quiet), queue_(cells, results) {
    done_ = cells.size() - queue_.left.size();
  }
  RunOutcome run();

 private:
  /// Runs one cell and stores its record; false if it was stopped.
  bool measure(std::size_t index);
  void keep(std::size_t index, const CellRecord& record, const std::string& how);

  const RunFile& run_;
  ResultsFolder& results_;
  Status status_;
  Queue queue_;
  std::size_t done_ = 0, failed_ = 0;
};

void Runner::keep(std::size_t index, const CellRecord& record, const std::string& how) {
  results_.save(record);
  const bool failed = record["status"] == "failed";
  (failed ? failed_ : done_) += 1;
  if (!failed) queue_.estimate.learn(*queue_.left[index], record["wall_seconds"].get<double>());
  status_.ended(done_ + failed_, queue_.left[index]->name, how, queue_.seconds_from(index + 1));
}

bool Runner::measure(std::size_t index) {
  const RunCell& cell = *queue_.left[index];
  CellRecord record = {{"name", cell.name}, {"command", cell.command}, {"inputs", cell.inputs}};
  if (const CellRecord* same = results_.record_of_same(cell)) {  // measured for another experiment
    record = *same;
    record["name"] = cell.name;
    keep(index, record, fmt::format("as {}", (*same)["name"].get<std::string>()));
    return true;
  }
  const std::filesystem::path out = std::filesystem::absolute(results_.cell_file(cell.name, ".out"));
  const std::filesystem::path err = std::filesystem::absolute(results_.cell_file(cell.name, ".err"));
  const double expected = queue_.estimate.of(cell);
  const double after = queue_.seconds_from(index + 1);
  const auto begin = Clock::now();
  const ChildResult result =
      run_child({.program = "/proc/self/exe", .arguments = cell.command, .folder = run_.folder, .out = out, .err = err},
                interrupt_flag(), [&] {
                  const double elapsed = std::chrono::duration<double>(Clock::now() - begin).count();
                  status_.running(done_ + failed_ + 1, cell.name, elapsed, after + std::max(0.0, expected - elapsed));
                });
  const json output = json::parse(text_of(out), nullptr, false);
  const std::string said = last_line(text_of(err));
  erase(out);
  const bool complete = result.exit_code == 0 && is_complete(output);
  if (!complete && result.stopped) {
    erase(err);
    return false;
  }
  record["wall_seconds"] = result.seconds;
  record["cpu_seconds"] = result.cpu_seconds;
  record["peak_bytes"] = result.peak_bytes;
  if (complete) {
    erase(err);
    record["status"] = "done";
    record["output"] = output;
    keep(index, record, duration_text(result.seconds));
  } else {
    record["status"] = "failed";
    record["error"] = error_of(result, said);
    keep(index, record, fmt::format("FAILED: {}", record["error"].get<std::string>()));
  }
  return true;
}

RunOutcome Runner::run() {
  RunOutcome outcome;
  for (std::size_t i = 0; i < queue_.left.size() && !outcome.stopped; ++i) {
    outcome.stopped = interrupt_flag() || !measure(i);
  }
  outcome.done = done_;
  outcome.failed = failed_;
  return outcome;
}

}  // namespace

void print_plan(const RunFile& run, const std::vector<RunCell>& cells, const ResultsFolder& results) {
  const Queue queue(cells, results);
  for (std::size_t e = 0; e < run.experiments.size(); ++e) {
    const RunExperiment& experiment = run.experiments[e];
    std::size_t all = 0;
    std::size_t done = 0;
    for (const RunCell& cell : cells) {
      if (cell.experiment != e) continue;
      ++all;
      const CellRecord* record = results.record(cell.name);
      const std::string why = record == nullptr ? "" : outdated(*record, cell);
      if (record != nullptr && why.empty()) ++done;
      if (!why.empty()) fmt::print(stderr, "again: {} ({})\n", cell.name, why);
    }
    if (experiment.kind == BenchKind::tradeoff) continue;
    fmt::print(stderr, "{}: {} {} cells, {} done\n", experiment.name, all, name_of(experiment.kind), done);
  }
  fmt::print(stderr, "{}: {} of {} cells to measure, about {}\n", run.path.filename().string(), queue.left.size(),
             cells.size(), duration_text(queue.seconds_from(0)));
}

RunOutcome run_cells(const RunFile& run, const std::vector<RunCell>& cells, ResultsFolder& results, bool quiet) {
  return Runner(run, cells, results, quiet).run();
}

}  // namespace memlane
