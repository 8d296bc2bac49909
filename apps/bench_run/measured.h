#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "apps/bench_run/cells.h"
#include "apps/bench_run/store.h"

namespace memlane {

/// One number of the report: a method at a length, with an interval where there is one.
struct Point {
  double x = 0, y = 0;
  std::optional<double> low = {}, high = {};
  std::optional<double> length = {};  ///< tokens, written beside a point whose x is something else
};

/// The points of one method, ascending in x.
struct Line {
  std::size_t method = 0;  ///< index into RunFile::methods
  std::vector<Point> points;
};

struct RecallPoint {
  std::size_t method = 0, length = 0;
  std::optional<double> depth = {};  ///< 0: the key is at the beginning; 1: at the end; none: random
  std::size_t trials = 0, correct = 0;
  std::optional<double> logprob = {};  ///< mean over trials of ln p(right answer)
};

struct PerplexityPoint {
  std::size_t method = 0, length = 0;
  std::string text = {};
  double nll = 0;  ///< mean of a target, nats
  double targets = 0;
  std::vector<Point> curve = {};  ///< position in tokens, nats
};

struct CostPoint {
  std::size_t method = 0, length = 0;
  std::optional<double> prefill, decode;   ///< seconds a token
  std::optional<double> reading;           ///< seconds, the whole text
  std::optional<double> peak, bytes_read;  ///< bytes; bytes a generated token
};

/// What the cells of one experiment measured, as far as there are records. What a record lacks is left out.
struct Measured {
  std::vector<RecallPoint> recall;
  std::vector<PerplexityPoint> perplexity;
  std::vector<CostPoint> cost;
  struct Failure {
    std::string cell, error;
  };
  std::vector<Failure> failures;
  std::vector<nlohmann::json> comparisons;  ///< of dynamic modes with each other, as the perplexity bench gives them
  std::string convention_meaning;           ///< of a perplexity bench, in words
  std::vector<std::string> missing;         ///< cells without a record
};

Measured measured(const RunFile& run, std::size_t experiment, const std::vector<RunCell>& cells,
                  const ResultsFolder& results);

/// Accuracy against length with 95 % Wilson intervals, all depths together.
std::vector<Line> accuracy_lines(const std::vector<RecallPoint>& points);
/// Log-probability of the right answer against length, all depths together.
std::vector<Line> logprob_lines(const std::vector<RecallPoint>& points);
/// Perplexity against length, all texts together.
std::vector<Line> perplexity_lines(const std::vector<PerplexityPoint>& points);
/// Per-position curves at each method's longest length, all texts together.
std::vector<Line> curve_lines(const std::vector<PerplexityPoint>& points);
/// A quantity of the cost bench against length, times `scale`.
std::vector<Line> cost_lines(const std::vector<CostPoint>& points, std::optional<double> CostPoint::*quantity,
                             double scale);
/// y of `quality` over what reading the whole text costs in `cost` for the same method and length.
/// seconds: time to read it; else the peak of memory in MiB.
std::vector<Line> tradeoff_lines(const std::vector<CostPoint>& cost, const std::vector<Line>& quality, bool seconds);

}  // namespace memlane
