#pragma once

#include <vector>

#include "apps/bench_run/cells.h"
#include "apps/bench_run/store.h"

namespace memlane {

/// What became of the cells.
struct RunOutcome {
  std::size_t done = 0;  ///< in this run or before
  std::size_t failed = 0;
  bool stopped = false;  ///< by Ctrl-C
};

/// Says what there is to do: cells, which of them are done, which are outdated and why, about how long the rest takes.
void print_plan(const RunFile& run, const std::vector<RunCell>& cells, const ResultsFolder& results);

/// Runs every cell that has no record, or an outdated one, as a child process of this program. A cell that fails is
/// recorded with its error and the others go on.
RunOutcome run_cells(const RunFile& run, const std::vector<RunCell>& cells, ResultsFolder& results, bool quiet);

}  // namespace memlane
