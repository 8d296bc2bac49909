#include "kernels/machine_limits.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "kernels/stopwatch.h"

namespace memlane {

namespace {

constexpr std::size_t kPiece = std::size_t{1} << 18;  // units that one item reads: 1 MiB

bool has_int8(const MicroKernels& micro) {
#if defined(__x86_64__)
  return micro.tiles != nullptr || __builtin_cpu_supports("avx512vnni");
#else
  return micro.tiles != nullptr;
#endif
}

}  // namespace

LimitsProbe::LimitsProbe(CpuExec& exec, std::size_t ring_bytes)
    : exec_(exec), ring_((ring_bytes / 4 + kPiece - 1) / kPiece * kPiece) {
  // Written, so that every page is there; by all threads, as weights are.
  exec_.pool().run(ring_.size() / kPiece, [&](std::size_t item, std::size_t) {
    std::fill_n(ring_.data() + item * kPiece, kPiece, static_cast<std::uint32_t>(item));
  });
}

double LimitsProbe::peak(PeakKind kind) {
  std::vector<double> operations(exec_.threads());
  const auto run = [&](std::size_t repeats) {
    return seconds_once([&] {
      exec_.pool().run(exec_.threads(),
                       [&](std::size_t item, std::size_t) { operations[item] = exec_.micro().peak(kind, repeats); });
    });
  };
  // As many repeats as fill a tenth of a second, counted on one thread's share.
  constexpr std::size_t kFirst = 20000;
  const double first = std::max(run(kFirst), 1e-6);
  if (operations[0] == 0) return 0;
  const auto repeats = static_cast<std::size_t>(std::clamp(0.1 / first, 1.0, 1e5) * kFirst);
  const double seconds = run(repeats);
  double sum = 0;
  for (const double each : operations) sum += each;
  return sum / seconds;
}

double LimitsProbe::read() {
  std::atomic<std::uint64_t> sink{0};
  const double seconds = seconds_once([&] {
    exec_.pool().run(ring_.size() / kPiece, [&](std::size_t item, std::size_t) {
      sink.fetch_xor(exec_.micro().read(ring_.data() + item * kPiece, kPiece), std::memory_order_relaxed);
    });
  });
  return static_cast<double>(ring_.bytes()) / seconds;
}

MachineLimits LimitsProbe::measure() {
  MachineLimits limits;
  limits.f32 = peak(PeakKind::f32);
  limits.bf16 = std::max(peak(PeakKind::bf16), limits.f32);
  limits.int8 = has_int8(exec_.micro()) ? peak(PeakKind::int8) : 0;
  limits.read = read();
  return limits;
}

}  // namespace memlane
