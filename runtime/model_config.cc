#include "runtime/model_config.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "kernels/error.h"
#include "runtime/config_keys.h"
#include "runtime/local_settings.h"
#include "runtime/model_folder.h"
#include "runtime/rope_config.h"
#include "runtime/strict_json.h"

namespace memlane {

namespace {

using nlohmann::json;

constexpr std::size_t kMaxVocab = std::size_t{1} << 24;
constexpr std::size_t kMaxHidden = std::size_t{1} << 20;
constexpr std::size_t kMaxIntermediate = std::size_t{1} << 22;
constexpr std::size_t kMaxLayers = 4096;
constexpr std::size_t kMaxHeads = std::size_t{1} << 14;
constexpr std::size_t kMaxHeadDim = std::size_t{1} << 14;
constexpr std::size_t kMaxPositions = std::size_t{1} << 30;
constexpr std::size_t kMaxRow = std::size_t{1} << 22;  // all heads together
// Numbers that a pass over a full window and its local cache hold in all layers, about: far above any machine, and
// small enough that no sum of their bytes overflows 64 bits before it is compared with what is free.
constexpr double kMostNumbers = 0x1p52;
constexpr std::size_t kLlamaMemoryWindow = 2048;
constexpr std::size_t kLastContextLength = 1024;

/// Keys of Llama's relatives that change what the model computes. Each is accepted with the one value that changes
/// nothing (or null, or false, or as an empty list or object).
struct RefusedKey {
  std::string_view key;
  std::optional<double> neutral;
};

constexpr std::array kRefusedKeys = {
    RefusedKey{"attention_bias", {}},
    RefusedKey{"mlp_bias", {}},
    RefusedKey{"use_bias", {}},
    RefusedKey{"qkv_bias", {}},
    RefusedKey{"bias", {}},
    RefusedKey{"partial_rotary_factor", 1.0},
    RefusedKey{"rotary_pct", 1.0},
    RefusedKey{"rope_interleaved", {}},
    RefusedKey{"no_rope_layers", {}},
    RefusedKey{"no_rope_layer_interval", 0.0},
    RefusedKey{"alibi", {}},
    RefusedKey{"sliding_window", {}},
    RefusedKey{"attention_chunk_size", {}},
    RefusedKey{"quantization_config", {}},
    RefusedKey{"compression_config", {}},
    RefusedKey{"num_local_experts", 1.0},
    RefusedKey{"num_experts", 1.0},
    RefusedKey{"n_routed_experts", 0.0},
    RefusedKey{"qk_norm", {}},
    RefusedKey{"use_qk_norm", {}},
    RefusedKey{"clip_qkv", {}},
    RefusedKey{"attn_logit_softcapping", {}},
    RefusedKey{"final_logit_softcapping", {}},
    RefusedKey{"query_pre_attn_scalar", {}},
    RefusedKey{"attention_multiplier", {}},
    RefusedKey{"embedding_multiplier", 1.0},
    RefusedKey{"residual_multiplier", 1.0},
    RefusedKey{"logits_scaling", 1.0},
    RefusedKey{"logit_scale", 1.0},
    RefusedKey{"scale_emb", 1.0},
    RefusedKey{"scale_depth", {}},
    RefusedKey{"pruned_heads", {}},
    RefusedKey{"is_encoder_decoder", {}},
    RefusedKey{"add_cross_attention", {}},
};

bool is_neutral(const json& value, std::optional<double> neutral) {
  if (value.is_null()) return true;
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_structured()) return value.empty();
  return value.is_number() && neutral.has_value() && value.get<double>() == *neutral;
}

void refuse_other_maths(const ConfigKeys& keys) {
  for (const RefusedKey& refused : kRefusedKeys) {
    const json* value = keys.find(refused.key);
    if (value == nullptr || is_neutral(*value, refused.neutral)) continue;
    input_error("{}: {} {} is not supported yet; memlane runs plain Llama and LongLLaMA models", keys.file().string(),
                refused.key, describe(*value));
  }
  const std::string act = keys.text("hidden_act", "silu", "\"silu\"");
  if (act != "silu" && act != "swish") {
    input_error("{}: hidden_act {} is not supported yet; expected \"silu\"", keys.file().string(), shown(act));
  }
  if (keys.absent_or_null("layer_types")) return;
  const json& types = *keys.find("layer_types");
  const bool plain = types.is_array() &&
                     std::all_of(types.begin(), types.end(), [](const json& type) { return type == "full_attention"; });
  if (!plain) keys.refuse("layer_types", "a list of \"full_attention\"", "other attention is not supported yet");
}

void read_sizes(const ConfigKeys& keys, ModelConfig& config) {
  config.vocab_size = keys.size("vocab_size", 32000, kMaxVocab);
  config.hidden_size = keys.size("hidden_size", 4096, kMaxHidden);
  config.intermediate_size = keys.size("intermediate_size", 11008, kMaxIntermediate);
  config.num_layers = keys.size("num_hidden_layers", 32, kMaxLayers);
  config.num_heads = keys.size("num_attention_heads", 32, kMaxHeads);
  config.num_kv_heads = keys.size_or_null("num_key_value_heads", config.num_heads, kMaxHeads);
  config.max_position_embeddings = keys.size("max_position_embeddings", 2048, kMaxPositions);
  if (config.num_heads % config.num_kv_heads != 0) {
    input_error("{}: num_key_value_heads: expected a divisor of num_attention_heads {}, found {}", keys.file().string(),
                config.num_heads, config.num_kv_heads);
  }
  if (keys.absent_or_null("head_dim") && config.hidden_size % config.num_heads != 0) {
    input_error("{}: hidden_size: expected a multiple of num_attention_heads {} (there is no head_dim), found {}",
                keys.file().string(), config.num_heads, config.hidden_size);
  }
  config.head_dim = keys.size_or_null("head_dim", config.hidden_size / config.num_heads, kMaxHeadDim);
  if (config.head_dim % 2 != 0 || config.head_dim > kMaxHeadDim) {
    input_error("{}: head_dim: expected an even number of at most {} (RoPE rotates pairs), found {}",
                keys.file().string(), kMaxHeadDim, config.head_dim);
  }
  if (config.num_heads * config.head_dim > kMaxRow) {
    input_error("{}: head_dim: expected at most {} numbers in all heads together, found {} x {}", keys.file().string(),
                kMaxRow, config.num_heads, config.head_dim);
  }
}

/// Refuses windows whose memory could not even be counted.
void require_countable(const ModelConfig& config, std::size_t window) {
  const double row = static_cast<double>(config.hidden_size + config.intermediate_size + config.num_heads +
                                         config.num_heads * config.head_dim);
  const double numbers = static_cast<double>(window) * row * static_cast<double>(config.num_layers);
  if (numbers <= kMostNumbers) return;
  input_error(
      "a window of {} tokens: expected one that fits in a memory, found one that needs about {:.2g} numbers in {} "
      "layers; set a smaller --window",
      window, numbers, config.num_layers);
}

/// Token ids of `key`: one, or a list of them where `list` allows it, or none for null.
std::vector<int> token_ids(const ConfigKeys& keys, std::string_view key, int fallback, bool list,
                           std::size_t vocab_size) {
  const json* value = keys.find(key);
  if (value == nullptr) {
    return static_cast<std::size_t>(fallback) < vocab_size ? std::vector{fallback} : std::vector<int>{};
  }
  std::vector<int> ids;
  if (value->is_null()) return ids;
  const auto add = [&](const json& id) { ids.push_back(static_cast<int>(keys.integer(key, id, 0, vocab_size - 1))); };
  if (list && value->is_array()) {
    for (const json& id : *value) add(id);
  } else {
    add(*value);
  }
  return ids;
}

std::vector<int> sorted_layers(std::vector<int> layers, std::size_t num_layers, std::string_view source) {
  std::sort(layers.begin(), layers.end());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (layers[i] < 0 || static_cast<std::size_t>(layers[i]) >= num_layers) {
      input_error("{}: expected layers from 0 to {}, found {}", source, num_layers - 1, layers[i]);
    }
    if (i > 0 && layers[i] == layers[i - 1]) {
      input_error("{}: expected each layer once, found {} twice", source, layers[i]);
    }
  }
  return layers;
}

