#include "runtime/engine.h"

#include "kernels/error.h"

namespace memlane {

Engine::AnyRunning Engine::start(CpuExec& exec, const Model& model, const MemorySettings& settings, Memory& memory) {
#ifdef MEMLANE_HAS_CUDA
  if (model.cuda != nullptr) {
    CudaExec& gpu = model.cuda->exec;
    const CudaLimits& limits = model.cuda->limits;
    const CudaPlan plan = plan_session(gpu, model.config, settings, model.precision, memory, limits);
    device_plan_ = plan_text(gpu, plan);
    CudaMemory seen(memory, exec.pool(), {plan.resident, plan.streams(), limits.piece});
    return AnyRunning(std::in_place_type<Running<CudaExec>>, gpu, model, settings, std::move(seen));
  }
#endif
  return AnyRunning(std::in_place_type<Running<CpuExec>>, exec, model, settings, memory);
}

Engine::Engine(CpuExec& exec, const Model& model, const MemorySettings& settings, Memory& memory)
    : running_(start(exec, model, settings, memory)) {}

std::size_t Engine::size() const {
  return std::visit([](const auto& on) { return on.local.size(); }, running_);
}

std::size_t Engine::memory_size() const {
  return std::visit([](const auto& on) { return on.local.memory_size(); }, running_);
}

bool Engine::is_full(LayerKind kind) const {
  return std::visit([kind](const auto& on) { return on.local.is_full(kind); }, running_);
}

std::size_t Engine::room() const {
  return std::visit([](const auto& on) { return on.local.room(); }, running_);
}

void Engine::forward(std::span<const std::int32_t> ids, PassUntil until, const PassOutput& out) {
  std::visit([&](auto& on) { on.decoder.forward(ids, on.local, on.memory, until, out); }, running_);
}

Segment Engine::to_segment(const EntryShape& shape) const {
  return std::visit([&](const auto& on) { return on.local.to_segment(on.exec, shape); }, running_);
}

void Engine::clear_memory_layers() {
  std::visit([](auto& on) { on.local.clear_memory_layers(); }, running_);
}

void Engine::move_on() {
  std::visit([](auto& on) { on.local.move_on(on.exec); }, running_);
}

void Engine::set_stop_flag(const std::atomic<bool>* stop) {
  std::visit([stop](auto& on) { on.decoder.set_stop_flag(stop); }, running_);
}

void Engine::set_record(MemoryWeights* record) {
  auto* const on_cpu = std::get_if<Running<CpuExec>>(&running_);
  if (on_cpu == nullptr) {
    input_error(
        "attention: expected the model on the CPU to tell where attention goes, found it on a GPU; use --device cpu");
  }
  on_cpu->decoder.set_record(record);
}

}  // namespace memlane
