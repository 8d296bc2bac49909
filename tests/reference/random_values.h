#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace memlane::reference {

/// Random numbers with a fixed seed that are the same on every platform, as the standard's distributions need not be.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}

  /// In [0, 1).
  double unit() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }
  float between(double low, double high) { return static_cast<float>(low + (high - low) * unit()); }
  /// In [low, high].
  std::size_t size(std::size_t low, std::size_t high) {
    return low + static_cast<std::size_t>(engine_() % (high - low + 1));
  }
  std::uint32_t bits() { return static_cast<std::uint32_t>(engine_() >> 32); }

  /// `count` floats in [-amplitude, amplitude).
  std::vector<float> floats(std::size_t count, double amplitude = 1) {
    std::vector<float> result(count);
    for (float& x : result) x = between(-amplitude, amplitude);
    return result;
  }
  /// `count` token ids in [0, vocab).
  std::vector<std::int32_t> ids(std::size_t count, std::size_t vocab) {
    std::vector<std::int32_t> result(count);
    for (std::int32_t& id : result) id = static_cast<std::int32_t>(size(0, vocab - 1));
    return result;
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace memlane::reference
