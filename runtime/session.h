#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kernels/exec.h"
#include "memory/document_memory.h"
#include "memory/memory.h"
#include "runtime/decoder.h"
#include "runtime/local_cache.h"
#include "runtime/model.h"

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
class Session {
 public:
  /// documents: whose memory is seen; they are not changed and must outlive the session, as exec and model.
  Session(CpuExec& exec, const Model& model, const MemorySettings& settings, const Lookup& lookup,
          std::span<const DocumentMemory* const> documents = {});

  /// One call. last_context_length: 1 ... window.
  /// logits: of the last logits.extent(0) tokens, [0 ... tokens, vocab].
  /// Throws InputError for an id that is not in the vocabulary, Interrupted if stopped: the session must then be
  /// discarded.
  void call(std::span<const std::int32_t> ids, std::size_t last_context_length, View<float, 2> logits);

  /// Reads one window of a document: no local past, everything moves to memory. Returns what moved there. The session
  /// must have memory layers and no live local cache. If interrupted, the window has not been read and the session is
  /// as before.
  const Segment& read_window(std::span<const std::int32_t> ids);

  /// The memory of this session itself: what its calls and windows moved there. Segments of a stored document are added
  /// here to continue it.
  DocumentMemory& own_memory() { return own_memory_; }

  std::size_t local_length() const { return local_.size(); }
  std::size_t memory_length() const { return memory_.entries(); }

  /// A flag that stops a call early; null for none.
  void set_stop_flag(const std::atomic<bool>* stop) { decoder_.set_stop_flag(stop); }
  /// Called with (tokens done, tokens in all) after each window of a call.
  void set_progress(std::function<void(std::size_t, std::size_t)> progress) { progress_ = std::move(progress); }

  /// Bytes that a session takes beside the weights, for `entries` entries in its own memory.
  static std::size_t bytes(const ModelConfig& config, const MemorySettings& settings, DType compute,
                           std::size_t entries);

 private:
  void move_local_to_memory();
  void check_ids(std::span<const std::int32_t> ids) const;

  CpuExec& exec_;
  const Model& model_;
  MemorySettings settings_;
  DocumentMemory own_memory_;
  Memory memory_;
  LocalCache local_;
  Decoder<CpuExec> decoder_;
  std::function<void(std::size_t, std::size_t)> progress_;
};

}  // namespace memlane
