#pragma once

#include "kernels/attention.h"
#include "kernels/exec.h"
#include "kernels/input_rows.h"
#include "memory/memory.h"
#include "runtime/local_cache.h"
#include "runtime/model.h"
#include "runtime/rope.h"
#include "runtime/sampler.h"

namespace memlane {

/// What local attention and the decoder are made of on a backend: its arrays, and the classes that hold them. Kernels
/// are overloads for its Exec; what is here is only what overloads cannot say.
template <class Exec>
struct Backend;

template <>
struct Backend<CpuExec> {
  using Device = Host;
  template <class T>
  using Array = Buffer<T>;
  using Partial = AttentionPartial;
  using Partials = PartialBuffer;
  using Blocks = View<const EntryBlock, 2>;
  using Cache = LocalCache;
  using Rotations = RopeTable;
  using Input = InputRows;       // of products
  using Position = std::size_t;  // of the tokens of a pass in the local context
  using LayerWeights = memlane::LayerWeights;
  using Weights = memlane::Weights;
  struct Steps {};  // on the CPU every pass is a call of its kernels
  struct Chooser {  // of tokens
    void choose(CpuExec& exec, View<const float, 2> logits, TokenChoice& choice) {
      choice.token = choose_token(exec, logits.flat(), choice.draw, choice.seen, choice.uniform);
    }
  };
  using SeenMemory = Memory;    // what memory layers attend to
  using MemorySight = Memory&;  // how an engine holds it

  static Cache make_cache(CpuExec&, const ModelConfig& config, const MemorySettings& settings, DType compute) {
    return {config, settings, compute};
  }
  static Rotations make_rotations(CpuExec& exec, const RopeFrequencies& frequencies, std::size_t first,
                                  std::size_t end) {
    return {frequencies, first, end, &exec.pool()};
  }
  static Steps make_steps(CpuExec&, const Model&) { return {}; }
  static Position position(const Cache& cache, LayerKind kind) { return cache.size(kind); }
  static const Weights& weights(const Model& model) { return model.weights; }
};

}  // namespace memlane
