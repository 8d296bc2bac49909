#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "apps/bench_run/child.h"
#include "apps/bench_speed/report.h"
#include "apps/commands.h"
#include "apps/count_option.h"
#include "apps/drawing.h"
#include "apps/interrupt.h"
#include "apps/model_options.h"
#include "apps/output.h"
#include "runtime/resources.h"
#include "runtime/speed.h"
#include "runtime/stored_memory.h"

namespace memlane {

namespace {

struct Shape {
  std::size_t layers, hidden, ffn, heads, kv_heads, head_dim, vocab;
  const char* mem_layers;
};
/// a: LongLLaMA-3B; b: a small Llama.
constexpr Shape kShapeA = {26, 3200, 8640, 32, 32, 100, 32000, "6,12,18"};
constexpr Shape kShapeB = {12, 768, 2048, 12, 12, 64, 32000, "4,8"};

struct SpeedOptions {
  ModelOptions model;
  std::optional<std::string> shape;
  std::optional<std::size_t> layers, hidden, ffn, heads, kv_heads, head_dim, vocab;
  std::vector<std::string> what = {"prefill", "decode", "ingest"};
  std::vector<std::string> lookups = {"dense", "exact"};
  std::vector<std::size_t> memory = {0, 16384, 65536, 262144};
  std::size_t rounds = 5;
  std::size_t decode_tokens = 8;
  std::size_t ring_megabytes = 1024;
  std::optional<std::string> plot;
  bool json = false;

