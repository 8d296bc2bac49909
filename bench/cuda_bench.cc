// What the CUDA backend reaches, against limits measured in the same run: a table, and one JSON line a row for
// scripts/gpu-check. Shape A is LongLLaMA-3B: hidden 3200, 32 heads of 100, intermediate 8640. Data is random.

#include <fmt/format.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "bench/cuda_report.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/layers.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/sampling.h"
#include "kernels/entries.h"

namespace memlane {
namespace {

constexpr std::size_t kHidden = 3200, kHeads = 32, kHeadDim = 100, kIntermediate = 8640;

CudaMatrix random_matrix(CudaExec& exec, std::size_t n, std::size_t k, std::uint64_t seed) {
  const std::vector<float> values = random_floats(n * k, seed);
  return {exec, reinterpret_cast<const std::byte*>(values.data()), DType::f32, n, k};
}

/// Entries of a memory in windows of 2048, from one random window that is stored again and again.
class RandomMemory {
 public:
  RandomMemory(CudaExec& exec, std::size_t kv_heads, std::size_t windows) {
    constexpr std::size_t kWindow = 2048;
    const std::size_t key_size = key_elements(kWindow, kHeadDim, DType::bf16), value_size = kWindow * kHeadDim;
    const std::size_t head_size = key_size + value_size;
    std::vector<cuda::Block> table(kv_heads * windows);
    const CudaBuffer<float> keys = random_array(exec, kWindow * kv_heads * kHeadDim, 1);
    const CudaBuffer<float> values = random_array(exec, kWindow * kv_heads * kHeadDim, 2);
    for (std::size_t window = 0; window < windows; ++window) {
      owned_.emplace_back(kv_heads * head_size);
      BFloat16* at = owned_.back().data();
      const auto keys_view = keys.view<3>({kWindow, kv_heads, kHeadDim});
      const auto values_view = values.view<3>({kWindow, kv_heads, kHeadDim});
      append_keys(exec, keys_view, {at, head_size}, 0);
      append_values(exec, values_view, {at + key_size, head_size}, 0);
      for (std::size_t head = 0; head < kv_heads; ++head) {
        cuda::Block& block = table[head * windows + window];
        block.keys = reinterpret_cast<const std::uint32_t*>(at + head * head_size);
        block.values = reinterpret_cast<const std::uint16_t*>(at + head * head_size + key_size);
        block.count = kWindow;
        block.first_tile = static_cast<std::uint32_t>(window) * cuda::tiles_for(kWindow);
        block.first_entry = static_cast<std::uint32_t>(window * kWindow);
      }
    }
    table_ = uploaded(exec, table.data(), table.size());
    exec.synchronize();
    entries_ = {table_.data(),
                static_cast<std::uint32_t>(kv_heads),
                static_cast<std::uint32_t>(windows),
                static_cast<std::uint32_t>(windows) * cuda::tiles_for(kWindow),
                cuda::kAny,
                {}};
    key_bytes = kv_heads * windows * key_size * sizeof(BFloat16);
    count = windows * kWindow;
  }
  const cuda::Entries& entries() const { return entries_; }

  std::size_t key_bytes = 0;  ///< of all heads; values take as many
  std::size_t count = 0;      ///< entries

