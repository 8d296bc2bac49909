#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "memory/document_memory.h"
#include "runtime/model.h"

namespace memlane {

/// Documents that may distract from one another (Tworkowski et al. 2023, section 3.2 "the distraction issue"): each has
/// a part that goes to memory and targets that follow it in its text.
struct DistractionDocument {
  std::span<const std::int32_t> memory;   ///< BOS is put before it
  std::span<const std::int32_t> targets;  ///< at most a window
};

/// Cuts texts into documents of `memory` and `targets` tokens: the first piece of each text, then the second of each,
/// and so on; `count` of them, or fewer if the texts have no more.
std::vector<DistractionDocument> cut_documents(std::span<const std::vector<std::int32_t>> texts, std::size_t memory,
                                               std::size_t targets, std::size_t count);

/// One document's targets, read with the memory of `documents` documents: its own and others. 0: with none.
struct DistractionTrial {
  std::size_t right = 0;                 ///< the document whose targets are read
  std::vector<std::size_t> distractors;  ///< the others, in the order in which more are added
};

/// The trials of a seed: different documents if there are enough, each with all others in a random order.
std::vector<DistractionTrial> make_trials(std::size_t documents, std::size_t trials, std::uint64_t seed);

struct DistractionResult {
  /// Attention of memory layers (MemoryWeights), means over the targets: what went to the right document, and to
  /// memory.
  double right = 0;
  double memory = 0;
  double nll = 0;          ///< sum of -ln p over all targets but the first
  std::size_t tokens = 0;  ///< of the sum
};

/// Reads documents into memories, and their targets with the memories of some of them.
class DistractionReader {
 public:
  DistractionReader(CpuExec& exec, const Model& model, const MemorySettings& settings, const Lookup& lookup,
                    std::vector<DistractionDocument> documents, int bos, const std::atomic<bool>* stop);

  /// Reads the memory part of every document. progress: called with the documents done. Throws Interrupted.
  void read(const std::function<void(std::size_t)>& progress);
  /// After read(). documents: in memory, the right one among them; 0 for no memory. Throws Interrupted.
  DistractionResult run(const DistractionTrial& trial, std::size_t documents) const;

 private:
  CpuExec& exec_;
  const Model& model_;
  MemorySettings settings_;
  Lookup lookup_;
  std::vector<DistractionDocument> documents_;
  int bos_;
  const std::atomic<bool>* stop_;
  std::vector<DocumentMemory> memories_;
};

}  // namespace memlane
