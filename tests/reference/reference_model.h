#pragma once

#include <cstring>
#include <filesystem>
#include <map>
#include <string>

#include "runtime/checkpoint.h"
#include "runtime/model_config.h"
#include "tests/reference/attention.h"
#include "tests/reference/layers.h"

namespace memlane::reference {

/// A whole LongLLaMA in double precision, one token and head at a time, that reads the same checkpoints.
///
/// It follows LongLLaMA's calls: all but the last `last_context_length` tokens of a call are its prefix, run in
/// windows. Without a live local cache a window has no past and moves to memory when it is done; with one, tokens that
/// do not fit behind it first move all of it to memory and start at position 0. A memory layer attends to the local
/// window causally and to the whole memory in one softmax; memory keys are as projected, without rotation.
///
/// Rounding. Memory entries are always rounded to mem_dtype. With compute f32 nothing else is. With compute bf16 it
/// rounds to bfloat16 where the decoder does: every weight matrix and every input of a matrix product (normalised x,
/// attention output, gated activations); k and v after projection; k again after rotation; q after rotation. What stays
/// unrounded: embeddings, the residual stream, norms and their weights, scores and weights of attention, logits.
class ReferenceModel {
 public:
  ReferenceModel(const std::filesystem::path& folder, MemorySettings settings, DType compute)
      : config_(read_model_config(folder)),
        settings_(std::move(settings)),
        compute_(compute),
        plain_rope_(rope_frequencies(settings_.rope, config_.head_dim, settings_.window)),
        memory_rope_(rope_frequencies(settings_.memory_rope, config_.head_dim, settings_.window)),
        local_(config_.num_layers) {
    const Checkpoint checkpoint = Checkpoint::open(folder);
    for (const Tensor* tensor : checkpoint.tensors()) read(*tensor);
    memory_.resize(config_.num_layers, std::vector<Entries>(config_.num_kv_heads));
  }

  /// One call; the logits of all its tokens, [tokens][vocab]. top_k: of memory entries each query and head sees; 0 for
  /// all.
  Matrix call(const std::vector<std::int32_t>& ids, std::size_t last_context_length, std::size_t top_k = 0) {
    top_k_ = top_k;
    Matrix logits;
    const bool live = !local_.front().empty();
    const std::size_t prefix = ids.size() - std::min(ids.size(), last_context_length);
    for (std::size_t begin = 0; begin < prefix; begin += settings_.window) {
      const std::size_t end = std::min(prefix, begin + settings_.window);
      run(ids, begin, end, logits);
      if (!live) move_local_to_memory();
    }
    run(ids, prefix, ids.size(), logits);
    return logits;
  }

  std::size_t local_length() const { return local_.front().size(); }
  std::size_t memory_length() const {
    return settings_.mem_layers.empty()
               ? 0
               : memory_[static_cast<std::size_t>(settings_.mem_layers.front())].front().keys.size();
  }

 private:
  /// What a layer keeps of one token: [kv_heads].
  struct Token {
    Matrix keys, values;
  };

  bool is_memory_layer(std::size_t layer) const {
    return std::count(settings_.mem_layers.begin(), settings_.mem_layers.end(), static_cast<int>(layer)) > 0;
  }

  Row compute_rounded(Row row) const { return compute_ == DType::bf16 ? rounded(std::move(row), DType::bf16) : row; }

  void read(const Tensor& tensor) {
    const std::size_t columns = tensor.shape.back();
    const std::size_t rows = tensor.shape.size() == 2 ? tensor.shape.front() : 1;
    Matrix& matrix = weights_[tensor.name];
    with_type(tensor.dtype, [&](auto element) {
      for (std::size_t row = 0; row < rows; ++row) {
        Row& values = matrix.emplace_back();
        for (std::size_t i = 0; i < columns; ++i) {
          std::memcpy(&element, tensor.bytes.data() + (row * columns + i) * sizeof element, sizeof element);
          values.push_back(to_float(element));
        }
      }
    });
    // A tied embedding is a matrix only as the head; as the embedding it stays as it is.
    const bool is_matrix = tensor.shape.size() == 2 && tensor.name != "model.embed_tokens.weight";
    if (config_.tie_word_embeddings && tensor.name == "model.embed_tokens.weight") {
      for (const Row& row : matrix) weights_["lm_head.weight"].push_back(compute_rounded(row));
    }
    for (Row& row : matrix) row = is_matrix ? compute_rounded(row) : row;
  }

  const Matrix& weight(const std::string& name) const { return weights_.at(name); }
  Row product(const std::string& name, const Row& x) const { return matmul(weight(name), compute_rounded(x)); }
  Row norm(const std::string& name, const Row& x) const {
    return rms_norm(x, weight(name).front(), config_.rms_norm_eps);
  }

