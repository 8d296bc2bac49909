#include "runtime/memory_need.h"

#include <algorithm>

#include "kernels/attention.h"
#include "memory/lost_pages.h"
#include "memory/memory.h"
#include "runtime/local_settings.h"
#include "runtime/resources.h"
#include "runtime/session.h"
#include "runtime/weights.h"

namespace memlane {

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
    const std::size_t keys = lookup.has_lists()   ? ListSettings::of(lookup).candidates(lookup.top_k)
                             : lookup.has_index() ? lookup.top_k
                                                  : 0;
    need.at_once =
        config.num_heads * (std::min(lookup.top_k, size.entries) + std::min(keys, size.entries)) * kMappedAround;
  }
  need.fixed = need.present + weight_bytes(config, precision) +
               config.vocab_size * config.hidden_size * size_of(precision.compute) +  // the embedding, as mapped
               Session::pass_bytes(config, settings, precision.compute, size.tokens) +
               attend_split_bytes(exec, {pass, config.num_heads, config.head_dim}, config.num_kv_heads, size.segments,
                                  precision.compute) +
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