DType memory_dtype(const ConfigKeys& keys) {
  const std::string name = keys.text("mem_dtype", name_of(DType::bf16), "the name of a type");
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    if (name == name_of(dtype)) return dtype;
  }
  keys.refuse("mem_dtype", "\"float32\", \"float16\" or \"bfloat16\"");
}

/// LongLLaMA computes its attention in groups to save memory; the result does not depend on them, so they are checked
/// and dropped.
void check_attention_grouping(const ConfigKeys& keys) {
  if (keys.absent_or_null("mem_attention_grouping")) return;
  const json& value = *keys.find("mem_attention_grouping");
  if (!value.is_array() || value.size() != 2) {
    keys.refuse("mem_attention_grouping", "null or two positive integers (heads, queries)");
  }
  for (const json& size : value) keys.integer("mem_attention_grouping", size, 1, kMaxPositions);
}

void read_memory_keys(const ConfigKeys& keys, ModelConfig& config) {
  if (const json* layers = keys.find("mem_layers")) {
    if (!layers->is_array()) keys.refuse("mem_layers", "a list of layer numbers");
    for (const json& layer : *layers) {
      config.mem_layers.push_back(static_cast<int>(keys.integer("mem_layers", layer, 0, config.num_layers - 1)));
    }
  }
  const std::string source = keys.file().string() + ": mem_layers";
  config.mem_layers = sorted_layers(std::move(config.mem_layers), config.num_layers, source);
  config.mem_positionals = keys.boolean("mem_positionals", true);
  config.mem_dtype = memory_dtype(keys);
  if (keys.find("last_context_length") != nullptr) {
    config.last_context_length = keys.size("last_context_length", kLastContextLength, kMaxPositions);
  }
  check_attention_grouping(keys);
}

