#include "apps/bench_run/estimate.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "kernels/exec.h"
#include "runtime/checkpoint.h"
#include "runtime/cost_estimate.h"
#include "runtime/model.h"
#include "runtime/model_config.h"

namespace memlane {

namespace {

constexpr double kStart = 0.3;       ///< seconds that every command takes to load a model and a text
constexpr double kDecodeFactor = 8;  ///< a token alone costs so many times one of many
constexpr std::size_t kDefaultTrials = 20;
constexpr std::size_t kDefaultTargets = 2048;
constexpr std::size_t kDefaultStride = 256;
constexpr std::size_t kGenerated = 64;  ///< tokens that a cost bench generates, about

struct Speed {
  ModelConfig config;
  double per_flop = 0, per_score = 0;
};

/// A number among the keys of a method, such as the 8192 of "memory+yarn:factor=4:window=8192".
std::optional<std::size_t> number_of(std::string_view method, std::string_view key) {
  const std::size_t at = method.find(fmt::format(":{}=", key));
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view rest = method.substr(at + key.size() + 2);
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
  return error == std::errc() && number > 0 ? std::optional(number) : std::nullopt;
}

/// Tokens that a token in a plain layer sees at most. A guess: it only serves the time left.
std::size_t window_of(const std::string& method, const ModelConfig& config, std::size_t length) {
  if (const auto window = number_of(method, "window")) return *window;
  if (const auto sliding = number_of(method, "sliding")) return *sliding;
  if (method.find("window=full") != std::string::npos) return length;
  const bool own =
      method == "memory" || method == "none" || method.starts_with("memory:") || method.starts_with("none:");
  if (own) return std::min<std::size_t>(config.max_position_embeddings, 2048);
  return method.starts_with("memory") ? 4096 : length;
}

/// Seconds to read `length` tokens once.
double reading(const Speed& speed, const std::string& method, std::size_t length) {
  const auto count = [](std::size_t x) { return static_cast<double>(x); };
  const ModelConfig& config = speed.config;
  const double heads = count(config.num_heads);
  const double layer = 2 * heads * count(config.head_dim * config.hidden_size) +
                       2 * count(config.num_kv_heads * config.head_dim * config.hidden_size) +
                       3 * count(config.hidden_size * config.intermediate_size);
  const bool with_memory = method.starts_with("memory");
  const double memory_layers = with_memory ? count(config.mem_layers.size()) : 0;
  const double seen = std::min(count(length) / 2, count(window_of(method, config, length)));
  const double tokens = count(length);
  const bool cut = method == "none";  // only the end of the text is read
  const double read = cut ? std::min(tokens, count(window_of(method, config, length))) : tokens;
  const double flops = 2 * read * count(config.num_layers) * layer;
  const double scores = heads * read * ((count(config.num_layers) - memory_layers) * seen + memory_layers * tokens / 2);
  return flops * speed.per_flop + scores * speed.per_score;
}

double work_of(const RunFile& run, const RunCell& cell, const Speed& speed) {
  const RunExperiment& experiment = run.experiments[cell.experiment];
  double once = 0;
  for (const std::size_t method : cell.methods) once += reading(speed, run.methods[method].method, cell.length);
  const double token = once / static_cast<double>(cell.length);
  const auto count = [](std::size_t x) { return static_cast<double>(x); };
  double seconds = once;
  if (experiment.kind == BenchKind::recall) {
    const auto flag = std::find(cell.command.begin(), cell.command.end(), "--trials");
    const double trials = flag == cell.command.end() ? count(kDefaultTrials) : std::stod(*(flag + 1));
    const auto own = experiment.depths_by_length.find(cell.length);
    const auto& depths = own == experiment.depths_by_length.end() ? experiment.depths : own->second;
    seconds = once * trials * count(std::max<std::size_t>(depths.size(), 1));
  } else if (experiment.kind == BenchKind::perplexity) {
    const double targets = count(experiment.targets.value_or(kDefaultTargets));
    const double stride = count(experiment.stride.value_or(kDefaultStride));
    if (experiment.convention == "stride") seconds = once * std::max(1.0, targets / stride);
    if (experiment.convention == "recompute")
      seconds = once * count(cell.length) / count(experiment.stride.value_or(16)) / 2;
    if (experiment.convention == "token-by-token") seconds = once * kDecodeFactor;
    if (experiment.convention == "memory") seconds = once + targets * token;
  } else {
    seconds = once + count(kGenerated) * kDecodeFactor * token;
  }
  return kStart + seconds;
}

std::string experiment_key(const RunCell& cell) {
  return fmt::format("{}", cell.experiment);
}
std::string method_key(const RunCell& cell) {
  return fmt::format("{} {}", cell.experiment, cell.methods.front());
}

}  // namespace

void estimate_work(const RunFile& run, std::vector<RunCell>& cells) {
  CpuExec exec(run.threads.value_or(available_threads()));
  std::map<std::string, Speed> speeds;
  for (RunCell& cell : cells) {
    const std::string& model = run.methods[cell.methods.front()].model;
    if (!speeds.contains(model)) {
      const std::filesystem::path folder = run.folder / run.models.at(model);
      Speed& speed = speeds[model];
      speed.config = read_model_config(folder);
      const DType compute = default_compute(Checkpoint::open(folder));
      constexpr double kMany = 1e9;
      const auto seconds = [&](const ReadingCost& cost) {
        return estimate_seconds(exec, speed.config, {}, compute, {}, cost) / kMany;
      };
      speed.per_flop = seconds({.matmul_flops = kMany});
      speed.per_score = seconds({.scores = kMany});
    }
    cell.work = work_of(run, cell, speeds.at(model));
  }
}

void RunEstimate::learn(const RunCell& cell, double seconds) {
  for (const std::string& key : {method_key(cell), experiment_key(cell), std::string()}) {
    Sum& sum = sums_[key];
    sum.work += cell.work;
    sum.seconds += seconds;
  }
}

double RunEstimate::of(const RunCell& cell) const {
  for (const std::string& key : {method_key(cell), experiment_key(cell), std::string()}) {
    const auto found = sums_.find(key);
    if (found != sums_.end() && found->second.work > 0) return cell.work * found->second.seconds / found->second.work;
  }
  return cell.work;
}

}  // namespace memlane
