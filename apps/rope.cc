#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/count_option.h"
#include "apps/output.h"
#include "apps/value_option.h"
#include "kernels/error.h"
#include "runtime/model_config.h"
#include "runtime/rope_report.h"
#include "runtime/strict_json.h"

namespace memlane {

namespace {

constexpr std::size_t kMostHeadDim = std::size_t{1} << 14;

struct RopeOptions {
  std::optional<std::string> model, rope, memory_rope;
  std::optional<std::size_t> head_dim, length, original_length;
  std::optional<std::string> method;
  std::optional<double> factor;
  RopeScaling scaling;  ///< what the other flags say
  bool json = false;
};

/// A kind of layers and how it rotates.
struct Kind {
  std::string name;
  RopeScaling scaling;
  RopeUse use;
};

/// The scaling that flags alone describe. Flags that a method does not use are let be, so that one line can be tried
/// with every method.
Kind kind_of_flags(const RopeOptions& options) {
  if (options.rope || options.memory_rope) {
    input_error("--rope, --memory-rope: expected --model with them; without a model say --method and its flags");
  }
  if (!options.head_dim || *options.head_dim % 2 != 0) {
    input_error("--head-dim: expected an even number of dimensions (or --model DIR), found {}",
                options.head_dim ? std::to_string(*options.head_dim) : "none");
  }
  const std::size_t original = options.original_length.value_or(2048);
  const RopeScaling base{.theta = options.scaling.theta, .original_length = original};
  const std::string name = options.method.value_or("none");
  if (name.find(':') != std::string::npos) input_error("--method {}: expected a name alone; the rest are flags", name);
  RopeScaling scaling = options.scaling;
  scaling.method = parse_rope_scaling("--method", name == "base" ? "none" : name, base, original).method;
  scaling.original_length = original;
  const bool dynamic = depends_on_length(scaling) && scaling.method != RopeMethod::longrope;
  if (!options.factor && uses_factor(scaling.method) && !dynamic) {
    input_error("--factor: expected one with the method {}, found none", name);
  }
  scaling.factor = options.factor.value_or(1);
  check_rope_scaling(scaling, *options.head_dim, "rope");
  Kind kind = {"all layers", scaling, {.head_dim = *options.head_dim, .length = options.length.value_or(original)}};
  if (scaling.method == RopeMethod::dynamic_linear) kind.use.unused_factor = options.factor;
  return kind;
}

/// A factor in the config that the reader of the config leaves out of account.
std::optional<double> unused_factor(const std::string& model, const RopeScaling& scaling, const std::string& kind) {
  if (scaling.method != RopeMethod::dynamic_linear && scaling.method != RopeMethod::dynamic_yarn) return std::nullopt;
  const nlohmann::json config = read_json_object(std::filesystem::path(model) / "config.json", "model config");
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!config.contains(key) || !config[key].is_object()) continue;
    nlohmann::json object = config[key];
    if (object.contains(kind)) object = object[kind];
    if (object.value("finetuned", false) && scaling.method == RopeMethod::dynamic_yarn) continue;
    if (object.contains("factor") && object["factor"].is_number() && object["factor"] != 1) return object["factor"];
  }
  return std::nullopt;
}

std::vector<Kind> kinds_of_model(const RopeOptions& options) {
  if (options.head_dim || options.method || options.factor || options.original_length) {
    input_error(
        "--model: expected without --head-dim, --method, --factor and --original-length, which describe a scaling "
        "without a model; to try another one on this model say --rope METHOD:key=value");
  }
  if (options.scaling != RopeScaling{}) {
    input_error(
        "--model: expected without the flags of a scaling; to try one on this model say --rope METHOD:key=value");
  }
  const ModelConfig config = read_model_config(*options.model);
  MemoryOverrides overrides;
  overrides.rope = options.rope;
  overrides.memory_rope = options.memory_rope;
  if (options.length && *options.length > config.max_position_embeddings && !options.rope) {
    overrides.rope = to_text(config.rope);  // asked to extrapolate
  }
  overrides.window = options.length;
  if (options.length) overrides.last_context_length = 1;
  const MemorySettings settings = resolve_memory_settings(config, overrides);
  const RopeUse use{.head_dim = config.head_dim,
                    .length = settings.window,
                    .max_position_embeddings = config.max_position_embeddings};
  std::vector<Kind> kinds = {{settings.mem_layers.empty() ? "all layers" : "plain layers", settings.rope, use}};
  if (!settings.mem_layers.empty()) {
    kinds.push_back({"memory layers", settings.memory_rope, use});
    kinds.back().use.memory = true;
    kinds.back().use.length = settings.memory_window;
    if (!options.memory_rope) {
      kinds.back().use.unused_factor = unused_factor(*options.model, settings.memory_rope, "memory_attention");
    }
  }
  if (!options.rope) kinds.front().use.unused_factor = unused_factor(*options.model, settings.rope, "full_attention");
  return kinds;
}

