#pragma once

#include "kernels/array.h"
#include "kernels/exec.h"
#include "kernels/input_rows.h"
#include "kernels/matmul.h"

namespace memlane {

/// x += (silu(a gate^T) * (a up^T)) down^T (Shazeer 2020; LlamaMLP), each product as matmul makes it. a, x: [m,
/// hidden]; a may be made of x, but not lie in it. gates, ups: space of [m, intermediate] each, and space: of [m,
/// hidden], which may be where a lies; their contents are unspecified afterwards.
void feed_forward(CpuExec& exec, const InputRows& a, const PackedMatrix& gate, const PackedMatrix& up,
                  const PackedMatrix& down, View<float, 2> gates, View<float, 2> ups, View<float, 2> space,
                  View<float, 2> x);

}  // namespace memlane
