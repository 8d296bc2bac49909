#include "apps/bench_run/plots.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace memlane {

namespace {

/// Okabe and Ito's colours ("Color universal design", 2008) without the yellow, which is faint on white, and a brown.
constexpr const char* kColours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                    "#e69f00", "#56b4e9", "#000000", "#8c5a2b"};
constexpr std::size_t kColourCount = std::size(kColours);
constexpr int kSymbols[] = {7, 5, 9, 11, 13, 6, 4, 8, 10, 12};
constexpr int kWidth = 900;
constexpr int kHeight = 480;
constexpr const char* kGrid = "#dddddd";

/// A string of gnuplot in which nothing is special.
std::string quoted(const std::string& text) {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? "''" : std::string(1, c);
  return result + "'";
}

std::string number(double value) {
  return fmt::format("{:.9g}", value);
}

std::string header(int width, int height) {
  return fmt::format(
      "set terminal svg size {},{} dynamic noenhanced font 'sans-serif,14' background 'white'\n"
      "set encoding utf8\n"
      "set border 3 lc rgb '#555555'\n"
      "set tics nomirror out scale 0.6 textcolor rgb '#333333'\n"
      "set grid lc rgb '{}' lw 1 dt 1\n",
      width, height, kGrid);
}

std::string style_of(std::size_t method) {
  const std::size_t round = method / kColourCount;
  return fmt::format("lc rgb '{}' lw 2.2 dt {} pt {} ps 0.7", colour_of(method), round % 5 + 1,
                     kSymbols[method % std::size(kSymbols)]);
}

struct Range {
  double low = 0, high = 0;
};

Range range_of(const std::vector<Line>& lines, bool of_x, bool positive) {
  Range range{.low = INFINITY, .high = -INFINITY};
  for (const Line& line : lines) {
    for (const Point& point : line.points) {
      for (const double value : {of_x ? point.x : point.y, of_x ? point.x : point.low.value_or(point.y),
                                 of_x ? point.x : point.high.value_or(point.y)}) {
        if (positive && value <= 0) continue;
        range.low = std::min(range.low, value);
        range.high = std::max(range.high, value);
      }
    }
  }
  if (!(range.low <= range.high)) return {.low = 1, .high = 2};
  return range;
}

/// An axis with room on both sides; a logarithmic one in factors, a linear one in shares of its length.
std::string axis(char name, Range range, bool logarithmic) {
  if (logarithmic) {
    const double room = std::max(std::pow(range.high / range.low, 0.06), 1.15);
    return fmt::format("set logscale {0} 10\nset {0}range [{1}:{2}]\n", name, number(range.low / room),
                       number(range.high * room));
  }
  const double room = range.high > range.low ? 0.06 * (range.high - range.low) : 0.1 * std::abs(range.high) + 0.1;
  return fmt::format("set {}range [{}:{}]\n", name, number(range.low - room), number(range.high + room));
}

/// Ticks at a few round numbers where a logarithmic axis spans less than two decades and has hardly any of its own.
std::string log_ticks(char name, Range range) {
  if (range.high / range.low > 200) return fmt::format("set format {} '%g'\n", name);
  std::vector<std::string> ticks;
  for (int power = static_cast<int>(std::floor(std::log10(range.low))) - 1; power <= std::log10(range.high) + 1;
       ++power) {
    for (const double digit : {1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0}) {
      const double value = digit * std::pow(10.0, power);
      ticks.push_back(fmt::format("'{0:.4g}' {0:.9g}", value));
    }
  }
  return fmt::format("set {}tics ({})\n", name, fmt::join(ticks, ", "));
}

std::string length_ticks(const std::vector<Line>& lines) {
  std::set<double> lengths;
  for (const Line& line : lines) {
    for (const Point& point : line.points) lengths.insert(point.x);
  }
  std::vector<std::string> ticks;
  for (const double length : lengths) {
    ticks.push_back(fmt::format("{} {}", quoted(length_text(length)), number(length)));
  }
  return fmt::format("set xtics ({})\n", fmt::join(ticks, ", "));
}

