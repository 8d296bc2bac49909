// Staging on a GPU that does everything at once: the steps' order is that of tests/kernels/cuda_staging_test.cc, which
// runs them early and late. Buffers hold nothing of an earlier piece.

#include "kernels/cuda/staging.h"

#include <array>

namespace memlane {

struct CudaStaging::Internals {
  std::size_t bytes = 0;
  std::array<Buffer<std::byte>, kBuffers> host;
  std::array<CudaBuffer<std::byte>, kBuffers> device;
};

CudaStaging::CudaStaging(CudaExec&, std::size_t bytes) : internals_(std::make_unique<Internals>()) {
  internals_->bytes = bytes;
  for (std::size_t i = 0; i < kBuffers; ++i) {
    internals_->host[i] = Buffer<std::byte>(bytes);
    internals_->device[i] = CudaBuffer<std::byte>(bytes);
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
  std::memset(internals_->host[buffer].data(), 0xff, internals_->bytes);
}

void CudaStaging::copy(std::size_t buffer, std::size_t bytes) {
  MEMLANE_EXPECTS(bytes <= internals_->bytes);
  std::memset(internals_->device[buffer].data(), 0xff, internals_->bytes);
  std::memcpy(internals_->device[buffer].data(), internals_->host[buffer].data(), bytes);
}

void CudaStaging::hold_copies(std::size_t) {}
void CudaStaging::mark_sent(std::size_t) {}
void CudaStaging::hold_work(std::size_t) {}
void CudaStaging::mark_used(std::size_t) {}
void CudaStaging::settle() noexcept {}

}  // namespace memlane
