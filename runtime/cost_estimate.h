#pragma once

#include <cstddef>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "kernels/exec.h"
#include "kernels/weight_format.h"
#include "memory/lookup.h"
#include "runtime/model_config.h"

namespace memlane {

/// What reading tokens into memory takes.
struct ReadingCost {
  double matmul_flops = 0;  ///< multiply-adds count twice
  double scores = 0;        ///< pairs of a query (of one head) and an entry of the local context
  /// Tokens that look memory up, by the entries that they see there, each once for every memory layer that does.
  std::map<std::size_t, double> lookups = {};
  double stored = 0;  ///< entries that go to memory, each once for every memory layer
  /// Tokens that each document has in memory before, and then.
  std::vector<std::pair<std::size_t, std::size_t>> growth = {};

  ReadingCost& operator+=(const ReadingCost& other);
};

/// The cost of reading tokens [first, tokens) of a document in windows. A pass ends at the last memory layer, which
/// only stores. kept: of the windows before it, each window sees so many entries at most.
ReadingCost reading_cost(const ModelConfig& config, const MemorySettings& settings, std::size_t first,
                         std::size_t tokens, std::size_t kept = std::numeric_limits<std::size_t>::max());

/// How long that takes on this machine, in seconds: some milliseconds of each kind of work are run and scaled up.
double estimate_seconds(CpuExec& exec, const ModelConfig& config, const MemorySettings& settings, Precision precision,
                        const Lookup& lookup, const ReadingCost& cost);

/// What one generated token reads.
struct TokenReads {
  std::size_t local_tokens = 0;    ///< in the local cache
  std::size_t memory_entries = 0;  ///< in memory
};
/// Bytes of it, computed: every weight but the embedding table, of which one row; in every layer the keys and values of
/// the local tokens that it sees; in memory layers those of memory: all of them with a dense lookup, all keys and top_k
/// values with an exact one, top_k of both with FAISS, whose own structures are not counted. Activations are left out:
/// they stay in caches.
double bytes_read_per_token(const ModelConfig& config, const MemorySettings& settings, Precision precision,
                            const Lookup& lookup, const TokenReads& reads);

}  // namespace memlane
