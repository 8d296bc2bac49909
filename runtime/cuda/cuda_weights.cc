#include "runtime/cuda/cuda_weights.h"

#include <fmt/format.h>

#include <array>
#include <cstring>

#include "kernels/matmul.h"

namespace memlane {

namespace {

class Loader {
 public:
  Loader(CudaExec& exec, CpuExec& cpu, const Checkpoint& checkpoint, WeightFormat format)
      : exec_(exec), cpu_(cpu), checkpoint_(checkpoint), format_(format) {}

  const Tensor& tensor(const std::string& name, std::size_t n, std::size_t k) const {
    return checkpoint_.tensor(name, std::array{n, k});
  }

  CudaMatrix matrix(const std::string& name, std::size_t n, std::size_t k) const { return matrix(tensor(name, n, k)); }

  CudaMatrix matrix(const Tensor& tensor) const {
    if (is_quantised(format_)) return quantised(tensor);
    return {exec_, tensor.bytes.data(), tensor.dtype, tensor.shape[0], tensor.shape[1]};
  }

  /// Quantised on the host, so that the weights are those of the CPU.
  CudaMatrix quantised(const Tensor& tensor) const {
    try {
      const std::size_t n = tensor.shape[0], k = tensor.shape[1];
      const PackedMatrix packed(cpu_, tensor.bytes.data(), tensor.dtype, n, k, format_);
      return {exec_, reinterpret_cast<const std::byte*>(packed.panel(0)), format_, n, k};
    } catch (const InputError& error) {
      input_error("{}: {}", tensor.name, error.what());
    }
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
  CpuExec& cpu_;
  const Checkpoint& checkpoint_;
  WeightFormat format_;
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

CudaWeights load_cuda_weights(CudaExec& exec, CpuExec& cpu, const Checkpoint& checkpoint, const ModelConfig& config,
                              WeightFormat format) {
  const Loader load(exec, cpu, checkpoint, format);
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

std::size_t cuda_weight_bytes(const ModelConfig& config, WeightFormat format) {
  const auto matrix = [&](std::size_t n, std::size_t k) {
    return is_quantised(format) ? PackedMatrix::packed_bytes(n, k, format) : n * k * sizeof(BFloat16);
  };
  const std::size_t hidden = config.hidden_size;
  const std::size_t q_size = config.num_heads * config.head_dim;
  const std::size_t kv_size = config.num_kv_heads * config.head_dim;
  const std::size_t layer = matrix(q_size, hidden) + 2 * matrix(kv_size, hidden) + matrix(hidden, q_size) +
                            2 * matrix(config.intermediate_size, hidden) + matrix(hidden, config.intermediate_size);
  const std::size_t norms = (2 * config.num_layers + 1) * hidden * sizeof(float);
  const std::size_t embedding = config.vocab_size * hidden * sizeof(float);
  return config.num_layers * layer + matrix(config.vocab_size, hidden) + embedding + norms;
}

}  // namespace memlane
