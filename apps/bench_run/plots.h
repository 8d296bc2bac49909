#pragma once

#include <string>
#include <vector>

#include "apps/bench_run/measured.h"
#include "apps/bench_run/run_file.h"

namespace memlane {

/// What a plot of lines says beside the lines.
struct LinePlot {
  std::string title;
  std::string x_label, y_label;
  bool x_is_length = true;  ///< tokens, ticks at the lengths themselves, logarithmic
  bool x_log = true, y_log = false;
  bool y_is_share = false;  ///< from 0 to 1, shown in per cent
};

/// The colour of a method in every plot, "#rrggbb". Colours that people with any colour vision can tell apart; after
/// eight methods they come again with another dash and another symbol.
std::string colour_of(std::size_t method);

/// gnuplot's commands for a plot of lines with their intervals.
std::string line_script(const RunFile& run, const LinePlot& plot, const std::vector<Line>& lines);

/// gnuplot's commands for recall over length and depth: one panel for each method, all on one scale of colours, with
/// the per cent written into every field. Points without a depth are left out.
std::string heat_script(const RunFile& run, const std::string& title, const std::vector<RecallPoint>& points);

/// 2048 as "2k", 1000 as "1000".
std::string length_text(double length);

}  // namespace memlane
