#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "memory/lookup.h"
#include "runtime/method.h"
#include "runtime/session.h"

namespace memlane {

/// What reading runs on and who hears about it.
struct ReadingContext {
  CpuExec& exec;
  const Model& model;
  const Lookup& lookup;
  const std::atomic<bool>* stop = nullptr;  ///< set: readers throw Interrupted
  /// Called with the tokens of the prompt that are done.
  std::function<void(std::size_t)> progress = {};
};

/// Whether tokens may come in pieces without any change to the result: not if frequencies depend on the length.
bool reads_in_pieces(const MemorySettings& settings);
/// Tokens of one call at most: few enough to be cheap in memory where pieces change nothing, else a whole window.
std::size_t reading_piece(const MemorySettings& settings);
/// Throws InputError if a window has no place for a question of `question` tokens and `room` more.
void require_room_in_window(const MemorySettings& settings, std::size_t question, std::size_t room);
/// The settings of a model without memory for a text that is all there is: its window, and so what the frequencies of a
/// whole sequence are made for, is the text.
MemorySettings settings_of_length(const MemorySettings& settings, std::size_t length);
/// Bytes that reading `tokens` tokens takes beside the weights.
std::size_t reading_bytes(const ModelConfig& config, const MemorySettings& settings, DType compute, std::size_t tokens);

/// A text read as a method says: first a prompt, then one token at a time.
///
/// With memory layers a prompt is one Session::call: the document moves to memory in windows, the question stays local.
/// Without them the model sees the end of the prompt, as much as fits its window.
class TextReader {
 public:
  TextReader(ReadingContext context, MethodSettings settings);

  /// Reads a prompt. question: so many tokens at its end stay local, and the method's last context before them. room:
  /// tokens that will follow; they have place in the window. Throws InputError if question and room do not fit it.
  /// logits: of the last token, [vocab].
  void read(std::span<const std::int32_t> prompt, std::size_t question, std::size_t room, std::span<float> logits);

  /// Reads the next token. logits: its, [vocab].
  void feed(std::int32_t id, std::span<float> logits);

  CpuExec& exec() { return context_.exec; }
  /// Of a method that recomputes, null.
  const Session* session() const { return session_ ? &*session_ : nullptr; }
  /// Tokens of the prompt that were looked at at all.
  std::size_t tokens_read() const { return tokens_read_; }

 private:
  void recompute(std::span<float> logits);

  ReadingContext context_;
  MethodSettings settings_;
  std::optional<Session> session_;
  std::vector<std::int32_t> ids_;  // of a method that recomputes: all so far
  std::size_t tokens_read_ = 0;
};

}  // namespace memlane
