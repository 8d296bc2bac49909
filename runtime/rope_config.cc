#include "runtime/rope_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kernels/error.h"
#include "runtime/strict_json.h"

namespace memlane {

namespace {

using nlohmann::json;

constexpr double kMostTheta = 1e30;
constexpr double kMostFactor = 1e6;
constexpr std::size_t kMostPositions = std::size_t{1} << 30;
constexpr std::string_view kOriginal = "original_max_position_embeddings";

struct NamedMethod {
  std::string_view type;
  RopeMethod method;
};

constexpr std::array kTypes = {
    NamedMethod{"default", RopeMethod::none},
    NamedMethod{"none", RopeMethod::none},
    NamedMethod{"linear", RopeMethod::linear},
    NamedMethod{"ntk", RopeMethod::ntk_aware},
    NamedMethod{"ntk-aware", RopeMethod::ntk_aware},
    NamedMethod{"ntk-by-parts", RopeMethod::ntk_by_parts},
    NamedMethod{"ntk-by-parts-paper", RopeMethod::ntk_by_parts_paper},
    NamedMethod{"yarn", RopeMethod::yarn},
    NamedMethod{"dynamic", RopeMethod::dynamic_ntk},
    NamedMethod{"dynamic-ntk", RopeMethod::dynamic_ntk},
    NamedMethod{"dynamic-linear", RopeMethod::dynamic_linear},
    NamedMethod{"dynamic-yarn", RopeMethod::dynamic_yarn},
    NamedMethod{"llama3", RopeMethod::llama3},
    NamedMethod{"longrope", RopeMethod::longrope},
    NamedMethod{"su", RopeMethod::longrope},
};

RopeMethod method_of(const ConfigKeys& keys) {
  std::optional<RopeMethod> found;
  for (const std::string_view key : {"rope_type", "type"}) {
    if (keys.absent_or_null(key)) continue;
    const std::string type = keys.text(key, "", "the name of a RoPE type");
    const auto named = std::find_if(kTypes.begin(), kTypes.end(), [&](const auto& each) { return each.type == type; });
    if (named == kTypes.end()) {
      std::vector<std::string_view> names;
      for (const NamedMethod& each : kTypes) names.push_back(each.type);
      input_error("{}: {}{} {} is not supported; expected one of {}", keys.file().string(), keys.prefix(), key,
                  shown(type), fmt::join(names, ", "));
    }
    if (found && *found != named->method) keys.refuse(key, "the same as rope_type");
    found = named->method;
  }
  return found.value_or(RopeMethod::none);
}

/// The keys that go with a method, beside those of every method.
std::set<std::string_view> keys_of(RopeMethod method, bool has_alpha) {
  std::set<std::string_view> keys = {"rope_type", "type", "rope_theta", "partial_rotary_factor"};
  if (method == RopeMethod::none) return keys;
  keys.insert({"factor", kOriginal});
  if (method == RopeMethod::dynamic_ntk) keys.insert("alpha");
  // Configs with alpha (Hunyuan's) carry YaRN's defaults along, which nothing reads.
  if (has_alpha) keys.insert({"beta_fast", "beta_slow", "mscale", "mscale_all_dim"});
  switch (method) {
    case RopeMethod::yarn:
    case RopeMethod::dynamic_yarn:
      keys.insert({"attention_factor", "attn_factor", "extrapolation_factor", "mscale", "mscale_all_dim", "finetuned"});
      [[fallthrough]];
    case RopeMethod::ntk_by_parts:
      keys.insert("truncate");
      [[fallthrough]];
    case RopeMethod::ntk_by_parts_paper:
      keys.insert({"beta_fast", "beta_slow"});
      break;
    case RopeMethod::llama3:
      keys.insert({"low_freq_factor", "high_freq_factor"});
      break;
    case RopeMethod::longrope:
      keys.insert({"short_factor", "long_factor", "attention_factor"});
      break;
    default:
      break;
  }
  return keys;
}

void require_known_keys(const ConfigKeys& keys, RopeMethod method) {
  const std::set<std::string_view> known =
      keys_of(method, method == RopeMethod::dynamic_ntk && !keys.absent_or_null("alpha"));
  for (const auto& [name, value] : keys.object().items()) {
    if (known.contains(name) && (name != "partial_rotary_factor" || value.is_null() || value == 1)) continue;
    input_error("{}: {}{} {} is not supported; with the type \"{}\" expected only {}", keys.file().string(),
                keys.prefix(), shown(name), describe(value), method == RopeMethod::none ? "default" : name_of(method),
                fmt::join(known, ", "));
  }
}

std::vector<double> read_divisors(const ConfigKeys& keys, std::string_view key, std::size_t size) {
  const json* value = keys.find(key);
  const std::string expected = fmt::format("a list of {} numbers from 1e-6 to 1e6, one for each pair of a head", size);
  if (value == nullptr || !value->is_array() || value->size() != size) keys.refuse(key, expected);
  std::vector<double> divisors;
  for (const json& each : *value) {
    const double divisor = each.is_number() ? each.get<double>() : 0;
    if (!(divisor >= 1e-6 && divisor <= 1e6)) keys.refuse(key, expected, fmt::format("{} is none", describe(each)));
    divisors.push_back(divisor);
  }
  return divisors;
}

std::optional<double> optional_number(const ConfigKeys& keys, std::string_view key, double least, double most) {
  if (keys.absent_or_null(key)) return std::nullopt;
  return keys.number_or_null(key, 0, least, most);
}

/// The factor of a config; has_original: whether it names the original length too.
void read_factor(const ConfigKeys& keys, RopeScaling& scaling, bool has_original, std::size_t max_positions) {
  const double ratio = static_cast<double>(max_positions) / static_cast<double>(scaling.original_length);
  const bool said = !keys.absent_or_null("factor");
  scaling.factor = keys.number_or_null("factor", 1, 1, kMostFactor);
  const bool finetuned = scaling.method == RopeMethod::dynamic_yarn && keys.boolean("finetuned", false);
  if (finetuned && !said) {
    scaling.factor = std::max(1.0, ratio);
  } else if (!finetuned &&
             (scaling.method == RopeMethod::dynamic_yarn || scaling.method == RopeMethod::dynamic_linear)) {
    // The YaRN code does not look at the factor here: it starts from none, or from the trained one if finetuned.
    scaling.factor = 1;
  } else if (!keys.absent_or_null("alpha")) {
    // vLLM and Hunyuan: a static NTK factor under the name of the dynamic method.
    scaling.method = RopeMethod::ntk_aware;
    scaling.factor = keys.number_or_null("alpha", 1, 1, kMostFactor);
  } else if (!said) {
    const bool from_ratio = scaling.method == RopeMethod::yarn || scaling.method == RopeMethod::longrope;
    if (!from_ratio || !has_original || ratio < 1) {
      keys.refuse("factor", fmt::format("a number from 1 to {:g}", kMostFactor));
    }
    scaling.factor = ratio;
  }
}

void read_yarn_keys(const ConfigKeys& keys, RopeScaling& scaling) {
  scaling.mscale = optional_number(keys, "mscale", 0, 100);
  scaling.mscale_all_dim = optional_number(keys, "mscale_all_dim", 0, 100);
  if (keys.number_or_null("extrapolation_factor", 1, 0, kMostFactor) != 1) {
    keys.refuse("extrapolation_factor", "1", "other weights of the ramp are not supported");
  }
  const double multiplier = keys.number_or_null("attn_factor", 1, 1e-3, 1e3);
  if (multiplier == 1 || scaling.attention_factor) return;
  if (scaling.method == RopeMethod::dynamic_yarn) keys.refuse("attn_factor", "1 with a factor that changes");
  // The YaRN code and vLLM multiply what the factor gives by it.
  scaling.attention_factor = rope_frequencies(scaling, 2, 1).attention_factor * multiplier;
}

/// One object of settings. defaults: theta, and the original length where the config has one beside the object.
RopeScaling read_scaling(const ConfigKeys& keys, const RopeScaling& defaults, bool original_beside,
                         std::size_t head_dim, std::size_t max_positions) {
  RopeScaling scaling = defaults;
  scaling.method = method_of(keys);
  require_known_keys(keys, scaling.method);
  if (!keys.absent_or_null("rope_theta")) scaling.theta = keys.positive("rope_theta", 0, kMostTheta);
  if (scaling.method == RopeMethod::none) return scaling;
  const std::size_t original = keys.size_or_null(kOriginal, scaling.original_length, kMostPositions);
  // Beside the object it wins, as in transformers: Phi-3 writes it there.
  if (!original_beside) scaling.original_length = original;
  read_factor(keys, scaling, original_beside || !keys.absent_or_null(kOriginal), max_positions);
  scaling.attention_factor = optional_number(keys, "attention_factor", 1e-3, 1e3);
  scaling.beta_fast = keys.number_or_null("beta_fast", scaling.beta_fast, 1e-6, 1e6);
  scaling.beta_slow = keys.number_or_null("beta_slow", scaling.beta_slow, 1e-6, 1e6);
  if (!keys.absent_or_null("truncate")) scaling.truncate = keys.boolean("truncate", true);
  if (scaling.method == RopeMethod::yarn || scaling.method == RopeMethod::dynamic_yarn) read_yarn_keys(keys, scaling);
  if (scaling.method == RopeMethod::llama3) {
    scaling.low_freq_factor = keys.number_or_null("low_freq_factor", 1, 1e-6, 1e6);
    scaling.high_freq_factor = keys.number_or_null("high_freq_factor", 4, 1e-6, 1e6);
  }
  if (scaling.method == RopeMethod::longrope) {
    scaling.short_factor = read_divisors(keys, "short_factor", head_dim / 2);
    scaling.long_factor = read_divisors(keys, "long_factor", head_dim / 2);
  }
  const std::string prefix = keys.prefix().substr(0, keys.prefix().size() - 1);
  check_rope_scaling(scaling, head_dim, keys.file().string() + ": " + prefix);
  return scaling;
}

}  // namespace

RopeOfKinds read_rope(const ConfigKeys& config, std::size_t head_dim, std::size_t max_position_embeddings) {
  RopeScaling unscaled;
  unscaled.theta = config.positive("rope_theta", 10000.0, kMostTheta);
  const bool original_beside = !config.absent_or_null(kOriginal);
  unscaled.original_length = config.size_or_null(kOriginal, max_position_embeddings, kMostPositions);

  const bool both = !config.absent_or_null("rope_scaling") && !config.absent_or_null("rope_parameters");
  std::optional<RopeOfKinds> found;
  for (const std::string_view key : {"rope_scaling", "rope_parameters"}) {
    if (config.absent_or_null(key)) continue;
    const json& object = *config.find(key);
    if (!object.is_object()) config.refuse(key, "an object or null");
    const auto read = [&](const json& settings, const std::string& prefix) {
      return read_scaling(ConfigKeys(settings, config.file(), prefix), unscaled, original_beside, head_dim,
                          max_position_embeddings);
    };
    const std::string prefix = std::string(key) + ".";
    RopeOfKinds rope;
    if (object.contains("full_attention") || object.contains("memory_attention")) {
      const ConfigKeys kinds(object, config.file(), prefix);
      const auto kind = [&](std::string_view name) -> const json& {
        const json* settings = kinds.find(name);
        if (settings == nullptr || !settings->is_object()) kinds.refuse(name, "an object with a rope_type");
        return *settings;
      };
      for (const auto& [name, value] : object.items()) {
        if (name != "full_attention" && name != "memory_attention") {
          kinds.refuse(name, "full_attention and memory_attention alone", "memlane has no other kind of layer");
        }
      }
      rope.plain = read(kind("full_attention"), prefix + "full_attention.");
      rope.memory = object.contains("memory_attention") ? read(kind("memory_attention"), prefix + "memory_attention.")
                                                        : rope.plain;
    } else {
      rope.plain = rope.memory = read(object, prefix);
    }
    if (both && found && !(found->plain == rope.plain && found->memory == rope.memory)) {
      config.refuse(key, "the same as rope_scaling says, or only one of the two");
    }
    found = rope;
  }
  return found.value_or(RopeOfKinds{unscaled, unscaled});
}

}  // namespace memlane
