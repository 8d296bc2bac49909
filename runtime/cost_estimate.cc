#include "runtime/cost_estimate.h"

#include <algorithm>
#include <vector>

#include "kernels/attention.h"
#include "kernels/entries.h"
#include "kernels/matmul.h"
#include "runtime/lookup_cost.h"
#include "runtime/short_timing.h"
#include "runtime/weights.h"

namespace memlane {

namespace {

double seconds_per_flop(CpuExec& exec, const ModelConfig& config, WeightFormat format) {
  const std::size_t m = 256;
  const std::size_t n = std::min<std::size_t>(config.intermediate_size, 1024);
  const std::size_t k = std::min<std::size_t>(config.hidden_size, 1024);
  const std::vector<float> ones(std::max(m, n) * k, 1.0F);
  const PackedMatrix w(exec, reinterpret_cast<const std::byte*>(ones.data()), DType::f32, n, k, format);
  std::vector<float> out(m * n);
  const double seconds = seconds_of([&] { matmul(exec, {ones.data(), {m, k}}, w, {out.data(), {m, n}}); });
  return seconds / (2.0 * static_cast<double>(m * n * k));
}

double seconds_per_score(CpuExec& exec, const ModelConfig& config, DType dtype) {
  const std::size_t entries = 2048;
  const std::size_t d = config.head_dim;
  // Fewer of absurdly wide models: an estimate comes before anybody asked whether the model fits.
  const std::size_t tokens = std::clamp<std::size_t>((std::size_t{1} << 22) / (config.num_heads * d), 1, 128);
  const auto keys = Buffer<std::byte>::zeroed(key_elements(entries, d, dtype) * size_of(dtype));
  const auto values = Buffer<std::byte>::zeroed(entries * d * size_of(dtype));
  // Of bfloat16 values where the decoder's are: attention takes another way with them.
  const std::vector<float> queries(tokens * config.num_heads * d, dtype == DType::bf16 ? 0.125F : 0.1F);
  const std::vector<EntryBlock> blocks(config.num_kv_heads, {keys.data(), values.data(), entries, dtype});
  PartialBuffer buffer;
  const AttentionPartial out = buffer.get(tokens, config.num_heads, d);
  const double seconds = seconds_of([&] {
    attend(exec, {queries.data(), {tokens, config.num_heads, d}}, {blocks.data(), {config.num_kv_heads, 1}}, 0.1F,
           Visibility::all(), out);
  });
  return seconds / static_cast<double>(tokens * config.num_heads * entries);
}

}  // namespace

ReadingCost& ReadingCost::operator+=(const ReadingCost& other) {
  matmul_flops += other.matmul_flops;
  scores += other.scores;
  stored += other.stored;
  for (const auto& [entries, tokens] : other.lookups) lookups[entries] += tokens;
  return *this;
}

ReadingCost reading_cost(const ModelConfig& config, const MemorySettings& settings, std::size_t first,
                         std::size_t tokens, std::size_t kept) {
  if (settings.mem_layers.empty() || first >= tokens) return {};
  const auto count = [](std::size_t x) { return static_cast<double>(x); };
  const double heads = count(config.num_heads);
  const double kv = 2 * count(config.num_kv_heads * config.head_dim) * count(config.hidden_size);
  const double layer = 2 * heads * count(config.head_dim * config.hidden_size) + kv +
                       3 * count(config.hidden_size * config.intermediate_size);
  const double whole_layers = settings.mem_layers.back();
  const double attending_layers = count(settings.mem_layers.size() - 1);
  ReadingCost cost;
  for (std::size_t window = first; window < tokens; window += settings.window) {
    const std::size_t end = std::min(tokens, window + settings.window);
    for (std::size_t begin = window; begin < end; begin += settings.memory_window) {
      const double pass = count(std::min(settings.memory_window, end - begin));
      cost.matmul_flops += 2 * pass * (whole_layers * layer + kv);
      // Plain layers see the window so far, memory layers their part of it and all of memory.
      const double plain = (whole_layers - attending_layers) * (count(begin - window) + pass / 2);
      cost.scores += heads * pass * (plain + attending_layers * pass / 2);
      const std::size_t seen = std::min(window, kept) + begin - window;
      if (seen > 0 && attending_layers > 0) cost.lookups[seen] += pass * attending_layers;
      cost.stored += pass * count(settings.mem_layers.size());
    }
  }
  return cost;
}

double estimate_seconds(CpuExec& exec, const ModelConfig& config, const MemorySettings& settings, Precision precision,
                        const Lookup& lookup, const ReadingCost& cost) {
  double seconds = cost.matmul_flops * seconds_per_flop(exec, config, precision.weights) +
                   cost.scores * seconds_per_score(exec, config, precision.compute);
  if (cost.stored == 0) return seconds;
  const auto tokens_stored = static_cast<std::size_t>(cost.stored) / settings.mem_layers.size();
  const std::size_t seen = cost.lookups.empty() ? 0 : cost.lookups.rbegin()->first;
  const std::size_t most = std::max(seen, std::min(settings.memory_window, tokens_stored));
  const LookupCost memory(exec, config, settings, lookup, most);
  for (const auto& [entries, tokens] : cost.lookups) seconds += tokens * memory.seconds_per_token(entries);
  return seconds + cost.stored * memory.seconds_per_entry();
}

double bytes_read_per_token(const ModelConfig& config, const MemorySettings& settings, Precision precision,
                            const Lookup& lookup, const TokenReads& reads) {
  const auto count = [](std::size_t x) { return static_cast<double>(x); };
  const double vector = count(config.num_kv_heads * config.head_dim);  // a token's keys, or values, of one layer
  const std::size_t in_plain =
      settings.sliding_window > 0 ? std::min(reads.local_tokens, settings.sliding_window) : reads.local_tokens;
  const std::size_t in_memory = std::min(reads.local_tokens, settings.memory_window);
  const std::size_t memory_layers = settings.mem_layers.size();
  const double local = 2 * vector * count(size_of(precision.compute)) *
                       count(in_plain * (config.num_layers - memory_layers) + in_memory * memory_layers);
  const std::size_t best = std::min(lookup.top_k, reads.memory_entries);
  const bool all_keys = !lookup.has_index();
  const bool all_values = lookup.kind == Lookup::Kind::dense;
  // Each head chooses entries of its own.
  const double chosen = count(best * config.num_heads / config.num_kv_heads);
  const double keys = all_keys ? count(reads.memory_entries) : chosen;
  const double values = all_values ? count(reads.memory_entries) : chosen;
  const double memory = (keys + values) * vector * count(size_of(settings.mem_dtype) * settings.mem_layers.size());
  const double embedding_row = count(config.hidden_size * size_of(precision.compute));
  return count(weight_bytes(config, precision)) + embedding_row + local + memory;
}

}  // namespace memlane
