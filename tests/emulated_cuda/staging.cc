// Staging on a GPU that does everything at once: the steps' order is that of tests/kernels/cuda_staging_test.cc, which
// runs them early and late. Buffers hold nothing of an earlier piece.

#include "kernels/cuda/staging.h"

namespace memlane {

struct CudaStaging::Internals {};

CudaStaging::CudaStaging(CudaExec&, std::size_t bytes) {
  for (std::size_t i = 0; i < kBuffers; ++i) {
    host_[i] = PinnedBuffer<std::byte>(bytes);
    device_[i] = CudaBuffer<std::byte>(bytes);
  }
}

CudaStaging::~CudaStaging() = default;
CudaStaging::CudaStaging(CudaStaging&&) noexcept = default;

void CudaStaging::wait_until_sent(std::size_t buffer) {
  std::memset(host_[buffer].data(), 0xff, bytes());
}

void CudaStaging::copy(std::size_t buffer, std::size_t bytes) {
  MEMLANE_EXPECTS(bytes <= this->bytes());
  std::memset(device_[buffer].data(), 0xff, this->bytes());
  std::memcpy(device_[buffer].data(), host_[buffer].data(), bytes);
}

void CudaStaging::hold_copies(std::size_t) {}
void CudaStaging::mark_sent(std::size_t) {}
void CudaStaging::hold_work(std::size_t) {}
void CudaStaging::mark_used(std::size_t) {}
void CudaStaging::settle() noexcept {}

}  // namespace memlane
