#pragma once

#include <cstddef>

#include "kernels/exec.h"
#include "runtime/model_config.h"

namespace memlane {

/// What reading tokens into memory takes.
struct ReadingCost {
  double matmul_flops = 0;  ///< multiply-adds count twice
  double scores = 0;        ///< pairs of a query (of one head) and an entry that it is held against
};

/// The cost of reading tokens [first, tokens) of a document in windows, every entry of memory scanned. A pass ends at
/// the last memory layer, which only stores.
ReadingCost reading_cost(const ModelConfig& config, const MemorySettings& settings, std::size_t first,
                         std::size_t tokens);

/// How long that takes on this machine, in seconds: a few milliseconds of each kind of work are run and scaled up.
double estimate_seconds(CpuExec& exec, const ModelConfig& config, DType compute, const ReadingCost& cost);

}  // namespace memlane