std::size_t resolve_window(const ModelConfig& config, const MemoryOverrides& overrides, bool has_memory) {
  const std::size_t longest = config.max_position_embeddings;
  if (overrides.window.has_value()) {
    const std::size_t most = overrides.rope.has_value() ? kMaxPositions : longest;
    if (*overrides.window < 1 || *overrides.window > most) {
      input_error("--window: expected 1 to {} tokens{}, found {}", most,
                  overrides.rope.has_value() ? "" : " (max_position_embeddings in config.json; --rope lifts it)",
                  *overrides.window);
    }
    return *overrides.window;
  }
  return config.model_type == "llama" && has_memory ? std::min(longest, kLlamaMemoryWindow) : longest;
}

RopeScaling resolve_rope(const ModelConfig& config, std::string_view flag, const std::optional<std::string>& text,
                         const RopeScaling& of_config, std::size_t window) {
  if (!text.has_value()) return of_config;
  const RopeScaling scaling = parse_rope_scaling(flag, *text, of_config, window);
  check_rope_scaling(scaling, config.head_dim, fmt::format("{} {}", flag, *text));
  return scaling;
}

std::size_t resolve_last_context(const ModelConfig& config, const MemoryOverrides& overrides, std::size_t window) {
  const bool overridden = overrides.last_context_length.has_value();
  const auto& given = overridden ? overrides.last_context_length : config.last_context_length;
  if (!given.has_value()) return std::min(kLastContextLength, window);
  if (*given < 1 || *given > window) {
    input_error(
        "{}: expected 1 to {} tokens (the window), found {}; set --last-context-length to a number in that range",
        overridden ? "--last-context-length" : "last_context_length in config.json", window, *given);
  }
  return *given;
}

}  // namespace

ModelConfig read_model_config(const std::filesystem::path& model_dir) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(model_dir, ignored)) {
    input_error("{}: expected the folder of a model (with config.json in it), found {}", model_dir.string(),
                std::filesystem::exists(model_dir, ignored) ? "no folder" : "nothing");
  }
  const std::filesystem::path file = file_of_model(model_dir, "config.json");
  const json root = read_json_object(file, "model config");
  const ConfigKeys keys(root, file);

  ModelConfig config;
  config.model_type = keys.text("model_type", "", "\"llama\" or \"longllama\"");
  if (config.model_type != "llama" && config.model_type != "longllama") {
    keys.refuse("model_type", "\"llama\" or \"longllama\"", "other models are not supported");
  }
  refuse_other_maths(keys);
  read_sizes(keys, config);
  config.rms_norm_eps = static_cast<float>(keys.positive("rms_norm_eps", 1e-6, 1.0));
  if (!(config.rms_norm_eps > 0)) keys.refuse("rms_norm_eps", "a number that is above 0 as a float32");
  const RopeOfKinds rope = read_rope(keys, config.head_dim, config.max_position_embeddings);
  config.rope = rope.plain;
  config.memory_rope = rope.memory;
  config.tie_word_embeddings = keys.boolean("tie_word_embeddings", false);
  const std::vector<int> bos = token_ids(keys, "bos_token_id", 1, /*list=*/false, config.vocab_size);
  config.bos_token_id = bos.empty() ? -1 : bos.front();
  config.eos_token_ids = token_ids(keys, "eos_token_id", 2, /*list=*/true, config.vocab_size);
  read_memory_keys(keys, config);
  return config;
}

MemorySettings resolve_memory_settings(const ModelConfig& config, const MemoryOverrides& overrides) {
  MemorySettings settings;
  settings.mem_layers = overrides.mem_layers.has_value()
                            ? sorted_layers(*overrides.mem_layers, config.num_layers, "--mem-layers")
                            : config.mem_layers;
  settings.window = resolve_window(config, overrides, !settings.mem_layers.empty());
  require_countable(config, settings.window);
  settings.last_context_length = resolve_last_context(config, overrides, settings.window);
  settings.mem_positionals = config.mem_positionals;
  settings.mem_dtype = overrides.mem_dtype.value_or(config.mem_dtype);
  settings.rope = resolve_rope(config, "--rope", overrides.rope, config.rope, settings.window);
  if (overrides.memory_rope && settings.mem_layers.empty()) {
    input_error("--memory-rope {}: expected memory layers, found none; choose some with --mem-layers",
                *overrides.memory_rope);
  }
  settings.memory_rope = resolve_rope(config, "--memory-rope", overrides.memory_rope, config.memory_rope,
                                      resolve_memory_window(config, overrides, settings));
  resolve_local_settings(config, overrides, settings);
  return settings;
}

}  // namespace memlane
