#include "runtime/weights.h"

#include <fmt/format.h>

#include <array>
#include <cstring>

#include "memory/mapped_file.h"

namespace memlane {

namespace {

class Loader {
 public:
  Loader(CpuExec& exec, const Checkpoint& checkpoint, WeightFormat format)
      : exec_(exec), checkpoint_(checkpoint), format_(format) {}

  const Tensor& tensor(const std::string& name, std::size_t n, std::size_t k) const {
    return checkpoint_.tensor(name, std::array{n, k});
  }

  PackedMatrix matrix(const std::string& name, std::size_t n, std::size_t k) const { return pack(tensor(name, n, k)); }

  PackedMatrix pack(const Tensor& tensor) const {
    try {
      PackedMatrix packed(exec_, tensor.bytes.data(), tensor.dtype, tensor.shape[0], tensor.shape[1], format_);
      let_go(tensor.bytes);  // or the model would be resident twice
      return packed;
    } catch (const InputError& error) {
      input_error("{}: {}", tensor.name, error.what());
    }
  }

  Buffer<float> vector(const std::string& name, std::size_t size) const {
    const Tensor& tensor = checkpoint_.tensor(name, std::array{size});
    Buffer<float> result(size);
    with_type(tensor.dtype, [&](auto element) {
      for (std::size_t i = 0; i < size; ++i) {
        std::memcpy(&element, tensor.bytes.data() + i * sizeof element, sizeof element);
        result.data()[i] = to_float(element);
      }
    });
    return result;
  }

 private:
  CpuExec& exec_;
  const Checkpoint& checkpoint_;
  WeightFormat format_;
};

LayerWeights load_layer(const Loader& load, const ModelConfig& config, std::size_t index) {
  const std::string prefix = fmt::format("model.layers.{}.", index);
  const std::size_t hidden = config.hidden_size;
  const std::size_t q_size = config.num_heads * config.head_dim;
  const std::size_t kv_size = config.num_kv_heads * config.head_dim;
  LayerWeights layer;
  layer.attention_norm = load.vector(prefix + "input_layernorm.weight", hidden);
  layer.q = load.matrix(prefix + "self_attn.q_proj.weight", q_size, hidden);
  layer.k = load.matrix(prefix + "self_attn.k_proj.weight", kv_size, hidden);
  layer.v = load.matrix(prefix + "self_attn.v_proj.weight", kv_size, hidden);
  layer.o = load.matrix(prefix + "self_attn.o_proj.weight", hidden, q_size);
  layer.mlp_norm = load.vector(prefix + "post_attention_layernorm.weight", hidden);
  layer.gate = load.matrix(prefix + "mlp.gate_proj.weight", config.intermediate_size, hidden);
  layer.up = load.matrix(prefix + "mlp.up_proj.weight", config.intermediate_size, hidden);
  layer.down = load.matrix(prefix + "mlp.down_proj.weight", hidden, config.intermediate_size);
  return layer;
}

}  // namespace

Weights load_weights(CpuExec& exec, const Checkpoint& checkpoint, const ModelConfig& config, WeightFormat format) {
  const Loader load(exec, checkpoint, format);
  Weights weights;
  weights.embedding = &load.tensor("model.embed_tokens.weight", config.vocab_size, config.hidden_size);
  for (std::size_t layer = 0; layer < config.num_layers; ++layer) {
    weights.layers.push_back(load_layer(load, config, layer));
  }
  weights.final_norm = load.vector("model.norm.weight", config.hidden_size);
  weights.head = config.tie_word_embeddings ? load.pack(*weights.embedding)
                                            : load.matrix("lm_head.weight", config.vocab_size, config.hidden_size);
  return weights;
}

std::size_t weight_bytes(const ModelConfig& config, WeightFormat format) {
  const auto packed = [&](std::size_t n, std::size_t k) { return PackedMatrix::packed_bytes(n, k, format); };
  const std::size_t hidden = config.hidden_size;
  const std::size_t q_size = config.num_heads * config.head_dim;
  const std::size_t kv_size = config.num_kv_heads * config.head_dim;
  const std::size_t layer = packed(q_size, hidden) + 2 * packed(kv_size, hidden) + packed(hidden, q_size) +
                            2 * packed(config.intermediate_size, hidden) + packed(hidden, config.intermediate_size) +
                            2 * hidden * sizeof(float);
  return config.num_layers * layer + packed(config.vocab_size, hidden) + hidden * sizeof(float);
}

}  // namespace memlane
