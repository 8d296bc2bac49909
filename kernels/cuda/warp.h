#pragma once

// The language that kernels over entries are written in, so that one source runs on the GPU and, emulated, in the tests
// of a machine without one (tests/kernels/emulated_warp.h). A kernel's body is a function of a Warp. What is the same
// in all 32 lanes are plain variables; what differs are Lanes<T>, read and written inside each(). Lanes speak to each
// other through the functions of the Warp alone, warps through shared memory between barriers.
//
//   each(f)               f(lane) in every lane
//   barrier()             waits for all warps of the block; orders their accesses to shared and device memory
//   sync()                orders the accesses of this warp's lanes to shared and device memory
//   shuffle_xor(x, mask)  x of the lane whose number differs in the bits of the mask
//   broadcast(x, lane)    x of one lane
//   ballot(x)             bit i is set if x holds in lane i
//   sum(x)                of all lanes (whole numbers)
//   add(to, x)            inside each(): adds to a whole number in shared memory that any lane of the block may add to
//                         meanwhile; of 32 bits, returns what it was before
//   copy_async<N>(to, from, present)   inside each(): N = 4, 8 or 16 bytes from device to shared memory, aligned to N;
//                         zeros if not present
//   commit(), wait_but<N>()   the copies since the last commit are a group; waits until at most the last N groups are
//                         on their way; a barrier then shows them to the other warps
//   mma(c, a, b)          c += a b of bfloat16 tiles 16 x 16 and 16 x 8 (PTX mma.m16n8k16). With g = lane / 4 and
//                         t = lane % 4, pairs of elements (the lower half first), lane holds of
//                         a: (row g, columns 2t, 2t+1), (g + 8, same), (g, 2t+8, 2t+9), (g + 8, same)
//                         b: (rows 2t, 2t+1, column g), (rows 2t+8, 2t+9, column g)
//                         c: (g, 2t), (g, 2t+1), (g + 8, 2t), (g + 8, 2t+1)
//   load_transposed(to, rows)   four 8 x 8 tiles of 16-bit elements from shared memory (PTX ldmatrix.x4.trans); lanes
//                         8i ... 8i+7 give the addresses of the rows of tile i, aligned to 16 bytes; to[i] is
//                         (rows 2t, 2t+1, column g) of tile i

#include <cstddef>
#include <cstdint>
#include <type_traits>

#ifdef __CUDACC__

#include <cuda_bf16.h>

#define MEMLANE_KERNEL __device__ __forceinline__
#define MEMLANE_UNROLL _Pragma("unroll")

namespace memlane::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffU;

/// The warp that the calling thread is a lane of.
class GpuWarp {
 public:
  template <class T>
  struct Lanes {
    T value;
    __device__ __forceinline__ T& operator[](int) { return value; }
    __device__ __forceinline__ const T& operator[](int) const { return value; }
  };

  /// Of the warps of the block.
  __device__ __forceinline__ int index() const { return static_cast<int>(threadIdx.x / 32); }

  template <class F>
  __device__ __forceinline__ void each(F&& f) {
    f(static_cast<int>(threadIdx.x % 32));
  }
  __device__ __forceinline__ void barrier() { __syncthreads(); }
  __device__ __forceinline__ void sync() { __syncwarp(); }

  template <class T>
  __device__ __forceinline__ Lanes<T> shuffle_xor(const Lanes<T>& x, int mask) {
    return {__shfl_xor_sync(kAllLanes, x.value, mask)};
  }
  template <class T>
  __device__ __forceinline__ T broadcast(const Lanes<T>& x, int lane) {
    if constexpr (std::is_pointer_v<T>) {
      return reinterpret_cast<T>(__shfl_sync(kAllLanes, reinterpret_cast<unsigned long long>(x.value), lane));
    } else {
      return __shfl_sync(kAllLanes, x.value, lane);
    }
  }
  __device__ __forceinline__ std::uint32_t ballot(const Lanes<bool>& x) { return __ballot_sync(kAllLanes, x.value); }
  __device__ __forceinline__ std::uint32_t sum(const Lanes<std::uint32_t>& x) {
    return __reduce_add_sync(kAllLanes, x.value);
  }
  __device__ __forceinline__ std::uint32_t add(std::uint32_t& to, std::uint32_t x) { return atomicAdd(&to, x); }
  /// In halves: shared memory adds 32 bits by itself, but 64 only by trying until no other lane came between.
  __device__ __forceinline__ void add(std::uint64_t& to, std::uint64_t x) {
    auto* const halves = reinterpret_cast<std::uint32_t*>(&to);
    const auto low = static_cast<std::uint32_t>(x);
    const std::uint32_t before = atomicAdd(halves, low);
    const auto high = static_cast<std::uint32_t>(x >> 32) + (before + low < low ? 1U : 0U);
    if (high != 0) atomicAdd(halves + 1, high);
  }

