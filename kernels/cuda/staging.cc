#include "kernels/cuda/staging.h"

#include <fmt/format.h>

#include <array>

#include "kernels/cuda/internals.h"

namespace memlane {

namespace {

/// Pinned memory of the host: copies from it need no copy of the driver's, and return before they are done.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  ~PinnedBuffer() {
    if (data_ != nullptr) cudaFreeHost(data_);
  }
  void allocate(std::size_t bytes) {
    const cudaError_t error = cudaHostAlloc(&data_, bytes, cudaHostAllocDefault);
    if (error == cudaSuccess) return;
    data_ = nullptr;
    detail::device_error(fmt::format("cudaHostAlloc of {} bytes", bytes).c_str(), __FILE__, __LINE__, error);
  }
  std::byte* data() { return static_cast<std::byte*>(data_); }

 private:
  void* data_ = nullptr;
};

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
  std::size_t bytes = 0;
  std::array<PinnedBuffer, kBuffers> host;
  std::array<CudaBuffer<std::byte>, kBuffers> device;
  std::array<Event, kBuffers> sent, used;  // one that was never marked is waited for by nobody
  cudaStream_t copies = nullptr;
};

CudaStaging::CudaStaging(CudaExec& exec, std::size_t bytes) : internals_(std::make_unique<Internals>(exec)) {
  Internals& in = *internals_;
  in.bytes = bytes;
  MEMLANE_CUDA(cudaStreamCreateWithFlags(&in.copies, cudaStreamNonBlocking));
  for (std::size_t i = 0; i < kBuffers; ++i) {
    in.sent[i].create();
    in.used[i].create();
    in.host[i].allocate(bytes);
    in.device[i] = CudaBuffer<std::byte>(bytes);
  }
}

CudaStaging::~CudaStaging() = default;
CudaStaging::CudaStaging(CudaStaging&&) noexcept = default;

std::size_t CudaStaging::bytes() const {
  return internals_->bytes;
}

std::byte* CudaStaging::host(std::size_t buffer) {
  return internals_->host[buffer].data();
}

const std::byte* CudaStaging::device(std::size_t buffer) const {
  return internals_->device[buffer].data();
}

void CudaStaging::wait_until_sent(std::size_t buffer) {
  MEMLANE_CUDA(cudaEventSynchronize(internals_->sent[buffer].handle));
}

void CudaStaging::hold_copies(std::size_t buffer) {
  MEMLANE_CUDA(cudaStreamWaitEvent(internals_->copies, internals_->used[buffer].handle, 0));
}

void CudaStaging::copy(std::size_t buffer, std::size_t bytes) {
  Internals& in = *internals_;
  MEMLANE_EXPECTS(bytes <= in.bytes);
  if (bytes == 0) return;
  MEMLANE_CUDA(
      cudaMemcpyAsync(in.device[buffer].data(), in.host[buffer].data(), bytes, cudaMemcpyHostToDevice, in.copies));
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