  Matrix heads_of(const Row& x) const {
    Matrix heads;
    const auto head_dim = static_cast<std::ptrdiff_t>(config_.head_dim);
    for (auto at = x.begin(); at != x.end(); at += head_dim) heads.emplace_back(at, at + head_dim);
    return heads;
  }

  /// Tokens [begin, end) of a call, after the overflow rule.
  void run(const std::vector<std::int32_t>& ids, std::size_t begin, std::size_t end, Matrix& logits) {
    if (local_length() + (end - begin) > settings_.window) move_local_to_memory();
    for (std::size_t i = begin; i < end; ++i) logits.push_back(step(static_cast<std::size_t>(ids[i])));
  }

  /// One token behind those in the local window: its logits.
  Row step(std::size_t id) {
    Row x = weight("model.embed_tokens.weight")[id];
    for (std::size_t layer = 0; layer < config_.num_layers; ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      x = sum(x, attend(layer, prefix + "self_attn.", norm(prefix + "input_layernorm.weight", x)));
      const Row h = norm(prefix + "post_attention_layernorm.weight", x);
      const Row gated = swiglu(product(prefix + "mlp.gate_proj.weight", h), product(prefix + "mlp.up_proj.weight", h));
      x = sum(x, product(prefix + "mlp.down_proj.weight", gated));
    }
    return product("lm_head.weight", norm("model.norm.weight", x));
  }

  Row attend(std::size_t layer, const std::string& prefix, const Row& h) {
    const Matrix q = heads_of(product(prefix + "q_proj.weight", h));
    Token token;
    for (const Row& key : heads_of(product(prefix + "k_proj.weight", h))) token.keys.push_back(compute_rounded(key));
    for (const Row& value : heads_of(product(prefix + "v_proj.weight", h)))
      token.values.push_back(compute_rounded(value));
    local_[layer].push_back(std::move(token));

    const std::size_t position = local_[layer].size() - 1;
    const double scale = 1 / std::sqrt(static_cast<double>(config_.head_dim));
    Row out;
    for (std::size_t head = 0; head < config_.num_heads; ++head) {
      const std::size_t kv_head = head / (config_.num_heads / config_.num_kv_heads);
      const Row query = rotated(layer, q[head], position);
      Entries local;
      for (std::size_t i = 0; i <= position; ++i) {
        local.add(rotated(layer, local_[layer][i].keys[kv_head], i), local_[layer][i].values[kv_head]);
      }
      const Row attended = attention(query, local, memory_seen(layer, kv_head, query), scale);
      out.insert(out.end(), attended.begin(), attended.end());
    }
    return product(prefix + "o_proj.weight", out);
  }

  Row rotated(std::size_t layer, const Row& x, std::size_t position) const {
    const bool rotates = !is_memory_layer(layer) || settings_.mem_positionals;
    const RopeFrequencies& by = is_memory_layer(layer) ? memory_rope_ : plain_rope_;
    return compute_rounded(rotates ? rope(x, position, by.inv_freq, by.attention_factor) : x);
  }

  Entries memory_seen(std::size_t layer, std::size_t kv_head, const Row& query) const {
    Entries all = memory_[layer][kv_head];
    // A memory key is seen as rotated at position 0: cos 0 = 1 and sin 0 = 0, times the attention factor.
    for (Row& key : all.keys) {
      for (double& x : key) x *= settings_.mem_positionals ? memory_rope_.attention_factor : 1;
    }
    if (top_k_ == 0) return all;
    Row scores;
    for (const Row& key : all.keys) scores.push_back(dot(query, key));
    return all.chosen(top_k(scores, top_k_));
  }

  void move_local_to_memory() {
    for (std::size_t layer = 0; layer < config_.num_layers; ++layer) {
      for (const Token& token : local_[layer]) {
        for (std::size_t head = 0; is_memory_layer(layer) && head < config_.num_kv_heads; ++head) {
          memory_[layer][head].add(rounded(token.keys[head], settings_.mem_dtype),
                                   rounded(token.values[head], settings_.mem_dtype));
        }
      }
      local_[layer].clear();
    }
  }

  ModelConfig config_;
  MemorySettings settings_;
  DType compute_;
  RopeFrequencies plain_rope_, memory_rope_;
  std::size_t top_k_ = 0;
  std::map<std::string, Matrix> weights_;
  std::vector<std::vector<Token>> local_;     // [layers][tokens]
  std::vector<std::vector<Entries>> memory_;  // [layers][kv_heads]
};

}  // namespace memlane::reference