  template <int Bytes>
  __device__ __forceinline__ void copy_async(void* to, const void* from, bool present) {
    static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
    const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
    const int size = present ? Bytes : 0;  // the rest is filled with zeros
    if constexpr (Bytes == 16) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(from), "r"(size) : "memory");
    } else {
      asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(address), "l"(from), "n"(Bytes), "r"(size)
                   : "memory");
    }
  }
  __device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
  template <int Groups>
  __device__ __forceinline__ void wait_but() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(Groups) : "memory");
  }

  __device__ __forceinline__ void mma(Lanes<float> (&c)[4], const Lanes<std::uint32_t> (&a)[4],
                                      const Lanes<std::uint32_t>& b0, const Lanes<std::uint32_t>& b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};\n"
        : "+f"(c[0].value), "+f"(c[1].value), "+f"(c[2].value), "+f"(c[3].value)
        : "r"(a[0].value), "r"(a[1].value), "r"(a[2].value), "r"(a[3].value), "r"(b0.value), "r"(b1.value));
  }

  __device__ __forceinline__ void load_transposed(Lanes<std::uint32_t> (&to)[4],
                                                  const Lanes<const std::uint32_t*>& rows) {
    const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(rows.value));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(to[0].value), "=r"(to[1].value), "=r"(to[2].value), "=r"(to[3].value)
                 : "r"(address)
                 : "memory");
  }
};

/// Two floats as a pair of bfloat16, rounded to nearest even, the first in the lower half.
MEMLANE_KERNEL std::uint32_t bf16_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
MEMLANE_KERNEL float exponential(float x) {
  return __expf(x);
}
MEMLANE_KERNEL float precise_exponential(float x) {
  return expf(x);
}
MEMLANE_KERNEL int bits_in(std::uint32_t x) {
  return __popc(x);
}
MEMLANE_KERNEL int bit_width(std::uint64_t x) {
  return 64 - __clzll(static_cast<long long>(x));
}
/// The upper half of the product.
MEMLANE_KERNEL std::uint64_t multiply_high(std::uint64_t x, std::uint64_t y) {
  return __umul64hi(x, y);
}
MEMLANE_KERNEL std::uint32_t bits_of(float x) {
  return __float_as_uint(x);
}
MEMLANE_KERNEL float float_of(std::uint32_t bits) {
  return __uint_as_float(bits);
}

}  // namespace memlane::cuda

#else

#include <bit>
#include <cmath>

#include "kernels/scalar.h"

#define MEMLANE_KERNEL inline
#define MEMLANE_UNROLL

namespace memlane::cuda {

inline std::uint32_t bf16_pair(float low, float high) {
  return from_float<BFloat16>(low).bits | static_cast<std::uint32_t>(from_float<BFloat16>(high).bits) << 16;
}
inline float exponential(float x) {
  return std::exp(x);
}
inline float precise_exponential(float x) {
  return std::exp(x);
}
inline int bits_in(std::uint32_t x) {
  return std::popcount(x);
}
inline int bit_width(std::uint64_t x) {
  return static_cast<int>(std::bit_width(x));
}
inline std::uint64_t multiply_high(std::uint64_t x, std::uint64_t y) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint64_t>((static_cast<Wide>(x) * y) >> 64);
}
inline std::uint32_t bits_of(float x) {
  return std::bit_cast<std::uint32_t>(x);
}
inline float float_of(std::uint32_t bits) {
  return std::bit_cast<float>(bits);
}

}  // namespace memlane::cuda

#endif

namespace memlane::cuda {

/// The elements of a pair of bfloat16.
MEMLANE_KERNEL float low_of(std::uint32_t pair) {
  return float_of(pair << 16);
}
MEMLANE_KERNEL float high_of(std::uint32_t pair) {
  return float_of(pair & 0xffff0000U);
}

/// A whole number in the order of the floats; -0 is +0.
MEMLANE_KERNEL std::uint32_t ordered(float x) {
  const std::uint32_t bits = bits_of(x + 0.0F);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

MEMLANE_KERNEL float unordered(std::uint32_t order) {
  return float_of((order & 0x80000000U) != 0 ? order & 0x7fffffffU : ~order);
}

inline constexpr float kNothing = -__builtin_huge_valf();  // the score of what is not there

}  // namespace memlane::cuda
