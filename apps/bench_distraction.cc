#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "apps/bench_methods.h"
#include "apps/commands.h"
#include "apps/count_option.h"
#include "apps/documents.h"
#include "apps/generation.h"
#include "apps/interrupt.h"
#include "apps/model_options.h"
#include "apps/output.h"
#include "apps/progress.h"
#include "runtime/distraction.h"
#include "runtime/local_settings.h"
#include "runtime/resources.h"
#include "runtime/session.h"

namespace memlane {

namespace {

struct DistractionOptions {
  ModelOptions model;
  std::vector<std::string> texts;
  std::vector<std::size_t> documents = {1, 2, 4, 8, 16, 32, 64};
  std::size_t tokens = 1024;
  std::size_t targets = 512;
  std::size_t trials = 16;
  std::size_t seed = 1;
  bool quiet = false;
  bool json = false;
};

/// All trials with one number of documents.
struct DistractionCell {
  std::size_t documents = 0;
  std::vector<DistractionResult> trials = {};
  double seconds = 0;

  double mean(const std::function<double(const DistractionResult&)>& of) const {
    double sum = 0;
    for (const DistractionResult& trial : trials) sum += of(trial);
    return sum / static_cast<double>(trials.size());
  }
  /// Of the attention to memory, the part that went to the right document.
  double share() const {
    return mean([](const DistractionResult& trial) { return trial.right / trial.memory; });
  }
  /// The standard error of that mean over trials.
  double share_error() const {
    const double middle = share();
    const double variance =
        mean([&](const DistractionResult& trial) { return std::pow(trial.right / trial.memory - middle, 2); });
    return std::sqrt(variance / static_cast<double>(std::max<std::size_t>(trials.size(), 2) - 1));
  }
  std::size_t tokens() const {
    std::size_t sum = 0;
    for (const DistractionResult& trial : trials) sum += trial.tokens;
    return sum;
  }
  double nll() const {
    return mean([](const DistractionResult& trial) { return trial.nll; }) * static_cast<double>(trials.size());
  }
  double perplexity() const { return std::exp(nll() / static_cast<double>(tokens())); }
};

class DistractionBench {
 public:
  explicit DistractionBench(DistractionOptions options)
      : options_(std::move(options)), exec_(options_.model.make_exec()) {}
  int run();

 private:
  void read_texts(const Tokenizer& tokenizer);
  void check(const ModelConfig& config) const;
  bool measure(const Tokenizer& tokenizer, const Model& model);
  nlohmann::json report(const Model& model, bool complete) const;
  void print_table() const;

