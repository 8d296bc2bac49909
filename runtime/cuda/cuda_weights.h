#pragma once

#include <cstddef>
#include <vector>

#include "kernels/cuda/matmul.h"
#include "kernels/exec.h"
#include "runtime/checkpoint.h"
#include "runtime/model_config.h"

namespace memlane {

/// LayerWeights on the GPU.
struct CudaLayerWeights {
  CudaBuffer<float> attention_norm;  ///< [hidden]
  CudaMatrix q;                      ///< [heads * head_dim, hidden]
  CudaMatrix k, v;                   ///< [kv_heads * head_dim, hidden]
  CudaMatrix o;                      ///< [hidden, heads * head_dim]
  CudaBuffer<float> mlp_norm;        ///< [hidden]
  CudaMatrix gate, up;               ///< [intermediate, hidden]
  CudaMatrix down;                   ///< [hidden, intermediate]
};

/// Weights on the GPU: matrices in bfloat16, int8 or int4, the embedding table in the checkpoint's own type.
struct CudaWeights {
  CudaBuffer<std::byte> embedding;  ///< [vocab, hidden] elements of `embedding_type`
  DType embedding_type = DType::bf16;
  std::vector<CudaLayerWeights> layers;
  CudaBuffer<float> final_norm;  ///< [hidden]
  CudaMatrix head;               ///< [vocab, hidden]; of a tied model the embedding

  View<const std::byte, 1, Cuda> embedding_rows() const { return embedding.view<1>({embedding.size()}); }
  DType embedding_dtype() const { return embedding_type; }
};

/// Reads every weight onto the GPU. cpu: quantises them; format: bf16, int8 or int4. Throws InputError for a tensor
/// that is missing, contradicts the config, or cannot be quantised because an element is not finite.
CudaWeights load_cuda_weights(CudaExec& exec, CpuExec& cpu, const Checkpoint& checkpoint, const ModelConfig& config,
                              WeightFormat format);

/// Bytes of the GPU that load_cuda_weights will take, at most.
std::size_t cuda_weight_bytes(const ModelConfig& config, WeightFormat format);

}  // namespace memlane
