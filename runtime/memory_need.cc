#include "runtime/memory_need.h"

#include <algorithm>

#include "memory/lost_pages.h"
#include "memory/memory.h"
#include "runtime/local_settings.h"
#include "runtime/resources.h"
#include "runtime/session.h"
#include "runtime/weights.h"

namespace memlane {

namespace {

/// Of calls with few queries, whose blocks' partials lie side by side until they are merged.
std::size_t split_bytes(const CpuExec& exec, const ModelConfig& config, std::size_t tokens, std::size_t segments) {
  constexpr std::size_t kRows = 112;  // of queries that a thread takes at once, about
  const std::size_t group = config.num_heads / config.num_kv_heads;
  const std::size_t items = config.num_kv_heads * ((tokens * group + kRows - 1) / kRows);
  if (segments < 2 || items >= 4 * exec.threads()) return 0;
  return segments * tokens * config.num_heads * (config.head_dim + 2) * sizeof(float);
}

}  // namespace

std::uint64_t MemoryNeed::bytes() const {
  return std::max(peak, fixed + entries);
}

MemoryNeed session_need(const CpuExec& exec, const ModelConfig& config, const MemorySettings& settings,
                        Precision precision, const Lookup& lookup, const SessionSize& size) {
  const std::size_t pass = std::min(size.tokens, longest_pass(settings));
  const std::size_t blocks = size.segments * config.num_kv_heads * sizeof(EntryBlock);
  MemoryNeed need;
  let_go_of_watched_pages();
  need.present = ResidentMemory().bytes();
  need.peak = peak_memory();
  if (lookup.kind != Lookup::Kind::dense) {
    // Values, and of indexes the keys that are scored again.
    const std::size_t keys = lookup.has_lists() ? ListSettings::of(lookup).rerank : lookup.has_index() ? 1 : 0;
    need.at_once = config.num_heads * std::min(lookup.top_k, size.entries) * (1 + keys) * kMappedAround;
  }
  need.fixed = need.present + weight_bytes(config, precision) +
               config.vocab_size * config.hidden_size * size_of(precision.compute) +  // the embedding, as mapped
               Session::pass_bytes(config, settings, precision.compute, size.tokens) +
               split_bytes(exec, config, pass, size.segments) +
               blocks * (2 * settings.mem_layers.size() + 1) +  // of documents, and joined; those of one anew
               size.segments * sizeof(Segment) +
               Memory::lookup_bytes(lookup, {.threads = exec.threads(),
                                             .tokens = pass,
                                             .heads = config.num_heads,
                                             .kv_heads = config.num_kv_heads,
                                             .head_dim = config.head_dim,
                                             .entries = size.entries,
                                             .documents = size.documents});
  return need;
}

}  // namespace memlane
