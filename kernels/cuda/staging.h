#pragma once

#include <array>
#include <cstddef>
#include <memory>

#include "kernels/cuda/exec.h"

namespace memlane {

/// Two buffers of the host, pinned, and two of the device, through which data that does not fit on the device is
/// streamed: while the device works on one pair, the host fills the other and its copy is on its way. Copies have a
/// queue (stream) of their own; work goes to the exec's. stream_through() puts the steps below in order.
///
/// Everything already queued is waited for before the buffers are freed.
class CudaStaging {
 public:
  static constexpr std::size_t kBuffers = 2;

  /// bytes: of each of the four buffers. exec: must outlive this. Throws DeviceError.
  CudaStaging(CudaExec& exec, std::size_t bytes);
  ~CudaStaging();
  CudaStaging(CudaStaging&&) noexcept;
  CudaStaging(const CudaStaging&) = delete;

  std::size_t bytes() const { return device_.front().bytes(); }
  std::byte* host(std::size_t buffer) { return host_[buffer].data(); }
  const std::byte* device(std::size_t buffer) const { return device_[buffer].data(); }

  void wait_until_sent(std::size_t buffer);          ///< the host waits until the copy marked last has arrived
  void hold_copies(std::size_t buffer);              ///< later copies wait for the work marked last
  void copy(std::size_t buffer, std::size_t bytes);  ///< queues the copy of the host's buffer to the device's
  void mark_sent(std::size_t buffer);                ///< marks the copies queued so far
  void hold_work(std::size_t buffer);                ///< later work waits for the copy marked last
  void mark_used(std::size_t buffer);                ///< marks the work queued so far
  void settle() noexcept;                            ///< the host waits for both queues

 private:
  std::array<PinnedBuffer<std::byte>, kBuffers> host_;
  std::array<CudaBuffer<std::byte>, kBuffers> device_;
  struct Internals;
  std::unique_ptr<Internals> internals_;  // goes first: it waits for both queues
};

/// Streams `count` pieces, in order: fill(i, host buffer) writes piece i and returns its bytes, work(i, device buffer)
/// queues what is to be done with it. If either throws, everything queued is waited for first, so that the staging can
/// be used again. Staging: CudaStaging, or a model of it in tests.
template <class Staging, class Fill, class Work>
void stream_through(Staging& staging, std::size_t count, const Fill& fill, const Work& work) {
  try {
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t buffer = i % Staging::kBuffers;
      staging.wait_until_sent(buffer);  // the host's buffer may be overwritten
      const std::size_t bytes = fill(i, staging.host(buffer));
      staging.hold_copies(buffer);  // until the device's may
      staging.copy(buffer, bytes);
      staging.mark_sent(buffer);
      staging.hold_work(buffer);
      work(i, staging.device(buffer));
      staging.mark_used(buffer);
    }
  } catch (...) {
    staging.settle();
    throw;
  }
}

}  // namespace memlane