  bool random() const { return model.model.empty(); }
};

/// What is not given of a shape comes from the preset, b by default.
ModelConfig random_config(const SpeedOptions& options, std::string& mem_layers) {
  const std::string preset = options.shape.value_or("b");
  if (preset != "a" && preset != "b") input_error("--shape {}: expected a or b", preset);
  const Shape& shape = preset == "a" ? kShapeA : kShapeB;
  ModelConfig config;
  config.model_type = "longllama";
  config.num_layers = options.layers.value_or(shape.layers);
  config.hidden_size = options.hidden.value_or(shape.hidden);
  config.intermediate_size = options.ffn.value_or(shape.ffn);
  config.num_heads = options.heads.value_or(shape.heads);
  config.num_kv_heads = options.kv_heads.value_or(options.heads ? config.num_heads : shape.kv_heads);
  config.head_dim = options.head_dim.value_or(shape.head_dim);
  config.vocab_size = options.vocab.value_or(shape.vocab);
  config.max_position_embeddings = options.model.window.value_or(2048);
  config.rms_norm_eps = 1e-5F;
  if (config.num_kv_heads > config.num_heads || config.num_heads % config.num_kv_heads != 0) {
    input_error("--kv-heads {}: expected a divisor of the {} heads", config.num_kv_heads, config.num_heads);
  }
  if (config.head_dim % 2 != 0) input_error("--head-dim {}: expected an even number", config.head_dim);
  mem_layers = options.layers ? fmt::format("{}", config.num_layers / 2) : shape.mem_layers;
  return config;
}

void check(const SpeedOptions& options) {
  const bool shaped = options.shape || options.layers || options.hidden || options.ffn || options.heads ||
                      options.kv_heads || options.head_dim || options.vocab;
  if (!options.random() && shaped) {
    input_error("--model {}: has a shape of its own; leave out --shape, --layers and the like, or --model",
                options.model.model);
  }
  if (options.model.index) input_error("--index: expected --lookups here, of dense, exact, int8 and ivf");
  for (const std::string& what : options.what) {
    if (what != "prefill" && what != "decode" && what != "ingest") {
      input_error("--what {}: expected prefill, decode or ingest", what);
    }
  }
  for (const std::string& lookup : options.lookups) {
    if (lookup != "dense" && lookup != "exact" && lookup != "int8" && lookup != "ivf") {
      input_error("--lookups {}: expected dense, exact, int8 or ivf", lookup);
    }
  }
  for (const std::size_t entries : options.memory) {
    if (entries % SpeedRun::kSegment != 0) {
      input_error("--memory {}: expected multiples of {} entries", entries, SpeedRun::kSegment);
    }
  }
}

/// The cases in the order in which they are measured: by what, lookup, memory.
std::vector<SpeedCase> cases_of(const SpeedOptions& options, const MemorySettings& settings) {
  using Kind = SpeedCase::Kind;
  std::vector<SpeedCase> cases;
  for (const std::string& what : options.what) {
    const Kind kind = what == "prefill" ? Kind::prefill : what == "decode" ? Kind::decode : Kind::ingest;
    if (kind == Kind::ingest && settings.mem_layers.empty()) continue;
    for (const std::size_t entries : options.memory) {
      if (entries > 0 && (kind == Kind::prefill || settings.mem_layers.empty())) continue;
      for (const std::string& name : options.lookups) {
        Lookup lookup = Lookup::named(name);
        lookup.top_k = options.model.top_k.value_or(lookup.top_k);
        if (entries > 0 || name == options.lookups.front()) cases.push_back({kind, lookup, entries});
      }
    }
  }
  if (cases.empty()) input_error("--what, --memory: nothing to measure; give 0 among --memory, or memory layers");
  return cases;
}

std::string shape_text(const ModelConfig& config, const MemorySettings& settings) {
  return fmt::format("{} layers, hidden {}, ffn {}, {} heads of {}, {} kv heads, vocabulary {}, memory layers {}",
                     config.num_layers, config.hidden_size, config.intermediate_size, config.num_heads, config.head_dim,
                     config.num_kv_heads, config.vocab_size, layers_text(settings.mem_layers));
}

int bench_speed(const SpeedOptions& given) {
  const std::atomic<bool>& stop = interrupt_flag();
  check(given);
  SpeedOptions options = given;
  std::string mem_layers;
  const ModelConfig config =
      options.random() ? random_config(options, mem_layers) : read_model_config(options.model.model);
  if (options.random() && !options.model.mem_layers) options.model.mem_layers = mem_layers;
  SpeedRun::Settings settings{.memory = options.model.settings(config),
                              .most_entries = 0,
                              .decode_tokens = options.decode_tokens,
                              .ring_bytes = options.ring_megabytes << 20,
                              .stop = &stop};
  if (options.decode_tokens >= settings.memory.window) {
    input_error("--decode-tokens {}: expected fewer than the window's {}", options.decode_tokens,
                settings.memory.window);
  }
  const std::vector<SpeedCase> cases = cases_of(options, settings.memory);
  std::size_t most_index = 0;
  for (const SpeedCase& each : cases) {
    settings.most_entries = std::max(settings.most_entries, each.memory);
    most_index = std::max(most_index, index_bytes(entry_shape(config, settings.memory), each.lookup, each.memory));
  }
  if (!options.model.device_choice().is_cpu()) {
    input_error("--device {}: expected cpu, whose kernels bench speed times", options.model.device);
  }
  if (options.random() && !options.model.compute) options.model.compute = name_of(DType::bf16);
  const Precision precision = options.model.precision();
  const std::size_t weights = weight_bytes(config, precision);
  // A random model is packed from its largest matrix, which then goes, and has an embedding table.
  const std::size_t sources =
      options.random() ? 2 * std::max(config.vocab_size, config.intermediate_size) * config.hidden_size * 2 : 0;
  const std::size_t beside = SpeedRun::bytes(config, precision, settings) + most_index;
  fmt::print(stderr,
             "{}\n{} cases of {} rounds; {} for weights, {} for {} entries of memory, activations and the ring\n",
             shape_text(config, settings.memory), cases.size(), options.rounds, bytes_text(weights), bytes_text(beside),
             settings.most_entries);
  require_memory(weights + std::max(sources, beside) + sources / 2, "bench speed",
                 "use a smaller --memory or shape, or a machine with more memory");

  CpuExec exec = options.model.make_exec();
  std::unique_ptr<RandomModel> random;
  std::optional<Model> loaded;
  if (options.random()) random = random_model(exec, config, precision);
  if (!options.random()) loaded = load_model(exec, options.model.model, precision);
  const Model& model = random ? random->model : *loaded;
  SpeedRun run(exec, model, settings);
  std::vector<SpeedCell> cells;
  bool complete = true;
  try {
    for (const SpeedCase& each : cases) {
      if (stop.load()) throw Interrupted("stopped");
      cells.push_back(run.measure(each, options.rounds));
    }
  } catch (const Interrupted&) {
    complete = false;
  }
  if (options.plot && !cells.empty() && complete) {
    draw_svg(*options.plot, plot_of(cells, precision, shape_text(config, settings.memory), *options.plot));
  }
  if (options.json) {
    nlohmann::json measured = nlohmann::json::array();
    for (const SpeedCell& cell : cells) measured.push_back(json_of(cell, precision));
    print_json({{"bench", "speed"},
                {"model", options.random() ? "random" : options.model.model},
                {"shape",
                 {{"layers", config.num_layers},
                  {"hidden", config.hidden_size},
                  {"ffn", config.intermediate_size},
                  {"heads", config.num_heads},
                  {"kv_heads", config.num_kv_heads},
                  {"head_dim", config.head_dim},
                  {"vocab", config.vocab_size},
                  {"mem_layers", settings.memory.mem_layers}}},
                {"window", settings.memory.window},
                {"top_k", options.model.top_k.value_or(Lookup{}.top_k)},
                {"compute", name_of(precision.compute)},
                {"weights", name_of(precision.weights)},
                {"threads", options.model.threads},
                {"instruction_set", options.model.instruction_set},
                {"weight_bytes", weights},
                {"peak_bytes", peak_memory()},
                {"limits", limits_json(cells)},
                {"complete", complete},
                {"cells", measured}});
  } else if (!cells.empty()) {
    print_text(table_of(cells, precision) + fmt::format("peak memory {}\n", bytes_text(peak_memory())));
  }
  return complete ? 0 : 1;
}

}  // namespace

Subcommand add_bench_speed(CLI::App& bench) {
  CLI::App* app =
      bench.add_subcommand("speed",
                           "Prefill, decoding and reading at growing memory by stage, beside this machine's "
                           "limits in the same run; random weights of any shape, or a model");
  const auto options = std::make_shared<SpeedOptions>();
  options->model.add_to(*app);
  app->get_option("--model")->required(false)->description("Measure this model's weights, not random ones");
  app->add_option("--shape", options->shape, "a: LongLLaMA-3B; b: 12 layers of 768 (default: b)");
  constexpr CountRange kSize = {.least = 1, .most = std::size_t{1} << 20};
  add_count(*app, "--layers", options->layers, "Layers, the one in the middle with memory", kSize);
  add_count(*app, "--hidden", options->hidden, "Width of the residual stream", kSize);
  add_count(*app, "--ffn", options->ffn, "Width of the feed-forward layers", kSize);
  add_count(*app, "--heads", options->heads, "Query heads", kSize);
  add_count(*app, "--kv-heads", options->kv_heads, "Key/value heads (default: as many)", kSize);
  add_count(*app, "--head-dim", options->head_dim, "Numbers in a head", kSize);
  add_count(*app, "--vocab", options->vocab, "Tokens in the vocabulary", kSize);
  app->add_option("--what", options->what, "Of prefill, decode and ingest")->delimiter(',')->capture_default_str();
  app->add_option("--lookups", options->lookups, "Of dense, exact, int8 and ivf")
      ->delimiter(',')
      ->capture_default_str();
  add_counts(*app, "--memory", options->memory, "Entries of memory to measure with, separated by commas");
  add_count(*app, "--rounds", options->rounds, "Rounds of each case; their median counts", {.least = 1, .most = 1000});
  add_count(*app, "--decode-tokens", options->decode_tokens, "Tokens decoded in a round", {.least = 1, .most = 4096});
  add_count(*app, "--ring-mib", options->ring_megabytes, "MiB that the bandwidth of reading is measured over",
            {.least = 1, .most = 65536});
  app->add_option("--plot", options->plot, "Also draw the stages to this SVG file (needs gnuplot)");
  app->add_flag("--json", options->json, "Print one JSON object");
  return {app, [options] { return bench_speed(*options); }};
}

}  // namespace memlane
