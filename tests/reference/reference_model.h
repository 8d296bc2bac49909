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
/// With sub-windows, an overlap or a sliding window tokens fill windows up instead. Every way in which plain layers
/// look at their local context is computed pair by pair of query and key, from the un-rotated keys of all tokens.
///
/// Rounding. Memory entries are always rounded to mem_dtype. With compute f32 nothing else is. With compute bf16 it
/// rounds to bfloat16 where the decoder does: every weight matrix and every input of a matrix product (normalised x,
/// attention output, gated activations); k and v after projection; k again after rotation; q after rotation. What stays
/// unrounded: embeddings, the residual stream, norms and their weights, scores and weights of attention, logits. With
/// rounds_weights the weights of dense attention to entries of bfloat16 are rounded too, those of the local window (of
/// at most 256 tokens) and of each segment of memory relative to the greatest there: as matrix tiles do.
class ReferenceModel {
 public:
  ReferenceModel(const std::filesystem::path& folder, MemorySettings settings, DType compute,
                 bool rounds_weights = false)
      : config_(read_model_config(folder)),
        settings_(std::move(settings)),
        compute_(compute),
        local_(config_.num_layers),
        rounds_weights_(rounds_weights) {
    const Checkpoint checkpoint = Checkpoint::open(folder);
    for (const Tensor* tensor : checkpoint.tensors()) read(*tensor);
    memory_.resize(config_.num_layers, std::vector<Entries>(config_.num_kv_heads));
  }

  /// One call; the logits of all its tokens, [tokens][vocab]. top_k: of memory entries each query and head sees; 0 for
  /// all.
  Matrix call(const std::vector<std::int32_t>& ids, std::size_t last_context_length, std::size_t top_k = 0) {
    top_k_ = top_k;
    Matrix logits;
    const bool live = memory_count_ > 0;
    const std::size_t prefix = ids.size() - std::min(ids.size(), last_context_length);
    const std::size_t piece = fills_up() ? ids.size() : settings_.window;
    for (std::size_t begin = 0; begin < prefix; begin += piece) {
      run(ids, begin, std::min(prefix, begin + piece), logits);
      if (!live) end_window();
    }
    run(ids, prefix, ids.size(), logits);
    return logits;
  }

  std::size_t local_length() const { return plain_count_; }
  std::size_t memory_length() const {
    return settings_.mem_layers.empty()
               ? 0
               : memory_[static_cast<std::size_t>(settings_.mem_layers.front())].front().keys.size();
  }

 private:
  /// What a layer keeps of one token: [kv_heads], and the frequencies of the pass that it came in.
  struct Token {
    Matrix keys, values;
    RopeFrequencies frequencies;
  };

  std::size_t memory_window() const {
    return settings_.mem_layers.empty() ? settings_.window : settings_.memory_window;
  }
  bool fills_up() const {
    return memory_window() < settings_.window || settings_.overlap > 0 || settings_.sliding_window > 0;
  }

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

  /// Tokens [begin, end) of a call.
  void run(const std::vector<std::int32_t>& ids, std::size_t begin, std::size_t end, Matrix& logits) {
    const bool slides = settings_.sliding_window > 0;
    if (!fills_up() && plain_count_ + (end - begin) > settings_.window) end_window();
    while (begin < end) {
      if (memory_count_ == memory_window()) move_to_memory();
      if (!slides && plain_count_ == settings_.window) end_window();
      std::size_t pass = std::min(end - begin, memory_window() - memory_count_);
      if (!slides) pass = std::min(pass, settings_.window - plain_count_);
      const bool whole = settings_.dynamic_mode == DynamicMode::whole_sequence;
      plain_rope_ = rope_frequencies(settings_.rope, config_.head_dim, whole ? settings_.window : plain_count_ + pass);
      memory_rope_ = rope_frequencies(settings_.memory_rope, config_.head_dim,
                                      whole ? settings_.memory_window : memory_count_ + pass);
      for (std::size_t i = 0; i < pass; ++i) logits.push_back(step(static_cast<std::size_t>(ids[begin + i])));
      begin += pass;
      plain_count_ += pass;
      memory_count_ += pass;
    }
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
    token.frequencies = is_memory_layer(layer) ? memory_rope_ : plain_rope_;
    local_[layer].push_back(std::move(token));

    const std::size_t position = local_[layer].size() - 1;
    const double scale = 1 / std::sqrt(static_cast<double>(config_.head_dim));
    Row out;
    for (std::size_t head = 0; head < config_.num_heads; ++head) {
      const std::size_t kv_head = head / (config_.num_heads / config_.num_kv_heads);
      std::vector<ScoredValues> parts = {{.scores = {}, .values = {}, .rounds = rounds_weights_}};
      for (std::size_t i = 0; i <= position; ++i) {
        if (!sees(layer, position, i)) continue;
        parts[0].add(scale * score(layer, q[head], position, local_[layer][i].keys[kv_head], i),
                     local_[layer][i].values[kv_head]);
      }
      const Row query = rotated(layer, q[head], position, local_[layer].back().frequencies);
      const Entries remembered = memory_seen(layer, kv_head, query);
      std::size_t in_segment = 0, segment = 0;
      for (std::size_t i = 0; i < remembered.keys.size(); ++i, ++in_segment) {
        const bool begins = i == 0 || (top_k_ == 0 && in_segment == segments_[segment]);
        if (begins && i > 0) ++segment;
        if (begins) in_segment = 0;
        const bool rounds = rounds_weights_ && top_k_ == 0 && settings_.mem_dtype == DType::bf16;
        if (begins) parts.push_back({.scores = {}, .values = {}, .rounds = rounds});
        parts.back().add(scale * dot(query, remembered.keys[i]), remembered.values[i]);
      }
      const Row attended = softmax_average(parts);
      out.insert(out.end(), attended.begin(), attended.end());
    }
    return product(prefix + "o_proj.weight", out);
  }

