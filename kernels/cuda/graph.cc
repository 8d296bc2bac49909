#include "kernels/cuda/graph.h"

#include "kernels/cuda/internals.h"

namespace memlane {

struct CudaGraph::Internals {
  explicit Internals(CudaExec& on) : exec(on) {}
  Internals(const Internals&) = delete;
  Internals& operator=(const Internals&) = delete;
  ~Internals() { forget(); }

  /// Ends the recording that is under way, if there is one: its graph, or none.
  cudaError_t end_recording(cudaGraph_t& made) noexcept {
    if (!recording) return cudaSuccess;
    recording = exec.internals().recording = false;
    return cudaStreamEndCapture(exec.internals().stream, &made);
  }

  void forget() noexcept {
    cudaGraph_t made = nullptr;
    if (end_recording(made) != cudaSuccess) cudaGetLastError();  // it was broken off, which is no error of what follows
    if (made != nullptr) cudaGraphDestroy(made);
    if (ready == nullptr) return;
    cudaStreamSynchronize(exec.internals().stream);  // it may be running
    cudaGraphExecDestroy(std::exchange(ready, nullptr));
  }

  CudaExec& exec;
  bool recording = false;
  cudaGraphExec_t ready = nullptr;
};

CudaGraph::CudaGraph(CudaExec& exec) : internals_(std::make_unique<Internals>(exec)) {}
CudaGraph::~CudaGraph() = default;
CudaGraph::CudaGraph(CudaGraph&&) noexcept = default;

void CudaGraph::begin() {
  Internals& in = *internals_;
  CudaExec::Internals& on = in.exec.internals();
  MEMLANE_EXPECTS(!on.recording);
  // Calls that cannot be recorded are refused in this thread alone.
  MEMLANE_CUDA(cudaStreamBeginCapture(on.stream, cudaStreamCaptureModeThreadLocal));
  in.recording = on.recording = true;
}

void CudaGraph::end() {
  Internals& in = *internals_;
  MEMLANE_EXPECTS(in.recording && in.ready == nullptr);
  cudaGraph_t made = nullptr;
  MEMLANE_CUDA(in.end_recording(made));
  const cudaError_t error = cudaGraphInstantiate(&in.ready, made, 0);
  cudaGraphDestroy(made);
  if (error != cudaSuccess) in.ready = nullptr;
  MEMLANE_CUDA(error);
}

void CudaGraph::forget() noexcept {
  internals_->forget();
}

void CudaGraph::launch() {
  MEMLANE_EXPECTS(internals_->ready != nullptr);
  MEMLANE_CUDA(cudaGraphLaunch(internals_->ready, internals_->exec.internals().stream));
}

}  // namespace memlane
