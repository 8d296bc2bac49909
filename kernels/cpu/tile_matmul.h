#pragma once

#include <cstddef>
#include <span>

#include "kernels/matmul.h"

namespace memlane {

/// Products with bfloat16 matrices by matrix tiles (tile_kernels.h), where the instruction set has them.

/// As matmul does. products: of bfloat16.
void matmul_by_tiles(CpuExec& exec, View<const float, 2> a, std::span<const MatrixProduct> products);

/// As feed_forward does. What gate and up give goes into tiles as it comes and is never stored as a whole.
void feed_forward_by_tiles(CpuExec& exec, View<const float, 2> a, const PackedMatrix& gate, const PackedMatrix& up,
                           const PackedMatrix& down, View<float, 2> out);

/// Whether it pays: rows of a block stay in the second-level cache with all of their k.
bool feeds_forward_by_tiles(const PackedMatrix& gate);

}  // namespace memlane
