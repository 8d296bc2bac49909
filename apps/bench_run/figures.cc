#include "apps/bench_run/figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <system_error>

#include "apps/bench_run/child.h"
#include "apps/bench_run/plots.h"
#include "apps/bench_run/tables.h"
#include "apps/interrupt.h"
#include "kernels/error.h"

namespace memlane {

namespace {

constexpr const char* kTokens = "tokens of text";

std::string text_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Draws lines unless there are none.
void add(std::vector<Figure>& figures, Plotter& plotter, const RunFile& run, const std::string& file,
         const std::string& caption, const LinePlot& plot, const std::vector<Line>& lines) {
  const bool any = std::any_of(lines.begin(), lines.end(), [](const Line& line) { return !line.points.empty(); });
  if (any) figures.push_back(plotter.draw(file, caption, line_script(run, plot, lines)));
}

/// Whether values span so much that a logarithmic axis shows them better.
bool spans_much(const std::vector<Line>& lines) {
  double low = INFINITY;
  double high = 0;
  for (const Line& line : lines) {
    for (const Point& point : line.points) {
      low = std::min(low, point.y);
      high = std::max(high, point.y);
    }
  }
  return low > 0 && high > 2 * low;
}

std::vector<Figure> recall_figures(const RunFile& run, const RunExperiment& experiment, const Measured& measured,
                                   Plotter& plotter) {
  std::vector<Figure> figures;
  const std::string heat = heat_script(run, experiment.title + ": right answers, %", measured.recall);
  if (!heat.empty()) {
    figures.push_back(plotter.draw(experiment.name + "-heat.svg",
                                   "Right answers in per cent over the length of the text and the place of the answer "
                                   "in it (0 %: its beginning). Yellow is good, grey was not measured; all panels have "
                                   "one scale.",
                                   heat));
  }
  add(figures, plotter, run, experiment.name + "-accuracy.svg",
      "Right answers over the length of the text, all depths together. Bars: 95 % Wilson intervals. Points at one "
      "length are set apart a little.",
      {.title = experiment.title + ": right answers",
       .x_label = kTokens,
       .y_label = "right answers",
       .y_is_share = true},
      accuracy_lines(measured.recall));
  add(figures, plotter, run, experiment.name + "-logprob.svg",
      "Log-probability that the model gives the right answer, mean over the trials; 0 is certainty. It also tells near "
      "misses apart.",
      {.title = experiment.title + ": log-probability of the right answer",
       .x_label = kTokens,
       .y_label = "ln p(right answer), nats"},
      logprob_lines(measured.recall));
  return figures;
}

std::vector<Figure> perplexity_figures(const RunFile& run, const RunExperiment& experiment, const Measured& measured,
                                       Plotter& plotter) {
  std::vector<Figure> figures;
  const std::vector<Line> lines = perplexity_lines(measured.perplexity);
  add(figures, plotter, run, experiment.name + "-perplexity.svg",
      fmt::format("Perplexity (lower is better) over the length of the context. Convention {}: {}.",
                  experiment.convention,
                  measured.convention_meaning.empty() ? "see docs/evaluation.md" : measured.convention_meaning),
      {.title = fmt::format("{}: perplexity ({})", experiment.title, experiment.convention),
       .x_label = "tokens of context",
       .y_label = "perplexity of a token",
       .y_log = spans_much(lines)},
      lines);
  add(figures, plotter, run, experiment.name + "-curve.svg",
      "Loss over the place of a token in the text, each method at its longest length (lower is better).",
      {.title = experiment.title + ": loss by position",
       .x_label = "position in the text, tokens",
       .y_label = "loss, nats a token",
       .x_is_length = false},
      curve_lines(measured.perplexity));
  return figures;
}

std::vector<Figure> cost_figures(const RunFile& run, const RunExperiment& experiment, const Measured& measured,
                                 Plotter& plotter) {
  struct Quantity {
    const char *file, *caption, *title, *unit;
    std::optional<double> CostPoint::*member;
    double scale;
  };
  constexpr double kMebi = 1.0 / (1 << 20);
  const Quantity quantities[] = {
      {"prefill", "Time to read a token of the text (lower is better).", "reading", "milliseconds a token",
       &CostPoint::prefill, 1000},
      {"decode", "Time to generate a token after the text (lower is better).", "generating", "milliseconds a token",
       &CostPoint::decode, 1000},
      {"memory", "Largest resident memory of the whole process, weights included (lower is better).", "peak of memory",
       "MiB", &CostPoint::peak, kMebi},
      {"bytes", "Bytes that one generated token reads: weights, keys and values (computed; lower is better).",
       "bytes read", "MiB a generated token", &CostPoint::bytes_read, kMebi}};
  std::vector<Figure> figures;
  for (const Quantity& quantity : quantities) {
    add(figures, plotter, run, fmt::format("{}-{}.svg", experiment.name, quantity.file), quantity.caption,
        {.title = fmt::format("{}: {}", experiment.title, quantity.title),
         .x_label = kTokens,
         .y_label = quantity.unit,
         .y_log = true},
        cost_lines(measured.cost, quantity.member, quantity.scale));
  }
  return figures;
}

std::size_t index_of(const RunFile& run, const std::string& name) {
  return static_cast<std::size_t>(run.experiment(name) - run.experiments.data());
}

std::vector<Figure> tradeoff_figures(const RunFile& run, const RunExperiment& experiment,
                                     const std::vector<Measured>& all, Plotter& plotter) {
  std::vector<Figure> figures;
  const Measured& cost = all[index_of(run, experiment.cost)];
  for (const std::string& name : experiment.against) {
    const RunExperiment& other = *run.experiment(name);
    const bool recall = other.kind == BenchKind::recall;
    const Measured& quality = all[index_of(run, name)];
    const std::vector<Line> lines = recall ? accuracy_lines(quality.recall) : perplexity_lines(quality.perplexity);
    for (const bool seconds : {true, false}) {
      std::vector<Line> joined = tradeoff_lines(cost.cost, lines, seconds);
      for (Line& line : joined) {
        for (Point& point : line.points) point.low = point.high = std::nullopt;
      }
      const bool wide = spans_much(joined);
      add(figures, plotter, run, fmt::format("{}-{}-{}.svg", experiment.name, name, seconds ? "seconds" : "memory"),
          fmt::format("What quality costs: each line goes from the shortest text to the longest, whose length stands "
                      "at its end. "
                      "Best is {} left.",
                      recall ? "top" : "bottom"),
          {.title = fmt::format("{} against {}", other.title, seconds ? "time" : "memory"),
           .x_label = seconds ? "seconds to read the text" : "peak of memory, MiB",
           .y_label = recall ? "right answers" : "perplexity of a token",
           .x_is_length = false,
           .y_log = !recall && wide,
           .y_is_share = recall},
          joined);
    }
  }
  return figures;
}

}  // namespace

Plotter::Plotter(const ResultsFolder& results) : results_(results) {}

Figure Plotter::draw(const std::string& file, const std::string& caption, const std::string& script) {
  Figure figure{.file = file, .caption = caption, .svg = {}};
  if (problem_.starts_with("gnuplot is not installed")) return figure;
  const std::filesystem::path folder = std::filesystem::absolute(results_.path());
  const std::filesystem::path commands = folder / (file + ".gnuplot");
  const std::filesystem::path drawn = folder / (file + ".drawn");
  const std::filesystem::path errors = folder / (file + ".errors");
  results_.write(commands, script);
  const ChildResult result =
      run_child({.program = "gnuplot", .arguments = {commands.string()}, .folder = {}, .out = drawn, .err = errors},
                interrupt_flag(), [] {});
  if (result.exit_code == 0) {
    figure.svg = text_of(drawn);
    const std::string title = "<title>Gnuplot</title>";  // what browsers show and screen readers say
    if (const std::size_t at = figure.svg.find(title); at != std::string::npos) {
      figure.svg.replace(at, title.size(), "<title>" + escaped(caption) + "</title>");
    }
    results_.write(folder / file, figure.svg);
  } else if (result.exit_code == 127) {
    problem_ =
        "gnuplot is not installed: there are no plots. Install gnuplot-nox (scripts/install-dependencies does) "
        "and run the same command with --report-only";
  } else {
    std::string said = text_of(errors);
    std::replace(said.begin(), said.end(), '\n', ' ');
    problem_ = fmt::format("gnuplot could not draw {}: {}", file, said);
  }
  for (const auto& path : {commands, drawn, errors}) {
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
  }
  if (result.stopped)
    throw Interrupted("stopped while drawing; the measured cells are kept, run the same command again");
  return figure;
}

std::vector<Figure> draw_figures(const RunFile& run, std::size_t experiment, const std::vector<Measured>& all,
                                 Plotter& plotter) {
  const RunExperiment& this_one = run.experiments[experiment];
  switch (this_one.kind) {
    case BenchKind::recall:
      return recall_figures(run, this_one, all[experiment], plotter);
    case BenchKind::perplexity:
      return perplexity_figures(run, this_one, all[experiment], plotter);
    case BenchKind::cost:
      return cost_figures(run, this_one, all[experiment], plotter);
    case BenchKind::tradeoff:
      return tradeoff_figures(run, this_one, all, plotter);
  }
  return {};
}

}  // namespace memlane
