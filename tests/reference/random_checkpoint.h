#pragma once

#include <fstream>
#include <list>

#include "runtime/model_config.h"
#include "runtime/safetensors.h"
#include "tests/reference/random_values.h"

namespace memlane::reference {

/// The sizes of a model to make up.
struct RandomModel {
  std::size_t vocab = 37, hidden = 24, intermediate = 31, layers = 3, heads = 4, kv_heads = 2, head_dim = 10;
  std::size_t window = 12, last_context = 5;
  std::string mem_layers = "[1, 2]";
  std::string mem_dtype = "float32";
  bool mem_positionals = true;
  bool tied = false;
};

/// Of sizes that GPUs take, with entries of bfloat16.
inline RandomModel gpu_model() {
  RandomModel model;
  model.hidden = 64;
  model.intermediate = 96;
  model.head_dim = 16;
  model.mem_dtype = "bfloat16";
  return model;
}

/// Writes a checkpoint with random weights, of a size that makes attention far from uniform, into `folder`.
inline void write_random_checkpoint(const std::filesystem::path& folder, const RandomModel& model, std::uint64_t seed) {
  std::ofstream config(folder / "config.json");
  config << R"({"model_type": "longllama", "hidden_act": "silu", "torch_dtype": "float32", )"
         << R"("rms_norm_eps": 1e-05, "rope_theta": 500.0, )"
         << "\"vocab_size\": " << model.vocab << ", \"hidden_size\": " << model.hidden
         << ", \"intermediate_size\": " << model.intermediate << ", \"num_hidden_layers\": " << model.layers
         << ", \"num_attention_heads\": " << model.heads << ", \"num_key_value_heads\": " << model.kv_heads
         << ", \"head_dim\": " << model.head_dim << ", \"max_position_embeddings\": " << model.window
         << ", \"last_context_length\": " << model.last_context << ", \"mem_layers\": " << model.mem_layers
         << ", \"mem_dtype\": \"" << model.mem_dtype
         << "\", \"mem_positionals\": " << (model.mem_positionals ? "true" : "false")
         << ", \"tie_word_embeddings\": " << (model.tied ? "true" : "false")
         << ", \"bos_token_id\": 1, \"eos_token_id\": 2}";
  config.close();

  Random random(seed);
  std::list<std::vector<float>> storage;
  std::vector<OutputTensor> tensors;
  const auto add = [&](std::string name, std::vector<std::size_t> shape, double amplitude) {
    std::size_t size = 1;
    for (const std::size_t extent : shape) size *= extent;
    storage.push_back(random.floats(size, amplitude));
    tensors.push_back({std::move(name), std::move(shape), std::span<const float>(storage.back())});
  };
  add("model.embed_tokens.weight", {model.vocab, model.hidden}, 1);
  if (!model.tied) add("lm_head.weight", {model.vocab, model.hidden}, 0.5);
  add("model.norm.weight", {model.hidden}, 1.5);
  for (std::size_t layer = 0; layer < model.layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    add(prefix + "input_layernorm.weight", {model.hidden}, 1.5);
    add(prefix + "post_attention_layernorm.weight", {model.hidden}, 1.5);
    add(prefix + "self_attn.q_proj.weight", {model.heads * model.head_dim, model.hidden}, 0.5);
    add(prefix + "self_attn.k_proj.weight", {model.kv_heads * model.head_dim, model.hidden}, 0.5);
    add(prefix + "self_attn.v_proj.weight", {model.kv_heads * model.head_dim, model.hidden}, 0.3);
    add(prefix + "self_attn.o_proj.weight", {model.hidden, model.heads * model.head_dim}, 0.3);
    add(prefix + "mlp.gate_proj.weight", {model.intermediate, model.hidden}, 0.4);
    add(prefix + "mlp.up_proj.weight", {model.intermediate, model.hidden}, 0.4);
    add(prefix + "mlp.down_proj.weight", {model.hidden, model.intermediate}, 0.3);
  }
  write_safetensors(folder / "model.safetensors", tensors);
}

}  // namespace memlane::reference
