#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

#include "kernels/array.h"

namespace memlane {

/// Memory of a GPU. The host cannot read through a view of it, and no kernel takes a view of other memory for it.
struct Cuda {};

namespace detail {
/// Storage on the current device (CudaExec sets it), aligned to 256 bytes. Throws DeviceError.
void* allocate_on_device(std::size_t bytes);
void free_on_device(void* pointer) noexcept;
/// How often storage was allocated or freed on any device so far: as long as it is the same, all of it is where it was.
std::uint64_t device_allocations() noexcept;
/// Zeroes storage and waits until that is done.
void zero_on_device(void* pointer, std::size_t bytes);
/// Pinned memory of the host. Throws DeviceError.
void* allocate_pinned(std::size_t bytes);
void free_pinned(void* pointer) noexcept;
}  // namespace detail

/// About what an array of so many bytes takes of the device: its memory is handed out in pages of 2 MiB. A large array
/// has pages of its own, smaller ones share a page as far as whole ones fit.
constexpr std::size_t device_bytes(std::size_t size) {
  constexpr std::size_t kPage = std::size_t{2} << 20;
  if (size == 0) return 0;
  return size < kPage ? kPage / (kPage / size) : (size + kPage - 1) / kPage * kPage;
}

/// Owns an array on the device of the CudaExec that this thread made last; otherwise as Buffer. Freeing it waits for
/// the device first, so that no kernel still uses it.
template <class T>
class CudaBuffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  CudaBuffer() = default;
  explicit CudaBuffer(std::size_t size) : size_(size) {
    if (size > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_alloc();
    if (size > 0) data_ = static_cast<T*>(detail::allocate_on_device(size * sizeof(T)));
  }
  CudaBuffer(CudaBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  CudaBuffer& operator=(CudaBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~CudaBuffer() { detail::free_on_device(data_); }

  static CudaBuffer zeroed(std::size_t size) {
    CudaBuffer buffer(size);
    if (size > 0) detail::zero_on_device(buffer.data(), size * sizeof(T));
    return buffer;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::size_t bytes() const { return size_ * sizeof(T); }

  template <int Rank>
  View<T, Rank, Cuda> view(std::array<std::size_t, Rank> extents) {
    View<T, Rank, Cuda> result(data_, extents);
    MEMLANE_EXPECTS(result.size() <= size_);
    return result;
  }
  template <int Rank>
  View<const T, Rank, Cuda> view(std::array<std::size_t, Rank> extents) const {
    View<const T, Rank, Cuda> result(data_, extents);
    MEMLANE_EXPECTS(result.size() <= size_);
    return result;
  }

  /// Makes room for `size` elements, keeping storage that is large enough; contents are unspecified afterwards.
  void reserve_discarding(std::size_t size) {
    if (size <= size_) return;
    *this = CudaBuffer();  // first free, so that both need not fit
    *this = CudaBuffer(size);
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Owns an array of the host that is pinned: copies between it and the device need no copy of the driver's, and return
/// before they are done. It is freed when nothing queued uses it any more.
template <class T>
class PinnedBuffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(std::size_t size) : size_(size) {
    if (size > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_alloc();
    if (size > 0) data_ = static_cast<T*>(detail::allocate_pinned(size * sizeof(T)));
  }
  PinnedBuffer(PinnedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~PinnedBuffer() { detail::free_pinned(data_); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::size_t bytes() const { return size_ * sizeof(T); }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace memlane
