#pragma once

#include <cstddef>

#include "kernels/weight_format.h"

namespace memlane {

/// Quantises 32 rows of W to one panel (quantised_layout.h). Returns whether they are all finite; if not, the panel
/// means nothing. rows: the first of `count` <= 32 row-major rows of k elements of `source`, at any alignment.
bool quantise_panel(const std::byte* rows, DType source, std::size_t count, std::size_t k, WeightFormat format,
                    std::byte* panel);

/// Row `row` of a panel as its products see it. out: [k]
void read_quantised_row(const std::byte* panel, WeightFormat format, std::size_t row, std::size_t k, float* out);

}  // namespace memlane
