#include "kernels/cuda/staging.h"

#include <array>

#include "kernels/cuda/internals.h"

namespace memlane {

namespace {

class Event {
 public:
  Event() = default;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() {
    if (handle != nullptr) cudaEventDestroy(handle);
  }
  void create() { MEMLANE_CUDA(cudaEventCreateWithFlags(&handle, cudaEventDisableTiming)); }

  cudaEvent_t handle = nullptr;
};

}  // namespace

struct CudaStaging::Internals {
  explicit Internals(CudaExec& on) : exec(on) {}
  Internals(const Internals&) = delete;
  Internals& operator=(const Internals&) = delete;
  ~Internals() {
    settle();
    if (copies != nullptr) cudaStreamDestroy(copies);
  }
  void settle() noexcept {  // errors come up at the next checked call
    if (copies != nullptr) cudaStreamSynchronize(copies);
    cudaStreamSynchronize(exec.internals().stream);
  }

  CudaExec& exec;
  std::array<Event, kBuffers> sent, used;  // one that was never marked is waited for by nobody
  cudaStream_t copies = nullptr;
};

CudaStaging::CudaStaging(CudaExec& exec, std::size_t bytes) : internals_(std::make_unique<Internals>(exec)) {
  Internals& in = *internals_;
  MEMLANE_CUDA(cudaStreamCreateWithFlags(&in.copies, cudaStreamNonBlocking));
  for (std::size_t i = 0; i < kBuffers; ++i) {
    in.sent[i].create();
    in.used[i].create();
    host_[i] = PinnedBuffer<std::byte>(bytes);
    device_[i] = CudaBuffer<std::byte>(bytes);
  }
}

CudaStaging::~CudaStaging() = default;
CudaStaging::CudaStaging(CudaStaging&&) noexcept = default;

void CudaStaging::wait_until_sent(std::size_t buffer) {
  MEMLANE_CUDA(cudaEventSynchronize(internals_->sent[buffer].handle));
}

void CudaStaging::hold_copies(std::size_t buffer) {
  MEMLANE_CUDA(cudaStreamWaitEvent(internals_->copies, internals_->used[buffer].handle, 0));
}

void CudaStaging::copy(std::size_t buffer, std::size_t bytes) {
  MEMLANE_EXPECTS(bytes <= this->bytes());
  if (bytes == 0) return;
  MEMLANE_CUDA(
      cudaMemcpyAsync(device_[buffer].data(), host_[buffer].data(), bytes, cudaMemcpyHostToDevice, internals_->copies));
}

void CudaStaging::mark_sent(std::size_t buffer) {
  MEMLANE_CUDA(cudaEventRecord(internals_->sent[buffer].handle, internals_->copies));
}

void CudaStaging::hold_work(std::size_t buffer) {
  MEMLANE_CUDA(cudaStreamWaitEvent(internals_->exec.internals().stream, internals_->sent[buffer].handle, 0));
}

void CudaStaging::mark_used(std::size_t buffer) {
  MEMLANE_CUDA(cudaEventRecord(internals_->used[buffer].handle, internals_->exec.internals().stream));
}

void CudaStaging::settle() noexcept {
  internals_->settle();
}

}  // namespace memlane
