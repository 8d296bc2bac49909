#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/bench_methods.h"
#include "apps/commands.h"
#include "apps/count_option.h"
#include "apps/documents.h"
#include "apps/drawing.h"
#include "apps/generation.h"
#include "apps/interrupt.h"
#include "apps/model_options.h"
#include "apps/output.h"
#include "apps/progress.h"
#include "runtime/index_quality.h"
#include "runtime/local_settings.h"
#include "runtime/resources.h"
#include "runtime/session.h"
#include "runtime/stored_memory.h"

namespace memlane {

namespace {

struct IndexOptions {
  ModelOptions model;
  std::string text;
  std::vector<std::string> lookups = {"exact", "int8", "ivf:probes=16", "ivf:probes=16,tail=on",
                                      "ivf:probes=64,tail=on"};
  std::size_t memory = 65536;
  std::size_t targets = 2048;
  std::size_t stride = 8;
  std::size_t trials = 0;
  std::size_t trial_length = 16384;
  std::size_t seed = 1;
  std::optional<std::string> plot;
  bool quiet = false;
  bool json = false;
};

struct Cell {
  IndexCase of;
  IndexQuality found;
};

class IndexBench {
 public:
  explicit IndexBench(IndexOptions options) : options_(std::move(options)), exec_(options_.model.make_exec()) {}
  int run();

 private:
  void check(const ModelConfig& config);
  bool measure(const Tokenizer& tokenizer, const Model& model);
  nlohmann::json report(const Model& model, bool complete) const;
  void print_table() const;
  std::string plot() const;
  double change(const Cell& cell) const { return cell.found.perplexity() / cells_[0].found.perplexity() - 1; }

