#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "apps/bench_methods.h"
#include "apps/commands.h"
#include "apps/count_option.h"
#include "apps/documents.h"
#include "apps/generation.h"
#include "apps/interrupt.h"
#include "apps/model_options.h"
#include "apps/output.h"
#include "apps/perplexity_cells.h"
#include "apps/progress.h"
#include "apps/value_option.h"
#include "runtime/local_settings.h"
#include "runtime/resources.h"

namespace memlane {

namespace {

struct PerplexityOptions {
  ModelOptions model;
  std::vector<std::string> texts;
  std::optional<Convention> convention;
  std::vector<std::string> methods = {"memory"};
  std::vector<std::size_t> lengths;
  std::vector<std::size_t> memory;
  std::optional<std::size_t> start;
  std::optional<std::size_t> targets;
  std::optional<std::size_t> stride;
  std::optional<std::size_t> curve;
  bool quiet = false;
  bool json = false;
};

class PerplexityBench {
 public:
  explicit PerplexityBench(PerplexityOptions options)
      : options_(std::move(options)), exec_(options_.model.make_exec()) {}
  int run();

 private:
  void read_options();
  void refuse_unused() const;
  PerplexityCell cell(const EvaluationText& text, const Method& method, std::size_t length) const;
  void check(const PerplexityCell& cell) const;
  void plan();
  bool run_cell(PerplexityCell& cell);
  nlohmann::json report(bool complete) const;
  nlohmann::json report(const PerplexityCell& cell) const;
  void print_table() const;

