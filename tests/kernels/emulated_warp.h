#pragma once

// Runs the bodies of GPU kernels (kernels/cuda/warp.h) on the host: a block's warps are threads, so that barriers are
// barriers and ThreadSanitizer sees what lacks one; a warp's lanes are a loop. Copies arrive as late as the kernel
// permits, shared memory starts as NaNs.

#include <array>
#include <atomic>
#include <barrier>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "kernels/array.h"
#include "kernels/cuda/warp.h"

namespace memlane::testing {

class EmulatedWarp {
 public:
  template <class T>
  struct Lanes {
    std::array<T, 32> values;
    T& operator[](int lane) { return values[static_cast<std::size_t>(lane)]; }
    const T& operator[](int lane) const { return values[static_cast<std::size_t>(lane)]; }
  };

  EmulatedWarp(int index, std::barrier<>& barrier) : index_(index), barrier_(barrier) {}

  int index() const { return index_; }

  /// Lanes run last to first: none may depend on one before it.
  template <class F>
  void each(F&& f) {
    for (int lane = 31; lane >= 0; --lane) f(lane);
  }
  void barrier() { barrier_.arrive_and_wait(); }
  void sync() {}

  template <class T>
  Lanes<T> shuffle_xor(const Lanes<T>& x, int mask) {
    Lanes<T> result;
    for (int lane = 0; lane < 32; ++lane) result[lane] = x[lane ^ mask];
    return result;
  }
  template <class T>
  T broadcast(const Lanes<T>& x, int lane) {
    return x[lane];
  }
  std::uint32_t ballot(const Lanes<bool>& x) {
    std::uint32_t bits = 0;
    for (int lane = 0; lane < 32; ++lane) bits |= static_cast<std::uint32_t>(x[lane]) << lane;
    return bits;
  }
  std::uint32_t sum(const Lanes<std::uint32_t>& x) {
    std::uint32_t total = 0;
    for (const std::uint32_t each : x.values) total += each;
    return total;
  }
  /// Orders nothing else: only barriers do.
  template <class T>
  T add(T& to, T x) {
    return std::atomic_ref<T>(to).fetch_add(x, std::memory_order_relaxed);
  }

  template <int Bytes>
  void copy_async(void* to, const void* from, bool present) {
    MEMLANE_EXPECTS(reinterpret_cast<std::uintptr_t>(to) % Bytes == 0);
    MEMLANE_EXPECTS(!present || reinterpret_cast<std::uintptr_t>(from) % Bytes == 0);
    copies_.push_back({to, present ? from : nullptr, Bytes, groups_});
  }
  void commit() { ++groups_; }
  template <int Groups>
  void wait_but() {
    std::size_t done = 0;
    while (done < copies_.size() && copies_[done].group + Groups < groups_) {
      const Copy& copy = copies_[done++];
      if (copy.from != nullptr) std::memcpy(copy.to, copy.from, copy.bytes);
      if (copy.from == nullptr) std::memset(copy.to, 0, copy.bytes);
    }
    copies_.erase(copies_.begin(), copies_.begin() + static_cast<std::ptrdiff_t>(done));
  }

  void mma(Lanes<float> (&c)[4], const Lanes<std::uint32_t> (&a)[4], const Lanes<std::uint32_t>& b0,
           const Lanes<std::uint32_t>& b1) {
    float left[16][16], right[16][8];
    for (int lane = 0; lane < 32; ++lane) {
      const int g = lane / 4, t = lane % 4;
      for (int i = 0; i < 4; ++i) put(left[g + i % 2 * 8] + 2 * t + i / 2 * 8, 1, a[i][lane]);
      put(&right[2 * t][g], 8, b0[lane]);
      put(&right[2 * t + 8][g], 8, b1[lane]);
    }
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = 2 * (lane % 4) + i % 2;
        for (int k = 0; k < 16; ++k) c[i][lane] += left[row][k] * right[k][column];
      }
    }
  }

  void load_transposed(Lanes<std::uint32_t> (&to)[4], const Lanes<const std::uint32_t*>& rows) {
    for (int i = 0; i < 4; ++i) {
      for (int lane = 0; lane < 32; ++lane) {
        std::uint16_t pair[2];
        for (int j = 0; j < 2; ++j) {
          const std::uint32_t* row = rows[i * 8 + 2 * (lane % 4) + j];
          MEMLANE_EXPECTS(reinterpret_cast<std::uintptr_t>(row) % 16 == 0);
          std::memcpy(pair + j, reinterpret_cast<const std::byte*>(row) + 2 * (lane / 4), 2);
        }
        to[i][lane] = pair[0] | static_cast<std::uint32_t>(pair[1]) << 16;
      }
    }
  }

 private:
  struct Copy {
    void* to;
    const void* from;  // null: zeros
    std::size_t bytes, group;
  };
  static void put(float* to, int step, std::uint32_t pair) {
    to[0] = cuda::low_of(pair);
    to[step] = cuda::high_of(pair);
  }

  int index_;
  std::barrier<>& barrier_;
  std::vector<Copy> copies_;
  std::size_t groups_ = 0;
};

/// Runs a block of `warps` warps: body(warp, shared memory).
inline void run_block(int warps, std::size_t shared_bytes,
                      const std::function<void(EmulatedWarp&, std::uint32_t*)>& body) {
  Buffer<std::uint32_t> shared(shared_bytes / sizeof(std::uint32_t));
  if (shared.size() > 0) std::memset(shared.data(), 0xff, shared.bytes());
  std::barrier barrier(warps);
  std::vector<std::jthread> threads;
  const auto run_warp = [&](int index) noexcept {  // others wait for it at barriers
    EmulatedWarp warp(index, barrier);
    body(warp, shared.data());
  };
  for (int index = 1; index < warps; ++index) threads.emplace_back(run_warp, index);
  run_warp(0);
}

}  // namespace memlane::testing
