#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/documents.h"
#include "apps/generation.h"
#include "apps/interrupt.h"
#include "apps/model_options.h"
#include "apps/output.h"
#include "apps/progress.h"
#include "runtime/perplexity.h"

namespace memlane {

namespace {

struct PerplexityOptions {
  ModelOptions model;
  std::string text;
  std::size_t start = 65536;
  std::size_t targets = 16384;
  std::vector<std::size_t> memory = {0, 2048, 8192, 32768, 65536};
  bool quiet = false;
  bool json = false;
};

struct Row {
  std::size_t memory_tokens;
  PerplexityResult result;
  double perplexity() const { return std::exp(result.nll / static_cast<double>(result.tokens)); }
};

void check_lengths(const PerplexityOptions& options, std::size_t window, std::size_t tokens) {
  if (options.targets == 0 || options.targets % window != 0) {
    input_error("--targets {}: expected a multiple of the window, {} tokens", options.targets, window);
  }
  for (const std::size_t memory : options.memory) {
    if (memory % window != 0) input_error("--memory {}: expected multiples of the window, {} tokens", memory, window);
    if (memory > options.start) {
      input_error("--memory {}: expected at most --start, {} tokens, that stand before the targets", memory,
                  options.start);
    }
  }
  if (options.start + options.targets > tokens) {
    input_error("{}: expected at least {} tokens (--start and --targets), found {}; use a longer text or smaller ones",
                options.text, options.start + options.targets, tokens);
  }
}

void print_report(const PerplexityOptions& options, const std::vector<Row>& rows, bool complete) {
  if (options.json) {
    nlohmann::json cells = nlohmann::json::array();
    for (const Row& row : rows) {
      cells.push_back({{"memory_tokens", row.memory_tokens},
                       {"perplexity", row.perplexity()},
                       {"nll", row.result.nll},
                       {"tokens", row.result.tokens}});
    }
    print_json({{"model", options.model.model},
                {"text", options.text},
                {"start", options.start},
                {"targets", options.targets},
                {"complete", complete},
                {"cells", cells}});
    return;
  }
  fmt::print("tokens {} ... {} of {}\n{:>8} {:>11} {:>9}\n", options.start, options.start + options.targets,
             options.text, "memory", "perplexity", "change");
  for (const Row& row : rows) {
    fmt::print("{:>8} {:>11.4f} {:>+8.2f}%\n", row.memory_tokens, row.perplexity(),
               100 * (row.perplexity() / rows.front().perplexity() - 1));
  }
}

int bench_perplexity(const PerplexityOptions& options) {
  const std::atomic<bool>& interrupted = interrupt_flag();
  const Lookup lookup = options.model.lookup();
  CpuExec exec = options.model.make_exec();
  const Tokenizer tokenizer = Tokenizer::open(options.model.model);
  const std::vector<std::int32_t> ids = tokenizer.encode(open_text(options.text).text(), false);
  const Model model = load_model(exec, options.model.model, options.model.compute_type());
  require_vocabulary(tokenizer, model.config, options.model.model);
  const MemorySettings settings = options.model.settings(model.config);
  check_lengths(options, settings.window, ids.size());
  std::vector<Row> rows;
  for (const std::size_t memory : options.memory) {
    Progress progress(fmt::format("memory {}", memory), 0, memory + options.targets, !options.quiet);
    const PerplexityTask task{std::span(ids).first(options.start + options.targets), options.targets, memory};
    try {
      rows.push_back({memory, perplexity_with_memory(exec, model, settings, lookup, task, &interrupted,
                                                     [&](std::size_t done, std::size_t) { progress.update(done); })});
    } catch (const Interrupted&) {
      break;
    }
  }
  const bool complete = rows.size() == options.memory.size();
  if (!rows.empty()) print_report(options, rows, complete);
  return complete ? 0 : 1;
}

}  // namespace

Subcommand add_bench_perplexity(CLI::App& bench) {
  CLI::App* app = bench.add_subcommand("perplexity", "Perplexity of the same tokens of a long text as memory grows");
  const auto options = std::make_shared<PerplexityOptions>();
  options->model.add_to(*app);
  app->add_option("--text", options->text, "A text file (UTF-8)")->required();
  app->add_option("--start", options->start, "Tokens before the targets")->capture_default_str();
  app->add_option("--targets", options->targets, "Target tokens, whole windows")->capture_default_str();
  app->add_option("--memory", options->memory, "Tokens in memory before each window, separated by commas")
      ->delimiter(',')
      ->capture_default_str();
  app->add_flag("--quiet", options->quiet, "No progress");
  app->add_flag("--json", options->json, "Print one JSON object");
  return {app, [options] { return bench_perplexity(*options); }};
}

}  // namespace memlane
