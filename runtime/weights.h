#pragma once

#include <cstddef>
#include <vector>

#include "kernels/array.h"
#include "kernels/exec.h"
#include "kernels/matmul.h"
#include "runtime/checkpoint.h"
#include "runtime/model_config.h"

namespace memlane {

/// One decoder layer. Shapes are [output, input], as in the checkpoint.
struct LayerWeights {
  Buffer<float> attention_norm;  ///< [hidden]
  PackedMatrix q;                ///< [heads * head_dim, hidden]
  PackedMatrix k, v;             ///< [kv_heads * head_dim, hidden]
  PackedMatrix o;                ///< [hidden, heads * head_dim]
  Buffer<float> mlp_norm;        ///< [hidden]
  PackedMatrix gate, up;         ///< [intermediate, hidden]
  PackedMatrix down;             ///< [hidden, intermediate]
};

/// A model's weights, ready for kernels. The embedding table stays in the mapped checkpoint: a token needs one row of
/// it.
struct Weights {
  const Tensor* embedding = nullptr;  ///< [vocab, hidden]
  std::vector<LayerWeights> layers;
  Buffer<float> final_norm;  ///< [hidden]
  PackedMatrix head;         ///< [vocab, hidden]; of a tied model the embedding

  const std::byte* embedding_rows() const { return embedding->bytes.data(); }
  DType embedding_dtype() const { return embedding->dtype; }
};

/// Reads and packs every weight, the head included; norms stay float32, the embedding as it is. Throws InputError for a
/// tensor that is missing, contradicts the config, or cannot be held in this format.
/// checkpoint: must outlive the weights.
Weights load_weights(CpuExec& exec, const Checkpoint& checkpoint, const ModelConfig& config, WeightFormat format);

/// Bytes that load_weights will allocate.
std::size_t weight_bytes(const ModelConfig& config, WeightFormat format);
inline std::size_t weight_bytes(const ModelConfig& config, Precision precision) {
  return weight_bytes(config, precision.weights);
}
inline std::size_t weight_bytes(const ModelConfig& config, DType compute) {
  return weight_bytes(config, format_of(compute));
}

}  // namespace memlane
