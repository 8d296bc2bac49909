#pragma once

#include <span>

#include "kernels/matmul.h"

namespace memlane {

/// matmul() for int8 and int4 matrices.
void quantised_matmul(CpuExec& exec, const InputRows& a, std::span<const MatrixProduct> products);

/// x += a W^T.
void quantised_matmul_add(CpuExec& exec, const InputRows& a, const PackedMatrix& w, View<float, 2> x);

/// As feed_forward does. What gate and up give of many rows is quantised as it comes and never stored as a whole; that
/// of too few for all threads goes to `gates`.
void quantised_feed_forward(CpuExec& exec, const InputRows& a, const PackedMatrix& gate, const PackedMatrix& up,
                            const PackedMatrix& down, View<float, 2> gates, View<float, 2> x);

}  // namespace memlane
