#pragma once

#include <cstddef>

#include "memory/lookup.h"

namespace memlane {

/// What --index-parameters say for the lookups ivf and int8.
struct ListSettings {
  std::size_t chunk = 16384;  ///< consecutive entries whose keys are clustered by themselves; int8: one list of so many
  std::size_t lists = 64;     ///< ivf: clusters of a full chunk
  std::size_t probes = 0;     ///< ivf: lists that a query scans, of all documents together; 0: by their number
  double rerank = 1.25;       ///< times top_k keys are scored again as they are stored
  bool tail = false;          ///< entries that are not attended to are estimated by their lists
  double mass = 1;            ///< below 1: lists and entries stop where they hold this share of the weight

  /// Throws InputError that names the parameter.
  static ListSettings of(const Lookup& lookup);
  /// Keys that are scored again for the best top_k.
  std::size_t candidates(std::size_t top_k) const;
  /// Lists that a query scans of `all` at most, unless probes are given: a sixth of few and 512 and a thirty-second of
  /// many, which hold keys that are nearer to each other; and at least 128 (docs/indexes.md).
  std::size_t probes_of(std::size_t all) const;
};

}  // namespace memlane