  /// Whether the query at position t sees key i.
  bool sees(std::size_t layer, std::size_t t, std::size_t i) const {
    if (is_memory_layer(layer) || settings_.sliding_window == 0) return true;
    return i < settings_.sinks || t - i < settings_.sliding_window - settings_.sinks;
  }

  /// The product of a query at position t and key i, both as projected, when each is rotated as settings say.
  double score(std::size_t layer, const Row& query, std::size_t t, const Row& key, std::size_t i) const {
    const RopeFrequencies& of_query = local_[layer].back().frequencies;
    const bool own = settings_.dynamic_mode == DynamicMode::inconsistent;
    const RopeFrequencies& of_key = own ? local_[layer][i].frequencies : of_query;
    std::size_t query_position = t, key_position = i;
    if (!is_memory_layer(layer) && settings_.sliding_window > 0 && i < settings_.sinks) {
      query_position = std::min(t, settings_.sliding_window - 1);
    }
    if (!is_memory_layer(layer) && settings_.capped_distance > 0 && t - i >= settings_.capped_distance) {
      query_position = settings_.capped_distance;
      key_position = 0;
    }
    return dot(rotated(layer, query, query_position, of_query), rotated(layer, key, key_position, of_key));
  }

  Row rotated(std::size_t layer, const Row& x, std::size_t position, const RopeFrequencies& by) const {
    const bool rotates = !is_memory_layer(layer) || settings_.mem_positionals;
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

  void move_to_memory() {
    for (const int layer : settings_.mem_layers) {
      std::vector<Token>& tokens = local_[static_cast<std::size_t>(layer)];
      for (const Token& token : tokens) {
        for (std::size_t head = 0; head < config_.num_kv_heads; ++head) {
          memory_[static_cast<std::size_t>(layer)][head].add(rounded(token.keys[head], settings_.mem_dtype),
                                                             rounded(token.values[head], settings_.mem_dtype));
        }
      }
      tokens.clear();
    }
    if (memory_count_ > 0) segments_.push_back(memory_count_);
    memory_count_ = 0;
  }

  /// Memory layers move what they hold; plain layers keep the overlap, or with a sliding window everything.
  void end_window() {
    move_to_memory();
    if (settings_.sliding_window > 0) return;
    plain_count_ = std::min(plain_count_, settings_.overlap);
    for (std::size_t layer = 0; layer < config_.num_layers; ++layer) {
      if (is_memory_layer(layer)) continue;
      local_[layer].erase(local_[layer].begin(), local_[layer].end() - static_cast<std::ptrdiff_t>(plain_count_));
    }
  }

  ModelConfig config_;
  MemorySettings settings_;
  DType compute_;
  RopeFrequencies plain_rope_, memory_rope_;
  std::size_t top_k_ = 0;
  std::map<std::string, Matrix> weights_;
  std::vector<std::vector<Token>> local_;     // [layers][tokens]
  std::size_t plain_count_ = 0;               // tokens that plain layers hold
  std::size_t memory_count_ = 0;              // tokens since something moved to memory
  std::vector<std::vector<Entries>> memory_;  // [layers][kv_heads]
  std::vector<std::size_t> segments_;         // entries that came to memory together
  bool rounds_weights_;
};

}  // namespace memlane::reference
