#pragma once

#include "kernels/array.h"
#include "kernels/exec.h"
#include "kernels/matmul.h"

namespace memlane {

/// out = (silu(a gate^T) * (a up^T)) down^T (Shazeer 2020; LlamaMLP), each product as matmul makes it. a, out: [m,
/// hidden], may be the same. gates, ups: space of [m, intermediate] each, whose contents are unspecified afterwards.
void feed_forward(CpuExec& exec, View<const float, 2> a, const PackedMatrix& gate, const PackedMatrix& up,
                  const PackedMatrix& down, View<float, 2> gates, View<float, 2> ups, View<float, 2> out);

}  // namespace memlane
