#pragma once

#include <array>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#include "kernels/error.h"

namespace memlane {

/// Memory of this machine. A view of other memory has another device, so passing it to a host kernel does not compile.
struct Host {};

/// A pointer and extents; rows are contiguous, the last axis varies fastest. Does not own. Shapes are written beside
/// each use.
template <class T, int Rank, class Device = Host>
class View {
 public:
  using Extents = std::array<std::size_t, Rank>;

  View() = default;
  View(T* data, Extents extents) : data_(data), extents_(extents) {}
  /// A view of T converts to a view of const T.
  template <class U>
  requires(std::is_same_v<const U, T>) View(View<U, Rank, Device> other)
      : data_(other.data()), extents_(other.extents()) {}

  T* data() const { return data_; }
  const Extents& extents() const { return extents_; }
  std::size_t extent(int axis) const { return extents_[static_cast<std::size_t>(axis)]; }
  bool empty() const { return size() == 0; }

  std::size_t size() const {
    std::size_t product = 1;
    for (const std::size_t extent : extents_) product *= extent;
    return product;
  }

  /// All elements in order: a span on the host, elsewhere a view.
  auto flat() const {
    if constexpr (std::is_same_v<Device, Host>) {
      return std::span<T>(data_, size());
    } else {
      return View<T, 1, Device>(data_, {size()});
    }
  }

  /// Elements from one index of the first axis to the next.
  std::size_t row_size() const { return extents_[0] == 0 ? 0 : size() / extents_[0]; }

  /// Entry `i` of the first axis. Elements can be read on the host alone.
  decltype(auto) operator[](std::size_t i) const requires(Rank > 1 || std::is_same_v<Device, Host>) {
    MEMLANE_EXPECTS(i < extents_[0]);
    if constexpr (Rank == 1) {
      return (data_[i]);
    } else {
      typename View<T, Rank - 1, Device>::Extents rest{};
      for (std::size_t axis = 1; axis < Rank; ++axis) rest[axis - 1] = extents_[axis];
      return View<T, Rank - 1, Device>(data_ + i * row_size(), rest);
    }
  }

  /// Entries [begin, end) of the first axis.
  View slice(std::size_t begin, std::size_t end) const {
    MEMLANE_EXPECTS(begin <= end && end <= extents_[0]);
    Extents extents = extents_;
    extents[0] = end - begin;
    return View(data_ + begin * row_size(), extents);
  }

  /// The same elements under other extents.
  template <int NewRank>
  View<T, NewRank, Device> reshape(std::array<std::size_t, NewRank> extents) const {
    View<T, NewRank, Device> result(data_, extents);
    MEMLANE_EXPECTS(result.size() == size());
    return result;
  }

 private:
  T* data_ = nullptr;
  Extents extents_{};
};

namespace detail {
/// Storage aligned to cache lines (to huge pages, and asking for them, when large). Throws std::bad_alloc.
void* allocate_aligned(std::size_t bytes);
/// bytes: as it was allocated with.
void free_aligned(void* pointer, std::size_t bytes) noexcept;
}  // namespace detail

/// Owns an array on the host. Elements are trivially copyable; a new buffer is not initialised unless `zeroed` makes
/// it.
template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Buffer() = default;
  explicit Buffer(std::size_t size) : size_(size) {
    if (size > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_alloc();
    if (size > 0) data_ = {static_cast<T*>(detail::allocate_aligned(size * sizeof(T))), Free{size * sizeof(T)}};
  }

  /// What is moved from is empty.
  Buffer(Buffer&& other) noexcept : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    data_ = std::move(other.data_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  static Buffer zeroed(std::size_t size) {
    Buffer buffer(size);
    if (size > 0) std::memset(static_cast<void*>(buffer.data()), 0, size * sizeof(T));
    return buffer;
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  std::size_t bytes() const { return size_ * sizeof(T); }
  std::span<T> span() { return {data(), size_}; }
  std::span<const T> span() const { return {data(), size_}; }

  template <int Rank>
  View<T, Rank> view(std::array<std::size_t, Rank> extents) {
    View<T, Rank> result(data(), extents);
    MEMLANE_EXPECTS(result.size() <= size_);
    return result;
  }
  template <int Rank>
  View<const T, Rank> view(std::array<std::size_t, Rank> extents) const {
    View<const T, Rank> result(data(), extents);
    MEMLANE_EXPECTS(result.size() <= size_);
    return result;
  }

  /// Makes room for `size` elements, keeping storage that is large enough; contents are unspecified afterwards.
  void reserve_discarding(std::size_t size) {
    if (size <= size_) return;
    *this = Buffer();  // first, so that both are never there
    *this = Buffer(size);
  }

 private:
  struct Free {
    std::size_t bytes = 0;
    void operator()(T* pointer) const noexcept { detail::free_aligned(pointer, bytes); }
  };
  std::unique_ptr<T, Free> data_;
  std::size_t size_ = 0;
};

}  // namespace memlane
