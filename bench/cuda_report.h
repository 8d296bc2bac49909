#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/exec.h"

namespace memlane {

/// Random numbers in [-1, 1), the same in every run.
inline std::vector<float> random_floats(std::size_t count, std::uint64_t seed) {
  std::vector<float> values(count);
  for (float& x : values) {
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    x = static_cast<float>(static_cast<double>(seed >> 40) * 0x1p-23 - 1);
  }
  return values;
}

inline CudaBuffer<float> random_array(CudaExec& exec, std::size_t size, std::uint64_t seed) {
  const std::vector<float> values = random_floats(size, seed);
  CudaBuffer<float> buffer = uploaded(exec, values.data(), size);
  exec.synchronize();
  return buffer;
}

/// Seconds of one call: the median of `rounds` after a warm-up, each round of `calls` calls.
inline double seconds(CudaExec& exec, int rounds, int calls, const std::function<void()>& run) {
  run();
  exec.synchronize();
  std::vector<double> times;
  for (int round = 0; round < rounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    for (int call = 0; call < calls; ++call) run();
    exec.synchronize();
    times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / calls);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

class Report {
 public:
  /// amount: bytes or operations; limit: what the machine does of it in a second.
  void row(const std::string& name, double time, double amount, const char* unit, double limit) {
    fmt::print("{:<52} {:>10.3f} ms {:>9.1f} {} {:>5.0f} %\n", name, time * 1e3, amount / time / 1e9, unit,
               100 * amount / time / limit);
    json_ +=
        fmt::format("{{\"row\": \"{}\", \"ms\": {:.6g}, \"rate\": {:.6g}, \"unit\": \"{}\", \"of_limit\": {:.4g}}}\n",
                    name, time * 1e3, amount / time / 1e9, unit, amount / time / limit);
    std::fflush(stdout);
  }
  void print_json() const { fmt::print("\n{}", json_); }

 private:
  std::string json_;
};

/// What the GPU does in a second, measured: bytes copied on the device, operations of a large product.
struct CudaLimitsMeasured {
  double bandwidth = 0, rate = 0;
};

/// Entries streamed from the host, against the bus.
void measure_streaming(CudaExec& exec, Report& report);

/// Whole passes of a model of shape A on the same GPU. windows: of 2048 tokens, of which an eighth is read into memory.
void measure_model(Report& report, const CudaLimitsMeasured& limits, std::size_t windows);

}  // namespace memlane
