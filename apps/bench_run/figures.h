#pragma once

#include <optional>
#include <string>
#include <vector>

#include "apps/bench_run/measured.h"
#include "apps/bench_run/store.h"

namespace memlane {

/// A plot in the results folder.
struct Figure {
  std::string file;     ///< NAME.svg
  std::string caption;  ///< how to read it
  std::string svg;      ///< its contents; empty if it could not be drawn
};

/// Draws plots with gnuplot into a results folder.
class Plotter {
 public:
  explicit Plotter(const ResultsFolder& results);

  /// Runs gnuplot's commands. Without gnuplot, or if it fails, the figure is empty and problem() says why.
  Figure draw(const std::string& file, const std::string& caption, const std::string& script);
  const std::string& problem() const { return problem_; }

 private:
  const ResultsFolder& results_;
  std::string problem_;
};

/// Plots of one experiment, in the order in which a reader wants them. all: what every experiment measured.
std::vector<Figure> draw_figures(const RunFile& run, std::size_t experiment, const std::vector<Measured>& all,
                                 Plotter& plotter);

}  // namespace memlane
