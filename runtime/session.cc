#include "runtime/session.h"

#include <algorithm>

#include "runtime/window_plan.h"

namespace memlane {

namespace {
using Until = Decoder<CpuExec>::Until;
}

EntryShape entry_shape(const ModelConfig& config, const MemorySettings& settings) {
  return {settings.mem_layers, config.num_kv_heads, config.head_dim, settings.mem_dtype};
}

Session::Session(CpuExec& exec, const Model& model, const MemorySettings& settings, const Lookup& lookup,
                 std::span<const DocumentMemory* const> documents)
    : exec_(exec),
      model_(model),
      settings_(settings),
      own_memory_(entry_shape(model.config, settings), lookup),
      memory_(entry_shape(model.config, settings), lookup),
      local_(model.config, settings, model.compute),
      decoder_(exec, model, settings) {
  for (const DocumentMemory* document : documents) memory_.add(*document);
  memory_.add(own_memory_);
}

void Session::call(std::span<const std::int32_t> ids, std::size_t last_context_length, View<float, 2> logits) {
  MEMLANE_EXPECTS(!ids.empty() && logits.extent(0) <= ids.size());
  MEMLANE_EXPECTS(last_context_length >= 1 && last_context_length <= settings_.window);
  check_ids(ids);
  const WindowPlan plan = plan_windows(ids.size(), settings_.window, last_context_length);
  const bool live = local_.size() > 0;

  const auto run_range = [&](TokenRange range, Until least) {
    // The part of the wanted logits that falls into this range.
    const std::size_t first_wanted = ids.size() - logits.extent(0);
    const std::size_t begin = std::clamp(first_wanted, range.begin, range.end);
    const bool wanted = begin < range.end;
    const View<float, 2> part =
        wanted ? logits.slice(begin - first_wanted, range.end - first_wanted) : View<float, 2>();
    decoder_.forward(ids.subspan(range.begin, range.size()), local_, memory_, wanted ? Until::logits : least, part);
    if (progress_) progress_(range.end, ids.size());
  };
  for (const TokenRange window : plan.prefix) {
    if (live && local_.size() + window.size() > settings_.window) move_local_to_memory();
    run_range(window, live ? Until::local : Until::memory);
    if (!live) move_local_to_memory();
  }
  if (local_.size() + plan.tail.size() > settings_.window) move_local_to_memory();
  run_range(plan.tail, Until::local);
}

const Segment& Session::read_window(std::span<const std::int32_t> ids) {
  MEMLANE_EXPECTS(local_.size() == 0 && ids.size() <= settings_.window && !settings_.mem_layers.empty());
  check_ids(ids);
  decoder_.forward(ids, local_, memory_, Until::memory, {});
  move_local_to_memory();
  return own_memory_.segments().back();
}

void Session::move_local_to_memory() {
  if (!settings_.mem_layers.empty()) {
    own_memory_.append(local_.to_segment(own_memory_.shape()));
    own_memory_.update_indexes(exec_);
  }
  local_.clear();
}

void Session::check_ids(std::span<const std::int32_t> ids) const {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || static_cast<std::size_t>(ids[i]) >= model_.config.vocab_size) {
      input_error("token {} has id {}: expected 0 ... {}, the vocabulary of {}", i, ids[i],
                  model_.config.vocab_size - 1, model_.folder.string());
    }
  }
}

std::size_t Session::bytes(const ModelConfig& config, const MemorySettings& settings, DType compute,
                           std::size_t entries) {
  const std::size_t windows = windows_for(entries, settings.window);
  const std::size_t memory =
      settings.mem_layers.empty()
          ? 0
          : windows * entry_shape(config, settings).segment_bytes(std::min(entries, settings.window));
  const std::size_t tables = (settings.mem_layers.empty() ? 1 : 2) * RopeTable::bytes(config.head_dim, settings.window);
  return LocalCache::bytes(config, settings, compute) + tables +
         Decoder<CpuExec>::workspace_bytes(config, std::min(entries, settings.window)) + memory;
}

}  // namespace memlane