nlohmann::json to_json(const Kind& kind, const RopeReport& report) {
  nlohmann::json ramp = nullptr;
  if (report.ramp) ramp = {{"low", report.ramp->low}, {"high", report.ramp->high}};
  nlohmann::json wavelengths = nlohmann::json::array(), bands = nlohmann::json::array();
  for (const RopePair& pair : report.pairs) {
    wavelengths.push_back(pair.wavelength);
    bands.push_back(name_of(pair.band));
  }
  return {{"layers", kind.name},
          {"method", name_of(kind.scaling.method)},
          {"text", to_text(kind.scaling)},
          {"head_dim", kind.use.head_dim},
          {"rope_theta", kind.scaling.theta},
          {"factor", report.factor},
          {"base", report.base},
          {"original_length", kind.scaling.original_length},
          {"length", kind.use.length},
          {"ramp", ramp},
          {"attention_factor", report.frequencies.attention_factor},
          {"inv_freq", report.frequencies.inv_freq},
          {"wavelengths", wavelengths},
          {"bands", bands},
          {"pairs_that_turn_less_than_half_a_radian", report.still_pairs},
          {"warnings", report.warnings}};
}

std::string to_lines(const Kind& kind, const RopeReport& report) {
  std::string text = fmt::format("{}: {}\n", kind.name, name_of(kind.scaling.method));
  text += fmt::format("  base {:.6g} (rope_theta {:g}), factor {:.6g}, attention factor {:.6g}\n", report.base,
                      kind.scaling.theta, report.factor, report.frequencies.attention_factor);
  text += fmt::format("  original length {} tokens, current length {} tokens\n", kind.scaling.original_length,
                      kind.use.length);
  if (report.ramp) text += fmt::format("  ramp from pair {:.4g} to pair {:.4g}\n", report.ramp->low, report.ramp->high);
  text += fmt::format("  {} of {} pairs turn less than half a radian within {} tokens\n", report.still_pairs,
                      report.pairs.size(), kind.use.length);
  text += fmt::format("  {:>5} {:>14} {:>14} {:>12}  {}\n", "pair", "wavelength", "unscaled", "turns", "band");
  for (std::size_t i = 0; i < report.pairs.size(); ++i) {
    const RopePair& pair = report.pairs[i];
    text += fmt::format("  {:>5} {:>14.6g} {:>14.6g} {:>12.4g}  {}\n", i, pair.wavelength, pair.unscaled_wavelength,
                        pair.turns, name_of(pair.band));
  }
  for (const std::string& warning : report.warnings) text += fmt::format("  warning: {}\n", warning);
  return text;
}

int show_rope(const RopeOptions& options) {
  const std::vector<Kind> kinds = options.model ? kinds_of_model(options) : std::vector{kind_of_flags(options)};
  nlohmann::json json;
  std::string text;
  for (const Kind& kind : kinds) {
    const RopeReport report = rope_report(kind.scaling, kind.use);
    if (&kind == &kinds.front()) {
      json = to_json(kind, report);
    } else {
      json["memory"] = to_json(kind, report);
    }
    text += to_lines(kind, report);
  }
  if (options.json) {
    print_json(json);
  } else {
    print_text(text);
  }
  return 0;
}

}  // namespace

Subcommand add_rope(CLI::App& program) {
  CLI::App* app = program.add_subcommand("rope", "Say what a RoPE scaling does, and where it hurts");
  const auto options = std::make_shared<RopeOptions>();
  RopeScaling& scaling = options->scaling;
  app->add_option("--model", options->model, "Folder of a model, whose config is looked at");
  app->add_option("--rope", options->rope, "With --model: try this in its plain layers, METHOD[:key=value]...");
  app->add_option("--memory-rope", options->memory_rope, "With --model: the same for its memory layers");
  add_count(*app, "--length", options->length,
            "The current length in tokens (default: the window of the model, else the original length)", {.least = 1});
  add_count(*app, "--head-dim", options->head_dim, "Dimensions of a head", {.least = 2, .most = kMostHeadDim});
  add_number(*app, "--rope-theta", scaling.theta, "The base");
  app->add_option("--method", options->method,
                  "none, linear, ntk-aware, ntk-by-parts, ntk-by-parts-paper, yarn, dynamic-ntk, dynamic-linear, "
                  "dynamic-yarn, llama3 or longrope (default: none)");
  add_number(*app, "--factor", options->factor, "How many times the original length is wanted");
  add_count(*app, "--original-length", options->original_length, "Tokens the model was trained on (default: 2048)",
            {.least = 1});
  add_number(*app, "--beta-fast", scaling.beta_fast, "Turns from which a pair is not interpolated");
  add_number(*app, "--beta-slow", scaling.beta_slow, "Turns up to which a pair is interpolated");
  add_choice(*app, "--truncate", scaling.truncate, {{"true", true}, {"false", false}},
             "Round the ends of YaRN's ramp: true or false");
  add_number(*app, "--attention-factor", scaling.attention_factor, "In place of the method's own");
  add_number(*app, "--mscale", scaling.mscale, "Of YaRN");
  add_number(*app, "--mscale-all-dim", scaling.mscale_all_dim, "Of YaRN");
  add_number(*app, "--low-freq-factor", scaling.low_freq_factor, "Of llama3");
  add_number(*app, "--high-freq-factor", scaling.high_freq_factor, "Of llama3");
  add_numbers(*app, "--short-factor", scaling.short_factor, "Of longrope: head-dim / 2 numbers, separated by commas");
  add_numbers(*app, "--long-factor", scaling.long_factor, "Of longrope: head-dim / 2 numbers, separated by commas");
  app->add_flag("--json", options->json, "Print one JSON object");
  return {app, [options] { return show_rope(*options); }};
}

}  // namespace memlane
