#include "apps/bench_run/measured.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "runtime/recall.h"

namespace memlane {

namespace {

using nlohmann::json;

/// A finite number of an object.
std::optional<double> number(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number() || !std::isfinite(found->get<double>())) return std::nullopt;
  return found->get<double>();
}

std::size_t count(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_unsigned() ? found->get<std::size_t>() : 0;
}

/// Which of the cell's methods a row of its output is about.
std::optional<std::size_t> method_of(const RunFile& run, const RunCell& cell, const json& row) {
  if (!row.is_object()) return std::nullopt;
  if (cell.methods.size() == 1) return cell.methods.front();
  for (const std::size_t method : cell.methods) {
    if (row.contains("method") && row["method"] == run.methods[method].method) return method;
  }
  return std::nullopt;
}

void take_recall(const RunCell& cell, std::size_t method, const json& row, Measured& result) {
  RecallPoint point{.method = method, .length = cell.length, .depth = number(row, "depth")};
  point.trials = count(row, "trials");
  point.correct = std::min(count(row, "correct"), point.trials);
  point.logprob = number(row, "answer_logprob");
  if (point.trials > 0) result.recall.push_back(point);
}

void take_perplexity(const RunCell& cell, std::size_t method, const json& row, Measured& result) {
  const auto perplexity = number(row, "perplexity");
  if (!perplexity || *perplexity <= 0) return;
  PerplexityPoint point{.method = method, .length = cell.length, .text = cell.text, .nll = std::log(*perplexity)};
  point.targets = static_cast<double>(std::max<std::size_t>({count(row, "targets"), count(row, "tokens"), 1}));
  if (row.contains("curve") && row["curve"].is_array()) {
    for (const json& place : row["curve"]) {
      if (!place.is_object()) continue;
      const auto x = number(place, "position");
      const auto y = number(place, "nll");
      if (x && y) point.curve.push_back({.x = *x, .y = *y});
    }
  }
  result.perplexity.push_back(std::move(point));
}

void take_cost(const RunCell& cell, std::size_t method, const json& row, Measured& result) {
  CostPoint point;
  point.method = method;
  point.length = cell.length;
  point.prefill = number(row, "prefill_seconds_per_token");
  point.reading = number(row, "prefill_seconds");
  if (!point.reading && point.prefill) point.reading = *point.prefill * static_cast<double>(cell.length);
  point.decode = number(row, "decode_seconds_per_token");
  point.peak = number(row, "peak_bytes");
  point.bytes_read = number(row, "bytes_read_per_token");
  result.cost.push_back(point);
}

/// Sums of weights and weighted values by method and x; their means are lines.
class Means {
 public:
  void add(std::size_t method, double x, double weight, double value) {
    auto& sum = sums_[method][x];
    sum.first += weight;
    sum.second += weight * value;
  }
  template <class Finish>
  std::vector<Line> lines(const Finish& finish) const {
    std::vector<Line> result;
    for (const auto& [method, places] : sums_) {
      Line& line = result.emplace_back(Line{.method = method, .points = {}});
      for (const auto& [x, sum] : places) line.points.push_back(finish(x, sum.first, sum.second / sum.first));
    }
    return result;
  }

 private:
  std::map<std::size_t, std::map<double, std::pair<double, double>>> sums_;
};

Point plain(double x, double, double mean) {
  return {.x = x, .y = mean};
}

}  // namespace