 private:
  std::vector<CudaBuffer<BFloat16>> owned_;
  CudaBuffer<cuda::Block> table_;
  cuda::Entries entries_;
};

double measure_copy(CudaExec& exec, Report& report) {
  constexpr std::size_t kSize = std::size_t{1} << 30;  // floats
  CudaBuffer<float> from = CudaBuffer<float>::zeroed(kSize), to(kSize);
  const double time = seconds(exec, 5, 5, [&] { detail::copy_on_device(exec, to.data(), from.data(), from.bytes()); });
  const double bytes = 2.0 * static_cast<double>(from.bytes());
  report.row("copy on the device", time, bytes, "GB/s", bytes / time);
  return bytes / time;
}

double measure_matmul(CudaExec& exec, Report& report) {
  constexpr std::size_t kSize = 8192;
  const CudaMatrix w = random_matrix(exec, kSize, kSize, 3);
  const CudaBuffer<float> a = random_array(exec, kSize * kSize, 4);
  CudaBuffer<float> out(kSize * kSize);
  const double time = seconds(exec, 5, 5, [&] {
    matmul(exec, a.view<2>({kSize, kSize}), w, out.view<2>({kSize, kSize}));
  });
  const double operations = 2.0 * kSize * kSize * kSize;
  report.row("matmul 8192 x 8192 x 8192, with rounding of inputs", time, operations, "GFLOP/s", operations / time);
  return operations / time;
}

/// The products of one layer of shape A, whose weights are four times a large cache.
void measure_layer(CudaExec& exec, Report& report, double bandwidth, double rate) {
  const CudaMatrix qkvo[4] = {random_matrix(exec, kHidden, kHidden, 5), random_matrix(exec, kHidden, kHidden, 6),
                              random_matrix(exec, kHidden, kHidden, 7), random_matrix(exec, kHidden, kHidden, 8)};
  const CudaMatrix gate = random_matrix(exec, kIntermediate, kHidden, 9);
  const CudaMatrix up = random_matrix(exec, kIntermediate, kHidden, 10);
  const CudaMatrix down = random_matrix(exec, kHidden, kIntermediate, 11);
  const double elements = 4.0 * kHidden * kHidden + 3.0 * kHidden * kIntermediate;
  for (const std::size_t tokens : {std::size_t{1}, std::size_t{2048}}) {
    const CudaBuffer<float> h = random_array(exec, tokens * kHidden, 12);
    CudaBuffer<float> out(tokens * kHidden), wide(tokens * kIntermediate), wide_too(tokens * kIntermediate);
    const auto run = [&] {
      for (const CudaMatrix& w : qkvo) matmul(exec, h.view<2>({tokens, kHidden}), w, out.view<2>({tokens, kHidden}));
      const auto gated = wide.view<2>({tokens, kIntermediate}), upped = wide_too.view<2>({tokens, kIntermediate});
      matmul(exec, h.view<2>({tokens, kHidden}), gate, gated);
      matmul(exec, h.view<2>({tokens, kHidden}), up, upped);
      swiglu(exec, gated, upped, gated);
      matmul(exec, gated, down, out.view<2>({tokens, kHidden}));
    };
    const double time = seconds(exec, 9, 10, run);
    if (tokens == 1) report.row("products of a layer, 1 token", time, elements * 2, "GB/s", bandwidth);
    if (tokens > 1) report.row("products of a layer, 2048 tokens", time, 2.0 * elements * 2048, "GFLOP/s", rate);
  }
}

void measure_memory(CudaExec& exec, Report& report, std::size_t windows, double bandwidth, double rate) {
  const RandomMemory memory(exec, kHeads, windows);
  const auto bytes = static_cast<double>(memory.key_bytes);
  const std::string over = fmt::format(" over {} entries", memory.count);
  for (const std::size_t tokens : {std::size_t{1}, std::size_t{2048}}) {
    const CudaBuffer<float> queries = random_array(exec, tokens * kHeads * kHeadDim, 13);
    CudaPartialBuffer partials;
    const CudaPartial partial = partials.get(tokens, kHeads, kHeadDim);
    const auto view = queries.view<3>({tokens, kHeads, kHeadDim});
    const double time = seconds(exec, 5, tokens == 1 ? 10 : 1,
                                [&] { attend(exec, view, memory.entries(), 0.1F, Visibility::all(), partial); });
    if (tokens == 1) report.row("dense attention, 1 token" + over, time, 2 * bytes, "GB/s", bandwidth);
    const double operations = 4.0 * static_cast<double>(tokens * kHeads * kHeadDim) * static_cast<double>(memory.count);
    if (tokens > 1) report.row("dense attention, 2048 tokens" + over, time, operations, "GFLOP/s", rate);
    constexpr std::size_t kBest = 32;
    const std::size_t most = std::min<std::size_t>(tokens, 256);  // a piece, as a memory takes it
    CudaBuffer<std::int32_t> ids(most * kHeads * kBest);
    CudaBuffer<float> scores(ids.size());
    const double search = seconds(exec, 5, tokens == 1 ? 10 : 1, [&] {
      top_k_scan(exec, view.slice(0, most), memory.entries(), ids.view<3>({most, kHeads, kBest}),
                 scores.view<3>({most, kHeads, kBest}));
    });
    if (tokens == 1) report.row("exact top-32, 1 token" + over, search, bytes, "GB/s", bandwidth);
    if (tokens > 1) report.row("exact top-32, 256 tokens" + over, search, operations / 16, "GFLOP/s", rate);
  }
}

/// The next token from logits that are there, each read at least once.
void measure_choice(CudaExec& exec, Report& report, double bandwidth) {
  for (const std::size_t vocab : {std::size_t{32000}, std::size_t{128256}}) {
    std::vector<float> values = random_floats(3 * vocab, 14);  // sums of three: bell-shaped
    for (std::size_t i = 0; i < vocab; ++i) values[i] = 3 * (values[i] + values[vocab + i] + values[2 * vocab + i]);
    const CudaBuffer<float> logits = uploaded(exec, values.data(), vocab);
    const CudaBuffer<std::uint64_t> uniform = CudaBuffer<std::uint64_t>::zeroed(1);
    CudaBuffer<std::int32_t> token(1);
    exec.synchronize();
    const auto measure = [&](const char* how, const Draw& draw) {
      const double time = seconds(exec, 9, 50, [&] {
        choose_token(exec, logits.view<1>({vocab}), draw, {}, uniform.view<1>({1}), token.view<1>({1}));
      });
      report.row(fmt::format("next token of {}, {}", vocab, how), time, static_cast<double>(4 * vocab), "GB/s",
                 bandwidth);
    };
    measure("greedy", {});
    measure("temperature", {.temperature = 1});
    measure("top-k 40, top-p 0.9", {.temperature = 1, .top_k = 40, .top_p = 0.9F});
  }
}

int run(int argc, char** argv) {
  if (cuda_device_count() == 0) {
    fmt::print("skipped: this machine has no GPU that CUDA can use\n");
    return 0;
  }
  CudaExec exec(0);
  fmt::print("{}, {:.0f} GiB\n\n", exec.name(), static_cast<double>(exec.total_bytes()) * 0x1p-30);
  Report report;
  const double bandwidth = measure_copy(exec, report);
  const double rate = measure_matmul(exec, report);
  measure_layer(exec, report, bandwidth, rate);
  measure_choice(exec, report, bandwidth);
  const std::size_t windows = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 512;
  for (const std::size_t some : {std::size_t{16}, windows}) measure_memory(exec, report, some, bandwidth, rate);
  measure_streaming(exec, report);
  measure_model(report, {bandwidth, rate}, windows);
  report.print_json();
  return 0;
}

}  // namespace
}  // namespace memlane

/// Usage: bench_cuda [windows of 2048 entries; by default 512, which take 13.4 GB]
int main(int argc, char** argv) {
  try {
    return memlane::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_cuda: {}\n", error.what());
    return 1;
  }
}
