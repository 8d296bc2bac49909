#pragma once

#include "kernels/matmul.h"

namespace memlane {

/// matmul() for int8 and int4 matrices.
void quantised_matmul(CpuExec& exec, View<const float, 2> a, const PackedMatrix& w, View<float, 2> out);

}  // namespace memlane
