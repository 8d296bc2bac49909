#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <variant>

#include "runtime/backend.h"
#include "runtime/decoder.h"
#include "runtime/local_attention.h"

#ifdef MEMLANE_HAS_CUDA
#include "runtime/cuda/cuda_backend.h"
#endif

namespace memlane {

/// A text's local context and the decoder that runs it, on the device that the model is on. The one place that knows of
/// several backends; each function is that of LocalAttention or Decoder.
class Engine {
 public:
  /// memory: what memory layers attend to; a GPU is planned for what it has now. All must outlive the engine.
  Engine(CpuExec& exec, const Model& model, const MemorySettings& settings, Memory& memory);

  std::size_t size() const;
  std::size_t memory_size() const;
  bool is_full(LayerKind kind) const;
  std::size_t room() const;
  void forward(std::span<const std::int32_t> ids, PassUntil until, const PassOutput& out);
  Segment to_segment(const EntryShape& shape) const;
  void clear_memory_layers();
  void move_on();
  void set_stop_flag(const std::atomic<bool>* stop);
  /// Throws InputError unless the model is on the CPU.
  void set_record(MemoryWeights* record);
  /// How the memory of the model's GPU is divided, a line for people; empty on the CPU.
  const std::string& device_plan() const { return device_plan_; }

 private:
  template <class Exec>
  struct Running {
    using Sight = typename Backend<Exec>::MemorySight;

    Running(Exec& on, const Model& model, const MemorySettings& settings, Sight&& seen)
        : exec(on),
          local(on, model.config, settings, model.precision.compute),
          memory(std::forward<Sight>(seen)),
          decoder(on, model, settings) {}
    Exec& exec;
    LocalAttention<Exec> local;
    Sight memory;
    Decoder<Exec> decoder;
  };
#ifdef MEMLANE_HAS_CUDA
  using AnyRunning = std::variant<Running<CpuExec>, Running<CudaExec>>;
#else
  using AnyRunning = std::variant<Running<CpuExec>>;
#endif
  AnyRunning start(CpuExec& exec, const Model& model, const MemorySettings& settings, Memory& memory);

  std::string device_plan_;  // start() writes it
  AnyRunning running_;
};

}  // namespace memlane
