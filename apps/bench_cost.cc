#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>

#include "apps/bench_methods.h"
#include "apps/commands.h"
#include "apps/count_option.h"
#include "apps/interrupt.h"
#include "apps/measured_child.h"
#include "apps/model_options.h"
#include "apps/output.h"
#include "apps/progress.h"
#include "kernels/stopwatch.h"
#include "runtime/cost_estimate.h"
#include "runtime/median.h"
#include "runtime/resources.h"
#include "runtime/text_reader.h"

namespace memlane {

namespace {

struct CostOptions {
  ModelOptions model;
  std::vector<std::string> methods = {"memory", "none"};
  std::vector<std::size_t> lengths = {2048, 8192, 32768};
  std::size_t decode = 16;
  bool quiet = false;
  bool json = false;
};

constexpr std::size_t kQuestion = 32;  // tokens that stay local with memory, as a question's do

/// Loads the model, reads a text and generates after it; in a process of its own. The tokens are random: what they are
/// changes no cost but that of an approximate index.
nlohmann::json measure(const CostOptions& options, const Method& method, std::size_t length) {
  CpuExec exec = options.model.make_exec();
  const Lookup lookup =
      options.model.lookup(*std::max_element(options.lengths.begin(), options.lengths.end()), options.quiet);
  const Model model = load_model(exec, options.model.model, options.model.precision(), options.model.device_choice());
  const MethodSettings settings =
      method.settings(model.config, options.model.settings(model.config), length, options.decode);
  std::mt19937_64 random(length);
  std::vector<std::int32_t> ids(length + options.decode);
  for (std::int32_t& id : ids) id = static_cast<std::int32_t>(random() % model.config.vocab_size);
  std::vector<float> logits(model.config.vocab_size);
  Progress progress(fmt::format("{} {}", method.text(), length), 0, length, !options.quiet);
  TextReader reader({exec, model, lookup, &interrupt_flag(), [&](std::size_t done) { progress.update(done); }},
                    settings);
  Stopwatch watch;
  const auto prompt = std::span(ids).first(length);
  reader.read(prompt, std::min(length, kQuestion), options.decode, logits);
  const double prefill = watch.seconds();
  const std::size_t local = reader.session() == nullptr ? reader.tokens_read() : reader.session()->local_length();
  const std::size_t remembered = reader.session() == nullptr ? 0 : reader.session()->memory_length();
  std::vector<double> decode;
  for (std::size_t i = 0; i < options.decode; ++i) {
    watch.restart();
    reader.feed(ids[length + i], logits);
    decode.push_back(watch.seconds());
  }
  const double reads =
      bytes_read_per_token(model.config, settings.memory, model.precision, lookup, {local, remembered});
  return {{"method", method.text()},
          {"model_fingerprint", model.fingerprint},
          {"length", length},
          {"window", settings.memory.window},
          {"tokens", reader.tokens_read()},
          {"local_tokens", local},
          {"memory_tokens", remembered},
          {"prefill_seconds", prefill},
          {"prefill_seconds_per_token", prefill / static_cast<double>(reader.tokens_read())},
          {"decode_tokens", options.decode},
          {"decode_seconds_per_token", median(decode)},
          {"bytes_read_per_token", reads}};
}

void print_table(const nlohmann::json& cells) {
  std::size_t width = 6;
  for (const auto& cell : cells) width = std::max(width, cell.at("method").get_ref<const std::string&>().size());
  fmt::print("{:{}} {:>9} {:>9} {:>16} {:>15} {:>12} {:>12}\n", "method", width, "length", "read", "prefill ms/token",
             "decode ms/token", "peak memory", "reads/token");
  for (const auto& cell : cells) {
    fmt::print("{:{}} {:>9} {:>9} {:>16.4f} {:>15.3f} {:>12} {:>12}\n", cell.at("method").get<std::string>(), width,
               cell.at("length").get<std::size_t>(), cell.at("tokens").get<std::size_t>(),
               1000 * cell.at("prefill_seconds_per_token").get<double>(),
               1000 * cell.at("decode_seconds_per_token").get<double>(),
               bytes_text(cell.at("peak_bytes").get<std::uint64_t>()),
               bytes_text(static_cast<std::uint64_t>(cell.at("bytes_read_per_token").get<double>())));
  }
}

/// Throws InputError for whatever cannot be, before anything is measured.
void check_cells(const CostOptions& options, const std::vector<Method>& methods, const ModelConfig& config,
                 const Lookup& lookup, Precision precision) {
  instruction_set_named(options.model.instruction_set.c_str());
  require_lookup(config, lookup);
  const MemorySettings base = options.model.settings(config);
  require_memory(weight_bytes(config, precision), fmt::format("the weights of {}", options.model.model),
                 "use --weights int8 or int4, or a machine with more memory");
  for (const Method& method : methods) {
    for (const std::size_t length : options.lengths) {
      const MethodSettings settings = method.settings(config, base, length, options.decode);
      require_question_room(settings, std::min(length, kQuestion), options.decode, length, method.text());
      require_method_room(config, settings, precision.compute, lookup, length + options.decode, method.text());
    }
  }
}

/// Nothing here may start a thread or load a model: the children have this process as their beginning.
int bench_cost(const CostOptions& options) {
  interrupt_flag();
  check_lengths("--lengths", options.lengths);
  const std::vector<Method> methods = parse_methods(options.methods);
  const Lookup lookup =
      options.model.lookup(*std::max_element(options.lengths.begin(), options.lengths.end()), options.quiet);
  const ModelConfig config = read_model_config(options.model.model);
  const Precision precision = options.model.precision();
  check_cells(options, methods, config, lookup, precision);
  nlohmann::json cells = nlohmann::json::array();
  bool complete = true;
  for (const std::size_t length : options.lengths) {
    for (const Method& method : methods) {
      if (!complete) break;
      complete = run_cell_safely(cell_name(method, length), !cells.empty(), [&] {
        const auto result = run_in_child([&] { return measure(options, method, length); });
        if (!result) return false;
        cells.push_back(result->found);
        cells.back()["peak_bytes"] = result->peak_bytes;
        return true;
      });
    }
  }
  if (options.json) {
    print_json({{"bench", "cost"},
                {"model", options.model.model},
                {"model_fingerprint", cells.empty() ? "" : cells.front().value("model_fingerprint", "")},
                {"compute", name_of(precision.compute)},
                {"weights", name_of(precision.weights)},
                {"lookup", lookup.name()},
                {"threads", options.model.threads},
                {"instruction_set", options.model.instruction_set},
                {"weight_bytes", weight_bytes(config, precision)},
                {"complete", complete},
                {"cells", cells}});
  } else if (!cells.empty()) {
    print_table(cells);
  }
  return complete ? 0 : 1;
}

}  // namespace

Subcommand add_bench_cost(CLI::App& bench) {
  CLI::App* app = bench.add_subcommand(
      "cost", "Time and memory of methods: every one at every length in a process of its own, over random tokens");
  const auto options = std::make_shared<CostOptions>();
  options->model.add_to(*app);
  add_methods(*app, options->methods);
  add_counts(*app, "--lengths", options->lengths, "Tokens of text, separated by commas");
  add_count(*app, "--decode", options->decode, "Tokens generated after the text; their median time counts",
            {.least = 1, .most = 4096});
  app->add_flag("--quiet", options->quiet, "No progress");
  app->add_flag("--json", options->json, "Print one JSON object");
  return {app, [options] { return bench_cost(*options); }};
}

}  // namespace memlane