/// $lineN: x, y, low, high of every point, and the length of the text at the end of a line. Lines that lie on each
/// other are set apart a little where x is a length.
std::string data_of(const LinePlot& plot, const std::vector<Line>& lines) {
  std::string text;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    text += fmt::format("$line{} << END\n", i);
    const double shift = static_cast<double>(i) - static_cast<double>(lines.size() - 1) / 2;
    for (const Point& point : lines[i].points) {
      if (plot.y_log && point.y <= 0) continue;
      const double x = plot.x_is_length && plot.y_is_share ? point.x * (1 + 0.03 * shift) : point.x;
      text += fmt::format("{} {} {} {} {}\n", number(x), number(point.y), number(point.low.value_or(point.y)),
                          number(point.high.value_or(point.y)),
                          &point == &lines[i].points.back() && point.length ? length_text(*point.length) : "\"\"");
    }
    text += "END\n";
  }
  return text;
}

/// Whether a line is to end with the length of the text.
bool line_has_lengths(const Line& line) {
  return std::any_of(line.points.begin(), line.points.end(),
                     [](const Point& point) { return point.length.has_value(); });
}

}  // namespace

std::string colour_of(std::size_t method) {
  return kColours[method % kColourCount];
}

std::string length_text(double length) {
  const auto tokens = static_cast<long>(length);
  if (tokens >= 1024 && tokens % 1024 == 0) return fmt::format("{}k", tokens / 1024);
  return fmt::format("{}", tokens);
}

std::string line_script(const RunFile& run, const LinePlot& plot, const std::vector<Line>& lines) {
  std::string script = header(kWidth, kHeight);
  script += fmt::format("set title {} font ',16'\nset xlabel {}\nset ylabel {}\n", quoted(plot.title),
                        quoted(plot.x_label), quoted(plot.y_label));
  script += "set key outside right center vertical Left reverse samplen 2.5 spacing 1.3\nset lmargin 11\n";
  const Range x = range_of(lines, true, plot.x_log);
  const Range y = range_of(lines, false, plot.y_log);
  script += axis('x', x, plot.x_log);
  if (plot.x_is_length) {
    script += length_ticks(lines);
  } else if (plot.x_log) {
    script += log_ticks('x', x);
  }
  if (plot.y_is_share) {
    script +=
        "set yrange [-0.03:1.05]\nset ytics ('0 %%' 0, '20 %%' 0.2, '40 %%' 0.4, '60 %%' 0.6, '80 %%' 0.8, '100 %%' "
        "1)\n";
  } else {
    script += axis('y', y, plot.y_log);
    if (plot.y_log) script += log_ticks('y', y);
  }
  script += data_of(plot, lines);
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const bool many = lines[i].points.size() > 24;
    const bool with_bars = std::any_of(lines[i].points.begin(), lines[i].points.end(),
                                       [](const Point& point) { return point.low.has_value(); });
    if (with_bars) {
      parts.push_back(fmt::format("$line{} using 1:2:3:4 with yerrorbars notitle lc rgb '{}' lw 1.2 pt 7 ps 0.1 dt 1", i,
                                  colour_of(lines[i].method)));
    }
    parts.push_back(fmt::format("$line{} using 1:2 with {} {} title {}", i, many ? "lines" : "linespoints",
                                style_of(lines[i].method), quoted(run.methods[lines[i].method].label)));
    if (line_has_lengths(lines[i])) {
      parts.push_back(fmt::format("$line{} using 1:2:5 with labels offset 1,0.8 font ',11' textcolor rgb '{}' notitle",
                                  i, colour_of(lines[i].method)));
    }
  }
  return script + "plot " + fmt::format("{}", fmt::join(parts, ", \\\n     ")) + "\n";
}

