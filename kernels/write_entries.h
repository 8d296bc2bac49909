#pragma once

#include <cstddef>

#include "kernels/array.h"
#include "kernels/entries.h"
#include "kernels/exec.h"

namespace memlane {

/// Writes the keys of every head, rounded to a type, into its panels (kernels/entries.h), from entry `first` on: the
/// bits are those of write_keys. keys: [entries, heads, head_dim]. panels: those of the first head; those of the next
/// begin `head_elements` elements later, and so on.
void write_key_panels(CpuExec& exec, DType dtype, std::byte* panels, std::size_t head_elements, std::size_t first,
                      View<const float, 3> keys);

/// Writes the values of every head, rounded to a type, as rows. values: [entries, heads, head_dim]. rows: the first of
/// the first head; that of the next begins `head_elements` elements later, and so on.
void write_values(CpuExec& exec, DType dtype, std::byte* rows, std::size_t head_elements, View<const float, 3> values);

}  // namespace memlane
