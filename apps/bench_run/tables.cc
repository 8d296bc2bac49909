#include "apps/bench_run/tables.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "apps/bench_run/plots.h"
#include "apps/progress.h"
#include "runtime/recall.h"
#include "runtime/resources.h"

namespace memlane {

namespace {

using Row = std::vector<std::string>;

/// cells: plain text.
std::string table(const Row& heads, const std::vector<Row>& rows) {
  std::string html = "<table><thead><tr>";
  for (const std::string& head : heads) html += "<th>" + escaped(head) + "</th>";
  html += "</tr></thead><tbody>\n";
  for (const Row& row : rows) {
    html += "<tr>";
    for (const std::string& cell : row) html += "<td>" + escaped(cell) + "</td>";
    html += "</tr>\n";
  }
  return html + "</tbody></table>\n";
}

std::string folded(const std::string& summary, const std::string& html) {
  return fmt::format("<details><summary>{}</summary>\n{}</details>\n", escaped(summary), html);
}

/// Methods against lengths.
std::string pivot(const RunFile& run, const std::vector<Line>& lines,
                  const std::function<std::string(const Point&)>& shown) {
  std::set<double> lengths;
  for (const Line& line : lines) {
    for (const Point& point : line.points) lengths.insert(point.x);
  }
  if (lengths.empty()) return "";
  Row heads = {"tokens"};
  for (const double length : lengths) heads.push_back(length_text(length));
  std::vector<Row> rows;
  for (const Line& line : lines) {
    Row& row = rows.emplace_back(Row{run.methods[line.method].label});
    for (const double length : lengths) {
      const auto at =
          std::find_if(line.points.begin(), line.points.end(), [&](const Point& point) { return point.x == length; });
      row.push_back(at == line.points.end() ? "" : shown(*at));
    }
  }
  return table(heads, rows);
}

std::string milliseconds(const std::optional<double>& seconds) {
  return seconds ? fmt::format("{:.3g}", 1000 * *seconds) : "";
}

std::string bytes(const std::optional<double>& value) {
  return value && *value >= 0 ? bytes_text(static_cast<std::uint64_t>(*value)) : "";
}

}  // namespace

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

std::string recall_tables(const RunFile& run, const std::vector<RecallPoint>& points) {
  if (points.empty()) return "";
  std::vector<Row> rows;
  for (const RecallPoint& point : points) {
    const WilsonInterval interval = wilson_interval(point.correct, point.trials);
    rows.push_back(
        {run.methods[point.method].label, count_text(point.length),
         point.depth ? fmt::format("{:.0f} %", 100 * *point.depth) : "random", std::to_string(point.trials),
         std::to_string(point.correct),
         fmt::format("{:.1f} %", 100.0 * static_cast<double>(point.correct) / static_cast<double>(point.trials)),
         fmt::format("{:.1f} – {:.1f} %", 100 * interval.low, 100 * interval.high),
         point.logprob ? fmt::format("{:.3f}", *point.logprob) : ""});
  }
  return pivot(run, accuracy_lines(points),
               [](const Point& point) {
                 return fmt::format("{:.0f} % ({:.0f}–{:.0f})", 100 * point.y, 100 * point.low.value_or(point.y),
                                    100 * point.high.value_or(point.y));
               }) +
         folded("All numbers",
                table({"method", "tokens", "depth", "trials", "right", "share", "95 % interval", "mean ln p(answer)"},
                      rows));
}

std::string perplexity_tables(const RunFile& run, const std::vector<PerplexityPoint>& points) {
  if (points.empty()) return "";
  std::vector<Row> rows;
  for (const PerplexityPoint& point : points) {
    rows.push_back({run.methods[point.method].label, count_text(point.length), point.text,
                    count_text(static_cast<std::size_t>(point.targets)), fmt::format("{:.4f}", point.nll),
                    fmt::format("{:.4f}", std::exp(point.nll))});
  }
  std::vector<Row> curve;
  for (const Line& line : curve_lines(points)) {
    for (const Point& point : line.points) {
      curve.push_back({run.methods[line.method].label, count_text(static_cast<std::size_t>(point.x)),
                       fmt::format("{:.4f}", point.y)});
    }
  }
  return pivot(run, perplexity_lines(points), [](const Point& point) { return fmt::format("{:.4g}", point.y); }) +
         folded("All numbers", table({"method", "tokens", "text", "targets", "nats a token", "perplexity"}, rows)) +
         (curve.empty() ? "" : folded("Loss by position", table({"method", "position", "nats a token"}, curve)));
}

std::string comparison_table(const std::vector<nlohmann::json>& comparisons) {
  std::vector<Row> rows;
  for (const nlohmann::json& each : comparisons) {
    const auto shown = [&](const char* key) {
      return each.contains(key) && each[key].is_number() ? fmt::format("{:.4g}", each[key].get<double>()) : "";
    };
    const bool ordered = each.contains("consistent_below_inconsistent");
    rows.push_back({each.contains("method") && each["method"].is_string() ? each["method"].get<std::string>() : "",
                    shown("length"), shown("consistent_perplexity"), shown("inconsistent_perplexity"),
                    !ordered                                        ? ""
                    : each["consistent_below_inconsistent"] == true ? "consistent"
                                                                    : "inconsistent",
                    shown("recompute_nll"), shown("consistent_nll"), shown("divergence_of_consistent_from_recompute")});
  }
  if (rows.empty()) return "";
  return table({"method", "tokens", "perplexity, consistent", "inconsistent", "lower is", "nats, recomputed",
                "consistent", "KL of consistent from recomputed"},
               rows);
}

std::string cost_table(const RunFile& run, const std::vector<CostPoint>& points) {
  if (points.empty()) return "";
  std::vector<Row> rows;
  for (const CostPoint& point : points) {
    rows.push_back({run.methods[point.method].label, count_text(point.length), milliseconds(point.prefill),
                    milliseconds(point.decode), bytes(point.peak), bytes(point.bytes_read)});
  }
  return folded("All numbers", table({"method", "tokens", "ms to read a token", "ms to generate a token",
                                      "peak of memory", "read for a generated token"},
                                     rows));
}

}  // namespace memlane