  PerplexityOptions options_;
  Convention convention_ = Convention::memory;
  CpuExec exec_;
  std::optional<Model> model_;
  int bos_ = -1;
  MemorySettings settings_;
  Lookup lookup_;
  std::vector<EvaluationText> texts_;
  std::vector<Method> methods_;
  std::vector<std::size_t> lengths_;
  std::vector<PerplexityCell> cells_;
};

/// memory unless lengths are given, then stride; each convention has its own defaults for what is left out.
void PerplexityBench::read_options() {
  const Convention usual = options_.lengths.empty() ? Convention::memory : Convention::stride;
  convention_ = options_.convention.value_or(usual);
  methods_ = parse_methods(options_.methods);
  refuse_unused();
  if (convention_ == Convention::memory) {
    lengths_ = options_.memory.empty() ? std::vector<std::size_t>{0, 2048, 8192, 32768, 65536} : options_.memory;
  } else {
    lengths_ = options_.lengths.empty() ? std::vector<std::size_t>{2048, 4096, 8192} : options_.lengths;
    check_lengths("--lengths", lengths_);
  }
}

/// What was said but would not be looked at.
void PerplexityBench::refuse_unused() const {
  const bool passes = convention_ == Convention::one_pass || convention_ == Convention::token_by_token;
  const bool recomputes =
      std::any_of(methods_.begin(), methods_.end(), [](const Method& method) { return method.mode() == "recompute"; });
  const auto refuse = [&](std::string_view option, bool given, bool used, std::string_view instead) {
    if (!given || used) return;
    input_error("{}: expected none with the convention {}, {}", option, name_of(convention_), instead);
  };
  const bool memory = convention_ == Convention::memory;
  refuse("--lengths", !options_.lengths.empty(), !memory, "whose sizes are those of --memory");
  refuse("--memory", !options_.memory.empty(), memory, "whose sizes are those of --lengths");
  refuse("--targets", options_.targets.has_value(), memory || convention_ == Convention::stride,
         "whose targets are the tokens of --lengths");
  refuse("--stride", options_.stride.has_value(), !memory && (!passes || recomputes),
         passes ? "which uses it for methods with mode=recompute alone" : "which scores whole windows");
  for (const Method& method : methods_) {
    if (method.mode() == "recompute" && !passes && convention_ != Convention::recompute) {
      input_error(
          "method {}: key mode: expected recompute with the convention one-pass, token-by-token or recompute, found {}",
          method.text(), name_of(convention_));
    }
    if (method.with_memory() && convention_ == Convention::recompute) {
      input_error(
          "method {}: expected methods without memory with the convention recompute; what moved there is never read "
          "again",
          method.text());
    }
  }
}

PerplexityCell PerplexityBench::cell(const EvaluationText& text, const Method& method, std::size_t length) const {
  PerplexityCell cell;
  cell.text = &text;
  cell.method = &method;
  cell.length = length;
  cell.convention = convention_;
  const bool memory = convention_ == Convention::memory;
  if (memory && method.settings(model_->config, settings_, 1).memory.window !=
                    method.settings(model_->config, settings_, 2).memory.window) {
    input_error("method {}: expected a window of its own with the convention memory; give it window=TOKENS",
                method.text());
  }
  cell.settings = method.settings(model_->config, settings_, std::max<std::size_t>(length, 1));
  if (cell.settings.recompute && (convention_ == Convention::token_by_token || convention_ == Convention::one_pass)) {
    cell.convention = Convention::recompute;
  }
  const std::size_t longest = *std::max_element(lengths_.begin(), lengths_.end());
  cell.start = options_.start.value_or(memory ? 65536 : convention_ == Convention::stride ? longest : 0);
  cell.targets = options_.targets.value_or(memory ? 16384 : 4096);
  cell.stride = options_.stride.value_or(convention_ == Convention::stride ? 256 : 16);
  return cell;
}

void PerplexityBench::check(const PerplexityCell& cell) const {
  const std::size_t window = cell.settings.memory.window;
  const std::size_t found = cell.text->ids.size();
  std::size_t needed = cell.start + cell.targets;
  if (cell.settings.last_context > 0) {
    input_error("method {}: key last-context: expected none, since no question follows a text of bench perplexity",
                cell.method->text());
  }
  if (cell.convention == Convention::memory) {
    if (carries_over(cell.settings.memory)) {
      input_error(
          "method {}: expected windows that can be read one by one with the convention memory, found an overlap or a "
          "sliding window; choose --convention stride or one-pass",
          cell.method->text());
    }
    if (window < 2) {
      input_error("method {}: expected a window of at least 2 tokens, the second of which is scored, found {}",
                  cell.method->text(), window);
    }
    if (cell.targets % window != 0) {
      input_error("--targets {}: expected a multiple of the window, {} tokens", cell.targets, window);
    }
    if (cell.length % window != 0) {
      input_error("--memory {}: expected multiples of the window, {} tokens", cell.length, window);
    }
    if (cell.length > cell.start) {
      input_error("--memory {}: expected at most --start, {} tokens, that stand before the targets", cell.length,
                  cell.start);
    }
    if (cell.length > 0 && cell.settings.memory.mem_layers.empty()) {
      input_error(
          "method {}: expected memory layers to read {} tokens into, found none; use --memory 0 or --mem-layers",
          cell.method->text(), cell.length);
    }
  } else if (cell.convention == Convention::stride) {
    if (cell.stride >= cell.length || cell.stride > window) {
      input_error(
          "--stride {}: expected less than each of --lengths and at most the window, {} tokens; found --lengths {}",
          cell.stride, window, cell.length);
    }
    if (cell.targets % cell.stride != 0) {
      input_error("--targets {}: expected a multiple of --stride, {} tokens", cell.targets, cell.stride);
    }
    if (cell.start + cell.stride < cell.length) {
      input_error("--start {}: expected at least {} tokens before the targets, for --lengths {}", cell.start,
                  cell.length - cell.stride, cell.length);
    }
  } else {
    needed = cell.start + cell.length;
    if (cell.convention == Convention::recompute && cell.stride >= cell.length) {
      input_error("--stride {}: expected less than each of --lengths, found {}", cell.stride, cell.length);
    }
  }
  if (needed > found) {
    input_error("{}: expected at least {} tokens (--start and {}), found {}; use a longer text or smaller ones",
                cell.text->path, needed, needed == cell.start + cell.targets ? "--targets" : "--lengths", found);
  }
}

/// Every cell, checked before anything runs.
void PerplexityBench::plan() {
  require_lookup(model_->config, lookup_);
  for (const EvaluationText& text : texts_) {
    for (const Method& method : methods_) {
      for (const std::size_t length : lengths_) {
        cells_.push_back(cell(text, method, length));
        check(cells_.back());
        require_method_room(model_->config, cells_.back().settings, model_->precision.compute, lookup_,
                            std::max<std::size_t>(length, 1), method.text());
      }
    }
  }
  // What recomputing is compared with keeps its logits.
  for (PerplexityCell& cell : cells_) {
    const bool has_reference = std::any_of(cells_.begin(), cells_.end(), [&](const PerplexityCell& other) {
      return other.convention == Convention::recompute && other.method->family() == cell.method->family();
    });
    const std::string mode = cell.method->mode();
    cell.keeps_logits = has_reference && (mode == "consistent" || mode == "recompute") &&
                        cell.convention != Convention::stride && cell.convention != Convention::memory;
    if (cell.keeps_logits) {
      require_memory(cell.length / cell.stride * model_->config.vocab_size * sizeof(float),
                     "comparing with recomputed logits", "use a greater --stride");
    }
  }
}

/// False if it was interrupted.
bool PerplexityBench::run_cell(PerplexityCell& cell) {
  const std::string label = convention_ == Convention::memory && methods_.size() == 1
                                ? fmt::format("memory {}", cell.length)
                                : fmt::format("{} {}", cell.method->text(), cell.length);
  Progress progress(label, 0, cell.work(), !options_.quiet);
  const ReadingContext context{exec_, *model_, lookup_, &interrupt_flag(),
                               [&](std::size_t done) { progress.update(done); }};
  try {
    if (interrupt_flag()) return false;
    compute(context, bos_, cell);
  } catch (const Interrupted&) {
    return false;
  }
  cell.seconds = progress.seconds();
  return true;
}

nlohmann::json PerplexityBench::report(const PerplexityCell& cell) const {
  nlohmann::json result = {{"text", cell.text->path},
                           {"method", cell.method->text()},
                           {"convention", name_of(cell.convention)},
                           {"length", cell.length},
                           {"window", cell.settings.memory.window},
                           {"start", cell.start},
                           {"targets", cell.scores.size()},
                           {"perplexity", cell.scores.perplexity()},
                           {"nll", cell.scores.sum()},
                           {"tokens", cell.scores.size()},
                           {"seconds", cell.seconds}};
  if (cell.convention == Convention::memory) result["memory_tokens"] = cell.length;
  if (cell.convention == Convention::stride || cell.convention == Convention::recompute) result["stride"] = cell.stride;
  if (options_.curve) {
    nlohmann::json curve = nlohmann::json::array();
    for (const auto& point : cell.scores.curve(*options_.curve)) {
      curve.push_back({{"position", point.position}, {"nll", point.nll}});
    }
    result["curve"] = curve;
  }
  return result;
}

nlohmann::json PerplexityBench::report(bool complete) const {
  nlohmann::json cells = nlohmann::json::array();
  for (const PerplexityCell& cell : cells_) {
    if (cell.scores.size() > 0) cells.push_back(report(cell));
  }
  return {{"bench", "perplexity"},
          {"model", options_.model.model},
          {"model_fingerprint", model_->fingerprint},
          {"compute", name_of(model_->precision.compute)},
          {"weights", name_of(model_->precision.weights)},
          {"lookup", lookup_.name()},
          {"text", options_.texts.front()},
          {"convention", name_of(convention_)},
          {"convention_meaning", description_of(convention_)},
          {"start", cells_.front().start},
          {"targets", cells_.front().targets},
          {"complete", complete},
          {"cells", cells},
          {"dynamic", compare_dynamic(cells_, model_->config.vocab_size)}};
}

void PerplexityBench::print_table() const {
  fmt::print("{}: {}\n", name_of(convention_), description_of(convention_));
  std::size_t width = 6;
  for (const PerplexityCell& cell : cells_) width = std::max(width, cell.method->text().size());
  const PerplexityCell* first = nullptr;
  for (const PerplexityCell& cell : cells_) {
    if (cell.scores.size() == 0) continue;
    if (first == nullptr || first->text != cell.text) {
      fmt::print("{}\n{:{}} {:>8} {:>8} {:>11} {:>9}\n", cell.text->path, "method", width,
                 convention_ == Convention::memory ? "memory" : "length", "targets", "perplexity", "change");
    }
    if (first == nullptr || first->text != cell.text || first->method != cell.method) first = &cell;
    const double change = cell.scores.perplexity() / first->scores.perplexity() - 1;
    fmt::print("{:{}} {:>8} {:>8} {:>11.4f} {:>+8.2f}%\n", cell.method->text(), width, cell.length, cell.scores.size(),
               cell.scores.perplexity(), 100 * change);
    if (!options_.curve) continue;
    for (const auto& point : cell.scores.curve(*options_.curve)) {
      fmt::print("{:{}} {:>8} {:>20.4f} nll\n", "", width, point.position, point.nll);
    }
  }
  for (const auto& each : compare_dynamic(cells_, model_->config.vocab_size)) fmt::print("{}\n", each.dump());
}

int PerplexityBench::run() {
  interrupt_flag();
  read_options();
  lookup_ = options_.model.lookup(*std::max_element(lengths_.begin(), lengths_.end()), options_.quiet);
  const Tokenizer tokenizer = Tokenizer::open(options_.model.model);
  bos_ = tokenizer.bos_id();
  for (const std::string& path : options_.texts) {
    texts_.push_back({path, tokenizer.encode(open_text(path).text(), false)});
  }
  model_.emplace(load_model(exec_, options_.model.model, options_.model.precision(), options_.model.device_choice()));
  require_vocabulary(tokenizer, model_->config, options_.model.model);
  settings_ = options_.model.settings(model_->config);
  plan();
  bool any_finished = false;
  const bool complete = std::all_of(cells_.begin(), cells_.end(), [&](PerplexityCell& cell) {
    const bool done =
        run_cell_safely(cell_name(*cell.method, cell.length), any_finished, [&] { return run_cell(cell); });
    any_finished = any_finished || done;
    return done;
  });
  if (options_.json) {
    print_json(report(complete));
  } else if (cells_.front().scores.size() > 0) {
    print_table();
  }
  return complete ? 0 : 1;
}

}  // namespace

Subcommand add_bench_perplexity(CLI::App& bench) {
  CLI::App* app = bench.add_subcommand(
      "perplexity", "Perplexity of long texts: of the same tokens as memory grows, or of methods at several lengths");
  const auto options = std::make_shared<PerplexityOptions>();
  options->model.add_to(*app);
  app->add_option("--text", options->texts, "Text files (UTF-8)")->required();
  add_choice(*app, "--convention", options->convention, conventions(),
             "Which tokens are scored and what they see: memory, stride, one-pass, token-by-token or recompute "
             "(default: memory; stride with --lengths)");
  add_methods(*app, options->methods);
  add_counts(*app, "--lengths", options->lengths,
             "Tokens that a target can see, separated by commas (default: 2048,4096,8192)");
  add_counts(*app, "--memory", options->memory,
             "Convention memory: tokens in memory before each window, separated by commas (default: "
             "0,2048,8192,32768,65536)",
             {.most = std::size_t{1} << 23});
  add_count(*app, "--start", options->start,
            "Tokens before the targets (default: memory 65536, stride the longest length), or before the first that is "
            "read (0)");
  add_count(*app, "--targets", options->targets,
            "Target tokens: memory whole windows (default: 16384), stride a multiple of --stride (default: 4096)",
            {.least = 1});
  add_count(
      *app, "--stride", options->stride,
      "Convention stride: tokens scored of each window (default: 256); recompute: of so many tokens one is scored "
      "(default: 16)",
      {.least = 1});
  add_count(*app, "--curve", options->curve, "Show the mean -ln p in so many ranges of position as well",
            {.least = 1, .most = 100000});
  app->add_flag("--quiet", options->quiet, "No progress");
  app->add_flag("--json", options->json, "Print one JSON object");
  return {app, [options] { return PerplexityBench(*options).run(); }};
}

}  // namespace memlane