  DistractionOptions options_;
  CpuExec exec_;
  MemorySettings settings_;
  Lookup lookup_;
  std::vector<std::vector<std::int32_t>> texts_;
  std::vector<DistractionDocument> documents_;
  std::vector<DistractionCell> cells_;
};

void DistractionBench::read_texts(const Tokenizer& tokenizer) {
  const std::size_t most = *std::max_element(options_.documents.begin(), options_.documents.end());
  for (const std::string& path : options_.texts) texts_.push_back(tokenizer.encode(open_text(path).text(), false));
  documents_ = cut_documents(texts_, options_.tokens, options_.targets, std::max<std::size_t>(most, 1));
  if (documents_.size() < std::max<std::size_t>(most, 1)) {
    input_error(
        "--documents {}: expected texts that make so many documents of {} tokens (--tokens and --targets), found {}; "
        "give more --text, or choose smaller ones",
        most, options_.tokens + options_.targets, documents_.size());
  }
}

void DistractionBench::check(const ModelConfig& config) const {
  if (settings_.mem_layers.empty()) {
    input_error("{}: expected memory layers, found none; choose some with --mem-layers", options_.model.model);
  }
  if (carries_over(settings_)) {
    input_error(
        "--overlap, --sliding-window: expected windows that can be read one by one, found others; leave it out");
  }
  if (options_.targets > settings_.window) {
    input_error("--targets {}: expected at most the window, {} tokens", options_.targets, settings_.window);
  }
  const std::size_t documents = *std::max_element(options_.documents.begin(), options_.documents.end());
  const EntryShape shape = entry_shape(config, settings_);
  const std::size_t entries = documents * (options_.tokens + 1);
  require_room(
      config, settings_, options_.model.precision(), lookup_,
      {options_.tokens + options_.targets, entries,
       documents * shape.segment_bytes(options_.tokens + 1) + options_.targets * config.vocab_size * sizeof(float)},
      fmt::format("{} documents of {} tokens", documents, options_.tokens), "use fewer --documents or --tokens");
}

/// Returns false if it was interrupted.
bool DistractionBench::measure(const Tokenizer& tokenizer, const Model& model) {
  DistractionReader reader(exec_, model, settings_, lookup_, documents_, tokenizer.bos_id(), &interrupt_flag());
  const std::vector<DistractionTrial> trials = make_trials(documents_.size(), options_.trials, options_.seed);
  try {
    {
      Progress progress("reading", 0, documents_.size(), !options_.quiet, "documents");
      reader.read([&](std::size_t done) { progress.update(done); });
    }
    std::vector<std::size_t> counts = {0};
    for (const std::size_t count : options_.documents) {
      if (count > 0) counts.push_back(count);
    }
    for (const std::size_t count : counts) {
      DistractionCell cell{count};
      Progress progress(fmt::format("{} documents", count), 0, trials.size(), !options_.quiet, "trials");
      for (const DistractionTrial& trial : trials) {
        if (interrupt_flag()) return false;
        cell.trials.push_back(reader.run(trial, count));
        progress.update(cell.trials.size());
      }
      cell.seconds = progress.seconds();
      cells_.push_back(std::move(cell));
    }
  } catch (const Interrupted&) {
    return false;
  }
  return true;
}

nlohmann::json DistractionBench::report(const Model& model, bool complete) const {
  nlohmann::json cells = nlohmann::json::array();
  for (const DistractionCell& cell : cells_) {
    nlohmann::json result = {{"documents", cell.documents},     {"trials", cell.trials.size()},
                             {"tokens", cell.tokens()},         {"nll", cell.nll()},
                             {"perplexity", cell.perplexity()}, {"seconds", cell.seconds}};
    if (cell.documents > 0) {
      result["even_share"] = 1 / static_cast<double>(cell.documents);
      result["right_share"] = cell.share();
      result["right_share_error"] = cell.share_error();
      result["right_weight"] = cell.mean([](const DistractionResult& trial) { return trial.right; });
      result["memory_weight"] = cell.mean([](const DistractionResult& trial) { return trial.memory; });
    }
    cells.push_back(std::move(result));
  }
  return {{"bench", "distraction"},
          {"model", options_.model.model},
          {"model_fingerprint", model.fingerprint},
          {"compute", name_of(model.precision.compute)},
          {"weights", name_of(model.precision.weights)},
          {"lookup", lookup_.name()},
          {"texts", options_.texts},
          {"document_tokens", options_.tokens},
          {"targets", options_.targets},
          {"seed", options_.seed},
          {"complete", complete},
          {"cells", cells}};
}

void DistractionBench::print_table() const {
  fmt::print("{:>9} {:>8} {:>17} {:>7} {:>10} {:>11} {:>9}\n", "documents", "1/d", "right document", "times",
             "of memory", "perplexity", "change");
  for (const DistractionCell& cell : cells_) {
    const double change = cell.perplexity() / cells_.front().perplexity() - 1;
    if (cell.documents == 0) {
      fmt::print("{:>9} {:>8} {:>17} {:>7} {:>10} {:>11.4f} {:>+8.2f}%\n", 0, "", "", "", "", cell.perplexity(),
                 100 * change);
      continue;
    }
    const double even = 1 / static_cast<double>(cell.documents);
    const double memory = cell.mean([](const DistractionResult& trial) { return trial.memory; });
    fmt::print("{:>9} {:>8.4f} {:>8.4f} +- {:<5.4f} {:>7.2f} {:>10.4f} {:>11.4f} {:>+8.2f}%\n", cell.documents, even,
               cell.share(), cell.share_error(), cell.share() / even, memory, cell.perplexity(), 100 * change);
  }
}

int DistractionBench::run() {
  interrupt_flag();
  lookup_ = options_.model.lookup(
      *std::max_element(options_.documents.begin(), options_.documents.end()) * options_.tokens, options_.quiet);
  const ModelConfig config = read_model_config(options_.model.model);
  settings_ = options_.model.settings(config);
  require_lookup(config, lookup_);
  const Tokenizer tokenizer = Tokenizer::open(options_.model.model);
  require_vocabulary(tokenizer, config, options_.model.model);
  if (tokenizer.bos_id() < 0) input_error("{}: expected a tokenizer with a BOS, found none", options_.model.model);
  check(config);
  read_texts(tokenizer);
  const Model model =
      load_model(exec_, options_.model.model, options_.model.precision(), options_.model.device_choice());
  const bool complete = measure(tokenizer, model);
  if (options_.json) {
    print_json(report(model, complete));
  } else if (!cells_.empty()) {
    print_table();
  }
  return complete ? 0 : 1;
}

}  // namespace

Subcommand add_bench_distraction(CLI::App& bench) {
  CLI::App* app = bench.add_subcommand(
      "distraction", "How much attention goes to the right one of several documents, and what the others cost");
  const auto options = std::make_shared<DistractionOptions>();
  options->model.add_to(*app);
  app->add_option("--text", options->texts, "Text files (UTF-8); they are cut into documents of equal length")
      ->required();
  add_counts(*app, "--documents", options->documents, "Documents in memory, separated by commas", {.most = 100000});
  add_count(*app, "--tokens", options->tokens, "Tokens of each document in memory", {.least = 1});
  add_count(*app, "--targets", options->targets, "Tokens behind them that are read with the memory and scored",
            {.least = 2});
  add_count(*app, "--trials", options->trials, "Documents whose targets are read", {.least = 1, .most = 100000});
  add_count(*app, "--seed", options->seed, "Same seed, same trials", {.most = std::numeric_limits<std::size_t>::max()});
  app->add_flag("--quiet", options->quiet, "No progress");
  app->add_flag("--json", options->json, "Print one JSON object");
  return {app, [options] { return DistractionBench(*options).run(); }};
}

}  // namespace memlane