Measured measured(const RunFile& run, std::size_t experiment, const std::vector<RunCell>& cells,
                  const ResultsFolder& results) {
  Measured result;
  for (const RunCell& cell : cells) {
    if (cell.experiment != experiment) continue;
    const CellRecord* record = results.record(cell.name);
    if (record == nullptr) {
      result.missing.push_back(cell.name);
      continue;
    }
    if ((*record)["status"] == "failed") {
      result.failures.push_back({cell.name, (*record)["error"].get<std::string>()});
      continue;
    }
    const json& output = (*record)["output"];
    if (output.contains("dynamic") && output["dynamic"].is_array()) {
      for (const json& each : output["dynamic"]) {
        if (each.is_object()) result.comparisons.push_back(each);
      }
    }
    if (output.contains("convention_meaning") && output["convention_meaning"].is_string()) {
      result.convention_meaning = output["convention_meaning"].get<std::string>();
    }
    for (const json& row : output["cells"]) {
      const std::optional<std::size_t> method = method_of(run, cell, row);
      if (!method) continue;
      const BenchKind kind = run.experiments[experiment].kind;
      if (kind == BenchKind::recall) take_recall(cell, *method, row, result);
      // Numbers of another convention (recompute among token-by-token) have other targets: they stand in comparisons.
      const std::string& convention = run.experiments[experiment].convention;
      const bool other_targets = row.contains("convention") && row["convention"] != convention;
      if (kind == BenchKind::perplexity && !other_targets) take_perplexity(cell, *method, row, result);
      if (kind == BenchKind::cost) take_cost(cell, *method, row, result);
    }
  }
  return result;
}

std::vector<Line> accuracy_lines(const std::vector<RecallPoint>& points) {
  Means means;
  for (const RecallPoint& point : points) {
    const auto trials = static_cast<double>(point.trials);
    means.add(point.method, static_cast<double>(point.length), trials, static_cast<double>(point.correct) / trials);
  }
  return means.lines([](double x, double trials, double accuracy) {
    const WilsonInterval interval = wilson_interval(static_cast<std::size_t>(std::lround(accuracy * trials)),
                                                    static_cast<std::size_t>(std::lround(trials)));
    return Point{.x = x, .y = accuracy, .low = interval.low, .high = interval.high};
  });
}

std::vector<Line> logprob_lines(const std::vector<RecallPoint>& points) {
  Means means;
  for (const RecallPoint& point : points) {
    if (point.logprob) {
      means.add(point.method, static_cast<double>(point.length), static_cast<double>(point.trials), *point.logprob);
    }
  }
  return means.lines(plain);
}

std::vector<Line> perplexity_lines(const std::vector<PerplexityPoint>& points) {
  Means means;
  for (const PerplexityPoint& point : points) {
    means.add(point.method, static_cast<double>(point.length), point.targets, point.nll);
  }
  return means.lines([](double x, double, double nll) { return Point{.x = x, .y = std::exp(nll)}; });
}

std::vector<Line> curve_lines(const std::vector<PerplexityPoint>& points) {
  std::map<std::size_t, std::size_t> longest;
  for (const PerplexityPoint& point : points) {
    if (!point.curve.empty()) longest[point.method] = std::max(longest[point.method], point.length);
  }
  Means means;
  for (const PerplexityPoint& point : points) {
    if (point.curve.empty() || point.length != longest[point.method]) continue;
    for (const Point& place : point.curve) means.add(point.method, place.x, point.targets, place.y);
  }
  return means.lines(plain);
}

std::vector<Line> cost_lines(const std::vector<CostPoint>& points, std::optional<double> CostPoint::*quantity,
                             double scale) {
  Means means;
  for (const CostPoint& point : points) {
    if (point.*quantity) means.add(point.method, static_cast<double>(point.length), 1, *(point.*quantity) * scale);
  }
  return means.lines(plain);
}

std::vector<Line> tradeoff_lines(const std::vector<CostPoint>& cost, const std::vector<Line>& quality, bool seconds) {
  constexpr double kMebi = 1 << 20;
  std::vector<Line> result;
  for (const Line& line : quality) {
    Line joined{.method = line.method, .points = {}};
    for (const Point& point : line.points) {
      for (const CostPoint& each : cost) {
        const auto length = static_cast<double>(each.length);
        if (each.method != line.method || length != point.x) continue;
        const auto& value = seconds ? each.reading : each.peak;
        if (!value) continue;
        Point& at = joined.points.emplace_back(point);
        at.x = seconds ? *value : *value / kMebi;
        at.length = point.x;
      }
    }
    if (!joined.points.empty()) result.push_back(std::move(joined));
  }
  return result;
}

}  // namespace memlane
