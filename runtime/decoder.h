#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "kernels/attention.h"
#include "kernels/exec.h"
#include "runtime/backend.h"
#include "runtime/local_attention.h"
#include "runtime/memory_weights.h"
#include "runtime/model.h"
#include "runtime/sampler.h"

namespace memlane {

/// How far a pass of the decoder goes.
enum class PassUntil {
  memory,  ///< the keys and values of the last memory layer: all that reading a window into memory needs
  local,   ///< every layer's keys and values
  logits   ///< the logits, or the token that is chosen from them
};

/// What a pass gives: logits of its last tokens, the token that follows the last one, or nothing.
struct PassOutput {
  PassOutput() = default;
  PassOutput(View<float, 2> of_last) : logits(of_last) {}
  PassOutput(TokenChoice& of_next) : choice(&of_next) {}

  View<float, 2> logits;          ///< on the host, of the last logits.extent(0) tokens: [1 ... tokens, vocab]
  TokenChoice* choice = nullptr;  ///< to be made from the last token's

  /// Tokens whose logits are made.
  std::size_t tokens() const { return choice != nullptr ? 1 : logits.extent(0); }
  /// Of tokens [begin, end) of these.
  PassOutput slice(std::size_t begin, std::size_t end) const {
    return choice != nullptr ? *this : PassOutput(logits.slice(begin, end));
  }
};

/// A Llama whose memory layers attend to a memory as well (Tworkowski et al. 2023, Focused Transformer): one forward
/// pass. Read forward() in decoder.cc first.
template <class Exec>
class Decoder {
 public:
  using Until = PassUntil;
  using Device = typename Backend<Exec>::Device;
  using Input = typename Backend<Exec>::Input;
  using SeenMemory = typename Backend<Exec>::SeenMemory;

  /// exec, model: must outlive the decoder.
  Decoder(Exec& exec, const Model& model, const MemorySettings& settings);

  /// Runs tokens that follow those in `local`; their keys and values are added to it.
  /// ids: each in [0, vocab), at most local.room(). memory: what memory layers attend to.
  /// out: with Until::logits, else nothing. Throws Interrupted, between layers, once the stop flag is set; `local` then
  /// counts none of the tokens.
  void forward(std::span<const std::int32_t> ids, LocalAttention<Exec>& local, SeenMemory& memory, Until until,
               const PassOutput& out);

  /// A flag that ends a pass early; null for none.
  void set_stop_flag(const std::atomic<bool>* stop) { stop_ = stop; }

  /// What entries of memory weigh in the passes from here on, for the tokens that it says, is added to `record`, which
  /// outlives those passes; null for nothing. Logits, keys and values are the same with and without.
  /// On the CPU alone: other devices do not record.
  void set_record(MemoryWeights* record) { record_ = record; }

  /// Bytes that passes over `tokens` tokens at once allocate.
  static std::size_t workspace_bytes(const ModelConfig& config, std::size_t tokens);

 private:
  struct Activations;
  Activations activations(std::size_t tokens);
  void layers(Activations& at, LocalAttention<Exec>& local, SeenMemory& memory, Until until);
  Input normed_last(Activations& at, std::size_t tokens);
  void give(const Input& h, const PassOutput& out);
  bool step(std::span<const std::int32_t> ids, LocalAttention<Exec>& local, SeenMemory& memory, const PassOutput& out);
  void attention(std::size_t layer, Activations& at, LocalAttention<Exec>& local, SeenMemory& memory, bool store_only);
  void feed_forward(std::size_t layer, Activations& at);
  void record(std::size_t slot, Memory& memory, View<const float, 3> queries, float scale,
              AttentionPartial whole) requires(std::is_same_v<Exec, CpuExec>);
  int memory_slot(std::size_t layer) const { return memory_slots_[layer]; }

  Exec& exec_;
  const Model& model_;
  const ModelConfig& config_;
  std::vector<int> memory_slots_;  // [layers]: index among the memory layers, -1 for a plain layer
  const typename Backend<Exec>::Weights& weights_;
  typename Backend<Exec>::Steps steps_;
  typename Backend<Exec>::Chooser chooser_;
  typename Backend<Exec>::template Array<float> workspace_;
  typename Backend<Exec>::template Array<float> made_logits_;  // that stay where they are made
  typename Backend<Exec>::Partials local_partial_;
  typename Backend<Exec>::Partials memory_partial_;
  const std::atomic<bool>* stop_ = nullptr;
  MemoryWeights* record_ = nullptr;
  std::size_t recorded_ = 0;   // of the pass: tokens that are recorded
  std::size_t attending_ = 0;  // of the pass: memory layers that attend
};

}  // namespace memlane
