#pragma once

#include <cstddef>
#include <map>
#include <optional>

#include "kernels/exec.h"
#include "memory/list_settings.h"
#include "memory/lookup.h"
#include "runtime/model_config.h"

namespace memlane {

/// How long looking memory up takes on this machine while documents are read: measured, in a fraction of a second, on
/// made-up entries of one key/value head.
///
/// A memory larger than the entries that are made consists of several documents of the same. Dense lookups and scans
/// grow in proportion; what lists cost beyond is measured at a few sizes. FAISS indexes, and lists of absurdly wide
/// keys, are taken for exact scans.
class LookupCost {
 public:
  /// most: entries of the largest memory that will be asked about.
  LookupCost(CpuExec& exec, const ModelConfig& config, const MemorySettings& settings, const Lookup& lookup,
             std::size_t most);

  /// Seconds for one of many tokens, in one memory layer with so many entries.
  double seconds_per_token(std::size_t entries) const;
  /// Seconds for taking one entry of a memory layer up into the key indexes; 0 without.
  double seconds_per_entry() const { return seconds_per_entry_; }
  /// Seconds beyond that for clustering lists together while a document grows from `before` entries of a memory layer
  /// to `after`.
  double merging_seconds(std::size_t before, std::size_t after) const;

 private:
  std::map<std::size_t, double> seconds_per_token_;  // measured, by entries; from 0
  double seconds_per_entry_ = 0;
  std::optional<ListSettings> merging_;  // of lists that are clustered together
  std::size_t indexed_ = 0;              // entries whose index was made
  double seconds_per_merged_entry_ = 0;  // and clustered together, for each mean that it is compared with
};

}  // namespace memlane