namespace {

struct Field {
  std::size_t trials = 0, correct = 0;
};
using Panel = std::map<std::pair<std::size_t, double>, Field>;  ///< length, depth

/// One method's panel: places of lengths and depths are counted from 0.
std::string panel_script(const std::string& title, const Panel& panel, const std::vector<std::size_t>& lengths,
                         const std::vector<double>& depths, int index) {
  std::string script = fmt::format("set title {} font ',14' offset 0,-0.5\n$panel{} << END\n", quoted(title), index);
  for (std::size_t x = 0; x < lengths.size(); ++x) {
    for (std::size_t y = 0; y < depths.size(); ++y) {
      const auto found = panel.find({lengths[x], depths[y]});
      if (found == panel.end()) continue;
      const double share = static_cast<double>(found->second.correct) / static_cast<double>(found->second.trials);
      script += fmt::format("{} {} {} {}\n", x, y, number(share), share < 0.55 ? 0xffffff : 0x000000);
    }
  }
  if (panel.empty()) script += "0 0 NaN 0\n";
  script += "END\n";
  return script + fmt::format(
                      "plot $panel{0} using 1:2:(0.47):(0.47):3 with boxxyerror fillcolor palette fillstyle solid "
                      "noborder notitle, "
                      "\\\n     $panel{0} using "
                      "1:2:(sprintf('%.0f', 100*$3)):4 with labels font ',12' textcolor rgb variable notitle\n",
                      index);
}

}  // namespace

std::string heat_script(const RunFile& run, const std::string& title, const std::vector<RecallPoint>& points) {
  std::map<std::size_t, Panel> panels;
  std::set<std::size_t> length_set;
  std::set<double> depth_set;
  for (const RecallPoint& point : points) {
    if (!point.depth) continue;
    Field& field = panels[point.method][{point.length, *point.depth}];
    field.trials += point.trials;
    field.correct += point.correct;
    length_set.insert(point.length);
    depth_set.insert(*point.depth);
  }
  if (panels.empty()) return "";
  const std::vector<std::size_t> lengths(length_set.begin(), length_set.end());
  const std::vector<double> depths(depth_set.begin(), depth_set.end());
  const int columns = static_cast<int>(std::min<std::size_t>(panels.size(), lengths.size() > 8 ? 2 : 3));
  const int rows = (static_cast<int>(panels.size()) + columns - 1) / columns;
  const int width = 130 + columns * std::max(220, 60 + 46 * static_cast<int>(lengths.size()));
  const int height = 70 + rows * (110 + 34 * static_cast<int>(depths.size()));
  std::vector<std::string> x_ticks;
  std::vector<std::string> y_ticks;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    x_ticks.push_back(fmt::format("'{}' {}", length_text(static_cast<double>(lengths[i])), i));
  }
  for (std::size_t i = 0; i < depths.size(); ++i) y_ticks.push_back(fmt::format("'{:.0f} %%' {}", 100 * depths[i], i));
  std::string script = header(width, height) + "unset grid\nset border 0\nset tics scale 0\nunset key\n";
  // The palette is cividis's ends and middle (Nunez, Anderton and Renslow 2018): dark blue is nothing, yellow is all.
  script += "set palette defined (0 '#00224e', 0.25 '#3b496c', 0.5 '#7d7c78', 0.75 '#bcae6c', 1 '#fee838')\n";
  script +=
      "set cbrange [0:1]\nunset colorbox\n"
      "set object 1 rectangle from graph 0,0 to graph 1,1 behind fillcolor rgb '#f2f2f2' fillstyle solid noborder\n";
  script += fmt::format("set xrange [-0.5:{}]\nset yrange [{}:-0.5]\n", static_cast<double>(lengths.size()) - 0.5,
                        static_cast<double>(depths.size()) - 0.5);
  script += fmt::format("set xtics ({})\nset ytics ({})\nset xlabel 'tokens'\nset ylabel 'depth of the answer'\n",
                        fmt::join(x_ticks, ", "), fmt::join(y_ticks, ", "));
  script += fmt::format("set multiplot layout {},{} title {} font ',16'\n", rows, columns, quoted(title));
  int index = 0;
  for (const auto& [method, panel] : panels) {
    script += panel_script(run.methods[method].label, panel, lengths, depths, index++);
  }
  return script + "unset multiplot\n";
}

}  // namespace memlane
