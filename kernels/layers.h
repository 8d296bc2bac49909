#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "kernels/array.h"
#include "kernels/exec.h"
#include "kernels/scalar.h"

namespace memlane {

/// Rows of an embedding table, widened to float. table: [vocab, hidden] elements of `dtype`, at any alignment; ids:
/// [tokens], each in [0, vocab); out: [tokens, hidden].
void embed(CpuExec& exec, const std::byte* table, DType dtype, std::span<const std::int32_t> ids, View<float, 2> out);

/// out = x / sqrt(mean(x^2) + epsilon) * weight, over the last axis (Zhang and Sennrich 2019; LlamaRMSNorm).
/// x, out: [tokens, hidden]; weight: [hidden].
void rms_norm(CpuExec& exec, View<const float, 2> x, View<const float, 1> weight, float epsilon, View<float, 2> out);

/// out = silu(gate) * up (Shazeer 2020; LlamaMLP). All [tokens, intermediate]; out may be gate.
void swiglu(CpuExec& exec, View<const float, 2> gate, View<const float, 2> up, View<float, 2> out);

/// x += y. Both [tokens, hidden].
void add(CpuExec& exec, View<float, 2> x, View<const float, 2> y);

/// Rounds every element to bfloat16 and back.
void round_to_bf16(CpuExec& exec, std::span<float> x);

/// Rotates each pair (x[i], x[i + d/2]) of a head by the angle of the token's position: rotary position embedding (Su
/// et al. 2021) in the half-split order of Hugging Face checkpoints. x, out: [tokens, heads, head_dim], may be the
/// same; cosines, sines: [positions, head_dim / 2]; token i is at position min(first + i, last).
void rope(CpuExec& exec, View<const float, 3> x, View<const float, 2> cosines, View<const float, 2> sines,
          std::size_t first, View<float, 3> out, std::size_t last = std::numeric_limits<std::size_t>::max());

}  // namespace memlane
