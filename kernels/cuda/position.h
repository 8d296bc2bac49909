#pragma once

// Numbers that change from one replay of a graph to the next (kernels/cuda/graph.h): launches that are replayed find
// them on the device. Compiled for the GPU and for the host.

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define MEMLANE_BOTH __host__ __device__
#else
#define MEMLANE_BOTH
#endif

namespace memlane::cuda {

/// A number as a kernel takes it: `value`, and what stands on the device when the kernel runs is added to it, if there
/// is something.
struct Number {
  std::uint32_t value = 0;
  const std::uint32_t* added = nullptr;

  /// Where `added` can be read. Modulo 2^32, so `value` may stand for less than 0.
  MEMLANE_BOTH std::uint32_t get() const { return added == nullptr ? value : value + *added; }
};

/// Where the tokens of a pass stand in the local context: on the host, now, and, in a pass that may be replayed, where
/// on the device the kernels find that number.
class Position {
 public:
  Position(std::size_t now = 0, const std::uint32_t* on_device = nullptr) : now_(now), on_device_(on_device) {}

  std::size_t now() const { return now_; }
  Number number() const {
    return on_device_ == nullptr ? Number{static_cast<std::uint32_t>(now_), nullptr}
                                 : Number{0U - static_cast<std::uint32_t>(before_), on_device_};
  }

  friend Position operator-(Position position, std::size_t tokens) {
    position.now_ -= tokens;
    position.before_ += tokens;
    return position;
  }
  friend bool operator<=(std::size_t token, const Position& position) { return token <= position.now_; }

 private:
  std::size_t now_;
  const std::uint32_t* on_device_;
  std::size_t before_ = 0;  // how far the position is before the number on the device
};

}  // namespace memlane::cuda
