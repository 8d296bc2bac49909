#include "runtime/cuda/cuda_weights.h"

#include <fmt/format.h>

#include <array>
#include <cstring>

namespace memlane {

namespace {

class Loader {
 public:
  Loader(CudaExec& exec, const Checkpoint& checkpoint) : exec_(exec), checkpoint_(checkpoint) {}

  const Tensor& tensor(const std::string& name, std::size_t n, std::size_t k) const {
    return checkpoint_.tensor(name, std::array{n, k});
  }

  CudaMatrix matrix(const std::string& name, std::size_t n, std::size_t k) const { return matrix(tensor(name, n, k)); }

  CudaMatrix matrix(const Tensor& tensor) const {
    return {exec_, tensor.bytes.data(), tensor.dtype, tensor.shape[0], tensor.shape[1]};
  }

  CudaBuffer<std::byte> bytes(const Tensor& tensor) const {
    CudaBuffer<std::byte> result = uploaded(exec_, tensor.bytes.data(), tensor.bytes.size());
    exec_.synchronize();
    return result;
  }

  CudaBuffer<float> vector(const std::string& name, std::size_t size) const {
    const Tensor& tensor = checkpoint_.tensor(name, std::array{size});
    std::vector<float> widened(size);
    with_type(tensor.dtype, [&](auto element) {
      for (std::size_t i = 0; i < size; ++i) {
        std::memcpy(&element, tensor.bytes.data() + i * sizeof element, sizeof element);
        widened[i] = to_float(element);
      }
    });
    CudaBuffer<float> result = uploaded(exec_, widened.data(), size);
    exec_.synchronize();
    return result;
  }

 private:
  CudaExec& exec_;
  const Checkpoint& checkpoint_;
};

CudaLayerWeights load_layer(const Loader& load, const ModelConfig& config, std::size_t index) {
  const std::string prefix = fmt::format("model.layers.{}.", index);
  const std::size_t hidden = config.hidden_size;
  const std::size_t q_size = config.num_heads * config.head_dim;
  const std::size_t kv_size = config.num_kv_heads * config.head_dim;
  CudaLayerWeights layer;
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

CudaWeights load_cuda_weights(CudaExec& exec, const Checkpoint& checkpoint, const ModelConfig& config) {
  const Loader load(exec, checkpoint);
  CudaWeights weights;
  const Tensor& embedding = load.tensor("model.embed_tokens.weight", config.vocab_size, config.hidden_size);
  weights.embedding = load.bytes(embedding);
  weights.embedding_type = embedding.dtype;
  for (std::size_t layer = 0; layer < config.num_layers; ++layer) {
    weights.layers.push_back(load_layer(load, config, layer));
  }
  weights.final_norm = load.vector("model.norm.weight", config.hidden_size);
  weights.head = config.tie_word_embeddings ? load.matrix(embedding)
                                            : load.matrix("lm_head.weight", config.vocab_size, config.hidden_size);
  return weights;
}

std::size_t cuda_weight_bytes(const ModelConfig& config) {
  const std::size_t hidden = config.hidden_size;
  const std::size_t q_size = config.num_heads * config.head_dim;
  const std::size_t kv_size = config.num_kv_heads * config.head_dim;
  const std::size_t layer = 2 * (q_size + kv_size) * hidden + 3 * config.intermediate_size * hidden;  // elements
  const std::size_t norms = (2 * config.num_layers + 1) * hidden * sizeof(float);
  const std::size_t table = config.vocab_size * hidden;
  return (config.num_layers * layer + table) * sizeof(BFloat16) + table * sizeof(float) + norms;
}

}  // namespace memlane
