#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>

#include "kernels/exec.h"
#include "memory/lookup.h"
#include "runtime/model.h"

namespace memlane {

/// The same target tokens, read with a memory of a given size.
struct PerplexityTask {
  std::span<const std::int32_t> ids;  ///< a text's tokens without BOS, targets at the end
  std::size_t targets = 0;            ///< whole windows at the end of ids
  std::size_t memory_tokens = 0;      ///< whole windows before each target window that are in memory; 0: none
};

struct PerplexityResult {
  double nll = 0;          ///< sum of -ln p over the scored tokens
  std::size_t tokens = 0;  ///< scored: all targets but the first of each window
};

/// Reads the windows before the targets into memory, then scores the target windows one by one. Before every window,
/// scored or not, memory holds the windows that lie at most memory_tokens before it and nothing else, so each target
/// has exactly the context that is named: its window so far and the memory. Every scored window begins with its own
/// tokens (no BOS). progress: called with (tokens done, tokens in all). each: if given, called for every scored token
/// with the place in ids of the token before it and -ln p. Throws Interrupted once `stop` is set.
PerplexityResult perplexity_with_memory(CpuExec& exec, const Model& model, const MemorySettings& settings,
                                        const Lookup& lookup, const PerplexityTask& task, const std::atomic<bool>* stop,
                                        const std::function<void(std::size_t, std::size_t)>& progress,
                                        const std::function<void(std::size_t, double)>& each = {});

/// -ln p of a token after logits [vocab].
double token_nll(std::span<const float> logits, std::int32_t id);

/// -ln p of ids[i + 1] after the token of row i, summed over the rows but the last. logits: [tokens, vocab], ids:
/// [tokens].
double sum_nll(View<const float, 2> logits, std::span<const std::int32_t> ids);

}  // namespace memlane
