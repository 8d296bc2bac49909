#include "runtime/session.h"

#include <algorithm>

#include "runtime/resources.h"
#include "runtime/window_plan.h"

namespace memlane {

EntryShape entry_shape(const ModelConfig& config, const MemorySettings& settings) {
  return {settings.mem_layers, config.num_kv_heads, config.head_dim, settings.mem_dtype};
}

namespace {

/// Everything that a session sees: given documents, and behind them its own.
Memory memory_of(std::span<const DocumentMemory* const> documents, const JointIndex* joint, const DocumentMemory& own) {
  Memory all(own.shape(), own.lookup());
  if (joint != nullptr) {
    const std::size_t covered = joint->entries_of_documents().size();
    MEMLANE_EXPECTS(covered <= documents.size());
    all.add(documents.first(covered), *joint);
    documents = documents.subspan(covered);
  }
  for (const DocumentMemory* document : documents) all.add(*document);
  all.add(own);
  return all;
}

}  // namespace

Session::Session(CpuExec& exec, const Model& model, const MemorySettings& settings, const Lookup& lookup,
                 std::span<const DocumentMemory* const> documents, const JointIndex* joint)
    : exec_(exec),
      model_(model),
      settings_(settings),
      own_memory_(entry_shape(model.config, settings), lookup),
      memory_(memory_of(documents, joint, own_memory_)),
      reads_until_(carries_over(settings) ? Until::local : Until::memory),
      engine_(exec, model, settings, memory_) {}

void Session::call(std::span<const std::int32_t> ids, std::size_t last_context_length, View<float, 2> logits) {
  check_ids(ids);
  read(ids, last_context_length, logits);
}

std::int32_t Session::next(std::span<const std::int32_t> ids, std::size_t last_context_length, Sampler& sampler) {
  check_ids(ids);
  sampler.see(ids);
  TokenChoice choice = sampler.next(model_.config.vocab_size);
  read(ids, last_context_length, choice);
  return Sampler::chosen(choice);
}

void Session::read(std::span<const std::int32_t> ids, std::size_t last_context_length, const PassOutput& out) {
  MEMLANE_EXPECTS(!ids.empty() && out.tokens() <= ids.size());
  MEMLANE_EXPECTS(last_context_length >= 1 && last_context_length <= settings_.window);
  const WindowPlan plan =
      plan_windows(ids.size(), fills_up(settings_) ? ids.size() : settings_.window, last_context_length);
  const bool live = engine_.memory_size() > 0;
  for (const TokenRange window : plan.prefix) {
    if (live) make_room_for(window.size());
    run(ids, window, live ? Until::local : reads_until_, out);
    if (!live) end_window();
  }
  make_room_for(plan.tail.size());
  run(ids, plan.tail, Until::local, out);
}

std::span<const Segment> Session::read_window(std::span<const std::int32_t> ids) {
  MEMLANE_EXPECTS(engine_.memory_size() == 0 && ids.size() <= settings_.window && !settings_.mem_layers.empty());
  check_ids(ids);
  const std::size_t before = own_memory_.segments().size();
  run(ids, {0, ids.size()}, reads_until_, {});
  end_window();
  return std::span(own_memory_.segments()).subspan(before);
}

void Session::set_on_disk(bool on_disk) {
  // Twice as much as is taken to stay in memory: of what is free not everything serves as the system's cache.
  const bool remembers = free_memory() > 2 * remembered_bytes();
  memory_.set_read_ahead(!on_disk ? nullptr : remembers ? read_new_ahead : read_ahead);
}

std::size_t Session::next_window() const {
  return settings_.sliding_window > 0 ? settings_.window : settings_.window - engine_.size();
}

/// Tokens [range) of a call, in passes. out: what the call wants.
void Session::run(std::span<const std::int32_t> ids, TokenRange range, Until least, const PassOutput& out) {
  const std::size_t first_wanted = ids.size() - out.tokens();
  if (first_wanted < range.end && least == Until::memory) least = Until::local;  // later passes see all layers' keys
  while (range.size() > 0) {
    if (engine_.is_full(LayerKind::memory)) move_to_memory();
    if (engine_.is_full(LayerKind::plain)) {
      if (settings_.sliding_window > 0) {
        engine_.move_on();  // no window ends
      } else {
        end_window();
      }
    }
    const std::size_t end = range.begin + std::min(range.size(), engine_.room());
    const std::size_t begin = std::clamp(first_wanted, range.begin, end);
    const bool wanted = begin < end;
    engine_.forward(ids.subspan(range.begin, end - range.begin), wanted ? Until::logits : least,
                    wanted ? out.slice(begin - first_wanted, end - first_wanted) : PassOutput());
    range.begin = end;
    if (progress_) progress_(end, ids.size());
  }
}

/// LongLLaMA's rule for what does not fit behind a live local cache.
void Session::make_room_for(std::size_t tokens) {
  if (!fills_up(settings_) && engine_.size() + tokens > settings_.window) end_window();
}

void Session::move_to_memory() {
  if (!settings_.mem_layers.empty() && engine_.memory_size() > 0) {
    own_memory_.append(engine_.to_segment(own_memory_.shape()));
    own_memory_.update_indexes(exec_);
  }
  engine_.clear_memory_layers();
}

void Session::end_window() {
  move_to_memory();
  engine_.move_on();
}

void Session::check_ids(std::span<const std::int32_t> ids) const {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || static_cast<std::size_t>(ids[i]) >= model_.config.vocab_size) {
      input_error("token {} has id {}: expected 0 ... {}, the vocabulary of {}", i, ids[i],
                  model_.config.vocab_size - 1, model_.folder.string());
    }
  }
}

std::size_t Session::pass_bytes(const ModelConfig& config, const MemorySettings& settings, DType compute,
                                std::size_t tokens) {
  const std::size_t at_once = std::min(tokens, longest_pass(settings));
  return LocalAttention<CpuExec>::bytes(config, settings, compute, at_once) +
         Decoder<CpuExec>::workspace_bytes(config, at_once);
}

std::size_t Session::entry_bytes(const ModelConfig& config, const MemorySettings& settings, std::size_t entries) {
  if (settings.mem_layers.empty()) return 0;
  const EntryShape shape = entry_shape(config, settings);
  const auto of_window = [&](std::size_t tokens) {
    return tokens / settings.memory_window * shape.segment_bytes(settings.memory_window) +
           shape.segment_bytes(tokens % settings.memory_window);
  };
  return entries / settings.window * of_window(settings.window) + of_window(entries % settings.window);
}

}  // namespace memlane
