#include "runtime/cost_estimate.h"

#include <algorithm>
#include <vector>

#include "kernels/attention.h"
#include "kernels/entries.h"
#include "kernels/layers.h"
#include "kernels/matmul.h"
#include "runtime/local_attention.h"
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
  const std::size_t tokens = std::clamp<std::size_t>((std::size_t{1} << 22) / (config.num_heads * d), 1, 512);
  const auto keys = Buffer<std::byte>::zeroed(key_elements(entries, d, dtype) * size_of(dtype));
  const auto values = Buffer<std::byte>::zeroed(entries * d * size_of(dtype));
  // Of bfloat16 values where the decoder's are: attention takes another way with them.
  const std::vector<float> queries(tokens * config.num_heads * d, dtype == DType::bf16 ? 0.125F : 0.1F);
  const std::vector<EntryBlock> blocks(config.num_kv_heads, {keys.data(), values.data(), entries, dtype});
  PartialBuffer buffer;
  const AttentionPartial out = buffer.get(tokens, config.num_heads, d);
  const double seconds = seconds_of([&] {
    attend(exec, {queries.data(), {tokens, config.num_heads, d}}, {blocks.data(), {config.num_kv_heads, 1}}, 0.1F,
           Visibility::causal_from(entries - tokens), out);  // as the end of a window: with the triangle
  });
  return seconds / static_cast<double>(config.num_heads * tokens * (entries - tokens / 2));
}

/// Seconds that a token takes beside matrix products, attention and lookups.
struct PassingSeconds {
  double layer = 0;         ///< in a layer: what is done to each number, and keeping keys and values for the window
  double memory_layer = 0;  ///< beyond that, for keys and values that move to memory
};

PassingSeconds passing_seconds(CpuExec& exec, const ModelConfig& config, const MemorySettings& settings, DType dtype) {
  constexpr std::size_t kWidest = std::size_t{1} << 16;  // of absurdly wide models a part
  const std::size_t hidden = std::min(config.hidden_size, kWidest), ffn = std::min(config.intermediate_size, kWidest);
  const std::size_t d = config.head_dim, heads = std::clamp<std::size_t>(kWidest / d, 1, config.num_kv_heads);
  // Not a whole window: what is measured before anything is read must not take more memory than reading does.
  const std::size_t tokens =
      std::clamp<std::size_t>((std::size_t{1} << 19) / std::max({hidden, ffn, heads * d}), 1, settings.memory_window);
  ModelConfig narrow = config;
  narrow.num_layers = 2;  // without memory, and with
  narrow.num_heads = narrow.num_kv_heads = heads;
  MemorySettings all;
  all.mem_layers = {1};
  all.mem_dtype = settings.mem_dtype;
  all.window = all.memory_window = tokens;
  all.rope = settings.rope;
  all.memory_rope = settings.memory_rope;
  LocalAttention<CpuExec> local(exec, narrow, all, dtype);
  std::vector<float> x(tokens * hidden, 0.5F), h(x), weight(hidden, 1.0F), gate(tokens * ffn, 0.5F), up(gate),
      gated(gate);
  std::vector<float> keys(tokens * heads * d, 0.5F), values(keys);
  const View<float, 3> k(keys.data(), {tokens, heads, d}), v(values.data(), {tokens, heads, d});
  const bool rounds = dtype == DType::bf16;
  const auto norm = [&] {
    rms_norm(exec, {x.data(), {tokens, hidden}}, {weight.data(), {hidden}}, 1e-5F, {h.data(), {tokens, hidden}});
    add(exec, {x.data(), {tokens, hidden}}, {h.data(), {tokens, hidden}});
  };
  const double both = seconds_of([&] {
    local.begin(exec, tokens);
    for (const std::size_t layer : {std::size_t{0}, std::size_t{1}}) {
      norm();
      if (rounds) round_to_bf16(exec, k.flat());
      if (rounds && layer == 1) round_to_bf16(exec, v.flat());
      local.store(exec, layer, k, v);
      norm();
      swiglu(exec, {gate.data(), {tokens, ffn}}, {up.data(), {tokens, ffn}}, {gated.data(), {tokens, ffn}});
    }
  });
  local.advance();
  const EntryShape shape = {{1}, heads, d, settings.mem_dtype};
  const double moving = seconds_of([&] { local.to_segment(exec, shape); });
  const auto times = [](std::size_t whole, std::size_t used) {
    return static_cast<double>(whole) / static_cast<double>(used);
  };
  const double wider = std::max(
      {times(config.hidden_size, hidden), times(config.intermediate_size, ffn), times(config.num_kv_heads, heads)});
  return {both / 2 * wider / static_cast<double>(tokens),
          moving * times(config.num_kv_heads, heads) / static_cast<double>(tokens)};
}

}  // namespace

ReadingCost& ReadingCost::operator+=(const ReadingCost& other) {
  matmul_flops += other.matmul_flops;
  scores += other.scores;
  stored += other.stored;
  for (const auto& [entries, tokens] : other.lookups) lookups[entries] += tokens;
  growth.insert(growth.end(), other.growth.begin(), other.growth.end());
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
  cost.growth = {{std::min(first, kept), std::min(tokens, kept)}};
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
  const auto memory_layers = static_cast<double>(settings.mem_layers.size());
  const auto tokens_stored = static_cast<std::size_t>(cost.stored / memory_layers);
  const PassingSeconds passing = passing_seconds(exec, config, settings, precision.compute);
  seconds += cost.stored * (passing.memory_layer + passing.layer * (settings.mem_layers.back() + 1) / memory_layers);
  const std::size_t seen = cost.lookups.empty() ? 0 : cost.lookups.rbegin()->first;
  const std::size_t most = std::max(seen, std::min(settings.memory_window, tokens_stored));
  const LookupCost memory(exec, config, settings, lookup, most);
  for (const auto& [entries, tokens] : cost.lookups) seconds += tokens * memory.seconds_per_token(entries);
  for (const auto& [before, after] : cost.growth) {
    seconds += memory_layers * memory.merging_seconds(before, after);
  }
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