  IndexOptions options_;
  CpuExec exec_;
  MemorySettings settings_;
  std::vector<IndexCase> cases_;
  std::vector<Cell> cells_;  // the first is dense
};

void IndexBench::check(const ModelConfig& config) {
  if (options_.model.index) input_error("--index: expected --lookups here, which takes several");
  if (options_.model.index_parameters)
    input_error("--index-parameters: expected --lookups here, such as ivf:probes=64");
  settings_ = options_.model.settings(config);
  if (settings_.mem_layers.empty()) {
    input_error("{}: expected memory layers, found none; choose some with --mem-layers", options_.model.model);
  }
  if (carries_over(settings_) || fills_up(settings_)) {
    input_error("--overlap, --sliding-window, --memory-window: expected plain windows, found others; leave it out");
  }
  if (options_.targets % settings_.window != 0) {
    input_error("--targets {}: expected a multiple of the window, {} tokens", options_.targets, settings_.window);
  }
  if (options_.stride > settings_.window) {
    input_error("--stride {}: expected at most the window, {} tokens", options_.stride, settings_.window);
  }
  const std::size_t k = options_.model.top_k.value_or(Lookup().top_k);
  std::size_t most = 0;
  cases_.push_back(IndexCase::parse("dense", k));
  for (const std::string& text : options_.lookups) {
    cases_.push_back(IndexCase::parse(text, k));
    require_lookup(config, cases_.back().lookup);
    if (cases_.back().queries && options_.memory < settings_.window) {
      input_error("lookup '{}': expected at least a window of memory, {} tokens, whose queries are used, found {}",
                  text, settings_.window, options_.memory);
    }
    most = std::max(most, index_bytes(entry_shape(config, settings_), cases_.back().lookup, options_.memory));
  }
  const std::size_t trials = options_.trials * options_.trial_length;
  const Precision precision = options_.model.precision();
  require_memory(weight_bytes(config, precision) +
                     Session::bytes(config, settings_, precision.compute, options_.memory + trials) + most +
                     settings_.window * config.vocab_size * sizeof(float),
                 "reading the text", "use a smaller --memory or fewer --trials");
}

/// False if it was interrupted.
bool IndexBench::measure(const Tokenizer& tokenizer, const Model& model) {
  const MappedFile text = open_text(options_.text);
  std::vector<std::int32_t> ids = tokenizer.encode(text.text(), true);
  const std::size_t needed = options_.memory + options_.targets;
  if (ids.size() < needed) {
    input_error("{}: expected at least {} tokens (--memory and --targets), found {}; use a longer text or smaller ones",
                options_.text, needed, ids.size());
  }
  try {
    IndexProbe probe(exec_, model, settings_, &interrupt_flag());
    {
      Progress progress("reading", 0, options_.memory, !options_.quiet);
      probe.read(std::span(ids).first(options_.memory), std::span(ids).subspan(options_.memory, options_.targets),
                 options_.stride, [&](std::size_t done) { progress.update(done); });
    }
    const RecallTrials trials(tokenizer, text.text());
    for (std::size_t trial = 0; trial < options_.trials; ++trial) {
      RecallTrial made = trials.make({.length = options_.trial_length}, options_.seed, trial);
      probe.read_trial(made);
    }
    Progress progress("lookups", 0, cases_.size(), !options_.quiet, "lookups");
    for (const IndexCase& each : cases_) {
      cells_.push_back({each, probe.measure(each, tokenizer)});
      progress.update(cells_.size());
    }
  } catch (const Interrupted&) {
    return false;
  }
  return true;
}

nlohmann::json IndexBench::report(const Model& model, bool complete) const {
  nlohmann::json cells = nlohmann::json::array();
  for (const Cell& cell : cells_) {
    const IndexQuality& found = cell.found;
    cells.push_back({{"lookup", cell.of.text},
                     {"top_k", cell.of.lookup.top_k},
                     {"recall", found.recall},
                     {"mass", found.mass},
                     {"error", found.error},
                     {"weight", found.weight},
                     {"scanned", found.scanned},
                     {"compared", found.compared},
                     {"seconds_per_token", found.seconds_per_token},
                     {"build_seconds", found.build_seconds},
                     {"bytes", found.bytes},
                     {"nll", found.nll},
                     {"tokens", found.targets},
                     {"perplexity", found.perplexity()},
                     {"perplexity_change", change(cell)},
                     {"correct", found.correct},
                     {"trials", found.trials}});
  }
  return {{"bench", "index"},
          {"model", options_.model.model},
          {"model_fingerprint", model.fingerprint},
          {"compute", name_of(model.precision.compute)},
          {"text", options_.text},
          {"memory_tokens", options_.memory},
          {"targets", options_.targets},
          {"stride", options_.stride},
          {"recalled", IndexProbe::kRecalled},
          {"trial_length", options_.trial_length},
          {"complete", complete},
          {"cells", cells}};
}

void IndexBench::print_table() const {
  std::size_t width = 6;
  for (const Cell& cell : cells_) width = std::max(width, cell.of.text.size());
  fmt::print("{}: {} tokens in memory, then {}\n", options_.text, options_.memory, options_.targets);
  fmt::print("{:{}} {:>5} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>8} {:>9}{}\n", "lookup", width, "k", "scanned",
             "recall", "mass", "error", "ms/token", "MiB", "ppl", "change", options_.trials > 0 ? "  keys" : "");
  for (const Cell& cell : cells_) {
    const IndexQuality& found = cell.found;
    fmt::print("{:{}} {:>5} {:>7.2f}% {:>8.4f} {:>8.4f} {:>8.4f} {:>9.3f} {:>9.1f} {:>8.3f} {:>+8.2f}%{}\n",
               cell.of.text, width, cell.of.lookup.kind == Lookup::Kind::dense ? 0 : cell.of.lookup.top_k,
               100 * (found.scanned + found.compared), found.recall, found.mass, found.error,
               1000 * found.seconds_per_token, static_cast<double>(found.bytes) / 1048576, found.perplexity(),
               100 * change(cell), found.trials > 0 ? fmt::format("  {}/{}", found.correct, found.trials) : "");
  }
}

/// Mass covered, and error, against keys scanned: a line for each lookup's settings.
std::string IndexBench::plot() const {
  std::string script;
  std::vector<std::string> names;
  const auto family = [](const Cell& cell) {
    const std::string name = cell.of.text.substr(0, cell.of.text.find(':'));
    return name + (cell.of.text.find("tail=on") != std::string::npos ? ", tail" : "");
  };
  for (const Cell& cell : cells_) {
    if (std::find(names.begin(), names.end(), family(cell)) == names.end()) names.push_back(family(cell));
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    script += fmt::format("$data{} << EOD\n", i);
    std::vector<const Cell*> cells;
    for (const Cell& cell : cells_) {
      if (family(cell) == names[i]) cells.push_back(&cell);
    }
    std::sort(cells.begin(), cells.end(),
              [](const Cell* a, const Cell* b) { return a->found.scanned < b->found.scanned; });
    for (const Cell* cell : cells) {
      script +=
          fmt::format("{} {} {}\n", cell->found.scanned + cell->found.compared, cell->found.mass, cell->found.error);
    }
    script += "EOD\n";
  }
  script += fmt::format(
      "set terminal svg size 900,420 font 'sans-serif,12' background '#ffffff'\nset output '{}'\n"
      "set multiplot layout 1,2\nset logscale x\nset xrange [0.001:1.5]\nset xtics ('0.1 %%' 0.001, '1 %%' 0.01, "
      "'5 %%' 0.05, '10 %%' 0.1, '100 %%' 1)\nset xlabel 'keys scanned'\nset grid\nset key bottom right\n",
      *options_.plot);
  const auto lines = [&](int column) {
    std::string text = "plot ";
    for (std::size_t i = 0; i < names.size(); ++i) {
      text += fmt::format("{}$data{} using 1:{} with linespoints linewidth 2 title '{}'", i > 0 ? ", " : "", i, column,
                          names[i]);
    }
    return text + "\n";
  };
  script += "set title 'weight on entries attended to'\nset yrange [0:1]\n" + lines(2);
  script += "set title 'error of the output'\nset yrange [0:*]\nset key top right\n" + lines(3);
  return script;
}

int IndexBench::run() {
  interrupt_flag();
  const ModelConfig config = read_model_config(options_.model.model);
  check(config);
  const Tokenizer tokenizer = Tokenizer::open(options_.model.model);
  require_vocabulary(tokenizer, config, options_.model.model);
  const Model model =
      load_model(exec_, options_.model.model, options_.model.precision(), options_.model.device_choice());
  const bool complete = measure(tokenizer, model);
  if (options_.json) {
    print_json(report(model, complete));
  } else if (!cells_.empty()) {
    print_table();
  }
  if (options_.plot && !cells_.empty()) draw_svg(*options_.plot, plot());
  return complete ? 0 : 1;
}

}  // namespace

Subcommand add_bench_index(CLI::App& bench) {
  CLI::App* app = bench.add_subcommand(
      "index", "How well lookups find what dense attention to a text attends to, and what that costs");
  const auto options = std::make_shared<IndexOptions>();
  options->model.add_to(*app);
  app->add_option("--text", options->text, "A text file (UTF-8)")->required();
  app->add_option("--lookups", options->lookups,
                  "Lookups beside dense: NAME or NAME:PARAMETERS, among them k=N for another --top-k, and for ivf "
                  "queries=on for lists "
                  "by distances as the queries of the last window of memory see them")
      ->capture_default_str();
  add_count(*app, "--memory", options->memory, "Tokens of the text in memory", {.least = 1});
  add_count(*app, "--targets", options->targets, "Tokens after them that are scored, whole windows", {.least = 1});
  add_count(*app, "--stride", options->stride, "Of so many targets the queries of one are compared", {.least = 1});
  add_count(*app, "--trials", options->trials, "Pass keys asked for under each lookup");
  add_count(*app, "--trial-length", options->trial_length, "Tokens of a pass key's document and question",
            {.least = 2});
  add_count(*app, "--seed", options->seed, "Seed of the pass keys");
  app->add_option("--plot", options->plot, "Also draw weight and error against keys scanned to this SVG file");
  app->add_flag("--quiet", options->quiet, "No progress");
  app->add_flag("--json", options->json, "Print one JSON object");
  return {app, [options] { return IndexBench(*options).run(); }};
}

}  // namespace memlane
