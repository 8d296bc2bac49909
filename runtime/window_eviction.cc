#include "runtime/window_eviction.h"

#include <algorithm>

#include "kernels/error.h"
#include "runtime/stored_memory.h"

namespace memlane {

namespace {

/// Of a window's tokens every eighth tells what the window attends to; all of them would take eight times as long.
constexpr std::size_t kStride = 8;

}  // namespace

EvictingReader::EvictingReader(Session& session, const MemorySettings& settings,
                               const std::optional<EvictionPolicy>& policy)
    : session_(session), policy_(policy), attended_(policy ? policy->entries : 0) {
  if (!by_attention()) return;
  require_attention(settings);
  weights_.stride = kStride;
  session_.set_record(&weights_);
}

std::size_t EvictingReader::weighing_bytes(const ModelConfig& config, const MemorySettings& settings,
                                           std::size_t entries) {
  // The sums, and copies of the queries that are recorded, of their maxima and of their weights.
  const std::size_t tokens = (std::min(settings.memory_window, settings.window) + kStride - 1) / kStride;
  return entries * sizeof(double) + tokens * config.num_heads * (config.head_dim + 2) * sizeof(float);
}

void EvictingReader::resume(CpuExec& exec, const MemoryFile& file, const StoredDocument& document,
                            const Lookup& lookup) {
  windows_ = static_cast<std::uint32_t>(document.windows.size());
  if (!by_attention()) {
    session_.own_memory() = load_document(exec, file, document, lookup);
    return evict();
  }
  session_.own_memory() = load_seen(file, document, lookup);
  std::vector<std::size_t> counts;
  for (const Segment& segment : session_.own_memory().segments()) counts.push_back(segment.count());
  attended_.resume(document.windows.back().seen, counts);
}

std::span<const Segment> EvictingReader::read_window(std::span<const std::int32_t> ids) {
  weights_.tokens = 0;
  weights_.sums.clear();
  const std::span<const Segment> segments = session_.read_window(ids);
  if (by_attention()) {
    std::vector<std::size_t> counts;
    for (const Segment& segment : segments) counts.push_back(segment.count());
    attended_.read(windows_, counts, weights_.sums, weights_.tokens);
  }
  windows_ += static_cast<std::uint32_t>(segments.size());
  return segments;
}

std::span<const SeenWindow> EvictingReader::seen() const {
  return by_attention() ? attended_.seen() : std::span<const SeenWindow>();
}

void EvictingReader::evict() {
  if (!policy_) return;
  if (by_attention()) {
    session_.own_memory().keep(attended_.places());
  } else {
    session_.own_memory().keep_newest(policy_->entries);
  }
}

void require_attention(const MemorySettings& settings) {
  if (settings.mem_layers.size() > 1) return;
  input_error(
      "--beyond evict-least-attended: expected two or more memory layers, found {}: while documents are read the last "
      "one does not attend to memory, so that no window would get any attention; give more --mem-layers, or use "
      "--beyond evict-oldest",
      settings.mem_layers.size());
}

}  // namespace memlane
