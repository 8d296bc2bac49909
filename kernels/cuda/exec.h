#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>

#include "kernels/cuda/array.h"
#include "kernels/stage_clock.h"

namespace memlane {

/// GPUs that this process can use; 0 where there is no driver or it is too old.
int cuda_device_count();

/// Where and how kernels run on one GPU: a stream that all work goes to in order, a cuBLASLt handle, scratch space. The
/// device becomes the current one of the thread that makes it. Not for use by two threads at once.
///
/// Kernels return when their work is in the stream. Errors of the device are DeviceErrors that say which call failed
/// and where; those of work in the stream may come from a later call.
class CudaExec {
 public:
  using Device = Cuda;

  /// device: 0 ... cuda_device_count() - 1. Throws DeviceError.
  explicit CudaExec(int device);
  ~CudaExec();
  CudaExec(CudaExec&&) noexcept;
  CudaExec(const CudaExec&) = delete;

  int device() const;
  const std::string& name() const;      ///< "NVIDIA H200"
  std::size_t free_bytes() const;       ///< of the device's memory, now
  std::size_t total_bytes() const;      ///< of the device's memory
  std::size_t multiprocessors() const;  ///< that run blocks at once
  std::size_t shared_bytes() const;     ///< of shared memory that a block may have

  /// Waits for everything in the stream.
  void synchronize();

  /// None: kernels return before their work is done, so their time says nothing of it.
  static StageClock* stage_clock() { return nullptr; }

  /// Scratch space for one kernel: the next kernel in the stream may overwrite it. Contents are unspecified.
  std::byte* scratch(std::size_t bytes);

  /// What kernels/cuda alone knows: the stream, the handles.
  struct Internals;
  Internals& internals() { return *internals_; }

 private:
  std::unique_ptr<Internals> internals_;
};

namespace detail {
void copy_to_device(CudaExec& exec, void* to, const void* from, std::size_t bytes);
void copy_to_host(CudaExec& exec, void* to, const void* from, std::size_t bytes);
void copy_on_device(CudaExec& exec, void* to, const void* from, std::size_t bytes);
/// Between the device and memory of the host that is pinned: they return before the copies are done, and become part of
/// a graph that is recorded.
void copy_from_pinned(CudaExec& exec, void* to, const void* from, std::size_t bytes);
void copy_to_pinned(CudaExec& exec, void* to, const void* from, std::size_t bytes);
}  // namespace detail

/// Copies of the same extents between host and device. The host's side is free for reuse when these return; upload may
/// still be under way in the stream, download waits for the stream.
template <class T, int Rank, class U>
void upload(CudaExec& exec, View<U, Rank, Host> from, View<T, Rank, Cuda> to) {
  static_assert(std::is_same_v<std::remove_const_t<U>, T>);
  MEMLANE_EXPECTS(from.extents() == to.extents());
  detail::copy_to_device(exec, to.data(), from.data(), from.size() * sizeof(T));
}
template <class T, int Rank, class U>
void download(CudaExec& exec, View<U, Rank, Cuda> from, View<T, Rank, Host> to) {
  static_assert(std::is_same_v<std::remove_const_t<U>, T>);
  MEMLANE_EXPECTS(from.extents() == to.extents());
  detail::copy_to_host(exec, to.data(), from.data(), from.size() * sizeof(T));
}

/// A copy of an array of the host.
template <class T>
CudaBuffer<T> uploaded(CudaExec& exec, const T* from, std::size_t size) {
  CudaBuffer<T> result(size);
  detail::copy_to_device(exec, result.data(), from, result.bytes());
  return result;
}

}  // namespace memlane
