#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/memory_budget.h"
#include "kernels/exec.h"
#include "kernels/weight_format.h"
#include "memory/eviction.h"
#include "memory/lookup.h"
#include "runtime/memory_need.h"
#include "runtime/model_config.h"

namespace memlane {

/// A document that is read, or has been.
struct Reading {
  std::size_t tokens = 0;
  std::size_t done = 0;  ///< that are in memory already
};

/// What a run of ingest is about to do, as far as it decides what that takes.
struct IngestWork {
  const ModelConfig& config;
  const MemorySettings& settings;
  Precision precision;
  const Lookup& lookup;
  std::vector<Reading> readings;
  std::optional<EvictionPolicy> eviction;  ///< what a window sees of those before it; none for all
};

/// What it will take.
struct IngestPlan {
  MemoryNeed memory;
  std::uint64_t disk_bytes = 0;
  double seconds = 0;  ///< ingest_seconds(), where anybody is told
};

IngestPlan plan_ingest(const CpuExec& exec, const IngestWork& work);
/// How long it will take, in seconds, from measurements that take a second themselves. memory: the file that it will be
/// stored in.
double ingest_seconds(CpuExec& exec, const IngestWork& work, const IngestPlan& plan, const std::string& memory);

/// Entries that each window can see of those before it within a budget, in whole windows. Throws InputError if not even
/// one window can be kept. work.eviction says by which rule; how many it keeps is not looked at.
std::size_t entries_to_keep(const CpuExec& exec, const IngestWork& work, const MemoryBudget& budget);

/// Lines for people: what is needed and what there is.
std::string plan_text(const IngestPlan& plan, const MemoryBudget& budget, const std::string& memory,
                      const std::optional<EvictionPolicy>& eviction);

}  // namespace memlane
