#pragma once

#include <cstddef>
#include <span>

#include "kernels/matmul.h"

namespace memlane {

/// Products with bfloat16 matrices by TileKernels (tile_kernels.h), where the instruction set has them.

/// As matmul does. products: of bfloat16.
void matmul_by_tiles(CpuExec& exec, const InputRows& a, std::span<const MatrixProduct> products);

/// Whether products can be added to what is there as they come: not where they come in pieces.
bool adds_by_tiles(const CpuExec& exec);
/// x += a W^T, where adds_by_tiles. w: of bfloat16.
void matmul_add_by_tiles(CpuExec& exec, const InputRows& a, const PackedMatrix& w, View<float, 2> x);

/// As feed_forward does. What gate and up give goes into tiles as it comes and is never stored as a whole.
void feed_forward_by_tiles(CpuExec& exec, const InputRows& a, const PackedMatrix& gate, const PackedMatrix& up,
                           const PackedMatrix& down, View<float, 2> space, View<float, 2> x);

/// Whether it pays: rows are taken with all of their k at once, or stay in the second-level cache with it.
bool feeds_forward_by_tiles(const CpuExec& exec, const PackedMatrix& gate);

}  // namespace memlane
