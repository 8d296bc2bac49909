#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "kernels/exec.h"
#include "memory/document_memory.h"
#include "memory/mapped_file.h"
#include "memory/memory.h"
#include "runtime/engine.h"
#include "runtime/model.h"
#include "runtime/window_plan.h"

namespace memlane {

/// The entries that a model with these settings puts into memory.
EntryShape entry_shape(const ModelConfig& config, const MemorySettings& settings);

/// One text being read or continued: a local cache, and a memory made of given documents and of what moved there from
/// this session.
///
/// The calls follow LongLLaMA (Tworkowski et al. 2023; _handle_long_input and LongLlamaAttention of the public PyTorch
/// code):
/// - A call's tokens but the last `last_context_length` are its prefix, run in windows; the last ones stay in the local
/// cache.
/// - Without a live local cache a prefix window has no local past and moves to memory when it is done.
/// - With one, a prefix window or tail that does not fit behind it first moves the whole cache to memory, so that its
/// tokens see it there
///   and start at position 0.
/// - Models without memory layers drop what would move to memory.
///
/// Where windows are cut into sub-windows or leave something behind (fills_up() of local_settings.h), calls fill up
/// instead: a full sub-window moves to memory when the next token comes, a full window makes room as settings say. It
/// does not matter then how tokens are cut into calls, but that a prefix without a live local cache ends its window. A
/// prefix is one stretch of tokens, not cut into windows beforehand.
class Session {
 public:
  /// documents: whose memory is seen; they are not changed and must outlive the session, as exec and model. joint: an
  /// index over the first of them together, for the lookup ivf, which must outlive it, too; null for none.
  Session(CpuExec& exec, const Model& model, const MemorySettings& settings, const Lookup& lookup,
          std::span<const DocumentMemory* const> documents = {}, const JointIndex* joint = nullptr);

  /// One call. last_context_length: 1 ... window.
  /// logits: of the last logits.extent(0) tokens, [0 ... tokens, vocab].
  /// Throws InputError for an id that is not in the vocabulary, Interrupted if stopped: the session must then be
  /// discarded.
  void call(std::span<const std::int32_t> ids, std::size_t last_context_length, View<float, 2> logits);

  /// The same call for the token that follows, which the sampler chooses where the model is. The sampler sees the ids.
  /// Throws InputError, too, if a logit is NaN.
  std::int32_t next(std::span<const std::int32_t> ids, std::size_t last_context_length, Sampler& sampler);

  /// Reads one window of a document, at most `window` tokens: no local past but what the window before left behind,
  /// everything moves to memory. Returns what moved there: a segment, or one for each sub-window. The session must have
  /// memory layers and no live local cache. If interrupted, a window that is one sub-window has not been read and the
  /// session is as before; else the session must be discarded.
  std::span<const Segment> read_window(std::span<const std::int32_t> ids);

  /// Tokens that the next window of a document has: less than `window` once an overlap stays from the one before.
  std::size_t next_window() const;

  /// The memory of this session itself: what its calls and windows moved there. Segments of a stored document are added
  /// here to continue it.
  DocumentMemory& own_memory() { return own_memory_; }

  std::size_t local_length() const { return engine_.size(); }
  std::size_t memory_length() const { return memory_.entries(); }

  /// A flag that stops a call early; null for none.
  void set_stop_flag(const std::atomic<bool>* stop) { engine_.set_stop_flag(stop); }
  /// Records what entries of memory weigh from here on: of the documents in the order given, then of what this session
  /// moved to memory. See Decoder::set_record. Throws InputError where the model is on a device that cannot.
  void set_record(MemoryWeights* record) { engine_.set_record(record); }
  /// See Memory::set_pieces; for models on the CPU.
  void set_pieces(Memory::Pieces pieces) { memory_.set_pieces(std::move(pieces)); }
  /// Whether stored entries may lie on a disk, from which they are then read ahead: Memory::set_read_ahead; for models
  /// on the CPU.
  void set_on_disk(bool on_disk);
  /// Counts what searches of lists look at from here on; for models on the CPU.
  void set_count(SearchCount* count) { memory_.set_count(count); }
  /// How the memory of the model's GPU is divided, a line for people; empty where the model is on the CPU.
  const std::string& device_plan() const { return engine_.device_plan(); }
  /// Called with (tokens done, tokens in all) after each window of a call.
  void set_progress(std::function<void(std::size_t, std::size_t)> progress) { progress_ = std::move(progress); }

  /// Bytes that a session takes beside the weights, for `entries` entries in its own memory: those of these entries,
  /// and of passes over as many tokens.
  static std::size_t bytes(const ModelConfig& config, const MemorySettings& settings, DType compute,
                           std::size_t entries) {
    return pass_bytes(config, settings, compute, entries) + entry_bytes(config, settings, entries);
  }
  /// Of its local context and passes over up to `tokens` tokens in all.
  static std::size_t pass_bytes(const ModelConfig& config, const MemorySettings& settings, DType compute,
                                std::size_t tokens);
  /// Of the segments that a document of `entries` tokens leaves in memory.
  static std::size_t entry_bytes(const ModelConfig& config, const MemorySettings& settings, std::size_t entries);

 private:
  using Until = PassUntil;
  void read(std::span<const std::int32_t> ids, std::size_t last_context_length, const PassOutput& out);
  void run(std::span<const std::int32_t> ids, TokenRange range, Until least, const PassOutput& out);
  void make_room_for(std::size_t tokens);
  void move_to_memory();
  void end_window();
  void check_ids(std::span<const std::int32_t> ids) const;

  CpuExec& exec_;
  const Model& model_;
  MemorySettings settings_;
  DocumentMemory own_memory_;
  Memory memory_;
  Until reads_until_;  // how far a pass goes whose tokens end in memory
  Engine engine_;
  std::function<void(std::size_t, std::size_t)> progress_;
};

}  // namespace memlane
