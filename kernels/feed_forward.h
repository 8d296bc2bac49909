#pragma once

#include "kernels/array.h"
#include "kernels/exec.h"
#include "kernels/matmul.h"

namespace memlane {

/// x += (silu(a gate^T) * (a up^T)) down^T (Shazeer 2020; LlamaMLP), each product as matmul makes it. a, x: [m,
/// hidden], two arrays. gates, ups: space of [m, intermediate] each; its contents and those of a are unspecified
/// afterwards.
void feed_forward(CpuExec& exec, View<float, 2> a, const PackedMatrix& gate, const PackedMatrix& up,
                  const PackedMatrix& down, View<float, 2> gates, View<float, 2> ups, View<float, 2> x);

}  // namespace memlane
