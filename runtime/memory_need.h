#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/exec.h"
#include "kernels/weight_format.h"
#include "memory/lookup.h"
#include "runtime/model_config.h"

namespace memlane {

/// What a run will have resident, in bytes.
struct MemoryNeed {
  std::uint64_t present = 0;  ///< already, when this was computed, pages of mapped files apart
  std::uint64_t fixed = 0;    ///< `present` and what comes however much is remembered: weights, window, workspace
  std::uint64_t entries =
      0;  ///< of the largest memory that it attends to, with lists of keys that are used where stored
  std::uint64_t at_once = 0;  ///< of entries that are used where they lie, in one step: single ones, scattered
  std::uint64_t peak = 0;     ///< that it had already

  std::uint64_t bytes() const;
};

/// What a session works on.
struct SessionSize {
  std::size_t tokens = 0;     ///< of a text that it reads or continues: its passes have as many at most
  std::size_t entries = 0;    ///< that it attends to
  std::size_t segments = 0;   ///< that these lie in
  std::size_t documents = 1;  ///< that these are of
};

/// What is resident now, with what a model and a session will add; entries and key indexes are the caller's to add.
/// Lets go of the pages of mapped files that were read.
MemoryNeed session_need(const CpuExec& exec, const ModelConfig& config, const MemorySettings& settings,
                        Precision precision, const Lookup& lookup, const SessionSize& size);

}  // namespace memlane
