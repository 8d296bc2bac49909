#include "apps/bench_speed/report.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/median.h"

namespace memlane {

namespace {

MachineLimits median_limits(const std::vector<MachineLimits>& of) {
  const auto each = [&](double MachineLimits::*member) {
    std::vector<double> values;
    for (const MachineLimits& limits : of) values.push_back(limits.*member);
    return values.empty() ? 0 : median(values);
  };
  return {.f32 = each(&MachineLimits::f32),
          .bf16 = each(&MachineLimits::bf16),
          .int8 = each(&MachineLimits::int8),
          .read = each(&MachineLimits::read)};
}

MachineLimits all_limits(const std::vector<SpeedCell>& cells) {
  std::vector<MachineLimits> all;
  for (const SpeedCell& cell : cells) all.insert(all.end(), cell.limits.begin(), cell.limits.end());
  return median_limits(all);
}

/// The lowest time that the limits of the same rounds allow.
double floor_of(const SpeedCell& cell, Precision precision) {
  return cell.floor.seconds(median_limits(cell.limits), precision);
}

nlohmann::json json_of(const MachineLimits& limits) {
  return {{"f32_flops", limits.f32},
          {"bf16_flops", limits.bf16},
          {"int8_ops", limits.int8},
          {"read_bytes_per_second", limits.read}};
}

std::string memory_text(const SpeedCell& cell) {
  if (cell.of.memory == 0) return "0";
  return cell.of.memory % 1024 == 0 ? fmt::format("{}k", cell.of.memory / 1024) : fmt::format("{}", cell.of.memory);
}

std::string lookup_text(const SpeedCell& cell) {
  return cell.of.memory == 0 ? "-" : cell.of.lookup.name();
}

}  // namespace

nlohmann::json json_of(const SpeedCell& cell, Precision precision) {
  const double seconds = median(cell.seconds), floor = floor_of(cell, precision);
  nlohmann::json stages = nlohmann::json::object();
  for (std::size_t i = 0; i < kStages; ++i) stages[kStageNames[i]] = cell.stages[i];
  return {{"what", cell.of.name()},
          {"lookup", cell.of.memory == 0 ? "" : cell.of.lookup.name()},
          {"memory", cell.of.memory},
          {"tokens", cell.tokens},
          {"seconds", seconds},
          {"rounds", cell.seconds},
          {"tokens_per_second", static_cast<double>(cell.tokens) / seconds},
          {"floor_seconds", floor},
          {"floor_share", floor / seconds},
          {"operations", cell.floor.matmul_operations + cell.floor.attention_operations},
          {"bytes", cell.floor.bytes},
          {"stage_seconds", stages},
          {"limits", json_of(median_limits(cell.limits))}};
}

nlohmann::json limits_json(const std::vector<SpeedCell>& cells) {
  return json_of(all_limits(cells));
}

std::string table_of(const std::vector<SpeedCell>& cells, Precision precision) {
  std::string text = fmt::format("{:8} {:7} {:>7} {:>11} {:>10} {:>11} {:>6}", "what", "lookup", "memory", "ms",
                                 "tok/s", "floor ms", "share");
  for (const char* name : kStageNames) text += fmt::format(" {:>16}", name);
  text += "\n";
  for (const SpeedCell& cell : cells) {
    const double seconds = median(cell.seconds), floor = floor_of(cell, precision);
    text += fmt::format("{:8} {:7} {:>7} {:>11.3f} {:>10.2f} {:>11.3f} {:>5.1f}%", cell.of.name(), lookup_text(cell),
                        memory_text(cell), 1000 * seconds, static_cast<double>(cell.tokens) / seconds, 1000 * floor,
                        100 * floor / seconds);
    for (const double stage : cell.stages) text += fmt::format(" {:>16.3f}", 1000 * stage);
    text += "\n";
  }
  const MachineLimits limits = all_limits(cells);
  text += fmt::format(
      "machine: f32 {:.0f}, bf16 {:.0f}, int8 {:.0f} G operations/s; reads {:.1f} GB/s. Stages in ms, means of the "
      "rounds; share: floor / time.\n",
      limits.f32 / 1e9, limits.bf16 / 1e9, limits.int8 / 1e9, limits.read / 1e9);
  return text;
}

std::string plot_of(const std::vector<SpeedCell>& cells, Precision precision, const std::string& title,
                    const std::string& file) {
  constexpr const char* kColours[kStages] = {"#0072b2", "#e69f00", "#d55e00", "#cc79a7", "#009e73", "#999999"};
  const auto quoted = [](const std::string& raw) {
    std::string result = "'";
    for (const char c : raw) result += c == '\'' ? "''" : std::string(1, c);
    return result + "'";
  };
  std::string text = "$cells << END\n";
  for (const SpeedCell& cell : cells) {
    const double whole = median(cell.seconds);
    text += fmt::format("\"{} {}{}\"", cell.of.name(), cell.of.memory == 0 ? "" : cell.of.lookup.name() + " ",
                        memory_text(cell));
    double sum = 0;
    for (const double stage : cell.stages) sum += stage;
    for (const double stage : cell.stages) text += fmt::format(" {:.4f}", sum > 0 ? 100 * stage / sum : 0);
    text += fmt::format(" {:.4f}\n", 100 * floor_of(cell, precision) / whole);
  }
  text += "END\n";
  text += fmt::format(
      "set terminal svg size {},520 dynamic noenhanced font 'sans-serif,14' background 'white'\n"
      "set encoding utf8\nset output {}\nset title {}\nset ylabel 'share of the time, %'\nset yrange [0:100]\n"
      "set style data histograms\nset style histogram rowstacked\nset style fill solid 0.9 border -1\n"
      "set boxwidth 0.75\nset xtics rotate by -35 left\nset key outside right top\nset border 3\nset tics nomirror\n"
      "plot ",
      std::max<std::size_t>(700, 260 + 60 * cells.size()), quoted(file), quoted(title));
  for (std::size_t i = 0; i < kStages; ++i) {
    text += fmt::format("{}$cells using {}{} title {} lc rgb '{}'", i == 0 ? "" : ", ", i + 2, i == 0 ? ":xtic(1)" : "",
                        quoted(kStageNames[i]), kColours[i]);
  }
  text += fmt::format(", $cells using 0:{} with points pt 9 ps 1.4 lc rgb 'black' title 'floor'\n", kStages + 2);
  return text;
}

}  // namespace memlane
