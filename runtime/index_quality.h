#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "memory/memory.h"
#include "runtime/model.h"
#include "runtime/recall.h"
#include "runtime/tokenizer.h"

namespace memlane {

/// A lookup to be measured: "exact:k=256", "ivf:probes=64,tail=on". Throws InputError for one that cannot be.
struct IndexCase {
  std::string text;
  Lookup lookup;
  bool queries = false;  ///< "queries=on", ivf: lists by distances as queries see them (QueryMoments)

  /// k: where the text says none.
  static IndexCase parse(std::string_view text, std::size_t k);
};

/// What a lookup makes of real queries to a real memory, beside a dense one. Shares and errors are means over memory
/// layers, query heads and queries.
struct IndexQuality {
  double recall = 0;             ///< of the best kRecalled entries, the part that the lookup attends to
  double mass = 0;               ///< share of the weight of all memory in its softmax that is on entries attended to
  double error = 0;              ///< |output - dense output| / |dense output| of attention over memory alone
  double weight = 0;             ///< all weight that the lookup gives memory, estimates among it, to dense attention's
  double scanned = 0;            ///< keys scored, of all
  double compared = 0;           ///< means of lists and cells compared, to the number of all keys
  double seconds_per_token = 0;  ///< attention over memory, all memory layers, one token at a time
  double build_seconds = 0;      ///< making the indexes, window after window
  std::size_t bytes = 0;         ///< of the indexes, beside the entries
  double nll = 0;                ///< sum of -ln p over the targets
  std::size_t targets = 0;
  std::size_t correct = 0, trials = 0;  ///< pass keys
  double perplexity() const;
};

/// Reads a text into memory once, densely, and the tokens that follow it, whose queries and probabilities are measured
/// under any lookup.
class IndexProbe {
 public:
  static constexpr std::size_t kRecalled = 128;

  IndexProbe(CpuExec& exec, const Model& model, const MemorySettings& settings, const std::atomic<bool>* stop);

  /// Reads memory, then records the queries of every `stride`-th of the targets. targets: whole windows, each of which
  /// sees all of memory and nothing of the others. progress: called with the tokens done. Throws Interrupted.
  void read(std::span<const std::int32_t> memory, std::span<const std::int32_t> targets, std::size_t stride,
            const std::function<void(std::size_t)>& progress);
  /// Reads a pass key trial's document; its question is asked under each lookup.
  void read_trial(const RecallTrial& trial);

  /// Throws Interrupted.
  IndexQuality measure(const IndexCase& each, const Tokenizer& tokenizer);

 private:
  struct Recorded;
  struct Truth {
    std::size_t layer_slot = 0;
    float scale = 0;
    std::vector<float> queries;  // [tokens, heads, head_dim]
    std::vector<float> output;   // the same, of dense attention
    std::vector<float> max, weight;
    std::vector<std::int64_t> best;  // [tokens, heads, kRecalled]
    std::size_t tokens = 0;
  };
  DocumentMemory document(const DocumentMemory& from, const IndexCase& each);
  void find_truth();
  void find_metrics(Memory& dense, std::span<const std::int32_t> window);
  View<const float, 3> queries_of(const Truth& truth, std::size_t begin, std::size_t end) const;
  void compare(Memory& memory, const Truth& truth, IndexQuality& quality);
  double score_targets(Memory& memory, std::span<const std::int32_t> targets, const Memory::Observer& observer,
                       std::size_t& scored);
  bool answers_trial(const RecallTrial& trial, const DocumentMemory& document, const Lookup& lookup,
                     const Tokenizer& tokenizer);

  CpuExec& exec_;
  const Model& model_;
  MemorySettings settings_;
  const std::atomic<bool>* stop_;
  EntryShape shape_;
  std::optional<DocumentMemory> memory_;
  std::vector<std::int32_t> targets_;
  std::vector<std::vector<float>> metrics_;  // QueryMoments
  std::vector<Truth> truths_;                // of each memory layer
  std::vector<RecallTrial> trials_;
  std::vector<DocumentMemory> trial_memories_;
};

}  // namespace memlane
