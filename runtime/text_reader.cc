#include "runtime/text_reader.h"

#include <algorithm>

#include "runtime/local_settings.h"
#include "runtime/rope_scaling.h"

namespace memlane {

namespace {
constexpr std::size_t kPiece = 2048;  // tokens of a full window that are read at once: enough for full speed
}

bool reads_in_pieces(const MemorySettings& settings) {
  return !depends_on_length(settings.rope) && !depends_on_length(settings.memory_rope);
}

std::size_t reading_piece(const MemorySettings& settings) {
  return reads_in_pieces(settings) ? std::min(settings.window, kPiece) : settings.window;
}

std::size_t reading_bytes(const ModelConfig& config, const MemorySettings& settings, DType compute,
                          std::size_t tokens) {
  if (!settings.mem_layers.empty()) return Session::bytes(config, settings, compute, tokens);
  const std::size_t pass = std::min({tokens, reading_piece(settings), longest_pass(settings)});
  return LocalAttention<CpuExec>::bytes(config, settings, compute, pass) + Decoder<CpuExec>::workspace_bytes(config, pass);
}

void require_room_in_window(const MemorySettings& settings, std::size_t question, std::size_t room) {
  if (question + room <= settings.window) return;
  input_error("a window of {} tokens: expected room for a question of {} and {} more; use a greater window",
              settings.window, question, room);
}

MemorySettings settings_of_length(const MemorySettings& settings, std::size_t length) {
  MemorySettings result = settings;
  result.window = length;
  result.memory_window = length;
  result.last_context_length = std::min(result.last_context_length, length);
  return result;
}

TextReader::TextReader(ReadingContext context, MethodSettings settings)
    : context_(std::move(context)), settings_(std::move(settings)) {
  if (settings_.recompute) return;
  session_.emplace(context_.exec, context_.model, settings_.memory, context_.lookup);
  session_->set_stop_flag(context_.stop);
}

void TextReader::read(std::span<const std::int32_t> prompt, std::size_t question, std::size_t room,
                      std::span<float> logits) {
  const MemorySettings& memory = settings_.memory;
  MEMLANE_EXPECTS(!prompt.empty() && question >= 1 && question <= prompt.size());
  require_room_in_window(memory, question, room);
  if (memory.mem_layers.empty()) prompt = prompt.last(std::min(prompt.size(), memory.window - room));
  tokens_read_ = prompt.size();
  if (settings_.recompute) {
    ids_.assign(prompt.begin(), prompt.end());
    recompute(logits);
    return;
  }
  const View<float, 2> last(logits.data(), {1, logits.size()});
  const auto progress = [this](std::size_t done) {
    if (context_.progress) context_.progress(done);
  };
  if (!memory.mem_layers.empty()) {
    session_->set_progress([&](std::size_t done, std::size_t) { progress(done); });
    const std::size_t local = std::min({prompt.size(), memory.window - room, question + settings_.last_context});
    session_->call(prompt, local, last);
    session_->set_progress({});
    return;
  }
  const std::size_t piece = reading_piece(memory);
  for (std::size_t begin = 0; begin < prompt.size(); begin += piece) {
    const auto ids = prompt.subspan(begin, std::min(piece, prompt.size() - begin));
    const bool at_end = begin + ids.size() == prompt.size();
    session_->call(ids, ids.size(), at_end ? last : View<float, 2>());
    progress(begin + ids.size());
  }
}

void TextReader::feed(std::int32_t id, std::span<float> logits) {
  if (settings_.recompute) {
    ids_.push_back(id);
    recompute(logits);
    return;
  }
  session_->call({&id, 1}, 1, {logits.data(), {1, logits.size()}});
}

void TextReader::recompute(std::span<float> logits) {
  const auto ids = std::span<const std::int32_t>(ids_).last(std::min(ids_.size(), settings_.memory.window));
  Session session(context_.exec, context_.model, settings_of_length(settings_.memory, ids.size()), context_.lookup);
  session.set_stop_flag(context_.stop);
  session.call(ids, ids.size(), {logits.data(), {1, logits.size()}});
  if (context_.progress) context_.progress(ids.size());
}

}  // namespace memlane
